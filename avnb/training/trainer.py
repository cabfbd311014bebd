"""The training loop: one for every method and for fine-tuning, one process of a job of any size."""

import contextlib
import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from avnb import distributed, progress
from avnb.data.batch import Batch
from avnb.data.batch_plan import steps_per_epoch
from avnb.data.clips import VideoClips
from avnb.data.loader import AUTO, ClipLoader, on_device, training_epochs, video_blocks
from avnb.data.replacements import LEDGER
from avnb.models import collapse
from avnb.models.methods.base import Method, TrainableModule
from avnb.progress import ProgressReporter
from avnb.training import event_files
from avnb.training.checkpoint import Metadata
from avnb.training.speed import SpeedLog
from avnb.training.state import TrainingState

VALIDATION_BATCH = 16  # clips; the mean over them does not depend on it
Epochs = Iterator[tuple[int, Iterator[Batch]]]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """One clip of each validation video, divided over the processes."""

    clips: VideoClips
    workers: int

    @functools.cached_property
    def rows(self) -> range:
        """The videos of this process."""
        return range(distributed.rank(), len(self.clips), distributed.world_size())

    @functools.cached_property
    def loader(self) -> ClipLoader:
        """Reads the clips of this process; its workers are kept from epoch to epoch."""
        plan = video_blocks(self.rows, 1, VALIDATION_BATCH)
        return ClipLoader(self.clips, [(0, plan)], size=VALIDATION_BATCH, workers=self.workers)

    @torch.no_grad()
    def measure(
        self, model: Method, transform: nn.Module, device: torch.device, bar: ProgressReporter
    ) -> dict[str, float]:
        """Mean of each of the method's validation metrics over all videos."""
        model.eval()
        distributed.share_statistics(model)  # all processes measure what the first one saves
        sums, done = torch.zeros(len(model.validation_metrics), device=device), 0
        for batch in on_device(self.loader, device):
            metrics = model.validate(transform(batch))
            sums += torch.stack([metrics[k].float().sum() for k in model.validation_metrics])
            done += len(batch)
            bar.note(f"validation, {done} of {len(self.rows)} videos")
        means = distributed.mean_over_processes(sums) * distributed.world_size() / len(self.clips)
        return dict(zip(model.validation_metrics, means.tolist(), strict=True))


def fit(
    model: TrainableModule,
    transform: nn.Module,
    clips: VideoClips,
    metadata: Metadata,
    out: Path,
    device: torch.device,
    *,
    workers: int = AUTO,
    validation: Validation | None = None,
    max_steps: int = 0,
    timer: progress.StepTimer | None = None,
) -> Path:
    """Train `model` to its end; return the path of the last checkpoint.

    Gradients are averaged over processes and the first one writes. Resumes from `out/last.pt`
    when the same run wrote it, at any step. Means of all terms over an epoch, statistics of the
    embeddings and validation metrics are a row of `out/log.jsonl`; how fast it was, of
    `out/speed.jsonl`.

    Args:
        model: with the values of the run as `config`.
        transform: from a decoded batch to the model's input.
        clips: of the training videos.
        metadata: what the run is; its checkpoint says the same.
        out: folder of the run.
        device: of this process.
        workers: decoding processes.
        validation: measured after each epoch.
        max_steps: stop after so many, as if they were one epoch; 0: at the model's end.
        timer: of the steps.

    Raises:
        FloatingPointError: when a term or a weight is not finite.
        CheckpointError: when `out` holds another run's checkpoint, or cannot be written.
    """
    config: Any = model.config
    model.to(device), transform.to(device)
    if config.compute.compile_encoders:
        compile_networks(model, transform, device)
    trained = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.Adam(
        trained, lr=config.optim.lr_at(0), weight_decay=config.optim.weight_decay, fused=True
    )
    state = TrainingState(model, adam, out / "last.pt", metadata)
    state.restore(device)
    steps = max_steps or steps_per_epoch(len(clips), config) * config.optim.epochs
    title, silent = out.name.rpartition("-")[0], distributed.rank() > 0
    bar = ProgressReporter(steps * config.optim.batch, title, silent=silent, folder=out)
    network, speed = data_parallel(model), SpeedLog(out / "speed.jsonl", model, transform)
    rank, processes = distributed.rank(), distributed.world_size()
    epochs = training_epochs(
        clips,
        config,
        state.steps,
        rank=rank,
        processes=processes,
        workers=workers,
        ledger=out / LEDGER,
        announce=None if silent else progress.announce,
    )
    for epoch, batches in first_steps(epochs, max_steps) if max_steps else epochs:
        if model.is_finished(config, state.log):
            break
        model.train()
        adam.param_groups[0]["lr"] = config.optim.lr_at(epoch)
        for batch in speed.watched(on_device(batches, device)):
            if state.is_due(config.compute.save_every_steps):
                state.save()
            terms = training_step(network, model, transform, batch, epoch, adam)
            state.count(terms, batch.step)
            bar.report(state.steps * config.optim.batch, state.summary)
            if timer:
                timer.count(state.steps)
        row = {"epoch": epoch, "lr": adam.param_groups[0]["lr"]} | embedding_statistics(model)
        speed.end_epoch(epoch)
        if validation:
            row |= validation.measure(model, transform, device, bar)  # type: ignore[arg-type]
        state.end_epoch(row)
        state.save()
        if rank == 0 and config.compute.tensorboard:
            event_files.write(out, state.log[-1])
        if rank == 0 and (warning := collapse.collapse_warning(state.log[-1])):
            progress.announce(warning)
    bar.keep(finished=not max_steps)
    return state.path


def compile_networks(model: Any, transform: Any, device: torch.device) -> None:
    """Have torch.compile fuse what it can: the encoders, and on a GPU the augmentation."""
    model.video_encoder.compile()
    if getattr(model, "audio_encoder", None) is not None:
        model.audio_encoder.compile()
    if device.type == "cuda":  # a CPU augments in parts that fit its cache
        transform.video.compile()


def first_steps(epochs: Epochs, steps: int) -> Epochs:
    """The first steps, as if they were one epoch."""
    yield 0, itertools.islice((batch for _, batches in epochs for batch in batches), steps)


def training_step(
    network: nn.Module,
    model: TrainableModule,
    transform: nn.Module,
    batch: Batch,
    epoch: int,
    adam: torch.optim.Adam,
) -> dict[str, Tensor]:
    """Forward and backward pass, update; the mean terms. `network` is `model`, perhaps parallel."""
    adam.zero_grad(set_to_none=True)
    model.embeddings.clear()
    at, micro = model.config.optim.progress_at(epoch), model.config.compute.micro_batch
    terms = accumulate_gradients(network, transform, batch, at, micro)
    model.before_step(batch.step)
    adam.step()
    model.after_step()
    return terms


def accumulate_gradients(
    network: nn.Module, transform: nn.Module, batch: Batch, at: float, micro: int
) -> dict[str, Tensor]:
    """Add the gradient of the batch's mean loss at progress `at`; return the mean terms.

    In parts of `micro` clips when that is not 0; processes communicate once, after the last.
    """
    parts = batch.split(micro) if micro else [batch]
    sums: dict[str, Tensor] = {}
    for part in parts:
        alone = part is not parts[-1] and isinstance(network, DistributedDataParallel)
        with network.no_sync() if alone else contextlib.nullcontext():  # type: ignore[operator]
            terms = network(transform(part), at)
            weight = len(part) / len(batch)
            (terms["loss"] * weight).backward()
        sums = {k: sums.get(k, 0) + v.detach() * weight for k, v in terms.items()}
    return sums


def data_parallel(model: TrainableModule) -> nn.Module:
    """`model` with gradients averaged over the processes of the job."""
    if distributed.world_size() == 1:
        return model
    # Banks are kept equal by gathered updates; broadcasting 50 000 rows a step would be waste.
    unused = model.has_unused_parameters
    return DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=unused)


def embedding_statistics(model: TrainableModule) -> dict[str, float]:
    """Spread and rank of the last batch's embeddings, of all processes."""
    embeddings = {
        name: distributed.gather_rows(torch.cat(z)) for name, z in model.embeddings.items()
    }
    return {name: value.item() for name, value in collapse.measure(embeddings).items()}
