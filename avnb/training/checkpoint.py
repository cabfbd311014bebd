"""Checkpoints: resumed by default, refused when another run's, and read for evaluation.

Both ours and those that the thesis's author released are read without running code in them.
"""

import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from avnb.config import Pretrain, identity
from avnb.files import replacing
from avnb.models.encoders import AudioEncoder, VideoEncoder
from avnb.models.methods import METHODS, build_method
from avnb.models.own import VIDEO_BACKBONES, build_video_encoder, resolved_spec

FORMAT = 3
ENCODERS = ("video_encoder.", "audio_encoder.")  # how names of their tensors begin
# What torch.load was seen to raise for files that are not torch's, damaged, or hold code.
UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError)
Network = TypeVar("Network", bound=nn.Module)


class CheckpointError(ValueError):
    """A checkpoint that does not fit, or a file that is none."""


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a run is, as its job file and its checkpoints say."""

    kind: str  # pretraining or finetuning
    config: dict[str, Any]  # values by flat name
    data: str | None  # digest of the training videos; None where it is not known
    data_set: str
    videos: int
    classes: list[str]
    mel_statistics: list[list[float]] | None = None  # mean and deviation of each band
    code: str = ""  # digest of the user's own method or encoder
    encoder: dict[str, Any] | None = None  # that fine-tuning starts from

    @property
    def pretrain(self) -> Pretrain:
        """The values of pre-training."""
        return Pretrain.from_flat(**self.config)


def save(path: Path, metadata: Metadata, model: nn.Module, **state: Any) -> None:
    """Write aside, flush to disk, rename: an interruption leaves the old file or the new one.

    Raises:
        CheckpointError: when it cannot be written, as on a full disk; the old file is kept.
    """
    content = {"format": FORMAT, "metadata": asdict(metadata), "model": model.state_dict()}
    try:
        with replacing(path) as partial:
            torch.save(content | state, partial)
    except (OSError, RuntimeError) as error:  # the latter is what torch makes of a short write
        before = "the previous one is kept" if path.exists() else "there is no previous one"
        raise CheckpointError(f"{path} could not be written ({error}); {before}") from error


def read(path: Path, *, mapped: bool = False) -> Any:
    """The content of a file of torch.save, on the CPU; `mapped` leaves tensors on disk until used.

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is not torch's, damaged, or holds more than data.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        if mapped:  # the former file format of torch cannot be mapped
            return read(path)
        raise CheckpointError(
            f"{path} is not a checkpoint, is damaged, or holds code, which is not run"
        ) from error


def load(path: str | Path) -> tuple[Metadata, dict[str, Any]]:
    """The metadata of a checkpoint of this package, and all of its content, on the CPU.

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is not a checkpoint of this package.
    """
    return parsed(Path(path), read(Path(path)))


def parsed(path: Path, content: Any) -> tuple[Metadata, dict[str, Any]]:
    """The content of a file of `save`; CheckpointError for another."""
    ours = isinstance(content, dict) and {"metadata", "model"} <= content.keys()
    if not ours or content.get("format") != FORMAT:
        kind = shortened(content) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} was not written by avnb (format {FORMAT}); it holds {kind}")
    return Metadata(**content["metadata"]), content


def shortened(names: Iterable[Any], most: int = 6) -> str:
    """The first few names, and how many more there are."""
    every = [str(name) for name in names]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return f"{every[:most]}{more}"


def differences(has: Mapping[Any, Any], wants: Mapping[Any, Any], prefix: str = "") -> list[str]:
    """Lines that say in which values two runs differ."""
    lines = []
    for name in sorted(has.keys() | wants.keys()):
        old, new = has.get(name), wants.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            lines.append(f"  {prefix}{name}: it has {old!r}, this run has {new!r}")
    return lines


def check_same(path: Path, has: Metadata, wants: Metadata) -> None:
    """Raise CheckpointError, with the differences, unless the same run wrote the file."""
    if lines := differences(identity(asdict(has)), identity(asdict(wants))):
        more = [f"  and {len(lines) - 8} other values"] if len(lines) > 8 else []
        raise CheckpointError(
            "\n".join([f"{path} was written by another run.", *lines[:8], *more])
            + "\nGive this run its own folder, or delete that file to start again."
        )


def load_tensors(path: Path, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy a file's tensors into a network; CheckpointError names those that do not fit."""
    try:
        network.load_state_dict(tensors)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} does not hold the tensors of this run: {error}") from error


# ---- for evaluation -----------------------------------------------------------------------------


class Encoders(nn.Module):
    """The two encoders of a run, untrained, under the names that checkpoints have for them."""

    def __init__(self, backbone: str = "r2plus1d_18", width: int = 64):
        super().__init__()
        self.video_encoder = build_video_encoder(backbone, width)
        self.audio_encoder = AudioEncoder(width)


def opened(path: str | Path, *, mapped: bool = False) -> tuple[Metadata, dict[str, Any]]:
    """What a checkpoint, ours or a released one, says of its pre-training, and its content."""
    path = Path(path)
    content = read(path, mapped=mapped)
    if not (isinstance(content, dict) and "format" in content):
        return released_metadata(released_content(path, content)[0]), content
    metadata, _ = parsed(path, content)
    if metadata.kind != "pretraining":
        raise CheckpointError(
            f"{path} is a classifier, fine-tuned on {metadata.data_set}, not a checkpoint of "
            "pre-training"
        )
    return metadata, content


def read_metadata(path: str | Path) -> Metadata:
    """What a checkpoint, ours or a released one, says of its pre-training; no network is built.

    Of a released one's run, what neither the file nor the publication says is None.

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is neither, or one of fine-tuning.
    """
    return opened(path, mapped=True)[0]


def check_backbone(path: Path, named: str, allowed: str) -> None:
    """Raise CheckpointError for a file that names code which the user did not name as well."""
    if named not in VIDEO_BACKBONES and named != resolved_spec(allowed):
        raise CheckpointError(
            f"{path} has a video encoder of its own, {named!r}, whose code is not run on a file's "
            f'word: name it as a value of the run, {{"backbone": "{named}"}}'
        )


def load_encoders(
    path: str | Path, *, backbone: str = ""
) -> tuple[VideoEncoder, AudioEncoder, Metadata]:
    """Both encoders, frozen in evaluation mode, and what the run was.

    From a checkpoint of this package or from a released one.

    Args:
        path: the file.
        backbone: a video encoder of the user's own that the file may name. A file's word alone
            does not make its code run.

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is neither, or names other code.
    """
    path, (metadata, content) = Path(path), opened(path)
    if metadata.data is None:
        return *released_encoders(path, *released_content(path, content)), metadata
    config = metadata.pretrain
    check_backbone(path, config.backbone, backbone)
    own = {k: v for k, v in content["model"].items() if k.startswith(ENCODERS)}
    both = frozen(path, lambda: Encoders(config.backbone, config.width), own)
    return both.video_encoder, both.audio_encoder, metadata


def frozen(path: Path, build: Callable[[], Network], tensors: Mapping[str, Tensor]) -> Network:
    """A network with a file's tensors, in evaluation mode; CheckpointError if they do not fit."""
    with torch.random.fork_rng():  # the initial weights are drawn, and replaced
        network = build()
    load_tensors(path, network, tensors)
    return network.eval().requires_grad_(False)


def load_heads(path: str | Path) -> nn.ModuleDict:
    """By modality, the frozen heads that mapped features to the space of the loss.

    Empty for a released checkpoint, and for a method without heads. Methods and video encoders of
    the user's own have none either: a file's word alone does not make their code run.

    Raises:
        FileNotFoundError, CheckpointError: as `load_encoders`.
    """
    metadata, content = opened(path, mapped=True)
    config = metadata.pretrain
    ours = config.method in METHODS and config.backbone in VIDEO_BACKBONES
    heads = METHODS[config.method].heads if ours and metadata.data is not None else {}
    tensors = {
        f"{modality}.{name.removeprefix(f'{head}.')}": tensor
        for modality, head in heads.items()
        for name, tensor in content["model"].items()
        if name.startswith(f"{head}.")
    }

    def build() -> nn.ModuleDict:
        method = build_method(config, 2, 0) if heads else None
        return nn.ModuleDict({m: getattr(method, head) for m, head in heads.items()})

    return frozen(Path(path), build, tensors)


def own_encoder(name: str) -> VideoEncoder:
    """A video encoder of the user's own, frozen; what it draws is drawn from seed 0.

    Raises:
        ValueError: for a name of VIDEO_BACKBONES, whose weights are in a checkpoint.
    """
    if name in VIDEO_BACKBONES:
        raise ValueError(f"{name!r} takes a checkpoint: only code of your own is used without one")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = build_video_encoder(name, 0)
    return encoder.eval().requires_grad_(False)


# ---- released with the thesis -------------------------------------------------------------------

BANDS = Path(__file__).with_name("released_bands.csv")  # published beside the code
HEADS = {"xid": "_proj.projection.", "vicreg_av": "_exp.expansion."}  # in names of their tensors
# Our name of a layer in a residual block -> the released one.
BLOCK = {
    "first.0": "spatial_conv1",
    "first.1": "spatial_bn1",
    "first.3": "temporal_conv1",
    "norm1": "temporal_bn1",
    "second.0": "spatial_conv2",
    "second.1": "spatial_bn2",
    "second.3": "temporal_conv2",
    "norm2": "out_bn",
    "skip": "res_conv",
}


def released_key(name: str) -> str:
    """Our name of an encoder's tensor -> the released one, without its leading `module.`.

    `video_encoder.stages.0.1.norm2.bias` -> `video_model.conv2x.1.out_bn.bias`
    """
    encoder, part, *inner, tensor = name.split(".")
    side = encoder.removesuffix("_encoder")
    if part == "stem":
        inner = ["conv1", *inner]
    elif side == "video":
        stage, block, *layer = inner
        inner = [f"conv{int(stage) + 2}x", block, BLOCK[".".join(layer)]]
    else:
        stage, number, kind = inner
        inner = [f"block{int(stage) + 1}", f"{('conv', 'bn')[int(kind)]}{int(number) + 1}"]
    return ".".join([f"{side}_model", *inner, tensor])


def released_content(path: Path, content: Any) -> tuple[str, dict[str, Any]]:
    """The method and the tensors in a released file; CheckpointError when it is another."""
    if isinstance(content, dict) and "format" in content:
        raise CheckpointError(
            f"{path} is a checkpoint of avnb, not one released with the thesis; "
            "`checkpoint.load_encoders` reads both"
        )
    model = content.get("model") if isinstance(content, dict) else None
    named = model if isinstance(model, dict) else {}
    tensors = {name.removeprefix("module."): tensor for name, tensor in named.items()}
    methods = [m for m, head in HEADS.items() if any(head in name for name in tensors)]
    if len(methods) != 1:
        kind = shortened(content) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"{path} is neither a checkpoint of avnb nor one released with the thesis, whose "
            f"`model` has encoders and the heads of either {' or '.join(HEADS)}; it holds {kind}"
        )
    return methods[0], tensors


def released_metadata(method: str) -> Metadata:
    """What is known of a released run: the thesis's values, the released code's spectrograms."""
    config = Pretrain.from_flat(method=method, peak=0.95, framing="released", masks="released")
    return Metadata(
        kind="pretraining",
        config=config.flat(),
        data=None,
        data_set="vggsound",
        videos=50_000,
        classes=[],
        mel_statistics=read_bands(BANDS, config.spectrogram.mels),
    )


def released_encoders(
    path: Path, method: str, tensors: Mapping[str, Tensor]
) -> tuple[VideoEncoder, AudioEncoder]:
    """The frozen encoders in a released file; CheckpointError names tensors that do not fit."""
    with torch.device("meta"):
        ours = {released_key(name): name for name in Encoders().state_dict()}
    if missing := [name for name in ours if name not in tensors]:
        raise CheckpointError(f"{path} lacks {len(missing)} tensors: {shortened(missing)}")
    rest = {ours.get(k, k): v for k, v in tensors.items() if HEADS[method] not in k}
    both = frozen(path, Encoders, rest)
    return both.video_encoder, both.audio_encoder


def load_released(path: str | Path) -> tuple[VideoEncoder, AudioEncoder]:
    """The encoders of a checkpoint that the thesis's author published, frozen, to evaluate.

    Both variants, xID and VICReg, are read; their heads, banks and optimiser are left out.

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is something else; it says what, and which tensors do not fit.
    """
    path = Path(path)
    return released_encoders(path, *released_content(path, read(path)))


def read_bands(path: str | Path, bands: int) -> list[list[float]]:
    """Mean and deviation of each mel band, from a table `band,mean,std`.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no such table, or one of another number of bands.
    """
    import pandas as pd

    path, types = Path(path).expanduser(), {"band": int, "mean": float, "std": float}
    table = pd.read_csv(path, dtype=types)
    bands_there = list(table.get("band", ()))
    if [*table] != [*types] or bands_there != [*range(bands)] or not (table["std"] > 0).all():
        raise ValueError(
            f"{path} must have the columns band, mean, std, the bands 0 to {bands - 1}, and "
            f"deviations above 0; it has {[*table]} and {len(table)} rows"
        )
    return [table["mean"].tolist(), table["std"].tolist()]
