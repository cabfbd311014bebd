"""The encoders to evaluate, by name: runs of this workspace, checkpoints, the user's own code."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avnb.config import Pretrain, digest, parse_values
from avnb.data.clips import Batch
from avnb.data.loader import AUTO
from avnb.data.manifest import Manifest
from avnb.data.prepare import load_dataset
from avnb.data.transform import BatchTransform, mel_statistics
from avnb.evaluation.class_names import TITLES, ClassList, class_list
from avnb.files import locked
from avnb.models.encoders import AudioEncoder, VideoEncoder
from avnb.models.methods import build_method, find_method, method_label, parse_methods
from avnb.models.own import is_spec, resolved_spec, source_digest
from avnb.profiles import Workspace
from avnb.training import checkpoint, runs
from avnb.training.checkpoint import Metadata
from avnb.training.launch import Resources
from avnb.training.runs import StartingPoint


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
