"""What learns. Each module imports only from those above it:

losses         InfoNCE, RINCE and the terms of VICReg: pure functions
encoders       the video and the audio encoder
heads          projector and expander
architecture   what an encoder is made of, layer by layer
memory_bank    memory banks of instance discrimination
collapse       whether embeddings still tell clips apart
toys           toy pairs on which losses are seen at work within seconds
specs          code of the user's own, named as package.module:name or file.py:name
backbones      video encoders by name
methods        ways to pre-train
"""
