"""All stages of the bench by name, and one run of them."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from avnb.bench import (
    augmentation_stages,
    clip_stages,
    loader_stage,
    loss_stages,
    probe_stage,
    soak_stage,
    step_stage,
)
from avnb.bench.rows import Row, append, read
from avnb.bench.workload import Workload
from avnb.config import unknown_name
from avnb.models.methods import METHODS

STORED = Path(__file__).with_name("measured.jsonl")  # of the full bench, on one machine
Stage = Callable[[Workload], Iterator[Row]]

STEPS: dict[str, Stage] = {
    f"step-{name}": partial(step_stage.step_rows, name)
    for name, method in METHODS.items()
    if method.is_trained
}
STAGES: dict[str, Stage] = {
    "clip": clip_stages.clip_stage,
    "parts": clip_stages.part_stage,
    "augmentation": augmentation_stages.augmentation_stage,
    "spectrogram": augmentation_stages.spectrogram_stage,
    "loader": loader_stage.loader_stage,
    "bank": loss_stages.bank_stage,
    "vicreg": loss_stages.vicreg_stage,
    "retrieval": loss_stages.retrieval_stage,
    "probe": probe_stage.probe_stage,
    "soak": soak_stage.soak_stage,
    **STEPS,
}
ON_REQUEST = {"soak", *STEPS}  # measured where they are named, or with a GPU


def chosen(names: Sequence[str], *, gpu: bool) -> list[str]:
    """The named stages; all when none is named, those of the step with a GPU only.

    Raises:
        ValueError: when a stage is unknown, or a GPU is asked for and there is none.
    """
    for name in names:
        if name not in STAGES:
            raise ValueError(unknown_name("stage", name, STAGES))
    if gpu and not torch.cuda.is_available():
        raise ValueError("--gpu needs a GPU, and PyTorch finds none here; leave it out")
    return list(names) or [
        name for name in STAGES if name not in ON_REQUEST or (gpu and name in STEPS)
    ]


def run(names: Sequence[str], work: Workload, out: Path) -> list[Row]:
    """Run stages one after the other with one thread; their rows are appended to `out` at once.

    Raises:
        ValueError: as `chosen`, and when two ways that should give the same do not.
    """
    stages, threads, rows = chosen(names, gpu=work.gpu), torch.get_num_threads(), list[Row]()
    torch.set_num_threads(1)
    try:
        for name in stages:
            rows += append(out, STAGES[name](work))
    finally:
        torch.set_num_threads(threads)
    return rows


def read_or_measure(file: str, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """The rows of a file that `avnb bench` wrote: by default the one that comes with the package.

    With `quick` as file, rows of a quick bench: it measures what a clip and a loss cost, not the
    loader, on small files in `folder`.
    """
    if file != "quick":
        return read(Path(file).expanduser() if file else STORED)
    names = [name for name in chosen([], gpu=False) if name != "loader"]
    out = folder / f"quick-{rounds}.jsonl"
    run(names, Workload(folder / "videos-quick", rounds, quick=True), out)
    return read(out)
