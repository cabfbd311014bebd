"""Fine-tuning as one call, and what its classifiers are worth on test videos (thesis 4.2.2).

Shapes: V videos, C clips of each.
"""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from avnb.config import parse_methods
from avnb.data.batch_plan import steps_per_epoch
from avnb.data.clips import VideoClips
from avnb.data.loader import ClipLoader, grouped, worth_starting
from avnb.data.manifest import Manifest
from avnb.data.transforms import VideoTransform
from avnb.evaluation.features import device
from avnb.evaluation.probe import accuracies, testing
from avnb.evaluation.results import Row
from avnb.files import locked, write_aside
from avnb.protocols import Evaluation, Finetune
from avnb.training import checkpoint, finetuning
from avnb.training.finetuning import Start
from avnb.training.pretraining import Launcher, carry_out, check_share, pretrained, processes_of
from avnb.training.slurm import Resources, Slurm, check
from avnb.training.trainer import Trained
from avnb.values import digest, identity, parse_values
from avnb.workspace import Workspace


def starts(
    work: Workspace,
    methods: str,
    *,
    file: str = "",
    data: str = "",
    values: str = "{}",
    seed: int = 0,
    processes: int = 0,
) -> dict[str, Start]:
    """What fine-tuning starts from, by method; what is not pre-trained yet is pre-trained now.

    A checkpoint `file`, when named, stands for all pre-trained methods, under the name that its
    run has. `random` needs no data. The rest is as in `sources.sources`.
    """
    found, changes = {}, parse_values(values)
    wanted = list(parse_methods(methods))
    if "random" in wanted:
        found["random"] = Start(run=work.pretraining(method="random", seed=seed, **changes))
    if file:
        own = Start.read(Path(file).expanduser())
        return {**found, own.run.method: own}
    others = [method for method in wanted if method != "random"]
    if others:
        runs = pretrained(work, others, data=data, seed=seed, processes=processes, changes=changes)
        found |= {m: Start(run=run.run, file=run.checkpoint) for m, run in runs.items()}
    return found


def describe(run: Finetune, start: Start, manifest: Manifest) -> dict[str, Any]:
    """What a checkpoint says about itself."""
    train = manifest.split("train")
    return {
        "finetune": run.flat(),
        "start": start.metadata(),
        "data": train.digest,
        "data_set": train.name,
        "videos": len(train),
        "classes": list(train.classes),
    }


def run_folder(runs: Path, metadata: dict[str, Any]) -> Path:
    """The folder of a run; its name holds a hash of all that the run is."""
    made_of = digest(identity({**metadata, "format": checkpoint.FORMAT}))
    return runs / f"finetune-{metadata['data_set']}-{metadata['start']['method']}-{made_of}"


@dataclass(frozen=True, kw_only=True)
class Finetuned(Trained):
    """A fine-tuning; the epochs of the warm-up come first in its log."""

    run: Finetune
    method: str  # that its encoder was pre-trained with

    @property
    def finished(self) -> bool:
        """Whether it has come to its end."""
        return self.begun and len(self.log) == self.run.optim.epochs


def finetuned(
    work: Workspace, begin: Mapping[str, Start], manifest: Manifest, *, seed: int = 0, **config: Any
) -> dict[str, Finetuned]:
    """Every start fine-tuned with the workspace's values; `how` is as in `finetune`."""
    many = [
        (work.finetuning(manifest.name, method, seed=seed), start)
        for method, start in begin.items()
    ]
    return dict(zip(begin, finetune(many, manifest, work.runs, **config), strict=True))


def finetune(
    many: Sequence[tuple[Finetune, Start]],
    manifest: Manifest,
    runs: Path,
    *,
    processes: int = 0,
    workers: int = 0,
    stall_seconds: float = 900.0,
    launcher: Launcher = "local",
    nodes: int = 1,
    slurm: Slurm | None = None,
) -> list[Finetuned]:
    """Fine-tune on the training split, each with its values, and return where each is.

    What is done already is left alone; what was interrupted goes on after its last checkpoint.
    On this machine all are trained by one job, one after the other; a cluster gets a job each.
    The rest is as in `pretrain`.

    Raises:
        LaunchError: when a job fails; the message holds the worker's traceback.
        ValueError: when the videos or the number of processes do not fit a run.
    """
    slurm, shards = slurm or Slurm(), math.gcd(*(run.optim.shards for run, _ in many))
    processes = processes_of(processes, shards, launcher, nodes, slurm)
    cast = Resources(processes=processes, nodes=nodes, workers=workers, slurm=slurm)
    abouts = [describe(run, start, manifest) for run, start in many]
    found = [
        Finetuned(run=run, method=start.run.method, folder=run_folder(runs, metadata))
        for (run, start), metadata in zip(many, abouts, strict=True)
    ]
    jobs = {
        one.folder: (one, {"about": metadata, **job_of(run, start, manifest, cast)})
        for one, metadata, (run, start) in zip(found, abouts, many, strict=True)
        if not one.finished
    }
    with contextlib.ExitStack() as locks:
        for folder in sorted(jobs):  # in one order, or two callers could wait for each other
            locks.enter_context(locked(folder))
        left = [folder for folder, (one, _) in jobs.items() if not one.finished]
        for folder in left:
            check(folder, cast if launcher == "slurm" else None)
            write_aside(folder / "job.json", json.dumps(jobs[folder][1], indent=1))
        carry_out(left, cast, launcher, f"fine-tuning on {manifest.name}", stall_seconds)
    return found


def job_of(run: Finetune, start: Start, manifest: Manifest, cast: Resources) -> dict[str, Any]:
    """What the processes of a run read beside what its checkpoint will say."""
    steps_per_epoch(len(manifest.split("train")), run)
    check_share(run.optim.batch // cast.processes, run.compute.micro_batch)
    return {
        "kind": "finetune",
        "manifest": str(manifest.where.resolve()),
        "start": {"run": start.run.flat(), "file": str(start.file.resolve() if start.file else "")},
        "workers": cast.workers,
        "processes": cast.processes,
    }


# ---- on test videos ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Logits of a classifier on clips of test videos, and the labels."""

    clip: Tensor  # [V, C, classes] of random clips
    video: Tensor  # [V, C, classes] of uniformly spaced clips
    label: Tensor  # [V]


def scores(found: Finetuned, manifest: Manifest, config: Evaluation, *, workers: int = 2) -> Scores:
    """Logits of centre crops of the test videos; kept in the run's folder.

    Raises:
        DecodeError: when a video can no longer be read.
    """
    test, asked = manifest.split("test"), testing(found.run.clip, config)
    file = found.folder / f"test-{digest([test.digest, asked, config.seed])}.safetensors"
    with locked(found.folder):
        if not file.exists():
            made = finetuning.load(found.checkpoint).to(device())
            tensors = {"label": torch.tensor(test.labels)}
            for level, sampling in asked.items():
                clips = VideoClips(test, sampling, seed=config.seed)
                title = f"{found.method} on {manifest.name}, {level}"
                tensors[level] = logits(made, clips, workers, title)
            save_file(tensors, partial := file.with_suffix(".partial"))
            partial.replace(file)
    return Scores(**load_file(file))


@torch.inference_mode()
def logits(made: finetuning.Classifier, clips: VideoClips, workers: int, title: str) -> Tensor:
    """[V, C, classes] of all clips, video by video."""
    view, count = VideoTransform().to(device()), clips.sampling.count
    items = [(0, row, tuple(range(count))) for row in range(len(clips))]
    arriving = ClipLoader(clips, items, workers=worth_starting(workers, len(items)))
    seen = tqdm(arriving, total=len(items), desc=title, unit="video")
    found = [
        made.logits(view(batch.frames.to(device()))).float().cpu()
        for batch in grouped(seen, max(1, made.run.optim.batch // count))
    ]
    return torch.cat(found).view(len(items), count, -1)


def measure(found: Finetuned, manifest: Manifest, config: Evaluation, **metadata: Any) -> list[Row]:
    """Result rows of both levels, top-1 and top-5; `about` goes into each."""
    got = scores(found, manifest, config)
    metadata |= {"method": found.method, "run": found.name}
    return accuracies(
        torch.nn.Identity(),
        {"clip": got.clip, "video": got.video},
        got.label,
        config,
        classes=len(manifest.classes),
        task="finetune",
        dataset=manifest.name,
        data=manifest.origin,
        **metadata,
    )
