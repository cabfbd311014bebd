"""Profiles: differences to the thesis's values, and the folder of each.

`smoke` only shows that every part works, and its numbers mean nothing; `demo` fits two CPU cores
and a few minutes; `study` is for many runs; `thesis` is the defaults. Each has one folder below
`build/`, made on demand, safe to delete:

build/<profile>/world-<id>/<data set>/ synthetic videos, when no real folder is given
build/<profile>/manifests/<data set>/  decoded.jsonl; fold1/manifest.csv, fold1/ledger.csv; the
                                       same in fold1-subset-<id>/ for a part, and train.txt
build/<profile>/runs/<method>-<id>/    job.json, last.pt, log.jsonl, output.txt
build/<profile>/runs/finetune-.../     the same, and test-<id>.safetensors
build/<profile>/features/<set>-<id>/   a file of each encoder: <method>-<id>.safetensors
build/<profile>/media/                 small copies of videos, to play in pages
build/<profile>/figures/<style>/       every figure and table of the notebooks as files
build/<profile>/results.jsonl          every number that was measured
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avnb.config import Evaluation, Finetune, Pretrain, unknown_name

SHARING = "AVNB_SHARING"  # where launchers say what `sharing` returns

Values = dict[str, Any]


def thesis_finetuning(dataset: str, *, pretrained: bool) -> Values:
    """How the thesis fine-tunes on a data set: its differences to `Finetune`'s defaults.

    The defaults are those for UCF-101, and serve for any data set that the thesis does not have.
    An encoder without pre-training gets more epochs.
    """
    decays = dict(first_decay=0.3, second_decay=0.6, third_decay=0.8)
    values: Values = {}
    if dataset == "hmdb51":
        jitter = dict(brightness=1.0, contrast=1.0, saturation=1.0)
        values = dict(clips_per_video=25, tuned_epochs=10, **jitter, **decays)
    return values if pretrained else {**values, "tuned_epochs": 100, **decays}


_LIGHT_AUGMENT: Values = dict(
    crop_area_min=0.5, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05
)
_SMALL: Values = dict(
    video_fps=8.0,
    frame_px=32,
    mels=64,
    **_LIGHT_AUGMENT,
    batch=32,
    shards=2,
    lr=2e-3,
    # Short runs cannot first find out of a deep network's chaos what two clips have in common, nor
    # part embeddings that all start alike.
    residual_scale=0.1,
    projector_batch_norm=True,
    # With few clips in a batch, covariances are mostly chance: fewer dimensions, less weight. The
    # thesis's weights keep the deviation at 0.25 until something in common is found.
    expander_dim=64,
    invariance_weight=10.0,
    covariance_weight=0.2,
    # With lam (negatives + 1) above 1, RINCE is positive before anything is learnt.
    negatives=96,
    q_last=0.1,
    # Videos of four seconds leave less room between two clips.
    second_view_min_seconds=1.0,
    second_view_max_seconds=3.0,
)
_SMALL_FINETUNE: Values = dict(video_fps=8.0, **_LIGHT_AUGMENT, shards=2, warmup_epochs=1, lr=2e-3)
PROFILES: dict[str, dict[str, Values]] = {
    "thesis": dict(pretrain={}, supervised=dict(epochs=50), evaluation={}, finetune={}, world={}),
    "demo": dict(
        pretrain=_SMALL
        | dict(width=16, shards=1, epochs=14, lr_decay=0.7, lr_decay_every_epochs=2)
        | dict(subset_videos=500, validation_videos=40),
        vicreg_av=dict(epochs=6),
        vicreg_v=dict(epochs=5),
        supervised=dict(epochs=4),
        evaluation=dict(
            video_fps=8.0,
            resize_px=37,
            localisation_px=65,
            train_clips=8,
            clip_level_clips=5,
            probe_lr=2e-2,
        ),
        finetune=_SMALL_FINETUNE
        | dict(frame_px=32, clips_per_video=2, tuned_epochs=2, batch=16, shards=1),
        world={},
    ),
    "smoke": dict(
        pretrain=_SMALL
        | dict(width=8, frame_px=32, epochs=2, batch=16, clips_per_video=2, negatives=16)
        | dict(expander_dim=32, subset_videos=32, validation_videos=8),
        evaluation=dict(
            video_fps=8.0, resize_px=36, localisation_px=65, train_clips=2, clip_level_clips=2
        )
        | dict(video_level_clips=3, probe_lr=2e-2, probe_epochs=10),
        finetune=_SMALL_FINETUNE | dict(frame_px=32, clips_per_video=1, tuned_epochs=1, batch=8),
        world=dict(vggsound_per_class=4, ucf101_train_per_class=3, ucf101_test_per_class=2)
        | dict(hmdb51_train_per_class=2, hmdb51_test_per_class=2)
        | dict(silent_fraction=0.1, dubbed_fraction=0.1, broken_fraction=0.05)
        | dict(off_screen_fraction=0.05),
    ),
}

# Many runs, most of them a little shorter than the demo's; see `evaluation.studies`.
PROFILES["study"] = PROFILES["demo"] | dict(
    pretrain=PROFILES["demo"]["pretrain"] | dict(epochs=12, shards=2),
    vicreg_av=dict(epochs=4),
    vicreg_v=dict(epochs=3),
    supervised=dict(epochs=3),
)

# What is said beside the numbers of a profile.
SIZES = {
    "smoke": "This was made at **smoke** size, which only shows that every part works: its "
    "numbers mean nothing.",
    "demo": "This was made at **demo** size, on two processor cores and small data: its numbers "
    "show whether the method learns, and say nothing about real videos at full scale.",
}


def profile(name: str) -> dict[str, Values]:
    """The profile's differences to the thesis, by group; ValueError for an unknown name."""
    if name not in PROFILES:
        raise ValueError(unknown_name("profile", name, PROFILES))
    return PROFILES[name]


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

    def figures(self, style: str) -> Path:
        """The folder of figures and tables as files, drawn in a style."""
        return self.folder / "figures" / style

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
