"""What is learnt from. Each module imports only from those above it:

| source:     untrusted video files, decoded once, in order
| store:      one file a video, read by the numbers of frames and samples
| datasets:   lists of VGGSound, UCF-101, HMDB-51 and plain folders, checked against their files
| manifest:   the prepared videos of a data set, as one table
| subsets:    training and validation videos, drawn by a seed
| synthetic:  the synthetic world: scenes, and files in the official layouts
| prepare:    every source video into the store, under limits of the system
| augment:    what is drawn for a clip: its crop, the change of its colours
| clips:      clips in time, and batches of them
| loader:     batches in a planned order, read ahead by workers
| transform:  from decoded clips to the input of the networks
"""
