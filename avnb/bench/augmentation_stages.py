"""Stages on clips in memory: colours and normalisation, spectrograms."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from avnb.bench import recipe
from avnb.bench.clip_stages import RECIPE, check_equal
from avnb.bench.rows import Row
from avnb.bench.timing import compare
from avnb.bench.workload import Workload
from avnb.config import Pretrain
from avnb.data.batch import Batch
from avnb.data.spectrograms import AudioTransform
from avnb.data.transforms import IMAGENET_STD, VideoTransform

COLOUR_TOLERANCE = 0.03  # of 1: PIL rounds to 8 bits, and takes the contrast of a frame, not a clip
MEL_TOLERANCE = 1e-3


def clips_of_round(work: Workload, number: int) -> Iterator[Batch]:
    """All clips of one video, read before they are timed."""
    kind = work.kinds[0]
    for epoch, row in work.readings(kind, number):
        yield work.clips(kind).whole(row, epoch)


def images_of(frames: Tensor) -> list[Image.Image]:
    """PIL images of a clip, uint8 [3, T, S, S]."""
    return [Image.fromarray(np.asarray(x)) for x in frames.permute(1, 2, 3, 0).contiguous()]


def recipe_frames(images: list[list[Image.Image]], batch: Batch) -> Tensor:
    """The recipe's input of the networks, clip by clip, [B, 3, T, S, S]."""
    assert batch.params is not None
    augmented = (recipe.augment_images(x, batch.params[[i]]) for i, x in enumerate(images))
    return torch.stack([recipe.normalised(x) for x in augmented])


def augmentation_stage(work: Workload) -> Iterator[Row]:
    """Mirroring, colours and normalisation of a batch of clips, with the same draws."""
    transform = VideoTransform()
    Pair = tuple[list[list[Image.Image]], Batch]

    def items(number: int) -> Iterator[Pair]:
        for batch in clips_of_round(work, number):
            yield [images_of(frames) for frames in batch.frames], batch

    def ours(pair: Pair) -> Tensor:
        return transform(pair[1].frames, pair[1].params)

    ways: dict[str, Callable[[Pair], object]] = {RECIPE: lambda p: recipe_frames(*p), "ours": ours}
    for pair in items(0):
        std = torch.tensor(IMAGENET_STD)[:, None, None, None]
        difference = ((recipe_frames(*pair) - ours(pair)) * std).abs().mean()
        check_equal("augmented frames", float(difference), COLOUR_TOLERANCE)
    config = work.config()
    each = {"rounds": work.rounds, "per": config.clips_per_video}
    timings = compare(ways, items, title="augmentation", **each)
    px, copies = config.clip.frame_px, 2 * 3 * config.clip.frames * config.clip.frame_px**2
    yield Row(
        stage="augmentation",
        what=f"{config.clip.frames} x {px} x {px}",
        values=timings.row("ours", RECIPE),
        limit_ms=copy_ms(work, copies),
        limit="one pass: floats written and read once",
    )


def copy_ms(work: Workload, floats: int) -> float:
    """Milliseconds in which one thread copies half as many float32 as are read and written."""
    source = torch.zeros(max(floats // 2, 1))
    target = torch.empty_like(source)
    timings = compare(
        {"copy": lambda _: target.copy_(source)},
        lambda number: range(20),
        rounds=work.rounds,
        title="copying",
    )
    return float(timings.row("copy", "copy")["ms"])


def spectrogram_ways(config: Pretrain) -> dict[str, Callable[[Batch], Tensor]]:
    """Spectrograms [B, M, t] of a batch, standardised by nothing."""
    mels = config.spectrogram.mels
    transform = AudioTransform(config.clip, config.spectrogram, ([0.0] * mels, [1.0] * mels))
    log_mel = partial(recipe.log_mel, clip=config.clip, form=config.spectrogram)

    def recipes(batch: Batch) -> Tensor:
        assert batch.params is not None
        pairs = zip(batch.audio.numpy(), batch.params.gain.tolist(), strict=True)
        return torch.stack([log_mel(wave, gain) for wave, gain in pairs])

    def ours(batch: Batch) -> Tensor:
        assert batch.params is not None
        return transform.log_mel(batch.audio, batch.params.gain)

    return {RECIPE: recipes, "ours": ours}


def spectrogram_stage(work: Workload) -> Iterator[Row]:
    """Spectrograms of a batch of waveforms: filters rebuilt for each, or kept."""
    config = work.config()
    ways = spectrogram_ways(config)
    for batch in clips_of_round(work, 0):
        both = [way(batch) for way in ways.values()]
        check_equal("spectrograms", float((both[0] - both[1]).abs().mean()), MEL_TOLERANCE)
    items, per = partial(clips_of_round, work), config.clips_per_video
    timings = compare(ways, items, rounds=work.rounds, title="spectrograms", per=per)
    shape = f"{config.spectrogram.mels} x {config.spectrogram.frames(config.clip.samples)}"
    yield Row(stage="spectrogram", what=shape, values=timings.row("ours", RECIPE))
