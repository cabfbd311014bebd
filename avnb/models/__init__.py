"""Encoders, losses and pre-training methods. Each module imports only from those above it:

| losses:   InfoNCE, RINCE, the terms of VICReg, and statistics of collapse: pure functions
| encoders: the video and the audio encoder, and the heads of pre-training
| own:      the user's own code by name; video backbones
| methods:  pre-training methods
"""
