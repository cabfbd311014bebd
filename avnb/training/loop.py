"""The training loop: one for every method and for fine-tuning, one process of a job of any size."""

import contextlib
import json
import reprlib
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from avnb import distributed
from avnb.data.clips import Batch, VideoClips
from avnb.data.loader import AUTO, steps_per_epoch, training_epochs, video_batches
from avnb.files import replacing, write_text
from avnb.models import losses
from avnb.models.methods.base import Log, Terms, TrainableModule
from avnb.training import checkpoint
from avnb.training.checkpoint import CheckpointError, Metadata

VALIDATION_BATCH = 16  # clips; the mean over them does not depend on it
BAR: Any = dict(bar_format="{desc} {n_fmt}/{total_fmt} clips, {rate_fmt}, {remaining} left")
BAR |= dict(unit=" clips", mininterval=1, file=sys.stdout)


def fit(
    model: TrainableModule,
    transform: nn.Module,
    clips: VideoClips,
    metadata: Metadata,
    out: Path,
    device: torch.device,
    *,
    workers: int = AUTO,
    validation: VideoClips | None = None,
) -> Path:
    """Train `model` to its end; return the path of the last checkpoint.

    Gradients are averaged over processes and the first one writes. Resumes from `out/last.pt`
    when the same run wrote it, at any step. A row of `out/log.jsonl`, and a step of the TensorBoard
    event files, holds what one epoch gave: means of all terms, statistics of the embeddings,
    validation metrics, clips per second over all processes, and the fraction of the time in which
    the first process waited for clips.

    Raises:
        FloatingPointError: when a term or a weight is not finite.
        CheckpointError: when `out` holds another run's checkpoint.
    """
    config = model.config
    model.to(device), transform.to(device)
    state = TrainingState(model, out / "last.pt", metadata)
    state.restore(device)
    done, writes = state.steps, distributed.rank() == 0
    ends = dict(initial=done, total=config.optim.epochs * steps_per_epoch(len(clips), config))
    scale = dict(unit_scale=config.optim.batch, disable=not writes)
    bar = tqdm(desc=out.name.rpartition("-")[0], **ends, **scale, **BAR)
    job = dict(rank=distributed.rank(), processes=distributed.world_size(), workers=workers)
    for epoch, batches in training_epochs(clips, config, done, **job):
        if model.is_finished(config, state.log):
            break
        moved = (batch.to(device) for batch in batches)
        row = train_epoch(state, transform, epoch, moved, bar)
        if validation:
            row |= validate(model, transform, validation, workers)
        state.log.append(row)
        state.sums = {}
        state.save()
        if writes:
            report(row, out)
    bar.total = bar.n  # also where it has ended early
    bar.close()
    return state.path


def parallel(model: TrainableModule) -> nn.Module:
    """The model, or what averages its gradients over the processes of the job."""
    if model.config.compute.compile_encoders:
        for name in {"video_encoder", "audio_encoder"} & dict(model.named_children()).keys():
            getattr(model, name).compile()
    if distributed.world_size() == 1:
        return model
    # Banks are kept equal by gathered updates, not by broadcasts.
    unused = model.has_unused_parameters
    return DistributedDataParallel(model, find_unused_parameters=unused, broadcast_buffers=False)


def train_epoch(
    state: "TrainingState", transform: nn.Module, epoch: int, batches: Iterable[Batch], bar: tqdm
) -> dict[str, float]:
    """Take the steps of an epoch, or what is left of them; the row of the log, but validation."""
    model, adam, compute = state.model, state.adam, state.model.config.compute
    optim = model.config.optim
    lr, progress = optim.lr_at(epoch), optim.progress_at(epoch)
    model.train()
    adam.param_groups[0]["lr"] = lr
    began, waited, first = time.perf_counter(), 0.0, state.steps
    asked = began
    for batch in batches:
        waited += time.perf_counter() - asked
        if state.sums and state.steps % compute.save_every_steps == 0:
            state.save()
        adam.zero_grad(set_to_none=True)
        model.embeddings.clear()
        terms = accumulate_gradients(state.network, transform, batch, progress, compute.micro_batch)
        model.before_step(batch.step)
        adam.step()
        model.after_step()
        state.count(terms, batch.step)
        bar.update()
        asked = time.perf_counter()
    seconds = time.perf_counter() - began
    row = state.means(state.steps // (epoch + 1)) | {"epoch": epoch, "lr": lr}
    z = {k: distributed.gather_rows(torch.cat(v)) for k, v in model.embeddings.items()}
    row |= {k: v.item() for k, v in losses.collapse_metrics(z).items()}
    speed = (state.steps - first) * optim.batch / seconds
    return row | {"clips_per_second": speed, "waiting": waited / seconds}


def report(row: dict[str, float], out: Path) -> None:
    """Write an epoch's row for TensorBoard; print a warning if embeddings have collapsed."""
    from torch.utils.tensorboard import SummaryWriter  # takes a second to import

    epoch = int(row["epoch"])
    with SummaryWriter(str(out / "tensorboard"), purge_step=epoch) as events:
        for name in row.keys() - {"epoch"}:
            events.add_scalar(name, row[name], epoch)
    if warning := losses.collapse_warning(row):
        print(f"\n{warning}", flush=True)


def accumulate_gradients(
    network: nn.Module, transform: nn.Module, batch: Batch, progress: float, micro: int
) -> Terms:
    """Add the gradient of the batch's mean loss; return the mean terms.

    In parts of `micro` clips when that is not 0; processes communicate once, after the last.
    """
    parts = batch.split(micro) if micro else [batch]
    sums: Terms = {}
    for part in parts:
        alone = part is not parts[-1] and isinstance(network, DistributedDataParallel)
        with network.no_sync() if alone else contextlib.nullcontext():  # type: ignore[operator]
            terms = network(transform(part), progress)
            weight = len(part) / len(batch)
            (terms["loss"] * weight).backward()
        sums = {k: sums.get(k, 0) + v.detach() * weight for k, v in terms.items()}
    return sums


@torch.no_grad()
def validate(
    model: TrainableModule, transform: nn.Module, clips: VideoClips, workers: int
) -> dict[str, float]:
    """Mean of each of the method's validation metrics over all videos, divided over processes."""
    model.eval()
    distributed.share_statistics(model)  # all processes measure what the first one saves
    device = next(model.parameters()).device
    sums = torch.zeros(len(model.validation_metrics), device=device)
    rows = range(distributed.rank(), len(clips), distributed.world_size())
    for batch in video_batches(clips, rows, VALIDATION_BATCH, workers=workers):
        metrics = model.validate(transform(batch.to(device)))
        sums += torch.stack([metrics[k].float().sum() for k in model.validation_metrics])
    means = distributed.mean_over_processes(sums) * distributed.world_size() / len(clips)
    return dict(zip(model.validation_metrics, means.tolist(), strict=True))


class TrainingState:
    """A run between two steps, and its checkpoint; `log.jsonl` is written beside it."""

    def __init__(self, model: TrainableModule, path: Path, metadata: Metadata):
        optim, self.model, self.path, self.metadata = model.config.optim, model, path, metadata
        self.network = parallel(model)
        trained = [p for p in model.parameters() if p.requires_grad]
        self.adam = torch.optim.Adam(
            trained, lr=optim.lr_at(0), weight_decay=optim.weight_decay, fused=True
        )
        self.log: Log = []  # of whole epochs
        self.sums: Terms = {}  # of an epoch's terms; on the device: no step waits
        self.steps = 0  # since the beginning

    def count(self, terms: Terms, step: int) -> None:
        """Count a step that was taken."""
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach().float()
        self.steps = step + 1

    def means(self, steps: int) -> dict[str, float]:
        """Mean of each term over the steps of an epoch and over processes."""
        values = torch.stack([*self.sums.values()]) / steps
        return dict(zip(self.sums, distributed.mean_over_processes(values).tolist(), strict=True))

    def save(self) -> None:
        """Write the checkpoint and the log; every process must call it, the first one writes.

        FloatingPointError when a term or a weight is not finite; the last good checkpoint is kept.
        """
        sums = {k: distributed.gather_rows(v[None]).cpu() for k, v in self.sums.items()}
        values = {**(sums or self.log[-1]), **self.model.state_dict()}
        bad = [name for name, x in values.items() if not torch.as_tensor(x).isfinite().all()]
        if bad:
            found = f"step {self.steps} gave what is not finite, {reprlib.repr(bad)}"
            raise FloatingPointError(f"{found}: {self.path} keeps the last good weights, if any")
        if distributed.rank() == 0:
            state = dict(log=self.log, sums=sums, steps=self.steps)
            state["optimiser"] = self.adam.state_dict()
            checkpoint.save(self.path, self.metadata, self.model, **state)
        self.write_log()

    def write_log(self) -> None:
        """Write `log.jsonl`, a line per epoch, after a copy of the checkpoint where one is kept.

        The first process does, and in this order: the log says when the run is finished.
        """
        every, epoch = self.model.config.compute.keep_every_epochs, len(self.log)
        if distributed.rank() == 0:
            if every and epoch and epoch % every == 0 and not self.sums:
                with replacing(self.path.with_name(f"epoch-{epoch}.pt")) as aside:
                    shutil.copy(self.path, aside)
            lines = "".join(json.dumps(row) + "\n" for row in self.log)
            write_text(self.path.with_name("log.jsonl"), lines)

    def restore(self, device: torch.device) -> None:
        """Return to where the checkpoint was written, if there is one.

        CheckpointError when it is another run's, or not the same for all processes.
        """
        if self.path.exists():
            metadata, content = checkpoint.load(self.path)
            checkpoint.check_same(self.path, metadata, self.metadata)
            self.model.load_state_dict(content["model"])
            self.adam.load_state_dict(content["optimiser"])
            self.log, self.steps = list(content["log"]), content["steps"]
            for name, x in content["sums"].items():  # another number of processes may have saved it
                same = len(x) == distributed.world_size()
                self.sums[name] = (x[distributed.rank()] if same else x.mean()).to(device)
        steps = distributed.gather_rows(torch.tensor([self.steps], device=device))
        if steps.unique().numel() > 1:  # a shared disk may be slow to show a file everywhere
            raise CheckpointError(f"nodes read {self.path} at {steps.tolist()} steps: start again")
        self.write_log()  # an interruption may have come before it was written
