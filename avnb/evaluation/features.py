"""Frozen encoders over a table of videos, once: features on disk, and the rest is arithmetic.

Features are .npy files that are mapped, so a data set may be larger than memory. Several encoders
that look at the same clips share one reading of the videos.

Shapes: V videos, C clips of each, F features.
"""

import functools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from avnb.config import Clip, Evaluation, Pretrain, digest
from avnb.data.clips import Sampling, VideoClips
from avnb.data.loader import AUTO, video_batches
from avnb.data.manifest import Manifest
from avnb.data.store import StoredVideo
from avnb.evaluation.encoder_source import EncoderSource, FrozenEncoders, Sources, device
from avnb.evaluation.encoder_source import encoder_sources as encoder_sources
from avnb.evaluation.encoder_source import source_of_code as source_of_code
from avnb.evaluation.encoder_source import source_of_file as source_of_file
from avnb.evaluation.encoder_source import source_of_run as source_of_run
from avnb.evaluation.encoder_source import untrained_source as untrained_source
from avnb.files import locked, tqdm, write_text
from avnb.profiles import Workspace

CLIPS_PER_FORWARD = 64


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of the clips of each video, with the labels of the videos."""

    video: Tensor  # [V, C, F]
    audio: Tensor  # [V, C, F]; [V, C, 0] when none was wanted, or the encoder has no audio
    label: Tensor  # [V]


Block = tuple[int, list[dict[str, Tensor]]]  # first video of several, their features by encoder


def training_part(manifest: Manifest) -> Manifest:
    """The training videos of the data set that `manifest` is a part of."""
    return Manifest.load(manifest.where).split("train")


def encoded_blocks(
    encoders: Sequence[FrozenEncoders],
    begin: int,
    *,
    clips: VideoClips,
    workers: int,
    at_once: int,
    title: str,
) -> Iterator[Block]:
    """Features [V, C, F] of all clips of the videos from `begin` on, `at_once` clips at a time."""
    count, audio = clips.sampling.count, clips.sampling.audio
    block = max(1, at_once // count)
    with tqdm(total=len(clips), initial=begin, desc=title, unit="video") as bar:
        rows = range(begin, len(clips))
        for batch in video_batches(clips, rows, block, workers=workers):
            found = [frozen.encode(batch, audio=audio, at_once=at_once) for frozen in encoders]
            size = (len(batch) // count, count)
            yield begin, [{k: x.unflatten(0, size) for k, x in one.items()} for one in found]
            begin += size[0]
            bar.update(size[0])


def soundtrack_blocks(
    encoders: Sequence[FrozenEncoders], begin: int, *, manifest: Manifest
) -> Iterator[Block]:
    """Features [1, 1, F] of the whole audio of each video from `begin` on."""
    rows = range(begin, len(manifest))
    for row in tqdm(rows, f"{manifest.name}, soundtracks", unit="video"):
        waves = (soundtrack(manifest, row, f.source.config.clip.audio_hz) for f in encoders)
        both = zip(encoders, waves, strict=True)
        yield row, [{"audio": f.encode_audio(wave.to(device()))[:, None]} for f, wave in both]


def soundtrack(manifest: Manifest, row: int, hz: int) -> Tensor:
    """The whole audio of a video, [1, samples]."""
    video = manifest.videos[row]
    with StoredVideo(manifest.path(video)) as file:
        return torch.from_numpy(file.audio(0, max(round(video.seconds * hz), 1), hz))[None]


def encode_all(
    frozen: FrozenEncoders,
    manifest: Manifest,
    sampling: Sampling,
    *,
    seed: int,
    workers: int = AUTO,
    at_once: int = CLIPS_PER_FORWARD,
    title: str = "features",
) -> Features:
    """Features of encoders that are in no file, in memory; arguments as of `extract`."""
    clips = VideoClips(manifest, sampling, seed=seed)
    options: dict[str, Any] = {"workers": workers, "at_once": at_once, "title": title}
    blocks = [found for _, (found,) in encoded_blocks([frozen], 0, clips=clips, **options)]
    video, audio = (torch.cat([block[name] for block in blocks]) for name in ("video", "audio"))
    return Features(video=video.clone(), audio=audio.clone(), label=torch.tensor(clips.labels))


def extract(
    sources: Sequence[EncoderSource],
    manifest: Manifest,
    sampling: Sampling,
    cache: Path,
    *,
    seed: int,
    workers: int = AUTO,
    at_once: int = CLIPS_PER_FORWARD,
    title: str = "features",
) -> list[Features]:
    """Features of every video under the encoders of each source, in their order.

    They are kept in `cache`, in a folder of the data and the sampling with a folder of each
    source. At most `at_once` clips go through an encoder together.

    Raises:
        CheckpointError: when a source's file is not a checkpoint.
        StoreError: when a file of the store can no longer be read.
        OSError: when the disk has no room.
    """
    if not manifest.videos:
        raise ValueError(f"no video of {manifest.name} in {manifest.folder} can be used here")
    training = training_part(manifest) if sampling.audio else None
    reading = [manifest.digest, training and training.digest, sampling, seed]
    clips, label = VideoClips(manifest, sampling, seed=seed), torch.tensor(manifest.labels)
    options: dict[str, Any] = {"workers": workers, "at_once": at_once, "title": title}
    blocks = functools.partial(encoded_blocks, clips=clips, **options)
    home = cache / f"{manifest.name}-{digest(reading)}"
    folders = fill(sources, training, home, len(clips), blocks, workers)
    tensors = [{n: mapped(f / f"{n}.npy") for n in ("video", "audio")} for f in folders]
    return [Features(**both, label=label) for both in tensors]


def soundtrack_features(
    sources: Sequence[EncoderSource], manifest: Manifest, cache: Path
) -> list[Tensor]:
    """Features [V, 1, F] of each video's whole audio under the encoder of each source.

    As the released code retrieves: the peak is that of the whole video. F is 0 for an encoder
    without audio.
    """
    training = training_part(manifest)
    home = cache / f"{manifest.name}-soundtracks-{digest([manifest.digest, training.digest])}"
    blocks = functools.partial(soundtrack_blocks, manifest=manifest)
    folders = fill(sources, training, home, len(manifest), blocks)
    return [mapped(folder / "audio.npy") for folder in folders]


# ---- on the disk --------------------------------------------------------------------------------


def fill(
    sources: Sequence[EncoderSource],
    training: Manifest | None,
    home: Path,
    videos: int,
    blocks: Callable[[Sequence[FrozenEncoders], int], Iterator[Block]],
    workers: int = AUTO,
) -> list[Path]:
    """The folders of each source's features in `home`; what is missing in them is encoded.

    Every video is read once for all sources, and an interrupted call resumes.
    """
    folders = [home / source.folder_name for source in sources]
    with locked(home):
        left = {f: s for f, s in zip(folders, sources, strict=True) if done_videos(f) < videos}
        if left:
            encoders = [FrozenEncoders(s, training, workers).to(device()) for s in left.values()]
            for row, found in blocks(encoders, min(map(done_videos, left))):
                for folder, rows in zip(left, found, strict=True):
                    write_rows(folder, videos, row, rows)
    return folders


def done_videos(folder: Path) -> int:
    """How many videos' features are in a folder."""
    note = folder / "done.txt"
    return int(note.read_text()) if note.exists() else 0


def write_rows(folder: Path, videos: int, begin: int, rows: Mapping[str, Tensor]) -> None:
    """Write features of some videos, the first of which is number `begin` of all, to .npy files.

    What is there already stays. OSError when the disk has no room.
    """
    done, end = done_videos(folder), begin + len(next(iter(rows.values())))
    if end <= done:  # another source was interrupted earlier
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensor in rows.items():
        path = folder / f"{name}.npy"
        if not done:
            check_room(folder, 4 * videos * tensor[0].numel())
            open_memmap(path, "w+", np.float32, (videos, *tensor.shape[1:]))
        array = open_memmap(path, "r+")
        array[begin:end] = tensor.numpy()
        array.flush()
    write_text(folder / "done.txt", str(end))


def check_room(folder: Path, size: int) -> None:
    """Raise OSError when the disk lacks so many bytes: mapped files would end the process there."""
    if size > (free := shutil.disk_usage(folder).free):
        raise OSError(
            f"{folder} needs {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: make room, set "
            "AVNB_BUILD to a folder on a larger disk, or take fewer clips of each video"
        )


def mapped(path: Path) -> Tensor:
    """The tensor of a .npy file, mapped: memory holds what is used; writing changes no file."""
    return torch.from_numpy(np.load(path, mmap_mode="c"))


# ---- for chapters -------------------------------------------------------------------------------


def downstream_clip(run: Pretrain, config: Evaluation, *, audio_seconds: float = 1.0) -> Clip:
    """The clips of an evaluation: video, and audio that starts with it."""
    return Clip(
        video_seconds=config.video_seconds,
        video_fps=config.video_fps,
        frame_px=run.clip.frame_px,
        audio_seconds=audio_seconds,
        audio_hz=run.clip.audio_hz,
        max_offset_seconds=0.0,
    )


def extract_parts(
    sources: Sources,
    parts: Mapping[str, Manifest],
    sampling_of: Callable[[Pretrain], Mapping[str, Sampling]],
    config: Evaluation,
    cache: Path,
    workers: int,
) -> dict[str, dict[str, Features]]:
    """Features by method and part, cached; encoders with equal sampling share a reading."""
    features: dict[str, dict[str, Features]] = {method: {} for method in sources}
    options: dict[str, Any] = {"seed": config.seed, "at_once": config.clips_per_forward}
    for part, videos in parts.items():
        asked = {method: sampling_of(source.config)[part] for method, source in sources.items()}
        options |= {"workers": workers, "title": f"{videos.name}, {part}"}
        for sampling in dict.fromkeys(asked.values()):
            methods = [method for method in sources if asked[method] == sampling]
            chosen = [sources[method] for method in methods]
            extracted = extract(chosen, videos, sampling, cache, **options)
            for method, result in zip(methods, extracted, strict=True):
                features[method][part] = result
    return features


def row_metadata(
    source: EncoderSource, manifest: Manifest, work: Workspace, config: Evaluation
) -> dict[str, Any]:
    """Fields of result rows that identify the encoder, the videos, the profile and protocol."""
    encoder = {"method": source.method, "run": source.name, "protocol": config.protocol_title}
    return {"dataset": manifest.name, "data": manifest.origin, "profile": work.name, **encoder}
