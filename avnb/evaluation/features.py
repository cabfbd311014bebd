"""The encoders to evaluate, by name, and their features of a table of videos, encoded once.

Encoders are those of runs of this workspace, of checkpoints, or the user's own code. Features are
kept as a file for each encoder and part of a data set.

Shapes: V videos, C clips of each, F features.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from avnb.config import Clip, Evaluation, Pretrain, digest, parse_values
from avnb.data.clips import Batch, Sampling, VideoClips
from avnb.data.loader import video_batches
from avnb.data.manifest import Manifest
from avnb.data.prepare import load_dataset
from avnb.data.store import stored_video
from avnb.data.transform import BatchTransform, mel_statistics
from avnb.evaluation.class_names import TITLES, ClassList, class_list
from avnb.files import absolute, locked, replacing, tqdm
from avnb.models.encoders import AudioEncoder, VideoEncoder
from avnb.models.methods import build_method, find_method, method_label, parse_methods
from avnb.models.own import is_spec, resolved_spec, source_digest
from avnb.profiles import Workspace
from avnb.training import checkpoint, runs
from avnb.training.checkpoint import Metadata
from avnb.training.runs import StartingPoint


@dataclass(frozen=True, kw_only=True)
class EncoderSource:
    """Where encoders come from, and how result rows name them."""

    method: str  # as rows, tables and figures name it
    name: str  # the run's id
    config: Pretrain  # with the clip that the encoders were trained on
    checkpoint: Path | None  # None: `config.backbone` is code of the user's own, without audio
    trained_on: ClassList | None = None  # classes of pre-training; None: not known, or none

    def load(self) -> tuple[VideoEncoder, AudioEncoder | None, Any]:
        """The frozen encoders, and the statistics of the mel bands or None."""
        backbone = self.config.backbone
        if self.checkpoint is None:
            return checkpoint.own_encoder(backbone), None, None
        video, audio, metadata = checkpoint.load_encoders(self.checkpoint, backbone=backbone)
        return video, audio, metadata.mel_statistics

    def heads(self) -> dict[str, nn.Module]:
        """By modality, what maps features to the space of the loss; empty where nothing does."""
        return {} if self.checkpoint is None else dict(checkpoint.load_heads(self.checkpoint))

    @property
    def features_name(self) -> str:
        """Of files of features; a run that is trained on, or changed code, has another."""
        changed = self.checkpoint.stat().st_mtime_ns if self.checkpoint else 0
        return f"{self.name}-{digest([source_digest(self.config.backbone), changed])}"

    @property
    def starting_point(self) -> StartingPoint:
        """The video encoder, as fine-tuning starts from it."""
        network: Any = {"backbone": self.config.backbone, "width": self.config.width}
        return StartingPoint(method=self.method, checkpoint=self.checkpoint, **network)


Sources = Mapping[str, EncoderSource]  # encoders to evaluate, by method
Encode = Callable[[Batch], tuple[Tensor, Tensor]]  # features of video and audio, [B, F] each


def source_of_file(file: str | Path, *, backbone: str = "") -> EncoderSource:
    """The encoders of a checkpoint of this package, or of a released one.

    The id is that of the run, wherever the file is now, or made of a released one's content.
    `backbone` is a video encoder of the user's own that the file may name.

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is neither, or names other code.
    """
    path = absolute(file)
    metadata = checkpoint.load(path, "pretraining")[0]
    config, key = metadata.pretrain, metadata.data_set
    checkpoint.check_backbone(path, config.backbone, backbone)
    label, known = method_label(config.method), None
    if metadata.data is None:
        content = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        name, known = f"{label}-released-{content}", class_list(key)
    else:
        name = runs.run_name(config, metadata.data, metadata.code)
        if key:
            known = ClassList(key, TITLES.get(key, key), tuple(metadata.classes))
    return EncoderSource(method=label, name=name, config=config, checkpoint=path, trained_on=known)


def source_of_code(spec: str, config: Pretrain) -> EncoderSource:
    """A video encoder of the user's own, on the clips of `config`; it has no audio."""
    spec = resolved_spec(spec)
    own, label = config.changed(backbone=spec), method_label(spec)
    name = f"{label}-{digest([spec, source_digest(spec), own.clip])}"
    return EncoderSource(method=label, name=name, config=own, checkpoint=None)


def untrained_source(config: Pretrain, folder: Path) -> EncoderSource:
    """The encoders of `config` before pre-training, kept as a checkpoint below `folder`."""
    config = runs.with_absolute_files(config.changed(method="random"))
    code = runs.code_digest(config)
    path = folder / runs.run_name(config, "", code) / "last.pt"
    no_data: dict[str, Any] = {"data": "", "data_set": "", "videos": 0, "classes": []}
    with locked(path.parent):
        if not path.exists():
            about = Metadata(kind="pretraining", config=config.flat(), code=code, **no_data)
            checkpoint.save(path, about, build_method(config, 2, 0), log=[])
    return source_of_file(path, backbone=config.backbone)


def encoder_sources(
    work: Workspace,
    methods: str,
    checkpoints: str = "",
    *,
    data: str = "",
    values: str = "{}",
    seed: int = 0,
) -> dict[str, EncoderSource]:
    """The encoders that a chapter evaluates, by the names of tables and figures.

    Runs that are missing are trained now. Where `random` is the only method, no data are needed,
    and it is like the encoders of the first checkpoint.

    Args:
        methods: separated by commas; '' for the checkpoints alone.
        checkpoints: separated by commas: files, or callables `package.module:name` or
            `file.py:name` that give a video encoder. One of a method's name takes its place.
        data: folder of the pre-training videos, '' for synthetic ones.
        values: of the runs, where they differ from the workspace's, as JSON.

    Raises:
        ValueError: for an unknown method, values that are not JSON, and as `source_of_file`.
    """
    items = [item.strip() for item in checkpoints.split(",") if item.strip()]
    names = parse_methods(methods) if methods.strip() or not items else ()
    changes = parse_values(values)
    config = work.pretraining(method="random", seed=seed, **changes)
    read = partial(source_of_file, backbone=config.backbone)
    given = [source_of_code(item, config) if is_spec(item) else read(item) for item in items]
    sources: dict[str, EncoderSource] = {}
    if any(find_method(name).is_trained for name in names):
        manifest = load_dataset(work, "", data, subset=config.subset)
        trained = runs.pretraining_runs(work, manifest, names, seed=seed, values=changes)
        runs.train(list(trained.values()), title=f"pre-training {', '.join(trained)}")
        sources = {method: read(run.checkpoint) for method, run in trained.items()}
    elif names:
        files = [source.config for source in given if source.checkpoint]
        sources["random"] = untrained_source(files[0] if files else config, work.runs)
    return sources | {source.method: source for source in given}


def device() -> torch.device:
    """Where encoders run: the first GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class FrozenEncoders(nn.Module):
    """The encoders of a source with their transform, in evaluation mode.

    Where a source has no statistics of the mel bands, as untrained encoders, which belong to no
    data set, those of the `training` videos are taken, and a line says so.
    """

    def __init__(self, source: EncoderSource, training: Manifest | None = None):
        super().__init__()
        self.source = source
        self.video_encoder, self.audio_encoder, statistics = source.load()
        if statistics is None and training is not None and self.audio_encoder is not None:
            print(f"{source.checkpoint} holds no mel band statistics: of {training.name} are taken")
            statistics = mel_statistics(training, source.config)
        self.transform = BatchTransform(source.config, statistics)
        self.eval()

    @torch.inference_mode()
    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features [B, F] on the CPU of the video and of the audio of a batch; [B, 0] of none."""
        batch = batch.to(next(self.parameters()).device)
        audio = self.encode_audio(batch.audio)
        if not batch.frames.shape[2]:
            return torch.empty(len(batch), 0), audio
        return self.video_encoder(self.transform.video(batch.frames)).cpu(), audio

    @torch.inference_mode()
    def encode_audio(self, wave: Tensor) -> Tensor:
        """Features [B, F] on the CPU of waveforms [B, samples]; [B, 0] where there are none."""
        if self.audio_encoder is None or not wave.shape[1]:
            return torch.empty(len(wave), 0)
        assert self.transform.audio is not None, "name the videos to take statistics from"
        return self.audio_encoder(self.transform.audio(wave)).cpu()


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of the clips of each video, with the labels of the videos."""

    video: Tensor  # [V, C, F]; [V, C, 0] when none was wanted
    audio: Tensor  # [V, C, F]; [V, C, 0] when none was wanted, or the encoder has no audio
    label: Tensor  # [V]


def encode_all(
    encode: Encode, manifest: Manifest, sampling: Sampling, config: Evaluation
) -> Features:
    """What an encoder makes of every clip of the videos, in memory."""
    clips, at_once = VideoClips(manifest, sampling, seed=config.seed), config.clips_per_forward
    total, count, size = len(clips), sampling.count, max(1, at_once // sampling.count)
    batches = video_batches(clips, range(total), size)
    bar = tqdm(batches, f"{manifest.name}, {count} clips each", -(-total // size), unit="batch")
    parts = [encode(part) for batch in bar for part in batch.split(at_once)]
    video, audio = (torch.cat(x).unflatten(0, (total, count)) for x in zip(*parts, strict=True))
    return Features(video=video, audio=audio, label=torch.tensor(clips.labels))


def soundtracks(encoders: FrozenEncoders, manifest: Manifest) -> Tensor:
    """Features [V, 1, F] of each video's whole audio, as the released code retrieves."""
    parts, hz = [], encoders.source.config.clip.audio_hz
    for video in tqdm(manifest.videos, f"{manifest.name}, soundtracks", unit="video"):
        with stored_video(manifest.path(video)) as file:
            wave = torch.from_numpy(file.audio(0, max(round(video.seconds * hz), 1), hz))
        parts.append(encoders.encode_audio(wave[None].to(device())))
    return torch.stack(parts)


def training_part(manifest: Manifest) -> Manifest:
    """The training videos of the data set that `manifest` is a part of."""
    return Manifest.load(manifest.where).split("train")


def extract(
    source: EncoderSource, manifest: Manifest, sampling: Sampling, config: Evaluation, cache: Path
) -> Features:
    """Features of every video, kept in `cache`, in a folder of the data and sampling.

    With `whole_video_sound` the audio is not that of the clips. ValueError when there is no video.
    """
    if not manifest.videos:
        raise ValueError(f"no video of {manifest.name} in {manifest.folder} can be used here")
    whole = sampling.audio and config.whole_video_sound
    training = training_part(manifest) if sampling.audio else None
    key = [manifest.digest, training and training.digest, sampling, whole, config.seed]
    file = cache / f"{manifest.name}-{digest(key)}" / f"{source.features_name}.safetensors"
    with locked(file.parent):
        if not file.exists():
            encoders = FrozenEncoders(source, training).to(device())
            seen = replace(sampling, audio=sampling.audio and not whole)
            found = encode_all(encoders.encode, manifest, seen, config)
            if whole:
                found = replace(found, audio=soundtracks(encoders, manifest))
            with replacing(file) as partial_file:
                save_file(vars(found), partial_file)
    return Features(**load_file(file))


def downstream_clip(run: Pretrain, config: Evaluation, *, audio_seconds: float = 1.0) -> Clip:
    """The clips of an evaluation: video, and audio that starts with it."""
    return replace(
        run.clip,
        video_seconds=config.video_seconds,
        video_fps=config.video_fps,
        audio_seconds=audio_seconds,
        max_offset_seconds=0.0,
    )


def uniform_sampling(clip: Clip, config: Evaluation) -> Sampling:
    """Uniformly spaced clips of each video, as they are tested."""
    return Sampling(
        clip=clip,
        count=config.video_level_clips,
        place="uniform",
        resize_px=config.resized_px(clip),
        interpolation=config.interpolation,
    )


def row_metadata(
    source: EncoderSource, manifest: Manifest, work: Workspace, config: Evaluation
) -> dict[str, Any]:
    """Fields of result rows that identify the encoder, the videos, the profile and protocol."""
    encoder = {"method": source.method, "run": source.name, "protocol": config.protocol_title}
    return {"dataset": manifest.name, "data": manifest.origin, "profile": work.name, **encoder}
