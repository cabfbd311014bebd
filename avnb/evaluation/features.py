"""Frozen encoders over a table of videos, once: features on disk, and the rest is arithmetic.

An encoder is a run of this workspace, a checkpoint, or code of the user's own. Features are .npy
files that are mapped, so a data set may be larger than memory. Several encoders that look at the
same clips share one reading of the videos.

Shapes: V videos, C clips of each, B clips of a batch, F features.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor, nn

from avnb.config import Clip, Evaluation, Pretrain, digest, parse_values
from avnb.data.augment import BatchTransform, mel_statistics
from avnb.data.clips import Batch, Sampling, VideoClips
from avnb.data.decoding import read_soundtrack
from avnb.data.loader import AUTO, video_loader
from avnb.data.manifest import Manifest
from avnb.data.prepare import load_dataset
from avnb.evaluation.class_names import TITLES, ClassList, class_list
from avnb.files import locked, tqdm, write_text
from avnb.models.encoders import AudioEncoder, VideoEncoder
from avnb.models.methods import build_method, find_method, method_label, parse_methods
from avnb.models.own import is_spec, resolved_spec, source_digest
from avnb.profiles import Workspace
from avnb.training import checkpoint, runs
from avnb.training.checkpoint import Metadata
from avnb.training.launch import Resources
from avnb.training.runs import StartingPoint

CLIPS_PER_FORWARD = 64


# ---- encoders -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class EncoderSource:
    """Where encoders come from, and how result rows name them."""

    method: str  # as rows, tables and figures name it
    name: str  # the run's id
    config: Pretrain  # with the clip that the encoders were trained on
    checkpoint: Path | None  # None: `config.backbone` is code of the user's own, without audio
    mel_statistics: list[list[float]] | None = None  # instead of the checkpoint's

    def load(self) -> tuple[VideoEncoder, AudioEncoder | None, Metadata]:
        """The frozen encoders and what their run was."""
        backbone = self.config.backbone
        if self.checkpoint is None:
            return checkpoint.own_encoder(backbone), None, unknown_training(self.config)
        video, audio, metadata = checkpoint.load_encoders(self.checkpoint, backbone=backbone)
        statistics = self.mel_statistics or metadata.mel_statistics
        return video, audio, replace(metadata, mel_statistics=statistics)

    def heads(self) -> dict[str, nn.Module]:
        """By modality, what maps features to the space of the loss; empty where nothing does."""
        return {} if self.checkpoint is None else dict(checkpoint.load_heads(self.checkpoint))

    @property
    def is_released(self) -> bool:
        """Whether the checkpoint is one that the thesis's author published."""
        file = self.checkpoint
        return file is not None and checkpoint.read_metadata(file).data is None

    @property
    def trained_on(self) -> ClassList | None:
        """The classes of the pre-training videos; None where the encoders do not say.

        The released ones were trained on VGGSound.
        """
        if self.checkpoint is None:
            return None
        metadata = checkpoint.read_metadata(self.checkpoint)
        key = metadata.data_set
        if metadata.data is None:
            return class_list(key)
        return ClassList(key, TITLES.get(key, key), tuple(metadata.classes)) if key else None

    @property
    def folder_name(self) -> str:
        """Of its features: made of the file or the code of the encoders and of the statistics."""
        backbone, file = self.config.backbone, self.checkpoint
        key = [backbone, source_digest(backbone), self.mel_statistics, checkpoint.FORMAT]
        if file is not None:
            key += [str(file.resolve()), file.stat().st_mtime_ns, file.stat().st_size]
        return f"{self.method}-{digest(key)}"

    @property
    def starting_point(self) -> StartingPoint:
        """The video encoder, as fine-tuning starts from it."""
        c = self.config
        return StartingPoint(
            method=self.method, checkpoint=self.checkpoint, backbone=c.backbone, width=c.width
        )


Sources = Mapping[str, EncoderSource]  # encoders to evaluate, by method


def unknown_training(config: Pretrain) -> Metadata:
    """Metadata of encoders that were not trained here: no data set, no statistics."""
    own = {"config": config.flat(), "code": runs.code_digest(config)}
    return Metadata(kind="pretraining", data="", data_set="", videos=0, classes=[], **own)


def source_of_run(run: runs.TrainingRun) -> EncoderSource:
    """The encoders of a finished run."""
    return EncoderSource(
        method=run.method, name=run.name, config=run.config, checkpoint=run.checkpoint
    )


def source_of_file(file: str | Path, *, backbone: str = "") -> EncoderSource:
    """The encoders of a checkpoint of this package, or of a released one.

    Its id is that of the run which wrote it, wherever the file is now. A released file does not
    say what it was trained on: its id is made of its content.

    Args:
        file: the checkpoint.
        backbone: a video encoder of the user's own that the file may name.

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is neither, or names other code.
    """
    path = Path(file).expanduser().resolve()
    metadata = checkpoint.read_metadata(path)
    config = metadata.pretrain
    checkpoint.check_backbone(path, config.backbone, backbone)
    label = method_label(config.method)
    if metadata.data is None:
        with path.open("rb") as opened:
            name = f"{label}-released-{hashlib.file_digest(opened, 'sha256').hexdigest()[:8]}"
    else:
        name = runs.run_name(config, metadata.data, metadata.code)
    return EncoderSource(method=label, name=name, config=config, checkpoint=path)


def source_of_code(spec: str, config: Pretrain) -> EncoderSource:
    """A video encoder of the user's own, on the clips of `config`; it has no audio."""
    spec = resolved_spec(spec)
    own, label = config.changed(backbone=spec), method_label(spec)
    name = f"{label}-{digest([spec, source_digest(spec), own.clip])}"
    return EncoderSource(method=label, name=name, config=own, checkpoint=None)


def untrained_source(config: Pretrain, folder: Path) -> EncoderSource:
    """The encoders of `config` before pre-training, kept as a checkpoint below `folder`.

    They belong to no data set, so the statistics of their mel bands are those of the videos that
    they are evaluated on.
    """
    config = runs.with_absolute_files(config.changed(method="random"))
    name = runs.run_name(config, "", runs.code_digest(config))
    path = folder / name / "last.pt"
    with locked(path.parent):
        if not path.exists():
            checkpoint.save(path, unknown_training(config), build_method(config, 2, 0), log=[])
    return EncoderSource(method="random", name=name, config=config, checkpoint=path)


def encoder_sources(
    work: Workspace,
    methods: str,
    checkpoints: str = "",
    *,
    data: str = "",
    values: str = "{}",
    seed: int = 0,
    resources: Resources | None = None,
) -> dict[str, EncoderSource]:
    """The encoders that a chapter evaluates, by the names of tables and figures.

    Args:
        work: where runs are; those that are missing are trained now.
        methods: separated by commas; '' for the checkpoints alone. Where `random` is the only one,
            no data are needed, and it is like the encoders of the first checkpoint.
        checkpoints: further encoders, separated by commas: files of ours or released ones, or
            callables `package.module:name` or `file.py:name` that give a video encoder. One of a
            method's name takes its place.
        data: folder of the pre-training videos, '' for synthetic ones.
        values: of the runs, where they differ from the workspace's, as JSON.
        seed: of the runs.
        resources: for pre-training.

    Raises:
        ValueError: for a method that does not exist, or values that are not JSON.
        FileNotFoundError: when a file is not there.
        CheckpointError: when it is no checkpoint.
    """
    items = [item.strip() for item in checkpoints.split(",") if item.strip()]
    names = parse_methods(methods) if methods.strip() or not items else ()
    changes = parse_values(values)
    config = work.pretraining(method="random", **{"seed": seed, **changes})
    given = [
        source_of_code(item, config)
        if is_spec(item)
        else source_of_file(item, backbone=config.backbone)
        for item in items
    ]
    sources: dict[str, EncoderSource] = {}
    if any(find_method(name).is_trained for name in names):
        manifest = load_dataset(work, "", data, subset=config.subset)
        trained = runs.pretraining_runs(work, manifest, names, seed=seed, values=changes)
        runs.train(list(trained.values()), resources, f"pre-training {', '.join(trained)}")
        sources = {method: source_of_run(run) for method, run in trained.items()}
    elif names:
        files = [source.config for source in given if source.checkpoint]
        sources["random"] = untrained_source(files[0] if files else config, work.runs)
    return sources | {source.method: source for source in given}


def device() -> torch.device:
    """Where encoders run: the first GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class FrozenEncoders(nn.Module):
    """The encoders of a source with their transform, in evaluation mode.

    Where a source has no statistics of the mel bands, as untrained encoders, those of the
    `training` videos are taken, and a line says so.
    """

    def __init__(
        self, source: EncoderSource, training: Manifest | None = None, workers: int = AUTO
    ):
        super().__init__()
        self.source = source
        self.video_encoder, self.audio_encoder, metadata = source.load()
        statistics: Any = metadata.mel_statistics
        if statistics is None and training is not None and self.audio_encoder is not None:
            origin = f"taken from {len(training.with_audio())} videos of {training.name}"
            print(f"{source.checkpoint} holds no mel band statistics: {origin}")
            statistics = mel_statistics(training, source.config, workers=workers)
        self.transform = BatchTransform(source.config, statistics)
        self.eval()

    @torch.inference_mode()
    def encode(self, batch: Batch, *, audio: bool, at_once: int) -> dict[str, Tensor]:
        """Features of a batch on the CPU, `video` and `audio` [B, F], `at_once` clips at a time.

        `audio` is [B, 0] when no audio is wanted, or the encoder has none.
        """
        parts = []
        for part in batch.split(at_once):
            part = part.to(next(self.parameters()).device)
            video = self.video_encoder(self.transform.video(part.frames)).cpu()
            wave = part.audio if audio else part.audio[:, :0]
            parts.append((video, self.encode_audio(wave)))
        video, sound = (torch.cat(side) for side in zip(*parts, strict=True))
        return {"video": video, "audio": sound}

    @torch.inference_mode()
    def encode_audio(self, wave: Tensor) -> Tensor:
        """Features [B, F] on the CPU of waveforms [B, samples]; [B, 0] where there are none.

        Raises:
            ValueError: when the statistics of the mel bands are not known.
        """
        if self.audio_encoder is None or not wave.shape[1]:
            return torch.empty(len(wave), 0)
        if self.transform.audio is None:
            raise ValueError("no mel band statistics: name the videos to take them from")
        features: Tensor = self.audio_encoder(self.transform.audio(wave))
        return features.cpu()


# ---- features -----------------------------------------------------------------------------------


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
        for batch in video_loader(clips, block, begin=begin, workers=workers):
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
    wave = read_soundtrack(manifest.path(video), hz, seconds=video.seconds, start=video.start)
    return torch.from_numpy(wave)[None]


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
        DecodeError: when a video of the manifest can no longer be read.
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
            open_memmap(path, "w+", np.float32, (videos, *tensor.shape[1:]))
            with path.open("r+b") as file:  # a full disk would end the process at a sparse file
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        array = open_memmap(path, "r+")
        array[begin:end] = tensor.numpy()
        array.flush()
    write_text(folder / "done.txt", str(end))


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
