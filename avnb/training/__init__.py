"""How it is learnt. Each module imports only from those above it:

| checkpoint: metadata and weights of a run, also of those released with the thesis
| classifier: a video encoder that learns classes
| loop:       the training loop
| launch:     processes and nodes; jobs on this machine
| slurm:      the same jobs on a cluster
| runs:       runs of pre-training and fine-tuning, and one process of them
"""
