"""How it is learnt. Each module imports only from those above it:

torch_file   files of torch.save, written whole and read without running code
released     checkpoints released with the thesis
checkpoint   metadata and weights of a run; encoders for evaluation
speed        how fast a run is, and how much of the device it uses
event_files  TensorBoard's view of a run
state        a run between two steps, and how it resumes
trainer      the training loop
classifier   a video encoder that learns classes
job_output   what a running job prints: progress and log
torchrun     jobs on this machine
entrypoint   what each process of a job runs
resources    processes, nodes, SLURM
slurm_task   one process of a job on a cluster
slurm        jobs on a cluster
watch        a run in progress, seen from elsewhere
runs         runs of training, and one call that trains what is left
pretraining  pre-training: its runs, and one process of a run
finetuning   fine-tuning: its runs, and one process of a run
cost         what a run would cost here
"""
