"""Configuration: frozen dataclasses of values with units and ranges; the defaults are the thesis.

A run's id is a hash of its values. Where the thesis and its released code evaluate differently,
one value says how, and `protocol` sets them all.
"""

import contextlib
import dataclasses
import difflib
import hashlib
import json
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

# Values that fit a run to a machine: a run that has started continues with others.
NON_IDENTITY_FIELDS = frozenset({"micro_batch", "save_every_steps", "keep_every_epochs"})


def within(low: float, high: float, default: Any) -> Any:
    """A field with a default, whose value must lie in [low, high]."""
    return dataclasses.field(default=default, metadata={"range": (low, high)})


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> str:
    """The message for a misspelt name: what was found, the nearest allowed one, all of them."""
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{kind} {name!r} is unknown{hint}\n  known: {', '.join(names)}"


def parse_values(text: str) -> dict[str, Any]:
    """`'{"precision": "bf16"}'` -> {"precision": "bf16"}; ValueError when it is not such JSON.

    Also for what notebooks have parameters of their own for.
    """
    with contextlib.suppress(json.JSONDecodeError):
        if isinstance(values := json.loads(text), dict):
            if twice := {"seed", "method", "methods"} & values.keys():
                raise ValueError(f"{text!r}: set {sorted(twice)[0]!r} by its own parameter")
            return values
    example = """'{"precision": "bf16", "lr": 0.001}'"""
    raise ValueError(f"{text!r} is no JSON object; write names and values like this: {example}")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Values of one subject, each checked against the type and range that its field declares.

    TypeError for another type (an int becomes a float where one is due), ValueError for a value out
    of its range.
    """

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value, want, name = getattr(self, f.name), f.type, f"{type(self).__name__}.{f.name}"
            if want is float and type(value) is int:
                object.__setattr__(self, f.name, value := float(value))
            if typing.get_origin(want) is Literal and value not in typing.get_args(want):
                raise ValueError(unknown_name(f.name, str(value), typing.get_args(want)))
            if isinstance(want, type) and type(value) is not want:
                given = f"{value!r} ({type(value).__name__})"
                raise TypeError(f"{name} must be {want.__name__}, got {given}")
            low, high = f.metadata.get("range", (None, None))
            if low is not None and not low <= value <= high:
                raise ValueError(f"{name} must lie in [{low}, {high}], got {value!r}")


class Config(Group):
    """Groups of values, each of which can be set by its own name, whichever group it belongs to."""

    @classmethod
    def names(cls) -> dict[str, str]:
        """Each settable name and the group it belongs to ('' for the configuration itself)."""
        names: dict[str, str] = {}
        for f in dataclasses.fields(cls):
            inner = dataclasses.fields(f.type) if dataclasses.is_dataclass(f.type) else ()
            names |= {g.name: f.name for g in inner} or {f.name: ""}
        return names

    @classmethod
    def from_flat(cls, **values: Any) -> Self:
        """Build from flat names, `Pretrain.from_flat(lr=1e-3)`; TypeError for an unknown one."""
        groups = cls.names()
        nested: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            if name not in groups:
                raise TypeError(unknown_name(f"{cls.__name__} parameter", name, groups))
            nested.setdefault(groups[name], {})[name] = value
        own, usual = nested.pop("", {}), cls()
        own |= {g: dataclasses.replace(getattr(usual, g), **inner) for g, inner in nested.items()}
        return cls(**own)

    def flat(self) -> dict[str, Any]:
        """All values under their flat names."""
        nested = dataclasses.asdict(self)
        return {n: nested[g][n] if g else nested[n] for n, g in self.names().items()}

    def changed(self, **values: Any) -> Self:
        """The same configuration with some values changed, by flat name."""
        return self.from_flat(**{**self.flat(), **values})


def identity(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a run by which it is known, in whichever group they are."""
    kept = {name: v for name, v in metadata.items() if name not in NON_IDENTITY_FIELDS}
    return {name: identity(v) if isinstance(v, Mapping) else v for name, v in kept.items()}


def digest(values: Any) -> str:
    """Eight hexadecimal digits of a hash of any JSON-like value."""
    text = json.dumps(values, sort_keys=True, default=dataclasses.asdict)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True, kw_only=True)
class Clip(Group):
    """One sample: video frames and audio cut from the same video (thesis 4.1.3)."""

    video_seconds: float = within(1e-3, 3600, 1.0)
    video_fps: float = within(1, 4096, 16.0)
    frame_px: int = within(1, 4096, 224)  # height and width of the encoder's input
    audio_seconds: float = within(1e-3, 3600, 2.0)
    audio_hz: int = within(1000, 192_000, 16_000)
    max_offset_seconds: float = within(0, 60, 0.5)  # between the starts of video and audio

    @property
    def frames(self) -> int:
        """Frames of one clip, T."""
        return max(1, round(self.video_seconds * self.video_fps))

    @property
    def resized_px(self) -> int:
        """Side of the whole frame that a test crop is cut from: the thesis's 256 for 224."""
        return round(self.frame_px * 256 / 224)

    @property
    def samples(self) -> int:
        """Audio samples of one clip."""
        return round(self.audio_seconds * self.audio_hz)


@dataclass(frozen=True, kw_only=True)
class Augment(Group):
    """Strength of the augmentation; its parameters are sampled once per clip (thesis 4.1.3)."""

    crop_area_min: float = within(0.01, 1, 0.08)  # fraction of the frame, up to 1
    crop_aspect_max: float = within(1, 10, 4 / 3)  # width / height, down to its inverse
    flip_prob: float = within(0, 1, 0.5)
    brightness: float = within(0, 1, 0.4)
    contrast: float = within(0, 1, 0.4)
    saturation: float = within(0, 1, 0.4)
    hue: float = within(0, 0.5, 0.2)  # in turns of the colour circle, either way
    gain_min: float = within(0, 1, 0.7)  # the waveform's peak is drawn from [gain_min, 1]
    mask_max_fraction: float = within(0, 1, 0.2)  # of time and of frequency


@dataclass(frozen=True, kw_only=True)
class Spectrogram(Group):
    """log10 of the mel magnitude, as the released checkpoints were trained on."""

    window_samples: int = within(1, 2**16, 512)  # Hann; 32 ms at 16 kHz
    fft_samples: int = within(1, 2**16, 512)  # more give the lowest mel bands bins of their own
    hop_samples: int = within(1, 2**16, 256)  # 16 ms at 16 kHz
    mels: int = within(1, 1024, 128)
    floor: float = within(1e-12, 1, 1e-5)
    peak: float = within(1e-3, 1, 1.0)  # of the waveform; 0.95 for the released checkpoints
    framing: Literal["centred", "released"] = "centred"  # of the windows, see `AudioTransform`

    def frames(self, samples: int) -> int:
        """Spectrogram frames of so many audio samples: 62 a second at 16 kHz."""
        return samples // self.hop_samples


@dataclass(frozen=True, kw_only=True)
class XID(Group):
    """Cross-modal instance discrimination (thesis 3.1)."""

    xid_loss: Literal["rince", "info_nce"] = "rince"  # info_nce: equation 3.1
    embedding_dim: int = within(1, 10**6, 128)
    negatives: int = within(1, 10**6, 1024)
    temperature: float = within(1e-4, 10, 0.07)
    bank_momentum: float = within(0, 1, 0.5)
    q_first: float = within(1e-6, 1, 0.001)
    q_last: float = within(1e-6, 1, 0.4)
    lam: float = within(1e-6, 1, 0.01)
    projector_batch_norm: bool = False  # see `Projector`

    def q_at(self, progress: float) -> float:
        """Linear from q_first at progress 0 to q_last at progress 1."""
        return self.q_first + (self.q_last - self.q_first) * progress


@dataclass(frozen=True, kw_only=True)
class VICReg(Group):
    """Variance-invariance-covariance regularisation (thesis 3.2); two remedies (4.2.3) are off."""

    expander_dim: int = within(1, 10**6, 4096)
    invariance_weight: float = within(0, 1e6, 25.0)
    variance_weight: float = within(0, 1e6, 25.0)
    covariance_weight: float = within(0, 1e6, 1.0)
    second_view_min_seconds: float = within(0, 3600, 2.0)  # between two clips of a video
    second_view_max_seconds: float = within(0, 3600, 8.0)
    huber_delta: float = within(0, 1e6, 0.0)  # difference above which invariance grows linearly
    audio_rest_prob: float = within(0, 1, 0.0)  # of steps that leave the audio path as it is

    def __post_init__(self) -> None:
        super().__post_init__()
        least, most = self.second_view_min_seconds, self.second_view_max_seconds
        if least > most:
            raise ValueError(f"second_view_min_seconds ({least}) is above .._max_seconds ({most})")


@dataclass(frozen=True, kw_only=True)
class Peers(Group):
    """What the methods beside the thesis's have of their own."""

    positives: int = within(1, 10**6, 32)  # of each video, in `avid_cma`
    agreement_weight: float = within(0, 1e6, 1.0)  # of discrimination within a modality there
    least_trust: float = within(0, 1, 0.25)  # weight of the worst pairs in `r_xid`
    trust_delta: float = within(-10, 10, -0.5)  # deviations from the mean where half is trusted
    trust_kappa: float = within(1e-6, 100, 0.5)  # variance of the weighting, by that of cosines
    margin: float = within(0, 2, 0.99)  # between embeddings that do not belong together, in `avts`
    hard_share: float = within(0, 1, 0.25)  # of negatives from the same video there
    clusters: int = within(2, 10**6, 64)  # of each modality, in `xdc`


@dataclass(frozen=True, kw_only=True)
class Subset(Group):
    """Which training videos are used (thesis 4.1.1), the same for every method, or fewer.

    Balanced over classes as far as the smallest class allows, then at random.
    """

    subset_videos: int = within(2, 10**9, 50_000)
    validation_videos: int = within(0, 10**9, 10_000)  # others, for methods that need them
    subset_seed: int = 0
    patience_epochs: int = within(1, 10**6, 2)  # without better validation accuracy, then stop


@dataclass(frozen=True, kw_only=True)
class Compute(Group):
    """How the same thing is computed: what fits the machine, at which precision."""

    precision: Literal["fp32", "bf16"] = "fp32"  # of the networks; losses are always in fp32
    compile_encoders: bool = False
    micro_batch: int = within(0, 10**6, 0)  # clips a process takes at once; 0: its whole share
    save_every_steps: int = within(1, 10**9, 500)  # and at the end of each epoch
    keep_every_epochs: int = within(0, 10**6, 0)  # as `epoch-<n>.pt` beside the last; 0: none


@dataclass(frozen=True, kw_only=True)
class Adam(Group):
    """Adam with L2 in the gradient, on batches that processes share."""

    lr: float = within(0, 10, 5e-4)
    weight_decay: float = within(0, 10, 1e-5)
    batch: int = within(1, 10**6, 128)  # clips per step over all processes
    shards: int = within(1, 10**6, 8)  # parts of a batch; the number of processes divides it

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch % self.shards:
            raise ValueError(f"batch = {self.batch} is no multiple of shards = {self.shards}")


@dataclass(frozen=True, kw_only=True)
class Optim(Adam):
    """Adam with step decay of the learning rate (thesis 4.1.3)."""

    epochs: int = within(1, 10**6, 100)
    lr_decay: float = 0.9
    lr_decay_every_epochs: int = within(1, 10**6, 10)

    def lr_at(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        return self.lr * self.lr_decay ** (epoch // self.lr_decay_every_epochs)

    def progress_at(self, epoch: int) -> float:
        """From 0 in the first epoch to 1 in the last; 0 when there is only one."""
        return epoch / max(1, self.epochs - 1)


@dataclass(frozen=True, kw_only=True)
class Pretrain(Config):
    """A pre-training run. Its id is a hash of these values (see `identity`) and of the data."""

    method: str = "xid"  # a name of `METHODS`, or a class: package.module:Class, file.py:Class
    seed: int = 0  # of every random draw
    backbone: str = "r2plus1d_18"  # a name of `VIDEO_BACKBONES`, or package.module:callable
    width: int = within(1, 4096, 64)  # channels of the first stage; features have 8 * width
    residual_scale: float = within(0, 1, 1.0)  # of residual branches at the start
    he_heads: bool = False  # heads start as convolutions do; otherwise by torch's default
    clips_per_video: int = within(1, 4096, 5)  # per epoch
    clip: Clip = field(default_factory=Clip)
    augment: Augment = field(default_factory=Augment)
    spectrogram: Spectrogram = field(default_factory=Spectrogram)
    optim: Optim = field(default_factory=Optim)
    xid: XID = field(default_factory=XID)
    vicreg: VICReg = field(default_factory=VICReg)
    peers: Peers = field(default_factory=Peers)
    subset: Subset = field(default_factory=Subset)
    compute: Compute = field(default_factory=Compute)


# What each protocol changes; `author` is how the released code made Tables 4.3 and A.1.
PROTOCOLS: dict[str, dict[str, Any]] = {
    "thesis": {},
    "author": dict(probe_clips="fresh", probe_batch_norm="train", flip_prob=0.5)
    | dict(interpolation="nearest", whole_video_sound=True),
}


@dataclass(frozen=True, kw_only=True)
class Evaluation(Config):
    """Linear probe and retrieval on frozen features (thesis 4.2.1 and A.1)."""

    protocol: Literal["thesis", "author"] = "thesis"  # of all values that are not given themselves
    seed: int = 0
    video_seconds: float = 0.5
    video_fps: float = 16.0
    resize_px: int = within(1, 10**6, 256)  # frames become squares of this side, then are cropped
    interpolation: Literal["bilinear", "nearest"] = "bilinear"  # bilinear: with antialiasing
    probe_clips: Literal["cached", "fresh"] = "cached"  # fresh: new ones are encoded every epoch
    probe_batch_norm: Literal["eval", "train"] = "eval"  # train: statistics move with the probe
    flip_prob: float = within(0, 1, 0.0)  # of the probe's training clips
    retrieval_audio_seconds: float = 1.0
    whole_video_sound: bool = False  # in retrieval; audio of clips otherwise
    localisation_px: int = within(33, 2049, 225)  # 32 k + 1: k + 1 places on each side of a frame
    train_clips: int = within(1, 10**6, 50)  # random clips cached per training video
    clip_level_clips: int = within(1, 10**6, 25)  # random clips per test video
    video_level_clips: int = within(1, 10**6, 10)  # uniformly spaced clips per video
    video_level_crops: int = within(1, 10, 1)  # of each of them in the probe, side by side
    probe_epochs: int = within(1, 10**6, 50)
    probe_lr: float = within(0, 10, 1e-4)
    probe_batch: int = within(1, 10**6, 32)
    bootstrap_resamples: int = within(1, 10**6, 2000)
    few_shot_percents: str = "5,10,20,50,100"  # of the training videos of each class
    clips_per_forward: int = within(1, 10**6, 64)  # fewer need less memory
    class_split: Literal["auto", "thesis"] = "auto"  # thesis: by names, see unseen_classes
    unseen_classes: str = ""  # file of test classes, instead of a rule
    text_encoder: str = "whaleloops/phrase-bert"  # has to agree with all-MiniLM-L6-v2 on names

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.localisation_px % 32 != 1:
            raise ValueError(f"localisation_px is 32 k + 1, as 225; got {self.localisation_px}")
        if self.probe_batch_norm == "train" and self.probe_clips == "cached":
            raise ValueError(
                "probe_batch_norm = 'train' moves statistics: set probe_clips to 'fresh'"
            )

    @classmethod
    def from_flat(cls, **values: Any) -> Self:
        """As of any configuration; the protocol decides what is not given."""
        preset = PROTOCOLS.get(values.get("protocol", "thesis"), {})
        return super().from_flat(**{**preset, **values})

    @property
    def protocol_title(self) -> str:
        """The protocol, and where single values differ from it, for result rows."""
        usual = type(self).from_flat(protocol=self.protocol)
        values = {name: getattr(self, name) for name in PROTOCOLS["author"]}
        changed = [f"{n} {value}" for n, value in values.items() if value != getattr(usual, n)]
        return ", ".join([self.protocol, *changed])

    def resized_px(self, clip: Clip) -> int:
        """Side of the resized frame; the clip's own for a checkpoint of larger frames."""
        return self.resize_px if self.resize_px >= clip.frame_px else clip.resized_px

    def probe_lr_at(self, epoch: int) -> float:
        """Times 0.3 after 20, 30 and 40 of 50 epochs; at the same fractions of any other number."""
        passed = sum(epoch >= fraction * self.probe_epochs for fraction in (0.4, 0.6, 0.8))
        return self.probe_lr * 0.3**passed


@dataclass(frozen=True, kw_only=True)
class Tuning(Adam):
    """Adam without weight decay: first the head alone, then all weights (thesis 4.2.2)."""

    lr: float = within(0, 10, 1e-4)
    weight_decay: float = within(0, 10, 0.0)
    batch: int = within(1, 10**6, 32)
    warmup_epochs: int = within(0, 10**6, 5)
    tuned_epochs: int = within(1, 10**6, 16)  # after the warm-up
    first_decay: float = within(0, 1, 0.375)  # as fractions of the tuned epochs: 6, 10, 14 of 16
    second_decay: float = within(0, 1, 0.625)
    third_decay: float = within(0, 1, 0.875)

    @property
    def epochs(self) -> int:
        """Epochs of warm-up and tuning together."""
        return self.warmup_epochs + self.tuned_epochs

    def lr_at(self, epoch: int) -> float:
        """Times 0.3 at each decay; epochs are counted from 0, the warm-up included."""
        tuned = (epoch - self.warmup_epochs) / self.tuned_epochs
        decays = (self.first_decay, self.second_decay, self.third_decay)
        return self.lr * 0.3 ** sum(tuned >= at for at in decays)

    def progress_at(self, epoch: int) -> float:
        """0 during the warm-up; then above it, up to 1 in the last epoch."""
        return max(0, epoch + 1 - self.warmup_epochs) / self.tuned_epochs


@dataclass(frozen=True, kw_only=True)
class Finetune(Config):
    """Fine-tuning of a video encoder on labels (thesis 4.2.2); the defaults are UCF-101's."""

    seed: int = 0
    clips_per_video: int = within(1, 4096, 10)  # per epoch
    dropout: float = within(0, 0.99, 0.5)  # of the features
    clip: Clip = field(default_factory=lambda: Clip(video_seconds=0.5))
    augment: Augment = field(default_factory=Augment)
    optim: Tuning = field(default_factory=Tuning)
    compute: Compute = field(default_factory=Compute)
