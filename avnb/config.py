"""Values of pre-training, with units; their defaults are the thesis's."""

from dataclasses import dataclass, field
from typing import Any, Literal

from avnb.values import Config, Group, within


@dataclass(frozen=True, kw_only=True)
class Clip(Group):
    """One sample: video frames and audio cut from the same video (thesis 4.1.3)."""

    video_seconds: float = within(1e-3, 3600, 1.0)
    video_fps: float = within(1, 4096, 16.0)
    frame_px: int = within(1, 4096, 224)  # height and width of the encoder's input
    audio_seconds: float = within(1e-3, 3600, 2.0)
    audio_hz: int = within(1000, 192_000, 16_000)
    max_offset_seconds: float = within(0, 60, 0.5)  # between the starts of video and audio
    audio_window: Literal["around", "released"] = "around"  # see `clip_times.audio_start_range`

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
    masks: Literal["one", "released"] = "one"  # an axis; released: several short ones


@dataclass(frozen=True, kw_only=True)
class Spectrogram(Group):
    """log10 of the mel magnitude, as the released checkpoints were trained on."""

    window_samples: int = 512  # Hann; 32 ms at 16 kHz
    fft_samples: int = 512  # more than the window gives the lowest mel bands bins of their own
    hop_samples: int = 256  # 16 ms at 16 kHz
    mels: int = within(1, 1024, 128)
    floor: float = within(1e-12, 1, 1e-5)
    peak: float = within(1e-3, 1, 1.0)  # of the waveform; 0.95 for the released checkpoints
    framing: Literal["centred", "released"] = "centred"  # of the windows, see `AudioTransform`

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.hop_samples <= self.window_samples <= self.fft_samples <= 2**16:
            raise ValueError(
                "Spectrogram needs 1 <= hop_samples <= window_samples <= fft_samples <= 65536, got "
                f"{self.hop_samples}, {self.window_samples}, {self.fft_samples}"
            )

    def frames(self, samples: int) -> int:
        """Spectrogram frames of so many audio samples: 62 a second at 16 kHz."""
        return samples // self.hop_samples


@dataclass(frozen=True, kw_only=True)
class XID(Group):
    """Cross-modal instance discrimination (thesis 3.1)."""

    xid_loss: Literal["rince", "info_nce"] = "rince"  # info_nce is the loss of AVID
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
    """Variance-invariance-covariance regularisation (thesis 3.2), with its two suggested remedies.

    The two clips of `vicreg_v` start between `second_view_min_seconds` and `..._max_seconds`
    apart. They pass the encoder together or, as in the released code, one after the other
    (`views_per_forward`): BatchNorm's statistics are those of both, or of each.

    With `huber_delta` above 0 the invariance grows linearly for larger differences; with
    probability `audio_rest_prob` a step leaves the audio path of `vicreg_av` unchanged (thesis
    4.2.3). Both are off in the thesis's runs.
    """

    expander_dim: int = within(1, 10**6, 4096)
    invariance_weight: float = within(0, 1e6, 25.0)
    variance_weight: float = within(0, 1e6, 25.0)
    covariance_weight: float = within(0, 1e6, 1.0)
    second_view_min_seconds: float = within(0, 3600, 2.0)
    second_view_max_seconds: float = within(0, 3600, 8.0)
    huber_delta: float = within(0, 1e6, 0.0)
    audio_rest_prob: float = within(0, 1, 0.0)
    views_per_forward: int = within(1, 2, 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        least, most = self.second_view_min_seconds, self.second_view_max_seconds
        if least > most:
            raise ValueError(
                f"VICReg.second_view_min_seconds is {least}, above second_view_max_seconds ({most})"
            )


@dataclass(frozen=True, kw_only=True)
class Subset(Group):
    """Which training videos are used (thesis 4.1.1); the draw is the same for every method.

    Balanced over classes as far as the smallest class allows, then at random. Validation videos
    are others of the same split, for methods that are validated. Where there are fewer videos,
    fewer are taken.
    """

    subset_videos: int = within(2, 10**9, 50_000)
    validation_videos: int = within(0, 10**9, 10_000)
    subset_seed: int = 0
    patience_epochs: int = within(1, 10**6, 2)  # without better validation accuracy, then stop
    subset_ids: str = ""  # file of ids, one a line, instead of a draw
    validation_ids: str = ""  # the same for validation
    max_damaged: float = within(0, 1, 0.05)  # share of a video's packets that cannot be decoded


@dataclass(frozen=True, kw_only=True)
class Compute(Group):
    """How the same thing is computed: what fits the machine, at which precision."""

    precision: Literal["fp32", "bf16"] = "fp32"  # of the networks; losses are always in fp32
    compile_encoders: bool = False
    sync_batch_norm: Literal["method", "all", "none"] = "method"  # method: as the method asks
    micro_batch: int = within(0, 10**6, 0)  # clips a process takes at once; 0: its whole share
    read_ahead_gb: float = within(0, 10**4, 2.0)  # memory for decoded batches, of each process
    save_every_steps: int = within(1, 10**9, 500)  # and at the end of each epoch
    tensorboard: bool = False  # event files in the folder of the run, a step per epoch


def check_shards(optim: Any) -> None:
    """Raise ValueError unless `shards` divides `batch`."""
    if optim.batch % optim.shards:
        kind, values = type(optim).__name__, f"{optim.batch} and {optim.shards}"
        raise ValueError(f"{kind}.batch must be a multiple of shards, got {values}")


@dataclass(frozen=True, kw_only=True)
class Optim(Group):
    """Adam with L2 in the gradient and step decay of the learning rate (thesis 4.1.3)."""

    epochs: int = within(1, 10**6, 100)
    lr: float = within(0, 10, 5e-4)
    lr_decay: float = 0.9
    lr_decay_every_epochs: int = within(1, 10**6, 10)
    weight_decay: float = within(0, 10, 1e-5)
    batch: int = within(1, 10**6, 128)  # clips per step over all processes
    shards: int = within(1, 10**6, 8)  # parts of a batch; the number of processes divides it

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shards(self)

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
    clips_per_video: int = within(1, 4096, 5)  # per epoch
    shuffle_steps: int = within(0, 10**6, 0)  # within which a video's clips come; 0: the epoch
    missing_audio: Literal["silence", "drop", "error"] = "silence"  # of videos without a stream
    clip: Clip = field(default_factory=Clip)
    augment: Augment = field(default_factory=Augment)
    spectrogram: Spectrogram = field(default_factory=Spectrogram)
    optim: Optim = field(default_factory=Optim)
    xid: XID = field(default_factory=XID)
    vicreg: VICReg = field(default_factory=VICReg)
    subset: Subset = field(default_factory=Subset)
    compute: Compute = field(default_factory=Compute)
