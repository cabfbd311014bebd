"""The synthetic world.

scenes  the frames and the audio of a scene: objects, motions, noises
world   three data sets of real video files in the official layouts
"""
