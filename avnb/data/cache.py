"""A cache: the videos of a data set again, in a form from which a clip costs little to read.

`mpeg2` and `h264` hold 16 frames a second, at most 256 pixels high, with a key frame every few, and
mono sound; `frames` holds the decoded frames as they are, for small data sets. A file is written
whole, looked at, and noted in a diary with the state of its source; a call that is repeated
writes what is missing or has changed.
"""

import json
import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from avnb.config import digest, unknown_name
from avnb.data import decoding, frame_file, packet_file
from avnb.data.audit import file_state
from avnb.data.manifest import Manifest, Video
from avnb.files import appending, in_parallel, json_lines, locked, read_json, replacing, write_text
from avnb.profiles import cores

FPS, PX, HZ = 16, 256, 16_000  # of the thesis's clips; frames are scaled to this height or width
LIMIT_GB = 500.0
FRAMES = "frames"
FEW_PIXELS = 1e9  # that this process writes by itself: starting others would take longer
CHOICE = "cache.json"  # names the form in which a data set is read
FEW_MISSING = 0.05  # share of the videos that a chapter may write by itself, in passing
DIARY = "written.jsonl"  # beside the files: the state of the source of each
# What an audit writes beside the manifest.
TABLES = ("audit.json", "ledger.csv", "mismatches.csv", "train.txt", "validation.txt")


@dataclass(frozen=True, kw_only=True)
class Form:
    """How the files of a cache are written."""

    suffix: str
    encoder: str = ""  # of FFmpeg; '' keeps the decoded frames
    decoder: str = ""
    options: Mapping[str, str] = field(default_factory=dict)  # of the encoder
    bits_per_second: int = 0  # of the video; 0 where its quality is given instead
    expected: int = 0  # bytes a second, with sound

    @property
    def key(self) -> str:
        """Of all that decides what its files hold."""
        return digest([asdict(self), FPS, PX, HZ])


FORMS = {
    "mpeg2": Form(
        suffix=packet_file.SUFFIX,
        encoder="mpeg2video",
        decoder="mpeg2video",
        options={"g": "12", "bf": "2"},
        bits_per_second=740_000,
        expected=130_000,
    ),
    "h264": Form(
        suffix=packet_file.SUFFIX,
        encoder="libx264",
        decoder="h264",
        options={"preset": "medium", "crf": "25", "g": "16", "bf": "2", "tune": "fastdecode"},
        expected=70_000,
    ),
    FRAMES: Form(suffix=frame_file.SUFFIX),
}


def cached(
    manifest: Manifest, form: str, folder: Path, *, workers: int = 0, limit_gb: float = LIMIT_GB
) -> Manifest:
    """The same videos, read from a cache below `folder`, which is made or completed first.

    Args:
        manifest: all usable videos of a data set.
        form: a name of `FORMS`.
        folder: of the caches of this data set.
        workers: processes that write it; 0 takes one for each core.
        limit_gb: of the disk that it may take, in GB.

    Raises:
        ValueError: for an unknown form, or when the cache would be larger than the limit.
        DecodeError: when a video can no longer be read.
    """
    found = described(manifest, form, folder)
    check_limit(manifest, form, size_gb(manifest, form), limit_gb, "would take about")
    with locked(folder / f"cache-{form}"):
        complete(manifest, found, form, workers or cores(), limit_gb)
        found.save()
        for name in TABLES:
            if (manifest.where / name).exists():
                with replacing(found.where / name) as partial_file:
                    shutil.copy(manifest.where / name, partial_file)
    return found


def described(manifest: Manifest, form: str, folder: Path) -> Manifest:
    """The videos as a cache below `folder` holds them, or will.

    Raises:
        ValueError: for an unknown form.
    """
    if form not in FORMS:
        raise ValueError(unknown_name("form of a cache", form, FORMS))
    return replace(
        manifest,
        where=manifest.where.with_name(f"{manifest.where.name}-{form}"),
        videos=tuple(as_cached(video, form) for video in manifest.videos),
        cache=folder / f"cache-{form}",
        cache_suffix=FORMS[form].suffix,
        encoding=f"{form} {FORMS[form].key}" if FORMS[form].encoder else "",
    )


def check_limit(manifest: Manifest, form: str, size: float, limit: float, verb: str) -> None:
    """Raise ValueError when a cache takes more than its limit, both in GB."""
    if size > limit:
        raise ValueError(
            f"a cache of {len(manifest)} videos of {manifest.name} in the form {form!r} {verb} "
            f"{size:.1f} GB, over the limit of {limit:g} GB: raise the limit, or use another form "
            "(h264 is the smallest)"
        )


def in_use(manifest: Manifest, folder: Path) -> Manifest:
    """The videos as the cache has them that was chosen for a data set; as they are without one.

    A few that are missing or have changed are written. Where more are, as after a cache of a part
    of the data set, the videos are read themselves, and a line says so.

    Raises:
        ValueError, DecodeError: as `cached`.
    """
    if not (folder / CHOICE).exists():
        return manifest
    form, limit_gb = chosen(folder / CHOICE)
    missing = len(unwritten(manifest, described(manifest, form, folder), form))
    if missing <= FEW_MISSING * len(manifest):
        return cached(manifest, form, folder, limit_gb=limit_gb)
    print(
        f"{missing} of {len(manifest)} videos of {manifest.name} are not in the cache ({form}): "
        "all are read from their own files; `avnb cache` adds them"
    )
    return manifest


def chosen(path: Path) -> tuple[str, float]:
    """The form and the limit in GB that `choose` has written."""
    choice = read_json(path, "the choice of a cache")
    try:
        return str(choice["form"]), float(choice["limit_gb"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds {choice!r} where a form and limit_gb are expected: "
            "`avnb cache` writes it anew, without it videos are read from their own files"
        ) from error


def choose(folder: Path, form: str, limit_gb: float) -> None:
    """Have the data set read in this form from now on."""
    write_text(folder / CHOICE, json.dumps({"form": form, "limit_gb": limit_gb}))


def size_gb(manifest: Manifest, form: str) -> float:
    """What a cache of these videos takes, about."""
    return sum(expected_bytes(video, form) for video in manifest.videos) / 1e9


def expected_bytes(video: Video, form: str) -> float:
    """What a video will take in the cache, about."""
    if FORMS[form].encoder:
        return video.seconds * FORMS[form].expected
    return video.seconds * (video.fps * video.width * video.height * 3 + 4 * HZ)


def cached_size(video: Video, form: str) -> tuple[int, int]:
    """Width and height in the cache: even where they are encoded."""
    if not FORMS[form].encoder:
        return video.width, video.height
    scale = min(1.0, PX / min(video.width, video.height))
    width, height = (max(round(side * scale) // 2 * 2, 2) for side in (video.width, video.height))
    return width, height


def as_cached(video: Video, form: str) -> Video:
    """A video as it is in the cache, where time begins with the first frame."""
    width, height = cached_size(video, form)
    hz = (HZ if FORMS[form].encoder else video.audio_hz) if video.audio_hz else 0
    fps = FPS if FORMS[form].encoder else video.fps
    return replace(video, start=0.0, fps=fps, width=width, height=height, audio_hz=hz)


def unwritten(manifest: Manifest, made: Manifest, form: str) -> dict[int, list[Any]]:
    """By row, the state of each video that the cache `made` of a manifest lacks, or has of old."""
    assert made.cache is not None
    if not made.cache.exists():
        return {row: [] for row in range(len(manifest))}
    known = dict(json_lines(made.cache / DIARY))
    there = {path.name for path in made.cache.iterdir()}
    states = {
        row: [*file_state(manifest.path(video)), FORMS[form].key]
        for row, video in enumerate(manifest.videos)
    }
    return {
        row: state
        for row, state in states.items()
        if known.get((video := manifest.videos[row]).path) != state
        or made.path(video).name not in there
    }


def complete(manifest: Manifest, made: Manifest, form: str, workers: int, limit_gb: float) -> None:
    """Write what the cache `made` of a manifest lacks; ValueError when that reaches the limit."""
    assert made.cache is not None
    if not (states := unwritten(manifest, made, form)):
        return
    rows, videos = [*states], [manifest.videos[row] for row in states]
    todo = [(video, made.path(video)) for video in videos]
    work, title = partial(write, manifest.folder, form), f"cache of {manifest.name}, {form}"
    done = len(manifest) - len(todo)
    few = sum(v.seconds * v.fps * v.width * v.height for v in videos) < FEW_PIXELS
    results = in_parallel(work, todo, workers=0 if few else workers, title=title, done=done)
    size = sum(file.stat().st_size for file in made.cache.iterdir()) / 1e9
    with appending(made.cache / DIARY) as add, closing(results):
        for i, _ in results:
            add(json.dumps([videos[i].path, states[rows[i]]]))
            size += todo[i][1].stat().st_size / 1e9
            check_limit(manifest, form, size, limit_gb, "has come to")


def write(source: Path, form: str, one: tuple[Video, Path]) -> None:
    """Write one video into its file of the cache, and see that all its frames are there."""
    video, file = one
    path = source / video.path
    with replacing(file) as partial_file:
        if not FORMS[form].encoder:
            keep_frames(path, video, partial_file)
            return
        count = encode(path, video, FORMS[form], cached_size(video, form), partial_file)
        packet_file.check(partial_file, count)


def keep_frames(path: Path, video: Video, out: Path) -> None:
    """Write a video as its decoded frames."""
    seconds, frames = decoding.read_all_frames(path, video.start)
    frame_file.write(out, frames, seconds, soundtrack(path, video), HZ)


def encode(path: Path, video: Video, form: Form, size: tuple[int, int], out: Path) -> int:
    """Write a video in another form; the number of its frames."""
    count = max(round(video.seconds * FPS), 1)
    encoder = packet_file.FrameEncoder(form.encoder, form.options, form.bits_per_second, FPS, size)
    times = np.minimum(np.arange(count) / FPS, np.nextafter(video.seconds, 0))
    decoding.read(path, times, encoder.add, seconds=video.seconds, start=video.start)
    audio = soundtrack(path, video)
    packet_file.write(out, encoder.finish(), form.decoder, FPS, audio, HZ)
    return count


def soundtrack(path: Path, video: Video) -> np.ndarray:
    """All audio of a video, [samples] float32; empty when it has none."""
    if not video.audio_hz:
        return np.zeros(0, np.float32)
    return decoding.read_soundtrack(path, HZ, seconds=video.seconds, start=video.start)
