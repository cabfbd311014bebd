"""How it is learnt. Each module imports only from those above it:

checkpoint    checkpoints: written whole, resumed, refused when another run's
released      checkpoints released with the thesis
trainer       the training loop
finetuning    fine-tuning of a video encoder, one process of it
entrypoint    what each process of a job runs
torchrun      jobs on this machine
slurm         jobs on a cluster
pretraining   pre-training as one call
cost          what a run would cost here
"""
