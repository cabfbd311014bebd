"""Checkpoints: resumed by default, refused when another run's, and read for evaluation.

Those that the thesis's author released are read as well: their tensors get the names of ours. No
code in a file is run.
"""

import pickle
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avnb.config import Pretrain, identity
from avnb.files import replacing
from avnb.models.encoders import AudioEncoder, VideoEncoder
from avnb.models.methods import METHODS, build_method
from avnb.models.own import VIDEO_BACKBONES, build_video_encoder, resolved_spec

FORMAT = 3
# What torch.load was seen to raise for files that are not torch's, damaged, or hold code.
UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError)


class CheckpointError(ValueError):
    """A checkpoint that does not fit, or a file that is none."""


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a run is, as its job file and its checkpoints say."""

    kind: str  # pretraining or finetuning
    config: dict[str, Any]  # values by flat name
    data: str | None  # digest of the training videos; None for a released checkpoint
    data_set: str
    videos: int
    classes: list[str]
    mel_statistics: list[list[float]] | None = None  # mean and deviation of each band
    code: str = ""  # digest of the user's own method or encoder
    encoder: dict[str, Any] = field(default_factory=dict)  # that fine-tuning starts from

    @property
    def pretrain(self) -> Pretrain:
        """The values of pre-training."""
        return Pretrain.from_flat(**self.config)


def save(path: Path, metadata: Metadata, model: nn.Module, **state: Any) -> None:
    """Write aside, flush to disk, rename: an interruption leaves the old file or the new one."""
    content = {"format": FORMAT, "metadata": asdict(metadata), "model": model.state_dict()}
    with replacing(path) as partial:
        torch.save(content | state, partial)


def load(path: str | Path, kind: str = "") -> tuple[Metadata, dict[str, Any]]:
    """What a checkpoint, ours or a released one, says of its run, and its content on the CPU.

    `kind` is pretraining or finetuning, where the other is of no use.

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is no checkpoint, damaged, of the other kind, or holds code.
    """
    with Path(path).open("rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except UNREADABLE as error:
            raise CheckpointError(
                f"{path} is not a checkpoint, is damaged, or holds code, which is not run"
            ) from error
    if isinstance(content, dict) and content.get("format") == FORMAT:
        metadata = Metadata(**content["metadata"])
    else:
        metadata, content = from_released(path, content)
    if kind and metadata.kind != kind:
        raise CheckpointError(f"{path} is a checkpoint of {metadata.kind}, not of {kind}")
    return metadata, content


def check_same(path: Path, has: Metadata, wants: Metadata) -> None:
    """CheckpointError, with the differences, unless the same run wrote the file at `path`."""
    old, new = (identity(m.config | asdict(m) | {"config": None}) for m in (has, wants))
    lines = [f"{path} was written by another run, or for other videos or code."]
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if a != b:
            lines.append(f"  {name}: it has {reprlib.repr(a)}, this run has {reprlib.repr(b)}")
    if len(lines) > 1:
        lines.append("Give this run its own folder, or delete that file to start again.")
        raise CheckpointError("\n".join(lines))


def frozen(path: str | Path, build: Callable[[], Any], tensors: Mapping[str, Tensor]) -> Any:
    """A network with a file's tensors, in evaluation mode; CheckpointError if they do not fit."""
    with torch.random.fork_rng():  # the initial weights are drawn, and replaced
        network = build()
    try:
        network.load_state_dict(tensors)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} does not hold the tensors of this run: {error}") from error
    return network.eval().requires_grad_(False)


def check_backbone(path: str | Path, named: str, allowed: str) -> None:
    """Raise CheckpointError for a file that names code which the user did not name as well."""
    if named not in VIDEO_BACKBONES and named != resolved_spec(allowed):
        raise CheckpointError(
            f"{path} has a video encoder of its own, {named!r}, whose code is not run on a file's "
            f'word: name it as a value of the run, {{"backbone": "{named}"}}'
        )


def load_encoders(
    path: str | Path, *, backbone: str = ""
) -> tuple[VideoEncoder, AudioEncoder, Metadata]:
    """Both encoders, frozen in evaluation mode, and what the run was; errors are those of `load`.

    `backbone` is a video encoder of the user's own that the file may name: its word alone does not
    make the code run.
    """
    metadata, content = load(path, "pretraining")
    config = metadata.pretrain.changed(method="random")  # has the encoders alone
    check_backbone(path, config.backbone, backbone)
    names = ("video_encoder.", "audio_encoder.")
    own = {k: v for k, v in content["model"].items() if k.startswith(names)}
    both = frozen(path, lambda: build_method(config, 0, 0), own)
    return both.video_encoder, both.audio_encoder, metadata


def load_heads(path: str | Path) -> nn.ModuleDict:
    """By modality, the frozen heads that mapped features to the space of the loss.

    Empty for a released checkpoint, for a method without heads, and where code of the user's own
    would have to be run. Errors are those of `load`.
    """
    metadata, content = load(path, "pretraining")
    config, sizes = metadata.pretrain, (metadata.videos, len(metadata.classes))
    ours = config.backbone in VIDEO_BACKBONES and metadata.data is not None
    heads = METHODS[config.method].heads if ours and config.method in METHODS else {}
    if not heads:
        return nn.ModuleDict()
    method = frozen(path, lambda: build_method(config, *sizes), content["model"])
    return nn.ModuleDict({modality: getattr(method, head) for modality, head in heads.items()})


def own_encoder(name: str) -> VideoEncoder:
    """A video encoder of the user's own, frozen; what it draws is drawn from seed 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_video_encoder(name, 0).eval().requires_grad_(False)


# Number, mean and deviation of each mel band, published beside the code.
BANDS = Path(__file__).with_name("released_bands.csv")
HEADS = {"xid": "_proj.projection.", "vicreg_av": "_exp.expansion."}  # in names of their tensors
# Part of a released name -> ours: encoders, stages, layers of a residual block of either.
PARTS = {"video_model": "video_encoder", "audio_model": "audio_encoder"}
PARTS |= {f"conv{i + 2}x": f"stages.{i}" for i in range(4)}
PARTS |= {f"block{i + 1}": f"stages.{i}" for i in range(4)}
PARTS |= {"spatial_conv1": "first.0", "spatial_bn1": "first.1", "temporal_conv1": "first.3"}
PARTS |= {"spatial_conv2": "second.0", "spatial_bn2": "second.1", "temporal_conv2": "second.3"}
PARTS |= {"temporal_bn1": "norm1", "out_bn": "norm2", "res_conv": "skip"}
PARTS |= {"conv1": "0.0", "bn1": "0.1", "conv2": "1.0", "bn2": "1.1"}


def our_name(released: str) -> str:
    """Our name of a released tensor; of one outside the encoders, any.

    `module.video_model.conv2x.1.out_bn.bias` -> `video_encoder.stages.0.1.norm2.bias`
    """
    name = released.removeprefix("module.").replace("_model.conv1.", "_encoder.stem.")
    return ".".join(PARTS.get(part, part) for part in name.split("."))


def from_released(path: str | Path, content: Any) -> tuple[Metadata, dict[str, Any]]:
    """What is known of a released run, and its tensors by our names.

    The values are the thesis's, the spectrograms the released code's. CheckpointError for a file
    that is neither released nor ours.
    """
    model = content.get("model") if isinstance(content, dict) else None
    tensors = model if isinstance(model, dict) else {}
    methods = [m for m, head in HEADS.items() if any(head in name for name in tensors)]
    if len(methods) != 1:
        found = reprlib.repr(list(content) if isinstance(content, dict) else content)
        raise CheckpointError(
            f"{path} is neither a checkpoint of avnb (format {FORMAT}) nor one released with the "
            f"thesis, whose `model` has the heads of either {' or '.join(HEADS)}; it holds {found}"
        )
    config = Pretrain.from_flat(method=methods[0], peak=0.95, framing="released")
    bands = np.loadtxt(BANDS, delimiter=",", skiprows=1)[:, 1:].T.tolist()
    run: Any = {"kind": "pretraining", "config": config.flat(), "mel_statistics": bands}
    run |= {"data": None, "data_set": "vggsound", "videos": 50_000, "classes": []}
    return Metadata(**run), {"model": {our_name(k): v for k, v in tensors.items()}}


def load_released(path: str | Path) -> tuple[VideoEncoder, AudioEncoder]:
    """The encoders of a checkpoint that the thesis's author published, frozen, to evaluate.

    Both variants, xID and VICReg, are read; their heads, banks and optimiser are left out. Errors
    are those of `load`; CheckpointError also names tensors that do not fit.
    """
    video, audio, metadata = load_encoders(path)
    if metadata.data is not None:
        raise CheckpointError(f"{path} was not released with the thesis; `load_encoders` reads it")
    return video, audio
