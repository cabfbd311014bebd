"""Values of evaluation, fine-tuning and of the synthetic world; the defaults are the thesis's.

Where the thesis and its released code evaluate differently, one value says how, and `protocol`
sets them all.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from avnb.config import Augment, Clip, Compute, check_shards
from avnb.values import Config, Group, within

# What each protocol changes; `author` is how the released code made Tables 4.3 and A.1.
PROTOCOLS: dict[str, dict[str, Any]] = {
    "thesis": {},
    "author": dict(
        probe_clips="fresh",
        probe_batch_norm="train",
        flip_prob=0.5,
        interpolation="nearest",
        whole_video_sound=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Evaluation(Config):
    """Linear probe and retrieval on frozen features (thesis 4.2.1 and A.1).

    Raises:
        ValueError: when batch statistics are to be updated by clips that are encoded only once, or
            places would lie unevenly.
    """

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
    mel_statistics: str = ""  # file band,mean,std for released checkpoints; empty: the published
    train_clips: int = within(1, 10**6, 50)  # random clips cached per training video
    clip_level_clips: int = within(1, 10**6, 25)  # random clips per test video
    video_level_clips: int = within(1, 10**6, 10)  # uniformly spaced clips per video
    probe_epochs: int = within(1, 10**6, 50)
    probe_lr: float = within(0, 10, 1e-4)
    probe_batch: int = within(1, 10**6, 32)
    bootstrap_resamples: int = within(1, 10**6, 2000)
    few_shot_percents: str = "5,10,20,50,100"  # of the training videos of each class
    clips_per_forward: int = within(1, 10**6, 64)  # fewer need less memory
    draw_rounding: Literal["down", "nearest"] = "down"  # of the videos of a few-shot draw
    class_split: Literal["auto", "published", "thesis", "synthetic"] = "auto"  # see class_splits
    pretraining_classes: str = ""  # file of class names, or vggsound; empty: the encoders say
    unseen_classes: str = ""  # file of test classes, instead of a rule
    outliers: str = ""  # file of test classes that never match; empty: the thesis's
    text_encoders: str = "all-MiniLM-L6-v2,whaleloops/phrase-bert"  # which match class names
    name_threshold: float = within(0, 1, 0.0)  # cosine above which names match; 0: the rule's
    name_top: int = within(0, 10**6, 0)  # targets that each encoder may name; 0: the rule's

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.localisation_px % 32 != 1:
            near = round((self.localisation_px - 1) / 32) * 32 + 1
            raise ValueError(
                "localisation_px must be a multiple of 32 and one more, so that the places of the "
                f"last feature map lie evenly; got {self.localisation_px}, try {near}"
            )
        if self.probe_batch_norm == "train" and self.probe_clips == "cached":
            raise ValueError(
                "probe_batch_norm = 'train' moves the encoder's statistics while the probe learns, "
                "so its clips must be encoded in every epoch: set probe_clips to 'fresh'"
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
        changed = [
            f"{name} {value}"
            for name in PROTOCOLS["author"]
            if (value := getattr(self, name)) != getattr(usual, name)
        ]
        return ", ".join([self.protocol, *changed])

    def resized_px(self, clip: Clip) -> int:
        """Side of the resized frame; the clip's own where it would be smaller than the crop.

        A checkpoint may have been trained on larger frames than those of the profile.
        """
        return self.resize_px if self.resize_px >= clip.frame_px else clip.resized_px

    def probe_lr_at(self, epoch: int) -> float:
        """Times 0.3 after 20, 30 and 40 of 50 epochs; at the same fractions of any other number."""
        passed = sum(epoch >= fraction * self.probe_epochs for fraction in (0.4, 0.6, 0.8))
        return self.probe_lr * 0.3**passed


@dataclass(frozen=True, kw_only=True)
class Tuning(Group):
    """Adam without weight decay: first the head alone, then all weights, with decay (4.2.2)."""

    warmup_epochs: int = within(0, 10**6, 5)
    tuned_epochs: int = within(1, 10**6, 16)  # after the warm-up
    lr: float = within(0, 10, 1e-4)
    lr_decay_factor: float = within(0, 10, 0.3)
    first_decay: float = within(0, 1, 0.375)  # as fractions of the tuned epochs: 6, 10, 14 of 16
    second_decay: float = within(0, 1, 0.625)
    third_decay: float = within(0, 1, 0.875)
    batch: int = within(1, 10**6, 32)  # clips per step over all processes
    shards: int = within(1, 10**6, 8)  # parts of a batch; the number of processes divides it

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shards(self)

    @property
    def epochs(self) -> int:
        """Epochs of warm-up and tuning together."""
        return self.warmup_epochs + self.tuned_epochs

    @property
    def weight_decay(self) -> float:
        """Weight decay; fine-tuning uses none."""
        return 0.0

    def lr_at(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0, the warm-up included."""
        tuned = (epoch - self.warmup_epochs) / self.tuned_epochs
        decays = (self.first_decay, self.second_decay, self.third_decay)
        return self.lr * self.lr_decay_factor ** sum(tuned >= at for at in decays)

    def progress_at(self, epoch: int) -> float:
        """0 during the warm-up; then above it, up to 1 in the last epoch."""
        return max(0, epoch + 1 - self.warmup_epochs) / self.tuned_epochs


@dataclass(frozen=True, kw_only=True)
class Finetune(Config):
    """Fine-tuning of a video encoder on labels (thesis 4.2.2); the defaults are UCF-101's.

    Testing follows the values of `Evaluation`, as for the probe. The audio values of clip and
    augmentation are not used.
    """

    seed: int = 0
    clips_per_video: int = within(1, 4096, 10)  # per epoch
    shuffle_steps: int = within(0, 10**6, 0)  # within which a video's clips come; 0: the epoch
    dropout: float = within(0, 0.99, 0.5)  # of the features
    clip: Clip = field(default_factory=lambda: Clip(video_seconds=0.5))
    augment: Augment = field(default_factory=Augment)
    optim: Tuning = field(default_factory=Tuning)
    compute: Compute = field(default_factory=lambda: Compute(sync_batch_norm="all"))


@dataclass(frozen=True, kw_only=True)
class Nuisances(Group):
    """What varies in a synthetic video without saying anything of its class, each by its strength.

    An untrained encoder notices little else. Levels are relative to the object's own sound, and
    drawn for every video between the two that are given; those of `test` are for the videos with
    which encoders are evaluated.
    """

    colour_drift: float = within(0, 1, 1.0)  # how far all colours turn into others in a video
    light_drift: float = within(0, 0.9, 0.25)  # how much brighter and darker a video gets
    texture: float = within(0, 100, 0.0)  # of the background, at most, in grey levels
    camera_shake: float = within(0, 5, 0.5)  # pixels a frame
    pitch_octaves: float = within(0, 3, 0.4)  # up or down
    room: float = within(0, 2, 0.3)  # level of the reverberation, at most
    other_sounds: float = within(0, 1, 0.15)  # probability of another object's sounds
    noise_db_min: float = within(-100, 60, -28.0)
    noise_db_max: float = within(-100, 60, 6.0)
    test_noise_db_min: float = within(-100, 60, -1.0)
    test_noise_db_max: float = within(-100, 60, 11.0)
    loudness_db: float = within(0, 60, 16.0)  # between the softest and the loudest video

    def __post_init__(self) -> None:
        super().__post_init__()
        for which in ("noise_db", "test_noise_db"):
            low, high = getattr(self, f"{which}_min"), getattr(self, f"{which}_max")
            if low > high:
                raise ValueError(f"Nuisances.{which}_min is {low}, above {which}_max ({high})")

    @property
    def of_test_videos(self) -> "Nuisances":
        """The same with the noise of the videos that encoders are evaluated with."""
        low, high = self.test_noise_db_min, self.test_noise_db_max
        return replace(self, noise_db_min=low, noise_db_max=high)


@dataclass(frozen=True, kw_only=True)
class World(Config):
    """The synthetic world: videos per class, and how noisy they are."""

    seed: int = 0
    vggsound_per_class: int = within(2, 10_000, 52)
    ucf101_train_per_class: int = within(2, 10_000, 16)
    ucf101_test_per_class: int = within(2, 10_000, 20)
    hmdb51_train_per_class: int = within(2, 10_000, 10)
    hmdb51_test_per_class: int = within(2, 10_000, 6)
    silent_fraction: float = within(0, 1, 0.04)  # of the VGGSound-like videos: no audio stream
    dubbed_fraction: float = within(0, 1, 0.08)  # audio of another object, or music
    off_screen_fraction: float = within(0, 1, 0.02)  # the object is heard and not seen
    broken_fraction: float = within(0, 1, 0.01)  # files that cannot be decoded
    nuisances: Nuisances = field(default_factory=Nuisances)

    def __post_init__(self) -> None:
        super().__post_init__()
        flaws = ("silent", "dubbed", "off_screen", "broken")
        total = sum(getattr(self, f"{flaw}_fraction") for flaw in flaws)
        if total > 1:
            names = ", ".join(f"{flaw}_fraction" for flaw in flaws)
            raise ValueError(f"a video has one flaw at most: {names} sum up to {total:.3g}")
