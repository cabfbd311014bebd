"""What is learnt from. Each module imports only from those above it:

audio_buffer  audio of a file as it is decoded: gaps, resampling, cutting
video_frames  which frames of a stream are wanted, the right way up
decoding      files and times in seconds -> frames and audio
manifest      the usable videos of a data set
listing       what official lists name, held against a folder
vggsound      lists and file names of VGGSound
ucf101        lists and file names of UCF-101
hmdb51        lists and file names of HMDB-51
datasets      the registry of data sets
audit         every file decoded once: manifest and ledger
synthetic     the synthetic world: scenes, and files in the official layouts
catalogue     the data sets of a workspace, real or synthetic
subsets       training and validation videos, drawn once
clip_times    where clips start: seconds -> seconds
transforms    crops, augmentation, spectrograms: uint8 -> network input
batch         a batch of clips
clips         the clips of a video, read in one pass
batch_plan    which clips make up each batch of an epoch
loader        clips decoded in worker processes, put together as planned
"""
