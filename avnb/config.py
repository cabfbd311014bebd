"""What a run is: frozen values with units, whose defaults are the thesis's.

A profile is a set of differences to those defaults, so that the same code runs at the size of a
test (`smoke`), of a laptop (`demo`) and of the thesis (`thesis`).
"""

import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from avnb.values import Flat, check_range, unknown_name

Method = Literal["xid", "vicreg_av", "vicreg_v", "supervised", "random"]


Missing = Literal["silence", "drop", "error"]


def check_shards(owner: Any) -> None:
    """Raise ValueError unless the shards of `owner` divide its batch."""
    if owner.batch % owner.shards:
        kind, found = type(owner).__name__, f"{owner.batch} and {owner.shards}"
        raise ValueError(f"{kind}.batch must be a multiple of shards, got {found}")


def parse_methods(text: str) -> tuple[Method, ...]:
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


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One sample: a piece of picture and a piece of sound of the same video (thesis 4.1.3)."""

    video_seconds: float = 1.0
    video_fps: float = 16.0
    frame_px: int = 224  # height and width of what the encoder sees
    audio_seconds: float = 2.0
    audio_hz: int = 16_000
    max_offset_seconds: float = 0.5  # how far the sound may start from the picture, either way

    def __post_init__(self) -> None:
        check_range(self, 1e-3, 3600, "video_seconds", "audio_seconds")
        check_range(self, 1, 4096, "video_fps", "frame_px")
        check_range(self, 1000, 192_000, "audio_hz")
        check_range(self, 0, 60, "max_offset_seconds")

    @property
    def frames(self) -> int:
        """Frames of one clip, T."""
        return max(1, round(self.video_seconds * self.video_fps))

    @property
    def resized_px(self) -> int:
        """Side of the whole frame that a crop for testing is cut from: the thesis's 256 for 224."""
        return round(self.frame_px * 256 / 224)

    @property
    def samples(self) -> int:
        """Sound samples of one clip."""
        return round(self.audio_seconds * self.audio_hz)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How far a training clip may be changed; one draw a clip (thesis 4.1.3)."""

    crop_area_min: float = 0.08  # share of the frame, up to 1
    crop_aspect_max: float = 4 / 3  # width / height of the crop, down to its inverse
    flip_prob: float = 0.5
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.2  # in turns of the colour circle, either way
    gain_min: float = 0.7  # the sound's peak is scaled by a draw from [gain_min, 1]
    mask_max_fraction: float = 0.2  # of time and of frequency, at most

    def __post_init__(self) -> None:
        check_range(self, 0.01, 1, "crop_area_min")
        check_range(self, 1, 10, "crop_aspect_max")
        check_range(self, 0, 0.5, "hue")
        names = (
            "flip_prob",
            "brightness",
            "contrast",
            "saturation",
            "gain_min",
            "mask_max_fraction",
        )
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
    grow linearly for differences above it; `audio_rest_prob` of all steps leave the audio path
    of `vicreg_av` as it is (thesis 4.2.3). Both are off in the thesis's runs.
    """

    expander_dim: int = 4096
    invariance_weight: float = 25.0
    variance_weight: float = 25.0
    covariance_weight: float = 1.0
    second_view_min_seconds: float = 2.0
    second_view_max_seconds: float = 8.0
    huber_delta: float = 0.0
    audio_rest_prob: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, 1, 10**6, "expander_dim")
        check_range(self, 0, 1e6, "invariance_weight", "variance_weight", "covariance_weight")
        check_range(self, 0, 3600, "second_view_min_seconds")
        check_range(self, self.second_view_min_seconds, 3600, "second_view_max_seconds")
        check_range(self, 0, 1e6, "huber_delta")
        check_range(self, 0, 1, "audio_rest_prob")


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


@dataclass(frozen=True, kw_only=True)
class Pretrain(Flat):
    """A pre-training run. Its id is a hash of these values, but FREE, and of the data's digest."""

    method: Method = "xid"
    seed: int = 0
    width: int = 64  # channels of the first stage; features have 8 * width
    clips_per_video: int = 5  # an epoch
    missing_audio: Missing = "silence"  # videos without an audio stream: zeros, left out, an error
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
    def uses_audio(self) -> bool:
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
