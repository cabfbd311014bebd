"""How encoders are evaluated and fine-tuned."""

from dataclasses import dataclass, field
from typing import Literal

from avnb.config import Augment, Clip, Compute, check_shards
from avnb.values import Flat, check_range


@dataclass(frozen=True, kw_only=True)
class Evaluation(Flat):
    """Linear probe and retrieval on frozen features (thesis 4.2.1 and A.1)."""

    seed: int = 0
    video_seconds: float = 0.5
    video_fps: float = 16.0
    resize_px: int = 256  # the whole frame is resized to a square of this side, then cropped
    protocol: Literal["cached", "released"] = "cached"  # released: clips are encoded every epoch
    flip_prob: float = 0.0  # of the probe's training clips are mirrored; released code: 0.5
    retrieval_audio_seconds: float = 1.0
    train_clips: int = 50  # random clips cached of each training video, one an epoch at most
    clip_level_clips: int = 25  # random clips of each test video
    video_level_clips: int = 10  # uniformly spaced clips of each video
    probe_epochs: int = 50
    probe_lr: float = 1e-4
    probe_batch: int = 32
    bootstrap_resamples: int = 2000  # of the bootstrap
    clips_per_forward: int = 64  # in one forward pass of an encoder; fewer need less memory

    def __post_init__(self) -> None:
        counts = (
            "train_clips",
            "clip_level_clips",
            "video_level_clips",
            "probe_epochs",
            "probe_batch",
            "bootstrap_resamples",
            "clips_per_forward",
        )
        check_range(self, 1, 10**6, "resize_px", *counts)
        check_range(self, 0, 10, "probe_lr")
        check_range(self, 0, 1, "flip_prob")

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
    lr_decay_factor: float = 0.3
    first_decay: float = 0.375  # shares of the tuned epochs: after 6, 10 and 14 of 16
    second_decay: float = 0.625
    third_decay: float = 0.875
    batch: int = 32  # clips a step over all processes
    shards: int = 8  # parts of a batch, dealt alike on any number of processes that divides it

    def __post_init__(self) -> None:
        check_range(self, 0, 10**6, "warmup_epochs")
        check_range(self, 1, 10**6, "tuned_epochs", "batch", "shards")
        check_range(self, 0, 10, "lr", "lr_decay_factor")
        check_range(self, 0, 1, "first_decay", "second_decay", "third_decay")
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
        falls = (self.first_decay, self.second_decay, self.third_decay)
        return self.lr * self.lr_decay_factor ** sum(
            tuned >= at * self.tuned_epochs for at in falls
        )

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
    clip: Clip = field(default_factory=lambda: Clip(video_seconds=0.5))
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


@dataclass(frozen=True, kw_only=True)
class World(Flat):
    """The synthetic world: how many videos a class, and how wild they are."""

    seed: int = 0
    vggsound_per_class: int = 52
    ucf101_train_per_class: int = 16
    ucf101_test_per_class: int = 12
    hmdb51_train_per_class: int = 10
    hmdb51_test_per_class: int = 6
    silent_fraction: float = 0.04  # of the VGGSound-like videos: no audio stream
    dubbed_fraction: float = 0.08  # of them: the sound is another's, or music
    broken_fraction: float = 0.01  # of them: files that cannot be decoded

    def __post_init__(self) -> None:
        check_range(self, 0, 1, "silent_fraction", "dubbed_fraction", "broken_fraction")
        counts = [name for name in self.names() if name.endswith("_class")]
        check_range(self, 2, 10_000, *counts)
