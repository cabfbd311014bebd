"""Where files are kept: one folder per profile below `build/`, made on demand, safe to delete.

build/<profile>/world-<id>/<data set>/ synthetic videos, when no real folder is given
build/<profile>/manifests/<data set>/  decoded.jsonl; fold1/manifest.csv, fold1/ledger.csv; the
                                       same in fold1-subset-<id>/ for a part, and train.txt
build/<profile>/runs/<method>-<id>/    job.json, last.pt, log.jsonl, output.txt
build/<profile>/runs/finetune-.../     the same, and test-<id>.safetensors
build/<profile>/features/<set>-<id>/   video.npy, audio.npy, label.npy; made.json
build/<profile>/media/                 small copies of videos, to play in pages
build/<profile>/results.jsonl          every number that was measured
"""

import os
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avnb.config import Pretrain
from avnb.profiles import profile, thesis_finetuning
from avnb.protocols import Evaluation, Finetune

SHARING = "AVNB_SHARING"  # where launchers say what `sharing` returns
# Whether what is stored is all that may be used, and nothing is added to it: no training, no rows.
STORED_ONLY: ContextVar[bool] = ContextVar("STORED_ONLY", default=False)


def project_root() -> Path:
    """The repository: the nearest folder upwards, from here or from the package, with notebooks.

    Raises:
        FileNotFoundError: when neither lies in a checkout; set AVNB_BUILD then.
    """
    starts = [Path.cwd(), Path(__file__).resolve().parent]
    for start in starts:
        for folder in (start, *start.parents):
            if (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file():
                return folder
    raise FileNotFoundError(
        f"no avnb checkout around {starts[0]} or {starts[1]}; run inside one, or set AVNB_BUILD "
        "to a folder for data and results. Notebooks and book come with the repository: an "
        "installed avnb is the package alone"
    )


def build_folder() -> Path:
    """The folder for everything that is generated: AVNB_BUILD, or `build` in the checkout."""
    named = os.environ.get("AVNB_BUILD")
    return Path(named).expanduser().resolve() if named else project_root() / "build"


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sharing() -> int:
    """Processes of a job that share the cores of this one."""
    return int(os.environ.get(SHARING) or os.environ.get("LOCAL_WORLD_SIZE", "1"))


@dataclass(frozen=True)
class Workspace:
    """One profile's folder and values: `Workspace.open("demo")`."""

    name: str
    folder: Path
    values: dict[str, dict[str, Any]]

    @classmethod
    def open(cls, name: str) -> "Workspace":
        """The workspace of a profile; ValueError for an unknown one."""
        return cls(name, build_folder() / name, profile(name))

    @property
    def results(self) -> Path:
        """The file of result rows."""
        return self.folder / "results.jsonl"

    @property
    def features(self) -> Path:
        """The folder of cached features."""
        return self.folder / "features"

    @property
    def media(self) -> Path:
        """The folder of small copies of videos, which pages play."""
        return self.folder / "media"

    @property
    def runs(self) -> Path:
        """The folder of training runs."""
        return self.folder / "runs"

    def pretraining(self, **changes: Any) -> Pretrain:
        """The profile's pre-training values, with changes by flat name."""
        own = self.values.get(changes.get("method", "xid"), {})
        return Pretrain.from_flat(**{**self.values["pretrain"], **own, **changes})

    def evaluation(self, **changes: Any) -> Evaluation:
        """The profile's evaluation values, with changes by flat name."""
        return Evaluation.from_flat(**{**self.values["evaluation"], **changes})

    def finetuning(self, dataset: str, *, pretrained: bool = True, **changes: Any) -> Finetune:
        """The thesis's values for a data set, then the profile's, then the changes."""
        thesis = thesis_finetuning(dataset, pretrained=pretrained)
        return Finetune.from_flat(**{**thesis, **self.values["finetune"], **changes})
