"""The encoders to evaluate, by name: runs of this workspace, checkpoints, the user's own code."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from avnb.config import Pretrain, digest, parse_values
from avnb.data.catalogue import load_dataset
from avnb.evaluation.class_names import TITLES, ClassList, class_list
from avnb.files import locked
from avnb.models.encoders import AudioEncoder, VideoEncoder
from avnb.models.methods import build_method, find_method, method_label, parse_methods
from avnb.models.specs import is_spec, resolved_spec, source_digest
from avnb.profiles import Workspace
from avnb.training import checkpoint, runs
from avnb.training.checkpoint import Metadata
from avnb.training.launch import Resources
from avnb.training.runs import (
    StartingPoint,
    TrainingRun,
    code_digest,
    pretraining_runs,
    run_name,
    with_absolute_files,
)


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
        if self.checkpoint is not None:
            backbone = self.config.backbone
            video, audio, metadata = checkpoint.load_encoders(self.checkpoint, backbone=backbone)
            statistics = self.mel_statistics or metadata.mel_statistics
            return video, audio, replace(metadata, mel_statistics=statistics)
        encoder = checkpoint.own_encoder(self.config.backbone)
        return encoder, None, unknown_training(self.config)

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
    def starting_point(self) -> StartingPoint:
        """The video encoder, as fine-tuning starts from it."""
        config = self.config
        return StartingPoint(
            method=self.method,
            checkpoint=self.checkpoint,
            backbone=config.backbone,
            width=config.width,
        )


def unknown_training(config: Pretrain) -> Metadata:
    """Metadata of encoders that were not trained here: no data set, no statistics."""
    return Metadata(
        kind="pretraining",
        config=config.flat(),
        data="",
        data_set="",
        videos=0,
        classes=[],
        code=code_digest(config),
    )


def source_of_run(run: TrainingRun) -> EncoderSource:
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
        name = run_name(config, metadata.data, metadata.code)
    return EncoderSource(method=label, name=name, config=config, checkpoint=path)


def source_of_code(spec: str, config: Pretrain) -> EncoderSource:
    """A video encoder of the user's own, on the clips of `config`; it has no audio."""
    spec = resolved_spec(spec)
    own = config.changed(backbone=spec)
    label = method_label(spec)
    name = f"{label}-{digest([spec, source_digest(spec), own.clip])}"
    return EncoderSource(method=label, name=name, config=own, checkpoint=None)


def untrained_source(config: Pretrain, folder: Path) -> EncoderSource:
    """The encoders of `config` before pre-training, kept as a checkpoint below `folder`.

    They belong to no data set, so the statistics of their mel bands are those of the videos that
    they are evaluated on.
    """
    config = with_absolute_files(config.changed(method="random"))
    name = run_name(config, "", code_digest(config))
    path = folder / name / "last.pt"
    with locked(path.parent):
        if not path.exists():
            model = build_method(config, 2, 0)
            checkpoint.save(path, unknown_training(config), model, log=[])
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
        methods: separated by commas, as `parse_methods` takes them; '' for the checkpoints alone.
            Where none of them is trained (`random` alone), no data are needed, and the untrained
            encoders are like those of the first checkpoint.
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
        trained = pretraining_runs(work, manifest, names, seed=seed, values=changes)
        runs.train(list(trained.values()), resources, f"pre-training {', '.join(trained)}")
        sources = {method: source_of_run(run) for method, run in trained.items()}
    elif names:
        files = [source.config for source in given if source.checkpoint]
        sources["random"] = untrained_source(files[0] if files else config, work.runs)
    return sources | {source.method: source for source in given}
