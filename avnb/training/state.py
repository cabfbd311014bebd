"""What a run consists of between two steps: weights, optimiser, log, sums of the epoch."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avnb import distributed
from avnb.files import write_text
from avnb.models.methods.base import Log, TrainableModule
from avnb.training import checkpoint
from avnb.training.checkpoint import Metadata
from avnb.training.torch_file import CheckpointError, check_tensors


class RunningMeans:
    """Sums of terms over the steps of an epoch; kept on the device, so that no step waits."""

    def __init__(self, sums: dict[str, Tensor] | None = None):
        self.sums = dict(sums or {})

    def add(self, terms: dict[str, Tensor]) -> None:
        """Count the terms of one step."""
        one = torch.ones((), device=terms["loss"].device)
        for name, value in {**terms, "steps": one}.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach().float()

    def means(self) -> dict[str, float]:
        """Mean of each term over the epoch's steps and over processes."""
        names = [name for name in self.sums if name != "steps"]
        values = torch.stack([self.sums[name] for name in names]) / self.sums["steps"]
        return dict(zip(names, distributed.mean_over_processes(values).tolist(), strict=True))

    def gathered(self) -> dict[str, Tensor]:
        """The sums of all processes, [processes] each."""
        return {
            name: distributed.gather_rows(value[None]).cpu() for name, value in self.sums.items()
        }

    @classmethod
    def restored(cls, saved: dict[str, Tensor], device: torch.device) -> "RunningMeans":
        """This process's sums; their mean when another number of processes saved them."""
        same = all(len(value) == distributed.world_size() for value in saved.values())
        own = {k: v[distributed.rank()] if same else v.mean() for k, v in saved.items()}
        return cls({name: value.to(device) for name, value in own.items()})


class TrainingState:
    """A run between two steps, and its checkpoint.

    Args:
        model: what is trained.
        adam: its optimiser.
        path: of the checkpoint; `log.jsonl` is written beside it.
        metadata: what the run is.
    """

    def __init__(
        self, model: TrainableModule, adam: torch.optim.Adam, path: Path, metadata: Metadata
    ):
        self.model, self.adam, self.path, self.metadata = model, adam, path, metadata
        self.log: Log = []  # of whole epochs
        self.means = RunningMeans()  # of the epoch that has begun
        self.steps = self.saved_steps = 0

    def count(self, terms: dict[str, Tensor], step: int) -> None:
        """Count a step that was taken."""
        self.means.add(terms)
        self.steps = step + 1

    def is_due(self, every_steps: int) -> bool:
        """Whether to save within an epoch: not at its beginning, nor what was just read."""
        fresh = bool(self.means.sums) and self.steps > self.saved_steps
        return fresh and self.steps % every_steps == 0

    def end_epoch(self, row: dict[str, float]) -> None:
        """Append a row of the log: the means of all terms, and what else was measured."""
        self.log.append(self.means.means() | row)
        self.means = RunningMeans()

    def save(self) -> None:
        """Write the checkpoint and the log; every process must call it, the first one writes.

        Raises:
            FloatingPointError: when a term or a weight is not finite; the last good checkpoint
                is kept.
            CheckpointError: when the file cannot be written; likewise.
        """
        sums = self.means.gathered()
        row = {k: v.sum().item() for k, v in sums.items()} if sums else self.log[-1]
        bad: dict[str, Any] = {k: v for k, v in row.items() if not math.isfinite(v)}
        if not bad and not is_finite(self.model):
            bad = {"weights": "that are not finite"}  # they would not show before the next loss
        if bad:
            good = "nothing was saved"
            if self.path.exists():
                good = f"the last good weights are in {self.path}"
            epoch = len(self.log) - (not sums)
            raise FloatingPointError(f"step {self.steps} (epoch {epoch}) gave {bad}; {good}")
        if distributed.rank() == 0:
            checkpoint.save(
                self.path,
                self.metadata,
                self.model,
                optimiser=self.adam.state_dict(),
                log=self.log,
                sums=sums,
                steps=self.steps,
            )
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
            check_tensors(self.path, content["model"], self.model.state_dict())
            self.model.load_state_dict(content["model"])
            self.adam.load_state_dict(content["optimiser"])
            self.log, self.steps = list(content["log"]), content["steps"]
            self.means = RunningMeans.restored(content["sums"], device)
        self.saved_steps = self.steps
        steps = distributed.gather_rows(torch.tensor([self.steps], device=device)).tolist()
        if len(set(steps)) > 1:  # a shared disk may be slow to show a file everywhere
            raise CheckpointError(
                f"the processes found {self.path} after {steps} steps: wait until all nodes see "
                "the same file, and start again"
            )
        self.write_log()  # an interruption may have come before it was written

    @property
    def summary(self) -> str:
        """What the progress bar says of the last epoch."""
        if not self.log:
            return "first epoch"
        row = self.log[-1]
        text = f"loss {row['loss']:.3f}"
        if "validation_accuracy" in row:
            text += f", validation {100 * row['validation_accuracy']:.1f} %"
        return text


def is_finite(module: nn.Module) -> bool:
    """Whether all weights and buffers are finite."""
    values = [v.isfinite().all() for v in module.state_dict().values() if v.is_floating_point()]
    return bool(torch.stack(values).all())
