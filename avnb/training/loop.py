"""The training loop: one for every method and for fine-tuning, one process of a job of any size."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from avnb import distributed
from avnb.data.clips import Batch, VideoClips
from avnb.data.loader import AUTO, steps_per_epoch, training_epochs, video_batches
from avnb.files import write_text
from avnb.models import collapse
from avnb.models.methods.base import Log, Method, TrainableModule
from avnb.training import checkpoint
from avnb.training.checkpoint import CheckpointError, Metadata

VALIDATION_BATCH = 16  # clips; the mean over them does not depend on it
BAR = "{desc} {n_fmt}/{total_fmt} clips, {rate_fmt}, {remaining} left"


def fit(
    model: TrainableModule,
    transform: nn.Module,
    clips: VideoClips,
    metadata: Metadata,
    out: Path,
    device: torch.device,
    *,
    workers: int = AUTO,
    validation: "Validation | None" = None,
) -> Path:
    """Train `model` to its end; return the path of the last checkpoint.

    Gradients are averaged over processes and the first one writes. Resumes from `out/last.pt`
    when the same run wrote it, at any step. A row of `out/log.jsonl`, and a step of the TensorBoard
    event files, holds what one epoch gave: means of all terms, statistics of the embeddings,
    validation metrics, clips per second over all processes, and the fraction of the time in which
    the first process waited for clips.

    Args:
        model: with the values of the run as `config`.
        transform: from a decoded batch to the model's input.
        clips: of the training videos.
        metadata: what the run is; its checkpoint says the same.
        out: folder of the run.
        device: of this process.
        workers: decoding processes.
        validation: measured after each epoch.

    Raises:
        FloatingPointError: when a term or a weight is not finite.
        CheckpointError: when `out` holds another run's checkpoint, or cannot be written.
    """
    from torch.utils.tensorboard import SummaryWriter  # takes a second to import

    config: Any = model.config
    model.to(device), transform.to(device)
    if config.compute.compile_encoders:
        compile_networks(model)
    state = TrainingState(model, out / "last.pt", metadata)
    state.restore(device)
    network, adam, batch_size = data_parallel(model), state.adam, config.optim.batch
    rank, processes = distributed.rank(), distributed.world_size()
    bar = tqdm(
        desc=out.name.rpartition("-")[0],
        total=steps_per_epoch(len(clips), config) * config.optim.epochs * batch_size,
        initial=state.steps * batch_size,
        unit=" clips",
        bar_format=BAR,
        mininterval=1,
        file=sys.stdout,
        disable=rank > 0,
    )
    events = None if rank else SummaryWriter(str(out / "tensorboard"), purge_step=len(state.log))
    epochs = training_epochs(
        clips, config, state.steps, rank=rank, processes=processes, workers=workers
    )
    for epoch, batches in epochs:
        if model.is_finished(config, state.log):
            break
        model.train()
        adam.param_groups[0]["lr"] = config.optim.lr_at(epoch)
        progress, speed = config.optim.progress_at(epoch), Speed()
        for batch in speed.watched(batch.to(device) for batch in batches):
            if state.is_due(config.compute.save_every_steps):
                state.save()
            adam.zero_grad(set_to_none=True)
            model.embeddings.clear()
            micro = config.compute.micro_batch
            terms = accumulate_gradients(network, transform, batch, progress, micro)
            model.before_step(batch.step)
            adam.step()
            model.after_step()
            state.count(terms, batch.step)
            bar.update(batch_size)
        row = state.means() | {"epoch": epoch, "lr": config.optim.lr_at(epoch)}
        row |= embedding_statistics(model) | speed.row()
        if validation:
            row |= validation.measure(model, transform, device)  # type: ignore[arg-type]
        state.end_epoch(row)
        state.save()
        if events:
            report(row, events)
    bar.close()
    if events:
        events.close()
    return state.path


def compile_networks(model: Any) -> None:
    """Have torch.compile fuse the encoders."""
    model.video_encoder.compile()
    if getattr(model, "audio_encoder", None) is not None:
        model.audio_encoder.compile()


def data_parallel(model: TrainableModule) -> nn.Module:
    """`model` with gradients averaged over the processes of the job."""
    if distributed.world_size() == 1:
        return model
    # Banks are kept equal by gathered updates; broadcasting 50 000 rows a step would be waste.
    unused = model.has_unused_parameters
    return DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=unused)


def accumulate_gradients(
    network: nn.Module, transform: nn.Module, batch: Batch, progress: float, micro: int
) -> dict[str, Tensor]:
    """Add the gradient of the batch's mean loss; return the mean terms.

    In parts of `micro` clips when that is not 0; processes communicate once, after the last.
    """
    parts = batch.split(micro) if micro else [batch]
    sums: dict[str, Tensor] = {}
    for part in parts:
        alone = part is not parts[-1] and isinstance(network, DistributedDataParallel)
        with network.no_sync() if alone else contextlib.nullcontext():  # type: ignore[operator]
            terms = network(transform(part), progress)
            weight = len(part) / len(batch)
            (terms["loss"] * weight).backward()
        sums = {k: sums.get(k, 0) + v.detach() * weight for k, v in terms.items()}
    return sums


# ---- an epoch -----------------------------------------------------------------------------------


class Speed:
    """Clips and seconds of an epoch, or of the part of it that this process trained."""

    def __init__(self) -> None:
        self.clips, self.waited, self.began = 0, 0.0, time.perf_counter()

    def watched(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; what it takes to get them is counted as waiting."""
        rest = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(rest, None)
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            self.clips += len(batch)
            yield batch

    def row(self) -> dict[str, float]:
        """Clips per second over all processes, and the fraction of the time spent waiting."""
        seconds = time.perf_counter() - self.began
        clips = self.clips * distributed.world_size()
        return {"clips_per_second": clips / seconds, "waiting": self.waited / seconds}


def embedding_statistics(model: TrainableModule) -> dict[str, float]:
    """Spread and rank of the last batch's embeddings, of all processes."""
    embeddings = {
        name: distributed.gather_rows(torch.cat(z)) for name, z in model.embeddings.items()
    }
    return {name: value.item() for name, value in collapse.measure(embeddings).items()}


def report(row: dict[str, float], events: Any) -> None:
    """Write a row of the log to the TensorBoard event files; print a warning of a collapse."""
    for name, value in row.items():
        if name != "epoch":
            events.add_scalar(name, value, int(row["epoch"]))
    events.flush()
    if warning := collapse.collapse_warning(row):
        print(f"\n{warning}", flush=True)


@dataclass(frozen=True, kw_only=True)
class Validation:
    """One clip of each validation video, divided over the processes."""

    clips: VideoClips
    workers: int

    @torch.no_grad()
    def measure(
        self, model: Method, transform: nn.Module, device: torch.device
    ) -> dict[str, float]:
        """Mean of each of the method's validation metrics over all videos."""
        model.eval()
        distributed.share_statistics(model)  # all processes measure what the first one saves
        sums = torch.zeros(len(model.validation_metrics), device=device)
        rows = range(distributed.rank(), len(self.clips), distributed.world_size())
        for batch in video_batches(self.clips, rows, VALIDATION_BATCH, workers=self.workers):
            metrics = model.validate(transform(batch.to(device)))
            sums += torch.stack([metrics[k].float().sum() for k in model.validation_metrics])
        means = distributed.mean_over_processes(sums) * distributed.world_size() / len(self.clips)
        return dict(zip(model.validation_metrics, means.tolist(), strict=True))


# ---- between two steps --------------------------------------------------------------------------


class TrainingState:
    """A run between two steps, and its checkpoint; `log.jsonl` is written beside it.

    Sums of terms over an epoch are kept on the device, so that no step waits for it.
    """

    def __init__(self, model: TrainableModule, path: Path, metadata: Metadata):
        optim, self.model, self.path, self.metadata = model.config.optim, model, path, metadata
        trained = [p for p in model.parameters() if p.requires_grad]
        self.adam = torch.optim.Adam(
            trained, lr=optim.lr_at(0), weight_decay=optim.weight_decay, fused=True
        )
        self.log: Log = []  # of whole epochs
        self.sums: dict[str, Tensor] = {}  # of the epoch that has begun
        self.steps = self.saved_steps = 0

    def count(self, terms: dict[str, Tensor], step: int) -> None:
        """Count a step that was taken."""
        one = torch.ones((), device=terms["loss"].device)
        for name, value in {**terms, "steps": one}.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach().float()
        self.steps = step + 1

    def is_due(self, every_steps: int) -> bool:
        """Whether to save within an epoch: not at its beginning, nor what was just read."""
        fresh = bool(self.sums) and self.steps > self.saved_steps
        return fresh and self.steps % every_steps == 0

    def means(self) -> dict[str, float]:
        """Mean of each term over the epoch's steps and over processes."""
        names = [name for name in self.sums if name != "steps"]
        values = torch.stack([self.sums[name] for name in names]) / self.sums["steps"]
        return dict(zip(names, distributed.mean_over_processes(values).tolist(), strict=True))

    def end_epoch(self, row: dict[str, float]) -> None:
        """Append a row of the log."""
        self.log.append(row)
        self.sums = {}

    def save(self) -> None:
        """Write the checkpoint and the log; every process must call it, the first one writes.

        Raises:
            FloatingPointError: when a term or a weight is not finite; the last good checkpoint
                is kept.
            CheckpointError: when the file cannot be written; likewise.
        """
        sums = {k: distributed.gather_rows(v[None]).cpu() for k, v in self.sums.items()}
        row = {k: v.sum().item() for k, v in sums.items()} if sums else self.log[-1]
        bad: dict[str, Any] = {k: v for k, v in row.items() if not math.isfinite(v)}
        if not bad and not is_finite(self.model):
            bad = {"weights": "that are not finite"}  # they would not show before the next loss
        if bad:
            kept = f"the last good weights are in {self.path}"
            good = kept if self.path.exists() else "nothing was saved"
            epoch = len(self.log) - (not sums)
            raise FloatingPointError(f"step {self.steps} (epoch {epoch}) gave {bad}; {good}")
        if distributed.rank() == 0:
            state = dict(log=self.log, sums=sums, steps=self.steps)
            optimiser = self.adam.state_dict()
            checkpoint.save(self.path, self.metadata, self.model, optimiser=optimiser, **state)
        self.write_log()
        self.saved_steps = self.steps

    def write_log(self) -> None:
        """Write `log.jsonl`, a line per epoch; the first process does."""
        if distributed.rank() == 0:
            lines = "".join(json.dumps(row) + "\n" for row in self.log)
            write_text(self.path.with_name("log.jsonl"), lines)

    def restore(self, device: torch.device) -> None:
        """Return to where the checkpoint was written, if there is one.

        Raises:
            CheckpointError: when it is another run's, or not the same for all processes.
        """
        if self.path.exists():
            metadata, content = checkpoint.load(self.path)
            checkpoint.check_same(self.path, metadata, self.metadata)
            checkpoint.load_tensors(self.path, self.model, content["model"])
            self.adam.load_state_dict(content["optimiser"])
            self.log, self.steps = list(content["log"]), content["steps"]
            self.sums = {k: own_sum(v).to(device) for k, v in content["sums"].items()}
        self.saved_steps = self.steps
        steps = distributed.gather_rows(torch.tensor([self.steps], device=device)).tolist()
        if len(set(steps)) > 1:  # a shared disk may be slow to show a file everywhere
            raise CheckpointError(
                f"the processes found {self.path} after {steps} steps: wait until all nodes see "
                "the same file, and start again"
            )
        self.write_log()  # an interruption may have come before it was written


def own_sum(sums: Tensor) -> Tensor:
    """This process's sum; the mean of all when another number of processes saved them."""
    same = len(sums) == distributed.world_size()
    return sums[distributed.rank()] if same else sums.mean()


def is_finite(module: nn.Module) -> bool:
    """Whether all weights and buffers are finite."""
    values = [v.isfinite().all() for v in module.state_dict().values() if v.is_floating_point()]
    return bool(torch.stack(values).all())
