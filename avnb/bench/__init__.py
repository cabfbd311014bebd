"""How fast everything is, beside the 2022 recipe. Each module imports only from those above it:

timing               several ways to do the same, timed in turn
videos               realistic videos to measure on, made here
recipe               the recipe of 2022 for clips: one at a time, PIL, filters rebuilt
recipe_losses        the recipe of 2022 for banks, losses and retrieval: as the formulae stand
workload             what is measured on: videos, values, clips
rows                 rows of the bench, as JSON lines and as a table
clip_stages          whole clips and their parts, from files
augmentation_stages  colours and spectrograms
loader_stage         clips per second of the loader with more and more workers
soak_stage           memory of the loader over many clips
probe_stage          the clips of a linear probe, from files to features
loss_stages          memory banks, VICReg's terms, nearest neighbours
step_stage           whole training steps, on a GPU or the CPU
stages               all stages by name
"""
