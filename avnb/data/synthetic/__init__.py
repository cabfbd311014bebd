"""The synthetic world. Each module imports only from those above it:

| scenes: the frames and the audio of a scene: objects, motions, nuisances
| world:  real video files in the official layouts of three data sets, and in a plain folder
"""
