"""The training loop: one for every method and for fine-tuning, one process of a job of any size."""

import contextlib
import json
import reprlib
import sys
import time
from collections.abc import Iterable, Iterator
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
from avnb.models import losses
from avnb.models.methods.base import Log, Method, TrainableModule
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

    Args:
        model: with the values of the run as `config`.
        transform: from a decoded batch to the model's input.
        clips: of the training videos.
        metadata: what the run is; its checkpoint says the same.
        out: folder of the run.
        device: of this process.
        workers: decoding processes.
        validation: one clip of each validation video, measured after each epoch.

    Raises:
        FloatingPointError: when a term or a weight is not finite.
        CheckpointError: when `out` holds another run's checkpoint, or cannot be written.
    """
    from torch.utils.tensorboard import SummaryWriter  # takes a second to import

    config: Any = model.config
    model.to(device), transform.to(device)
    if config.compute.compile_encoders:
        for name in {"video_encoder", "audio_encoder"} & dict(model.named_children()).keys():
            getattr(model, name).compile()
    state = TrainingState(model, out / "last.pt", metadata)
    state.restore(device)
    rank, processes = distributed.rank(), distributed.world_size()
    network: nn.Module = model
    if processes > 1:  # banks are kept equal by gathered updates, and need no broadcast
        unused = dict(find_unused_parameters=model.has_unused_parameters)
        network = DistributedDataParallel(model, broadcast_buffers=False, **unused)
    adam, batch_size, steps = state.adam, config.optim.batch, steps_per_epoch(len(clips), config)
    ends = dict(initial=state.steps * batch_size, total=steps * config.optim.epochs * batch_size)
    bar = tqdm(desc=out.name.rpartition("-")[0], disable=rank > 0, **ends, **BAR)
    events = None if rank else SummaryWriter(str(out / "tensorboard"), purge_step=len(state.log))
    epochs = training_epochs(
        clips, config, state.steps, rank=rank, processes=processes, workers=workers
    )
    for epoch, batches in epochs:
        if model.is_finished(config, state.log):
            break
        model.train()
        lr, progress = config.optim.lr_at(epoch), config.optim.progress_at(epoch)
        adam.param_groups[0]["lr"] = lr
        began, waits = time.perf_counter(), list[float]()
        for batch in timed((batch.to(device) for batch in batches), waits):
            if state.sums and state.steps % config.compute.save_every_steps == 0:
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
        seconds = time.perf_counter() - began
        row = state.means(steps) | {"epoch": epoch, "lr": lr} | embedding_statistics(model)
        row["clips_per_second"] = len(waits) * batch_size / seconds
        row["waiting"] = sum(waits) / seconds
        if validation:
            row |= validate(model, transform, validation, workers, device)  # type: ignore[arg-type]
        state.end_epoch(row)
        for name in row.keys() - {"epoch"} if events else ():
            events.add_scalar(name, row[name], epoch)  # type: ignore[union-attr]
        if rank == 0 and (warning := losses.collapse_warning(row)):
            print(f"\n{warning}", flush=True)
    bar.close()
    if events:
        events.close()
    return state.path


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


def timed(batches: Iterable[Batch], waits: list[float]) -> Iterator[Batch]:
    """The batches; `waits` gets the seconds that each took to come."""
    asked = time.perf_counter()
    for batch in batches:
        waits.append(time.perf_counter() - asked)
        yield batch
        asked = time.perf_counter()


def embedding_statistics(model: TrainableModule) -> dict[str, float]:
    """Spread and rank of the last batch's embeddings, of all processes."""
    embeddings = {
        name: distributed.gather_rows(torch.cat(z)) for name, z in model.embeddings.items()
    }
    return {name: value.item() for name, value in losses.collapse_metrics(embeddings).items()}


@torch.no_grad()
def validate(
    model: Method, transform: nn.Module, clips: VideoClips, workers: int, device: torch.device
) -> dict[str, float]:
    """Mean of each of the method's validation metrics over all videos, divided over processes."""
    model.eval()
    distributed.share_statistics(model)  # all processes measure what the first one saves
    sums = torch.zeros(len(model.validation_metrics), device=device)
    rows = range(distributed.rank(), len(clips), distributed.world_size())
    for batch in video_batches(clips, rows, VALIDATION_BATCH, workers=workers):
        metrics = model.validate(transform(batch.to(device)))
        sums += torch.stack([metrics[k].float().sum() for k in model.validation_metrics])
    means = distributed.mean_over_processes(sums) * distributed.world_size() / len(clips)
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
        self.steps = 0  # since the beginning

    def count(self, terms: dict[str, Tensor], step: int) -> None:
        """Count a step that was taken."""
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach().float()
        self.steps = step + 1

    def means(self, steps: int) -> dict[str, float]:
        """Mean of each term over the steps of an epoch and over processes."""
        values = torch.stack([*self.sums.values()]) / steps
        return dict(zip(self.sums, distributed.mean_over_processes(values).tolist(), strict=True))

    def end_epoch(self, row: dict[str, float]) -> None:
        """Append a row of the log, and save."""
        self.log.append(row)
        self.sums = {}
        self.save()

    def save(self) -> None:
        """Write the checkpoint and the log; every process must call it, the first one writes.

        Raises:
            FloatingPointError: when a term or a weight is not finite; the last good checkpoint
                is kept.
            CheckpointError: when the file cannot be written; likewise.
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
            for name, x in content["sums"].items():  # another number of processes may have saved it
                same = len(x) == distributed.world_size()
                self.sums[name] = (x[distributed.rank()] if same else x.mean()).to(device)
        steps = distributed.gather_rows(torch.tensor([self.steps], device=device))
        if steps.unique().numel() > 1:  # a shared disk may be slow to show a file everywhere
            raise CheckpointError(f"nodes read {self.path} at {steps.tolist()} steps: start again")
        self.write_log()  # an interruption may have come before it was written
