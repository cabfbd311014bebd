"""The synthetic world: frames and audio of scenes, and data sets of real video files."""
