"""The synthetic world.

scenes  what is seen and heard: objects, motions, sounds
world   three data sets of real video files in the official layouts
"""
