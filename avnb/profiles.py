"""Profiles: differences to the thesis's values."""

import typing
from typing import Any

from avnb.config import Method
from avnb.values import unknown_name


def thesis_finetuning(dataset: str, method: str) -> dict[str, Any]:
    """How the thesis fine-tunes on a data set: its differences to `Finetune`'s defaults.

    `random` learns from nothing, and takes more epochs.

    Raises:
        ValueError: for a data set or a method that the thesis does not fine-tune.
    """
    known: dict[str, dict[str, Any]] = {
        "ucf101": {},
        "hmdb51": {
            "clips_per_video": 25,
            "tuned_epochs": 10,
            "brightness": 1.0,
            "contrast": 1.0,
            "saturation": 1.0,
            "first_decay": 0.3,
            "second_decay": 0.6,
            "third_decay": 0.8,
        },
    }
    if dataset not in known:
        raise ValueError(unknown_name("data set to fine-tune on", dataset, known))
    if method not in typing.get_args(Method):
        raise ValueError(unknown_name("method", method, typing.get_args(Method)))
    longer = {"tuned_epochs": 100, "first_decay": 0.3, "second_decay": 0.6, "third_decay": 0.8}
    return known[dataset] | (longer if method == "random" else {})


# Differences to the defaults, for all methods and by method. `demo` fits two CPU cores and a few
# minutes; `smoke` only shows that every part works, and its numbers mean nothing.
_SMALL: dict[str, Any] = {
    "video_fps": 8.0,
    "frame_px": 48,
    "mels": 64,
    "crop_area_min": 0.5,
    "brightness": 0.2,
    "contrast": 0.2,
    "saturation": 0.2,
    "hue": 0.05,
    # With lam (negatives + 1) above 1, RINCE is positive while nothing is learnt yet, and the
    # quickest way down is to push everything apart. Short runs do not find back from there.
    "negatives": 96,
    "q_last": 0.1,
    "batch": 32,
    "shards": 2,
    "lr": 2.5e-3,
    "window_steps": 1000,
    "expander_dim": 256,
    # Videos of four seconds leave less room between two clips.
    "second_view_min_seconds": 1.0,
    "second_view_max_seconds": 3.0,
}


_SHORT: dict[str, Any] = {  # of fine-tuning
    "video_fps": 8.0,
    "crop_area_min": 0.5,
    "brightness": 0.2,
    "contrast": 0.2,
    "saturation": 0.2,
    "hue": 0.05,
    "shards": 2,
    "window_steps": 1000,
    "warmup_epochs": 1,
}


PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    "thesis": {
        "pretrain": {},
        "supervised": {"epochs": 50},
        "evaluation": {},
        "finetune": {},
        "world": {},
    },
    "demo": {
        "pretrain": {
            **_SMALL,
            "width": 16,
            "epochs": 7,
            "lr_decay": 0.8,
            "lr_decay_every_epochs": 2,
            "subset_videos": 500,
            "validation_videos": 40,
        },
        "vicreg_av": {"epochs": 3},
        "vicreg_v": {"epochs": 2},
        "supervised": {"epochs": 3},
        "evaluation": {
            "video_fps": 8.0,
            "resize_px": 56,
            "train_clips": 8,
            "clip_level_clips": 5,
            "probe_lr": 2e-2,
        },
        "finetune": {
            **_SHORT,
            "frame_px": 48,
            "clips_per_video": 2,
            "tuned_epochs": 2,
            "batch": 16,
            "lr": 2e-3,
        },
        "world": {},
    },
    "smoke": {
        "pretrain": {
            **_SMALL,
            "width": 8,
            "frame_px": 32,
            "epochs": 2,
            "batch": 16,
            "clips_per_video": 2,
            "negatives": 16,
            "expander_dim": 32,
            "subset_videos": 32,
            "validation_videos": 8,
        },
        "evaluation": {
            "video_fps": 8.0,
            "resize_px": 36,
            "train_clips": 2,
            "clip_level_clips": 2,
            "video_level_clips": 3,
            "probe_lr": 2e-2,
            "probe_epochs": 10,
        },
        "finetune": {
            **_SHORT,
            "frame_px": 32,
            "clips_per_video": 1,
            "tuned_epochs": 1,
            "batch": 8,
            "lr": 2e-3,
        },
        "world": {
            "vggsound_per_class": 4,
            "ucf101_train_per_class": 3,
            "ucf101_test_per_class": 2,
            "hmdb51_train_per_class": 2,
            "hmdb51_test_per_class": 2,
            "silent_fraction": 0.1,
            "dubbed_fraction": 0.1,
            "broken_fraction": 0.05,
        },
    },
}


# What is said beside the numbers of a profile.
SIZES = {
    "smoke": "This was made at **smoke** size, which only shows that every part works: its "
    "numbers mean nothing.",
    "demo": "This was made at **demo** size, on two processor cores and small data: its numbers "
    "show whether the method learns, and say nothing about real videos at full scale.",
}


def profile(name: str) -> dict[str, dict[str, Any]]:
    """The profile's differences to the thesis, by group; ValueError for an unknown name."""
    if name not in PROFILES:
        raise ValueError(unknown_name("profile", name, PROFILES))
    return PROFILES[name]
