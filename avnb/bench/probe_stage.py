"""The stage of the linear probe: its clips from files to features, by the 2022 recipe and by us."""

from collections.abc import Callable, Iterator
from statistics import median

import torch

from avnb.bench import recipe
from avnb.bench.clip_stages import FRAME_TOLERANCE, RECIPE, check_equal
from avnb.bench.rows import Row
from avnb.bench.timing import Timings, compare
from avnb.bench.workload import Workload
from avnb.config import Evaluation
from avnb.data.batch_transform import BatchTransform
from avnb.data.clips import VideoClips
from avnb.evaluation.probe_features import samplings
from avnb.models.backbones import build_video_encoder

ENCODING, OURS = "encoder", "ours"
FEW = 5  # clips that are encoded at a time


def probe_clips(work: Workload) -> list[VideoClips]:
    """All that a probe reads of a video, were it one for training and one for testing."""
    few = {"train_clips": 3, "clip_level_clips": 2, "video_level_clips": 2} if work.quick else {}
    parts = samplings(work.config(), Evaluation.from_flat(**few))
    manifest = work.manifest(work.kinds[0])
    return [VideoClips(manifest, sampling, seed=0) for sampling in parts.values()]


def recipe_clips(clips: VideoClips, row: int) -> Iterator[torch.Tensor]:
    """Frames [T, H, W, 3] of every clip of a video, each from a file opened anew."""
    video, drawn, clip = clips.manifest.videos[row], clips.draw(0, row), clips.sampling.clip
    for start, crop in zip(drawn.starts[:, 0], drawn.crops[0], strict=True):
        images = recipe.read_images(clips.manifest.path(video), float(start) + video.start, clip)
        yield recipe.pixels(recipe.crop_images(images, crop))


def check_frames(clips: VideoClips, ours: torch.Tensor, row: int) -> None:
    """Raise ValueError unless our frames [C, 3, T, H, W] of a video are the recipe's."""
    for i, frames in enumerate(recipe_clips(clips, row)):
        difference = (frames.permute(3, 0, 1, 2).float() - ours[i].float()).abs().mean()
        check_equal(f"frames of the probe's clip {i}", float(difference), FRAME_TOLERANCE)


def forward(work: Workload, clips: VideoClips, count: int) -> Callable[[int], object]:
    """Encodes `count` clips, a few at a time: the first ones of one video, again and again."""
    run = work.config()
    encoder = build_video_encoder(run.backbone, run.width).eval()
    transform, batch = BatchTransform(run), clips.whole(0)
    few = min(FEW, len(batch))

    def encode(_: int) -> None:
        with torch.inference_mode():
            for done in range(0, count, few):
                encoder(transform(batch[: min(few, count - done)]).frames)

    return encode


def probe_stage(work: Workload) -> Iterator[Row]:
    """A linear probe's clips, decoded and cropped, without and with the encoder's own time.

    As if each video were one of the training set and one of the test set: the released code reads
    a clip of it in each of 50 epochs, and those for testing, one by one. Here the same number of
    clips is read in three passes over the file, and the layer is trained on their features. Both
    run the encoder on every clip, so that with a slow one nothing else counts: `limit_ms` is its
    time.
    """
    parts = probe_clips(work)
    count = sum(clips.sampling.count for clips in parts)
    for clips in parts:
        check_frames(clips, clips.whole(0).frames, 0)
    ways: dict[str, Callable[[int], object]] = {
        RECIPE: lambda row: [frames for clips in parts for frames in recipe_clips(clips, row)],
        OURS: lambda row: [clips.whole(row) for clips in parts],
        ENCODING: forward(work, parts[0], count),
    }
    videos = len(parts[0])
    read = compare(
        ways, lambda number: [number % videos], rounds=work.rounds, title="probe", per=count
    )
    what = f"{work.kinds[0]}, {count} clips"
    yield Row(stage="probe", what=f"{what}, reading", values=read.row(OURS, RECIPE))
    yield Row(
        stage="probe",
        what=f"{what}, reading and encoding",
        values=with_encoder(read).row(OURS, RECIPE),
        limit="the encoder alone, on one core",
        limit_ms=median(read.cpu_ms[ENCODING]),
    )


def with_encoder(read: Timings) -> Timings:
    """The times of both ways to read, and of encoding what was read."""

    def sums(times: dict[str, list[float]]) -> dict[str, list[float]]:
        encoding = times[ENCODING]
        return {
            way: [a + b for a, b in zip(times[way], encoding, strict=True)]
            for way in (RECIPE, OURS)
        }

    return Timings(cpu_ms=sums(dict(read.cpu_ms)), wall_ms=sums(dict(read.wall_ms)))
