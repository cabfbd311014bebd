"""Stages on files: whole clips and their parts, from source to uint8 frames and audio."""

import importlib
import importlib.util
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from avnb.bench import recipe
from avnb.bench.recipe import DrawnClip
from avnb.bench.rows import Row
from avnb.bench.timing import compare
from avnb.bench.videos import Kind
from avnb.bench.workload import Workload, drawn_clips
from avnb.config import Clip
from avnb.data import decoding, media
from avnb.data.batch import Batch
from avnb.data.clips import ClipBuffer, VideoClips

RECIPE = "2022 recipe"
CUT = "2022 recipe, decoding and crop only"
APART, TOGETHER = "ours, 1 clip a reading", "ours, all clips in one reading"
CACHED = {form: f"ours, 1 clip a reading, {form} cache" for form in ("mpeg2", "h264")}
FLOORS = {APART: "FFmpeg, 1 clip", TOGETHER: "FFmpeg, all clips"}
TORCHCODEC = "torchcodec"
FRAME_TOLERANCE = 1.0  # mean difference of two ways to resize, of 255
MEL_TOLERANCE = 0.1  # of log10; resamplers that start elsewhere differ in their phase

Reading = tuple[int, int]  # epoch and row: all clips of one video


def check_equal(what: str, difference: float, allowed: float) -> None:
    """Raise ValueError when two ways that should give the same do not."""
    if not difference <= allowed:
        raise ValueError(f"{what} differ by {difference:.4g} in the mean, over {allowed}")


def check_clips(work: Workload, clips: VideoClips, ours: Batch, row: int, epoch: int) -> None:
    """Raise ValueError unless our clips are the recipe's: the same pictures, the same sound."""
    config, path = work.config(), clips.manifest.path(clips.manifest.videos[row])
    for i, drawn in enumerate(drawn_clips(clips, epoch, row)):
        images, wave = recipe.cut(path, drawn, config.clip)
        frames = recipe.pixels(images).permute(3, 0, 1, 2)
        difference = (frames - ours.frames[i].float()).abs().mean()
        check_equal(f"frames of {path}, clip {i},", float(difference), FRAME_TOLERANCE)
        pair = [
            recipe.log_mel(w, 1.0, config.clip, config.spectrogram)
            for w in (wave, ours.audio[i].numpy())
        ]
        difference = (pair[0] - pair[1]).abs().mean()
        check_equal(f"spectrograms of {path}, clip {i},", float(difference), MEL_TOLERANCE)


def torchcodec_absence() -> str:
    """Why torchcodec cannot be measured here; empty where it can."""
    if not importlib.util.find_spec(TORCHCODEC):
        return "not installed"
    try:
        importlib.import_module(TORCHCODEC)
    except RuntimeError:  # it brings no FFmpeg of its own, and fits one version of torch
        return "cannot be loaded"
    return ""


def check_torchcodec(work: Workload, clips: VideoClips) -> None:
    """Raise ValueError unless torchcodec's pictures of every video are ours."""
    for row, video in enumerate(clips.manifest.videos):
        path, ours = clips.manifest.path(video), clips.whole(row).frames
        for i, drawn in enumerate(drawn_clips(clips, 0, row)):
            frames, _ = torchcodec_cut(path, drawn, work.config().clip)
            difference = (frames.transpose(0, 1).float() - ours[i].float()).abs().mean()
            what = f"torchcodec's frames of {path}, clip {i},"
            check_equal(what, float(difference), FRAME_TOLERANCE)


def least_decoding(path: Path, some: Sequence[DrawnClip], clip: Clip) -> None:
    """The least that FFmpeg does for the frames of some clips in one pass: nothing is converted.

    It opens the file, seeks the key frame before them, and leaves out frames between the clips
    that no other frame refers to.
    """
    starts = [drawn.start for drawn in some]
    end = max(starts) + clip.video_seconds
    with media.opened(path) as (container, stream):
        container.seek(int(min(starts) / stream.time_base), stream=stream)
        for packet in container.demux(stream):
            at = float((packet.pts or 0) * stream.time_base)
            needed = any(start - 0.1 <= at < start + clip.video_seconds for start in starts)
            stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
            for frame in packet.decode():
                if frame.time >= end:
                    return


def torchcodec_cut(path: Path, drawn: DrawnClip, clip: Clip) -> tuple[Tensor, Tensor]:
    """Frames and audio of a clip by torchcodec, cropped as ours."""
    from torchcodec.decoders import AudioDecoder, VideoDecoder  # type: ignore[import-not-found]

    times = drawn.start + np.arange(clip.frames) / clip.video_fps
    video = VideoDecoder(str(path), num_ffmpeg_threads=1, seek_mode="approximate")
    frames = video.get_frames_played_at(seconds=times.tolist()).data  # [T, 3, H, W]
    crop = drawn.crop
    audio = AudioDecoder(str(path), sample_rate=clip.audio_hz, num_channels=1)
    end = drawn.audio_start + clip.audio_seconds
    heard = audio.get_samples_played_in_range(drawn.audio_start, end)
    return tvf.resized_crop(frames, *crop.box, [crop.px, crop.px]), heard.data


def clip_ways(
    work: Workload, kind: Kind, clips: VideoClips
) -> dict[str, Callable[[Reading], object]]:
    """The ways to read all clips of a video."""
    config, manifest = work.config(), clips.manifest
    every = tuple(range(config.clips_per_video))

    def path(reading: Reading) -> Path:
        return manifest.path(manifest.videos[reading[1]])

    def each(way: Callable[..., object], reading: Reading, *values: Any) -> None:
        for drawn in drawn_clips(clips, *reading):
            way(path(reading), drawn, *values)

    def ours(groups: list[tuple[int, ...]], reading: Reading) -> None:
        for group in groups:
            clips[(*reading, group)]

    def from_cache(form: str) -> Callable[[Reading], object]:
        cached = work.cached_clips(kind, form)
        return lambda r: [cached[(*r, (i,))] for i in every]

    ways: dict[str, Callable[[Reading], object]] = {
        RECIPE: lambda r: each(recipe.load, r, config.clip, config.spectrogram),
        CUT: lambda r: each(recipe.cut, r, config.clip),
        APART: lambda r: ours([(i,) for i in every], r),
        TOGETHER: lambda r: ours([every], r),
        FLOORS[APART]: lambda r: each(lambda p, d: least_decoding(p, [d], config.clip), r),
        FLOORS[TOGETHER]: lambda r: least_decoding(path(r), drawn_clips(clips, *r), config.clip),
    }
    ways |= {way: from_cache(form) for form, way in CACHED.items()}
    if not torchcodec_absence():
        ways[TORCHCODEC] = lambda r: each(torchcodec_cut, r, config.clip)
    return ways


def clip_stage(work: Workload) -> Iterator[Row]:
    """Whole clips from source files, for every kind of file, against the 2022 recipe.

    The recipe's clips are augmented and ours are not, since training does that on a batch and on
    its device; hence the recipe's decoding and crop is a way of its own. `limit_ms` is what FFmpeg
    takes for the frames alone, in as many passes.
    """
    for kind in work.kinds:
        clips, count = work.clips(kind), work.config().clips_per_video
        check_clips(work, clips, clips.whole(0), 0, 0)
        if not (absence := torchcodec_absence()):
            check_torchcodec(work, clips)
        ways, readings = clip_ways(work, kind, clips), partial(work.readings, kind)
        title = f"clips of {kind}"
        timings = compare(ways, readings, rounds=work.rounds, title=title, per=count)
        for way, against in itertools.product(
            (APART, TOGETHER, *CACHED.values(), TORCHCODEC), (RECIPE, CUT)
        ):
            if way not in ways:
                continue
            yield Row(
                stage="clip",
                what=str(kind),
                values=timings.row(way, against),
                limit="FFmpeg decodes the frames",
                limit_ms=median(timings.cpu_ms[FLOORS.get(way, FLOORS[APART])]),
            )
        for against in (RECIPE, CUT) if absence else ():
            absent = {"way": TORCHCODEC, "against": against}
            yield Row(stage="clip", what=str(kind), values=absent, note=absence)


def part_ways(work: Workload, clips: VideoClips) -> dict[str, Callable[[Reading], object]]:
    """The parts of our way to a clip, each done alone, on one clip of a reading."""
    config, manifest = work.config(), clips.manifest
    clip = config.clip
    sizes = {(v.height, v.width) for v in manifest.videos}
    blank = {size: np.zeros((*size, 3), np.uint8) for size in sizes}
    target = clips.empty(1).frames[0]

    def read(reading: Reading, sound: bool) -> None:
        video, drawn = manifest.videos[reading[1]], drawn_clips(clips, *reading)[0]
        times = drawn.start - video.start + np.arange(clip.frames) / clip.video_fps
        at = np.array([drawn.audio_start - video.start]) if sound else None
        decoding.read(
            manifest.path(video),
            times,
            lambda index, image: None,
            seconds=video.seconds,
            start=video.start,
            audio_starts=at,
            samples=clip.samples,
            hz=clip.audio_hz,
        )

    def open_only(reading: Reading) -> None:
        with media.opened(manifest.path(manifest.videos[reading[1]])):
            pass

    def resize(reading: Reading) -> None:
        video = manifest.videos[reading[1]]
        buffer = ClipBuffer(drawn_clips(clips, *reading)[0].crop, target, video)
        for i in range(clip.frames):
            buffer.add(i, blank[video.height, video.width])

    return {
        "open": open_only,
        "open, video": partial(read, sound=False),
        "open, video, audio": partial(read, sound=True),
        "crop and resize": resize,
        "whole clip": lambda reading: clips[(*reading, (0,))],
    }


def part_stage(work: Workload) -> Iterator[Row]:
    """What one clip of ours consists of: opening, video, audio, crop; the rest is what is left."""
    for kind in work.kinds:
        clips = work.clips(kind)
        readings = partial(part_readings, work, kind)
        ways = part_ways(work, clips)
        timings = compare(ways, readings, rounds=work.rounds, title=f"parts of {kind}")
        row = {way: timings.row(way, "whole clip") for way in ways}
        ms = {way: float(row[way]["ms"]) for way in ways}
        video, audio = ms["open, video"] - ms["open"], ms["open, video, audio"] - ms["open, video"]
        parts = {
            "open": ms["open"],
            "video": video,
            "audio": audio,
            "crop": ms["crop and resize"],
            "rest": ms["whole clip"] - ms["open, video, audio"] - ms["crop and resize"],
        }
        for part, spent in parts.items():
            values = {"way": part, "ms": spent, "against": "whole clip"}
            values |= {"against_ms": ms["whole clip"], "rounds": work.rounds}
            yield Row(stage="parts", what=str(kind), values=values)


def part_readings(work: Workload, kind: Kind, number: int) -> Iterator[Reading]:
    """Several readings, since one clip of each is read only."""
    for i in range(work.config().clips_per_video):
        yield from work.readings(kind, number * work.config().clips_per_video + i)
