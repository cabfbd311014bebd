"""What a run is: frozen values with units, whose defaults are the thesis's.

A profile is a set of differences to those defaults, so that the same code runs at the size of a
test (`smoke`), of a laptop (`demo`) and of the thesis (`thesis`).
"""

import dataclasses
import difflib
import hashlib
import json
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

Method = Literal["xid", "vicreg_av", "vicreg_v", "supervised", "random"]
Missing = Literal["silence", "drop", "error"]
LIKE_THIS = """write names and values like this: '{"precision": "bf16", "lr": 0.001}'"""


def check_range(owner: object, low: float, high: float, *names: str) -> None:
    """Raise ValueError unless every named value of `owner` lies in [low, high]."""
    for name in names:
        value = getattr(owner, name)
        if not low <= value <= high:
            kind = type(owner).__name__
            raise ValueError(f"{kind}.{name} must lie in [{low}, {high}], got {value!r}")


def check_shards(owner: Any) -> None:
    """Raise ValueError unless the shards of `owner` divide its batch."""
    if owner.batch % owner.shards:
        kind, found = type(owner).__name__, f"{owner.batch} and {owner.shards}"
        raise ValueError(f"{kind}.batch must be a multiple of shards, got {found}")


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> str:
    """The message for a misspelt name: what was found, the nearest allowed one, all of them."""
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{kind} {name!r} is unknown{hint}\n  known: {', '.join(names)}"


def methods_of(text: str) -> tuple[Method, ...]:
    """`"random, xid"` -> ("random", "xid").

    Raises:
        ValueError: when a name is no method's, is there twice, or none is there.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = typing.get_args(Method)
    for name in names:
        if name not in known:
            raise ValueError(unknown_name("method", name, known))
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"methods = {text!r}: name each once, divided by commas, and at least one of "
            + ", ".join(known)
        )
    return tuple(typing.cast(Method, name) for name in names)


def values_of(text: str) -> dict[str, Any]:
    """`'{"precision": "bf16"}'` -> {"precision": "bf16"}; ValueError when it is not such JSON."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"values = {text!r} is not JSON ({error}); {LIKE_THIS}") from error
    if not isinstance(found, dict):
        raise ValueError(f"values = {text!r} gives no names; {LIKE_THIS}")
    return found


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One sample: a piece of picture and a piece of sound of the same video (thesis 4.1.3)."""

    picture_seconds: float = 1.0
    picture_fps: float = 16.0
    frame_px: int = 224  # height and width of what the encoder sees
    sound_seconds: float = 2.0
    sound_hz: int = 16_000
    max_offset_seconds: float = 0.5  # how far the sound may start from the picture, either way

    def __post_init__(self) -> None:
        check_range(self, 1e-3, 3600, "picture_seconds", "sound_seconds")
        check_range(self, 1, 4096, "picture_fps", "frame_px")
        check_range(self, 1000, 192_000, "sound_hz")
        check_range(self, 0, 60, "max_offset_seconds")

    @property
    def frames(self) -> int:
        """Frames of one clip, T."""
        return max(1, round(self.picture_seconds * self.picture_fps))

    @property
    def resized_px(self) -> int:
        """Side of the whole frame that a crop for testing is cut from: the thesis's 256 for 224."""
        return round(self.frame_px * 256 / 224)

    @property
    def samples(self) -> int:
        """Sound samples of one clip."""
        return round(self.sound_seconds * self.sound_hz)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How far a training clip may be changed; one draw a clip (thesis 4.1.3)."""

    crop_area_min: float = 0.08  # share of the frame, up to 1
    crop_aspect_max: float = 4 / 3  # width / height of the crop, down to its inverse
    flip_share: float = 0.5
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.2  # in turns of the colour circle, either way
    gain_min: float = 0.7  # the sound's peak is scaled by a draw from [gain_min, 1]
    mask_share: float = 0.2  # of time and of frequency, at most

    def __post_init__(self) -> None:
        check_range(self, 0.01, 1, "crop_area_min")
        check_range(self, 1, 10, "crop_aspect_max")
        check_range(self, 0, 0.5, "hue")
        names = ("flip_share", "brightness", "contrast", "saturation", "gain_min", "mask_share")
        check_range(self, 0, 1, *names)


@dataclass(frozen=True, kw_only=True)
class Spectrogram:
    """log10 of the mel magnitude, as the released checkpoints were trained on."""

    window_samples: int = 512  # Hann; 32 ms at 16 kHz
    fft_samples: int = 512  # more than the window gives the lowest mel bands bins of their own
    hop_samples: int = 256  # 16 ms at 16 kHz
    mels: int = 128
    floor: float = 1e-5
    peak: float = 1.0  # that waveforms are scaled to; the released checkpoints heard 0.95

    def __post_init__(self) -> None:
        check_range(self, 1, self.window_samples, "hop_samples")
        check_range(self, self.window_samples, 2**16, "fft_samples")
        check_range(self, 1, 1024, "mels")
        check_range(self, 1e-12, 1, "floor")
        check_range(self, 1e-3, 1, "peak")

    def frames(self, samples: int) -> int:
        """Columns of the spectrogram of `samples` samples: 62 a second at 16 kHz."""
        return samples // self.hop_samples


@dataclass(frozen=True, kw_only=True)
class XID:
    """Cross-modal instance discrimination (thesis 3.1)."""

    xid_loss: Literal["rince", "info_nce"] = "rince"  # info_nce is the loss of AVID
    embedding_dim: int = 128
    negatives: int = 1024
    temperature: float = 0.07
    bank_momentum: float = 0.5
    q_first: float = 0.001
    q_last: float = 0.4
    lam: float = 0.01

    def __post_init__(self) -> None:
        check_range(self, 1, 10**6, "negatives", "embedding_dim")
        check_range(self, 1e-4, 10, "temperature")
        check_range(self, 0, 1, "bank_momentum")
        check_range(self, 1e-6, 1, "q_first", "q_last", "lam")

    def q_at(self, progress: float) -> float:
        """Linear from q_first at progress 0 to q_last at progress 1."""
        return self.q_first + (self.q_last - self.q_first) * progress


@dataclass(frozen=True, kw_only=True)
class VICReg:
    """Variance-invariance-covariance regularisation (thesis 3.2), and its two suggested mendings.

    Clips of `vicreg_v` start so many seconds apart. `huber_delta` above 0 makes the invariance
    grow linearly for differences above it; `audio_rest_share` of all steps leave the audio path
    of `vicreg_av` as it is (thesis 4.2.3). Both are off in the thesis's runs.
    """

    expander_dim: int = 4096
    invariance_weight: float = 25.0
    variance_weight: float = 25.0
    covariance_weight: float = 1.0
    apart_seconds_min: float = 2.0
    apart_seconds_max: float = 8.0
    huber_delta: float = 0.0
    audio_rest_share: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, 1, 10**6, "expander_dim")
        check_range(self, 0, 1e6, "invariance_weight", "variance_weight", "covariance_weight")
        check_range(self, 0, 3600, "apart_seconds_min")
        check_range(self, self.apart_seconds_min, 3600, "apart_seconds_max")
        check_range(self, 0, 1e6, "huber_delta")
        check_range(self, 0, 1, "audio_rest_share")


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Which training videos are used (thesis 4.1.1); the draw is the same for every method.

    Balanced over classes as far as the smallest class allows, then at random. Validation videos
    are others of the same split; only `supervised` looks at them. Fewer are taken where there
    are not so many.
    """

    subset_videos: int = 50_000
    validation_videos: int = 10_000
    subset_seed: int = 0
    patience_epochs: int = 2  # `supervised` ends when validation accuracy has not risen so long

    def __post_init__(self) -> None:
        check_range(self, 2, 10**9, "subset_videos")
        check_range(self, 0, 10**9, "validation_videos")
        check_range(self, 1, 10**6, "patience_epochs")


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How the same thing is computed: what fits the machine, and what it costs in precision."""

    precision: Literal["fp32", "bf16"] = "fp32"  # of the networks; losses are always in fp32
    compile_encoders: bool = False
    sync_batch_norm: Literal["vicreg", "all", "none"] = "vicreg"  # one set of statistics a batch
    micro_batch: int = 0  # clips a process takes at once, adding gradients; 0: all its share
    save_every_steps: int = 500  # and at the end of each epoch

    def __post_init__(self) -> None:
        check_range(self, 0, 10**6, "micro_batch")
        check_range(self, 1, 10**9, "save_every_steps")


@dataclass(frozen=True, kw_only=True)
class Optim:
    """Adam with L2 in the gradient and a rate that falls in steps (thesis 4.1.3)."""

    epochs: int = 100
    lr: float = 5e-4
    lr_decay: float = 0.9
    lr_decay_every_epochs: int = 10
    weight_decay: float = 1e-5
    batch: int = 128  # clips a step over all processes
    shards: int = 8  # parts of a batch, dealt alike on any number of processes that divides it

    def __post_init__(self) -> None:
        check_range(self, 1, 10**6, "epochs", "batch", "shards", "lr_decay_every_epochs")
        check_range(self, 0, 10, "lr", "weight_decay")
        check_shards(self)

    def lr_at(self, epoch: int) -> float:
        """Rate of the given epoch, counted from 0."""
        return self.lr * self.lr_decay ** (epoch // self.lr_decay_every_epochs)

    def progress_at(self, epoch: int) -> float:
        """From 0 in the first epoch to 1 in the last; 0 when there is only one."""
        return epoch / max(1, self.epochs - 1)


# Values that fit a run to a machine: as with the number of processes, a run that has begun goes on
# with others. `micro_batch` and the processes divide a batch alike: 2 x 4 x 16 clips as 8 x 16.
FREE = frozenset({"micro_batch", "save_every_steps", "window_steps"})


class Flat:
    """Values that can be set by their own name, whichever group they stand in."""

    @classmethod
    def names(cls) -> dict[str, str]:
        """Each settable name and the group it belongs to ('' for the run's own)."""
        found: dict[str, str] = {}
        for f in dataclasses.fields(cls):  # type: ignore[arg-type]
            inner = dataclasses.fields(f.type) if dataclasses.is_dataclass(f.type) else ()
            for name, group in [(g.name, f.name) for g in inner] or [(f.name, "")]:
                if name in found:
                    raise TypeError(f"{cls.__name__} has two values named {name!r}")
                found[name] = group
        return found

    @classmethod
    def from_flat(cls, **values: Any) -> Self:
        """Build from flat names: `Pretrain.from_flat(method="xid", lr=1e-3)`.

        Raises:
            TypeError: for a name that does not exist (with the nearest one) or a wrong type.
            ValueError: for a value out of its range.
        """
        groups = cls.names()
        own: dict[str, Any] = {}
        nested: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            if name not in groups:
                raise TypeError(unknown_name(f"{cls.__name__} parameter", name, groups))
            target = nested.setdefault(groups[name], {}) if groups[name] else own
            target[name] = value
        types = typing.get_type_hints(cls)
        # A group's values may differ here from those that it has by itself.
        usual: dict[str, Any] = {f.name: f.default_factory for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        for group, inner in nested.items():
            own[group] = dataclasses.replace(usual[group](), **checked(types[group], inner))
        return cls(**checked(cls, own))

    def flat(self) -> dict[str, Any]:
        """All values under their flat names."""
        nested = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {n: nested[g][n] if g else nested[n] for n, g in self.names().items()}


def checked(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, an int made a float where a float is meant; TypeError for any other mismatch."""
    types, good = typing.get_type_hints(kind), {}
    for name, value in values.items():
        want = types[name]
        if want is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if typing.get_origin(want) is Literal:
            if value not in typing.get_args(want):
                raise ValueError(unknown_name(name, str(value), map(str, typing.get_args(want))))
        elif not dataclasses.is_dataclass(want) and type(value) is not want:
            found = f"{value!r} ({type(value).__name__})"
            raise TypeError(f"{kind.__name__}.{name} must be {want.__name__}, got {found}")
        good[name] = value
    return good


@dataclass(frozen=True, kw_only=True)
class Pretrain(Flat):
    """A pre-training run. Its id is a hash of these values, but FREE, and of the data's digest."""

    method: Method = "xid"
    seed: int = 0
    width: int = 64  # channels of the first stage; features have 8 * width
    clips_per_video: int = 5  # an epoch
    missing_sound: Missing = "silence"  # videos without an audio stream: zeros, left out, an error
    window_steps: int = 64  # clips due within so many steps come out of one pass over a file
    clip: Clip = field(default_factory=Clip)
    augment: Augment = field(default_factory=Augment)
    spectrogram: Spectrogram = field(default_factory=Spectrogram)
    optim: Optim = field(default_factory=Optim)
    xid: XID = field(default_factory=XID)
    vicreg: VICReg = field(default_factory=VICReg)
    subset: Subset = field(default_factory=Subset)
    compute: Compute = field(default_factory=Compute)

    @property
    def hears(self) -> bool:
        """Whether the method listens to the sound."""
        return self.method != "vicreg_v"

    @property
    def synchronised(self) -> bool:
        """Whether batch statistics are taken over all processes."""
        value = self.compute.sync_batch_norm
        return value == "all" or (value == "vicreg" and self.method.startswith("vicreg"))

    def __post_init__(self) -> None:
        check_range(self, 1, 4096, "width", "clips_per_video")
        check_range(self, 0, 10**6, "window_steps")


@dataclass(frozen=True, kw_only=True)
class Evaluation(Flat):
    """Linear probe and retrieval on frozen features (thesis 4.2.1 and A.1)."""

    seed: int = 0
    picture_seconds: float = 0.5
    picture_fps: float = 16.0
    resize_px: int = 256  # the whole frame is resized to a square of this side, then cropped
    protocol: Literal["cached", "released"] = "cached"  # released: clips are encoded every epoch
    flip_share: float = 0.0  # of the probe's training clips are mirrored; released code: 0.5
    retrieval_sound_seconds: float = 1.0
    train_draws: int = 50  # random clips cached of each training video, one an epoch at most
    clip_level_clips: int = 25  # random clips of each test video
    video_level_clips: int = 10  # uniformly spaced clips of each video
    probe_epochs: int = 50
    probe_lr: float = 1e-4
    probe_batch: int = 32
    resamples: int = 2000  # of the bootstrap
    clips_at_once: int = 64  # in one forward pass of an encoder; fewer need less memory

    def __post_init__(self) -> None:
        counts = ("train_draws", "clip_level_clips", "video_level_clips", "probe_epochs",
                  "probe_batch", "resamples", "clips_at_once")  # fmt: skip
        check_range(self, 1, 10**6, "resize_px", *counts)
        check_range(self, 0, 10, "probe_lr")
        check_range(self, 0, 1, "flip_share")

    def resized_px(self, clip: Clip) -> int:
        """Side of the resized frame; the clip's own where it would be smaller than the crop.

        So a checkpoint may have seen larger frames than those of the profile.
        """
        return self.resize_px if self.resize_px >= clip.frame_px else clip.resized_px

    def probe_lr_at(self, epoch: int) -> float:
        """x 0.3 after 20, 30 and 40 of 50 epochs; the same shares of any other number."""
        passed = sum(epoch >= share * self.probe_epochs for share in (0.4, 0.6, 0.8))
        return self.probe_lr * 0.3**passed


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Adam without decay: first the head alone, then every weight at a rate that falls (4.2.2)."""

    warmup_epochs: int = 5
    tuned_epochs: int = 16  # after them
    lr: float = 1e-4
    lr_factor: float = 0.3
    first_fall: float = 0.375  # shares of the tuned epochs: after 6, 10 and 14 of 16
    second_fall: float = 0.625
    third_fall: float = 0.875
    batch: int = 32  # clips a step over all processes
    shards: int = 8  # parts of a batch, dealt alike on any number of processes that divides it

    def __post_init__(self) -> None:
        check_range(self, 0, 10**6, "warmup_epochs")
        check_range(self, 1, 10**6, "tuned_epochs", "batch", "shards")
        check_range(self, 0, 10, "lr", "lr_factor")
        check_range(self, 0, 1, "first_fall", "second_fall", "third_fall")
        check_shards(self)

    @property
    def epochs(self) -> int:
        """Of both parts."""
        return self.warmup_epochs + self.tuned_epochs

    @property
    def weight_decay(self) -> float:
        """None."""
        return 0.0

    def lr_at(self, epoch: int) -> float:
        """Rate of the given epoch, counted from 0 and from the warm-up on."""
        tuned = epoch - self.warmup_epochs
        falls = (self.first_fall, self.second_fall, self.third_fall)
        return self.lr * self.lr_factor ** sum(tuned >= at * self.tuned_epochs for at in falls)

    def progress_at(self, epoch: int) -> float:
        """0 in the warm-up; above it afterwards, up to 1 in the last epoch."""
        return max(0, epoch + 1 - self.warmup_epochs) / self.tuned_epochs


@dataclass(frozen=True, kw_only=True)
class Finetune(Flat):
    """Fine-tuning of a video encoder on labels (thesis 4.2.2); the defaults are UCF-101's.

    What is tested, and how, are values of `Evaluation`: as the probe is. Of the clip and of the
    augmentation, the sound's part is not used.
    """

    seed: int = 0
    clips_per_video: int = 10  # an epoch
    dropout: float = 0.5  # of the features
    window_steps: int = 64  # clips due within so many steps come out of one pass over a file
    clip: Clip = field(default_factory=lambda: Clip(picture_seconds=0.5))
    augment: Augment = field(default_factory=Augment)
    optim: Tuning = field(default_factory=Tuning)
    compute: Compute = field(default_factory=lambda: Compute(sync_batch_norm="all"))

    @property
    def synchronised(self) -> bool:
        """Whether batch statistics are taken over all processes."""
        return self.compute.sync_batch_norm == "all"

    def __post_init__(self) -> None:
        check_range(self, 1, 4096, "clips_per_video")
        check_range(self, 0, 0.99, "dropout")
        check_range(self, 0, 10**6, "window_steps")


def finetuning(dataset: str, method: str) -> dict[str, Any]:
    """How the thesis fine-tunes on a data set: its differences to `Finetune`'s defaults.

    `random` learns from nothing, and takes more epochs.

    Raises:
        ValueError: for a data set or a method that the thesis does not fine-tune.
    """
    known: dict[str, dict[str, Any]] = {
        "ucf101": {},
        "hmdb51": {
            "clips_per_video": 25, "tuned_epochs": 10, "brightness": 1.0, "contrast": 1.0,
            "saturation": 1.0, "first_fall": 0.3, "second_fall": 0.6, "third_fall": 0.8,
        },
    }  # fmt: skip
    if dataset not in known:
        raise ValueError(unknown_name("data set to fine-tune on", dataset, known))
    if method not in typing.get_args(Method):
        raise ValueError(unknown_name("method", method, typing.get_args(Method)))
    longer = {"tuned_epochs": 100, "first_fall": 0.3, "second_fall": 0.6, "third_fall": 0.8}
    return known[dataset] | (longer if method == "random" else {})


@dataclass(frozen=True, kw_only=True)
class World(Flat):
    """The synthetic world: how many videos a class, and how wild they are."""

    seed: int = 0
    vggsound_per_class: int = 52
    ucf101_train_per_class: int = 16
    ucf101_test_per_class: int = 12
    hmdb51_train_per_class: int = 10
    hmdb51_test_per_class: int = 6
    silent_share: float = 0.04  # of the VGGSound-like videos: no audio stream
    dubbed_share: float = 0.08  # of them: the sound is another's, or music
    broken_share: float = 0.01  # of them: files that cannot be decoded

    def __post_init__(self) -> None:
        check_range(self, 0, 1, "silent_share", "dubbed_share", "broken_share")
        counts = [name for name in self.names() if name.endswith("_class")]
        check_range(self, 2, 10_000, *counts)


# Differences to the defaults, for all methods and by method. `demo` fits two CPU cores and a few
# minutes; `smoke` only shows that every part works, and its numbers mean nothing.
_SMALL: dict[str, Any] = {
    "picture_fps": 8.0, "frame_px": 48, "mels": 64, "crop_area_min": 0.5,
    "brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05,
    # With lam (negatives + 1) above 1, RINCE is positive while nothing is learnt yet, and the
    # quickest way down is to push everything apart. Short runs do not find back from there.
    "negatives": 96, "q_last": 0.1,
    "batch": 32, "shards": 2, "lr": 2.5e-3, "window_steps": 1000, "expander_dim": 256,
    # Videos of four seconds leave less room between two clips.
    "apart_seconds_min": 1.0, "apart_seconds_max": 3.0,
}  # fmt: skip
_SHORT: dict[str, Any] = {  # of fine-tuning
    "picture_fps": 8.0, "crop_area_min": 0.5, "brightness": 0.2, "contrast": 0.2,
    "saturation": 0.2, "hue": 0.05, "shards": 2, "window_steps": 1000, "warmup_epochs": 1,
}  # fmt: skip
PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    "thesis": {
        "pretrain": {}, "supervised": {"epochs": 50}, "evaluation": {}, "finetune": {}, "world": {},
    },
    "demo": {
        "pretrain": {
            **_SMALL, "width": 16, "epochs": 7, "lr_decay": 0.8, "lr_decay_every_epochs": 2,
            "subset_videos": 500, "validation_videos": 40,
        },
        "vicreg_av": {"epochs": 3},
        "vicreg_v": {"epochs": 2},
        "supervised": {"epochs": 3},
        "evaluation": {
            "picture_fps": 8.0, "resize_px": 56, "train_draws": 8, "clip_level_clips": 5,
            "probe_lr": 2e-2,
        },
        "finetune": {
            **_SHORT, "frame_px": 48, "clips_per_video": 2, "tuned_epochs": 2, "batch": 16,
            "lr": 2e-3,
        },
        "world": {},
    },
    "smoke": {
        "pretrain": {
            **_SMALL, "width": 8, "frame_px": 32, "epochs": 2, "batch": 16, "clips_per_video": 2,
            "negatives": 16, "expander_dim": 32, "subset_videos": 32, "validation_videos": 8,
        },
        "evaluation": {
            "picture_fps": 8.0, "resize_px": 36, "train_draws": 2, "clip_level_clips": 2,
            "video_level_clips": 3, "probe_lr": 2e-2, "probe_epochs": 10,
        },
        "finetune": {
            **_SHORT, "frame_px": 32, "clips_per_video": 1, "tuned_epochs": 1, "batch": 8,
            "lr": 2e-3,
        },
        "world": {
            "vggsound_per_class": 4, "ucf101_train_per_class": 3, "ucf101_test_per_class": 2,
            "hmdb51_train_per_class": 2, "hmdb51_test_per_class": 2,
            "silent_share": 0.1, "dubbed_share": 0.1, "broken_share": 0.05,
        },
    },
}  # fmt: skip


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


def binding(about: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a run without the values of FREE, in whichever group they stand."""
    return {
        name: binding(value) if isinstance(value, Mapping) else value
        for name, value in about.items()
        if name not in FREE
    }


def digest(values: Any) -> str:
    """Eight hexadecimal figures that stand for any JSON-like value."""
    text = json.dumps(values, sort_keys=True, default=dataclasses.asdict)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
