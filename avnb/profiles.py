"""Profiles: differences to the thesis's values, and the folder of each.

`smoke` only shows that every part works, and its numbers mean nothing; `demo` fits two CPU cores
and a few minutes; `study` is for many runs; `thesis` is the defaults. Each has one folder below
`build/`, safe to delete, with synthetic videos (`world-<id>/`), prepared data sets, `runs/`,
`features/`, `media/` and `figures/` of the pages, and every number measured, `results.jsonl`.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib

from avnb.config import Evaluation, Finetune, Pretrain, unknown_name
from avnb.files import absolute

SHARING = "AVNB_SHARING"  # where launchers say what `sharing` returns

Values = dict[str, Any]


def thesis_finetuning(dataset: str, *, pretrained: bool) -> Values:
    """How the thesis fine-tunes on a data set: its differences to the defaults, those of UCF-101.

    An encoder without pre-training gets more epochs.
    """
    decays = dict(first_decay=0.3, second_decay=0.6, third_decay=0.8)
    jitter = dict(brightness=1.0, contrast=1.0, saturation=1.0)
    hmdb51 = dict(clips_per_video=25, tuned_epochs=10, **jitter, **decays)
    values = hmdb51 if dataset == "hmdb51" else {}
    return values if pretrained else {**values, "tuned_epochs": 100, **decays}


_LIGHT: Values = dict(crop_area_min=0.5, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05)
# Short runs cannot separate embeddings that all start alike, nor recover from a deep network's
# chaos, nor align what heads of torch's default weights give. In few clips, covariances are mostly
# chance. `lam` keeps the thesis's lam (negatives + 1). Videos of four seconds leave less room
# between two clips. Of few videos few are alike. With a margin far below the distance of unrelated
# unit vectors, all embeddings come together before they learn.
_SMALL: Values = (
    dict(video_fps=8.0, frame_px=32, mels=64, batch=32, shards=2, lr=2e-3, **_LIGHT)
    | dict(residual_scale=0.1, he_heads=True, projector_batch_norm=True, negatives=96)
    | dict(lam=0.1, temperature=0.2, positives=8, clusters=16, margin=1.3)
    | dict(expander_dim=64, invariance_weight=10.0, covariance_weight=0.2)
    | dict(second_view_min_seconds=1.0, second_view_max_seconds=3.0)
)
_TUNING: Values = dict(video_fps=8.0, frame_px=32, warmup_epochs=1, lr=2e-3, **_LIGHT)
_TESTING: Values = dict(video_fps=8.0, localisation_px=193, probe_lr=2e-2)
# The same clips and the same schedule for every method: the supervised one does not stop early.
_DEMO: Values = dict(width=16, shards=1, epochs=10, lr_decay=0.7, lr_decay_every_epochs=2)
_DEMO |= dict(subset_videos=500, validation_videos=40, patience_epochs=10)
PROFILES: dict[str, dict[str, Values]] = {
    "thesis": dict(pretrain={}, supervised=dict(epochs=50), evaluation={}, finetune={}, world={}),
    "demo": dict(
        pretrain=_SMALL | _DEMO,
        evaluation=_TESTING | dict(resize_px=37, train_clips=8, clip_level_clips=5),
        finetune=_TUNING | dict(clips_per_video=2, tuned_epochs=2, batch=16, shards=1),
        world={},
    ),
    "smoke": dict(
        pretrain=_SMALL
        | dict(width=8, epochs=2, batch=16, clips_per_video=2, negatives=16, expander_dim=32)
        | dict(subset_videos=32, validation_videos=8),
        evaluation=_TESTING
        | dict(resize_px=36, train_clips=2, clip_level_clips=2, video_level_clips=3)
        | dict(probe_epochs=3),
        finetune=_TUNING | dict(clips_per_video=1, tuned_epochs=1, batch=8, shards=2),
        world=dict(vggsound_per_class=4, ucf101_train_per_class=3, ucf101_test_per_class=2)
        | dict(hmdb51_train_per_class=2, hmdb51_test_per_class=2, located_per_class=2)
        | dict(silent_fraction=0.1, dubbed_fraction=0.1, broken_fraction=0.05)
        | dict(off_screen_fraction=0.05),
    ),
}
PROFILES["study"] = PROFILES["demo"] | dict(  # many runs of fewer clips, with learning curves
    pretrain=_SMALL | _DEMO | dict(subset_videos=240, clips_per_video=6, keep_every_epochs=2),
    world=dict(vggsound_per_class=27, hmdb51_train_per_class=2, hmdb51_test_per_class=2)
    | dict(located_per_class=1),
)


def project_root() -> Path:
    """The repository: the nearest folder upwards, from here or from the package, with notebooks.

    Raises:
        FileNotFoundError: when neither lies in a checkout; an installed avnb is the package alone.
    """
    for start in (Path.cwd() / "here", Path(__file__).resolve()):
        for folder in start.parents:
            if (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file():
                return folder
    raise FileNotFoundError(
        f"no avnb checkout around {Path.cwd()}: the book is built inside one; notebooks and the "
        "other commands run anywhere once AVNB_BUILD names a folder for what they make"
    )


def cores() -> int:
    """Processor cores this process may use: by its affinity, and by its container's quota."""
    return joblib.cpu_count()


def sharing() -> int:
    """Processes of a job that share the cores of this one."""
    return int(os.environ.get(SHARING) or os.environ.get("LOCAL_WORLD_SIZE", "1"))


@dataclass
class Workspace:
    """One profile's folder and values: `Workspace.open("demo")`."""

    name: str
    folder: Path
    values: dict[str, Values]
    results: Path = field(init=False)  # every number that was measured
    features: Path = field(init=False)  # the folder of cached features
    media: Path = field(init=False)  # that of small copies of videos, which pages play
    runs: Path = field(init=False)  # that of training runs

    def __post_init__(self) -> None:
        self.results = self.folder / "results.jsonl"
        names = ("features", "media", "runs")
        self.features, self.media, self.runs = (self.folder / name for name in names)

    @classmethod
    def open(cls, name: str) -> "Workspace":
        """The workspace of a profile, below AVNB_BUILD or else `build` in the checkout.

        Raises:
            ValueError: for an unknown profile.
        """
        if name not in PROFILES:
            raise ValueError(unknown_name("profile", name, PROFILES))
        build = os.environ.get("AVNB_BUILD") or project_root() / "build"
        return cls(name, absolute(build) / name, PROFILES[name])

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
        """The thesis's values for a data set, then the profile's, then the changes.

        An encoder without pre-training gets more epochs, in the ratio of the thesis.
        """
        thesis, shorter = thesis_finetuning(dataset, pretrained=pretrained), {}
        if not pretrained and (epochs := self.values["finetune"].get("tuned_epochs")):
            tuned = Finetune.from_flat(**thesis_finetuning(dataset, pretrained=True)).optim
            shorter = {"tuned_epochs": round(epochs * thesis["tuned_epochs"] / tuned.tuned_epochs)}
        return Finetune.from_flat(**{**thesis, **self.values["finetune"], **shorter, **changes})
