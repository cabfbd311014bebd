"""Data sets, decoding, clips and batches. Each module imports only from those above it:

limits           what a video file may ask for
audio_stretch    packets of an audio stream -> mono samples of a stretch of time
video_frames     which frames are needed, how they are decoded, their orientation
frame_file       a video as its decoded frames and audio
packet_file      a video as packets of its encoded frames, and its audio
cache_file       reading either
media            opening and describing files, within limits
decoding         files and times in seconds -> frames and audio
layouts          lists and names of files of VGGSound, UCF-101, HMDB-51 and plain folders
datasets         the registry of data sets: lists checked against the files in a folder
manifest         the usable videos of a data set
subsets          training and validation videos, drawn once
audit            every file that is used decoded once: manifest and ledger
cache            the videos of a data set in a form that costs little to read
synthetic        the synthetic world: scenes, and files in the official layouts
catalogue        the data sets of a workspace, real or synthetic
previews         videos as people look at and listen to them
clip_times       start times of clips: seconds -> seconds
colours          random changes of colours: brightness, contrast, saturation, hue
transforms       crops, augmentation, normalisation of frames
spectrograms     waveforms -> standardised log-mel spectrograms
batch            a batch of clips
clips            the clips of a video, read in one pass
batch_plan       which clips make up each batch of an epoch
readers          processes that read clips into a batch in shared memory
replacements     what takes the place of clips that cannot be read in training
loader           batches of clips as planned, read ahead of their use
batch_transform  from a decoded batch to the networks' input
mel_statistics   mean and deviation of each mel band of the training audio
"""
