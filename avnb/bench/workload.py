"""What is measured on: the bench's own videos, the thesis's values, and clips drawn from them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from avnb.bench.recipe import DrawnClip
from avnb.bench.videos import KINDS, QUICK_KINDS, Kind, open_videos
from avnb.config import Pretrain
from avnb.data.cache import cached
from avnb.data.clips import VideoClips
from avnb.data.manifest import Manifest
from avnb.training.pretraining import training_sampling

VIDEOS_OF_A_KIND = 4
QUICK_VALUES = {"frame_px": 32, "mels": 32, "width": 4, "expander_dim": 64, "negatives": 64}


@dataclass(frozen=True)
class Workload:
    """What every stage is measured on."""

    folder: Path  # where the videos are kept
    rounds: int
    quick: bool = False  # smaller in everything, to see whether it works
    gpu: bool = False

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of files."""
        return QUICK_KINDS if self.quick else KINDS

    def config(self, **values: object) -> Pretrain:
        """The thesis's values, with changes by flat name."""
        return Pretrain.from_flat(**{**(QUICK_VALUES if self.quick else {}), **values})

    def manifest(self, kind: Kind) -> Manifest:
        """The videos of a kind, made where they are missing."""
        return videos_of(self.folder, kind, 1 if self.quick else VIDEOS_OF_A_KIND)

    def clips(self, kind: Kind) -> VideoClips:
        """The training clips of these videos."""
        return VideoClips(self.manifest(kind), training_sampling(self.config()), seed=0)

    def cached_clips(self, kind: Kind, form: str) -> VideoClips:
        """The same, read from a cache, which is written where it is missing."""
        made = cached(self.manifest(kind), form, self.folder / f"cached-{kind}".replace(" ", "-"))
        return VideoClips(made, training_sampling(self.config()), seed=0)

    def readings(self, kind: Kind, number: int) -> Iterator[tuple[int, int]]:
        """Epoch and row of what is read in a round: one video, another one each time."""
        yield number, number % len(self.manifest(kind))


@cache
def videos_of(folder: Path, kind: Kind, count: int) -> Manifest:
    """The manifest of a kind, whose files are inspected once."""
    return open_videos(folder, kind, count)


def drawn_clips(clips: VideoClips, epoch: int, row: int) -> list[DrawnClip]:
    """What `clips` draws for every clip of a video."""
    start, drawn = clips.manifest.videos[row].start, clips.draw(epoch, row)
    params = drawn.params[0]
    if params is None:
        raise ValueError("only training clips are augmented, and these are not")
    return [
        DrawnClip(
            start=float(drawn.starts[i, 0]) + start,
            audio_start=float(drawn.audio_starts[i]) + start,
            crop=drawn.crops[0][i],
            params=params[[i]],
        )
        for i in range(len(drawn.starts))
    ]
