"""Checkpoints: resumed by default, refused when another run's, and read for evaluation."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from avnb.config import Pretrain, identity
from avnb.models.backbones import VIDEO_BACKBONES, build_video_encoder
from avnb.models.encoders import AudioEncoder, VideoEncoder
from avnb.models.methods import METHODS, build_method
from avnb.models.specs import resolved_spec
from avnb.training import released, torch_file
from avnb.training.torch_file import CheckpointError, check_tensors, shortened

FORMAT = 3
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a run is, as its job file and its checkpoints say."""

    kind: str  # pretraining or finetuning
    config: dict[str, Any]  # values by flat name
    data: str | None  # digest of the training videos; None where it is not known
    data_set: str
    videos: int
    classes: list[str]
    without_audio: int | None = None  # videos, those left out for it included
    mel_statistics: list[list[float]] | None = None  # mean and deviation of each band
    code: str = ""  # digest of the user's own method or encoder
    encoder: dict[str, Any] | None = None  # that fine-tuning starts from

    @property
    def pretrain(self) -> Pretrain:
        """The values of pre-training."""
        return Pretrain.from_flat(**self.config)


def save(path: Path, metadata: Metadata, model: nn.Module, **state: Any) -> None:
    """Write a checkpoint whole.

    Raises:
        CheckpointError: when it cannot be written, as on a full disk; the old file is kept.
    """
    content = {"format": FORMAT, "metadata": asdict(metadata), "model": model.state_dict()}
    torch_file.write(path, content | state)


def load(path: str | Path) -> tuple[Metadata, dict[str, Any]]:
    """The metadata of a checkpoint of this package, and all of its content, on the CPU.

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is not a checkpoint of this package.
    """
    path = Path(path)
    return parsed(path, torch_file.read(path))


def parsed(path: Path, content: Any) -> tuple[Metadata, dict[str, Any]]:
    """The content of a file of `save`, also of the former format; CheckpointError for another."""
    if isinstance(content, dict) and content.get("format") == FORMAT - 1 and "about" in content:
        content = upgraded(content)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        kind = shortened(content) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} was not written by avnb (format {FORMAT}); it holds {kind}")
    try:
        metadata = Metadata(**content["metadata"])
        config = {name: value for name, value in metadata.config.items() if name not in DROPPED}
    except (AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} does not say what its run was ({error})") from error
    if not isinstance(content.get("model"), dict):
        raise CheckpointError(f"{path} holds no tensors: it has {shortened(content)}")
    return dataclasses.replace(metadata, config=config), content


DROPPED = {"window_steps"}  # a value that former files name; it never changed what was computed

# Values that format 2 had under other names.
FORMER_NAMES = dict(
    picture_seconds="video_seconds",
    picture_fps="video_fps",
    sound_seconds="audio_seconds",
    sound_hz="audio_hz",
    missing_sound="missing_audio",
    flip_share="flip_prob",
    mask_share="mask_max_fraction",
    audio_rest_share="audio_rest_prob",
    apart_seconds_min="second_view_min_seconds",
    apart_seconds_max="second_view_max_seconds",
    lr_factor="lr_decay_factor",
    first_fall="first_decay",
    second_fall="second_decay",
    third_fall="third_decay",
)


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of format 2 as it would be written now."""
    about = content["about"]
    kind = "pretraining" if "run" in about else "finetuning"
    values = about["run"] if kind == "pretraining" else about["finetune"]
    config = {FORMER_NAMES.get(name, name): value for name, value in values.items()}
    if config["sync_batch_norm"] == "vicreg":
        config["sync_batch_norm"] = "method"
    start = about.get("start")
    metadata = Metadata(
        kind=kind,
        config=config,
        data=about["data"],
        data_set=about["data_set"],
        videos=about["videos"],
        classes=about["classes"],
        without_audio=about.get("without_sound", about.get("without_audio")),
        mel_statistics=about.get("bands", about.get("mel_statistics")),
        encoder=start and {**start, "backbone": "r2plus1d_18"},
    )
    return {**content, "format": FORMAT, "metadata": asdict(metadata), "model": content["method"]}


def differences(has: Mapping[Any, Any], wants: Mapping[Any, Any], prefix: str = "") -> list[str]:
    """Lines that say in which values two runs differ, inside lists as well."""
    lines = []
    for name in sorted(has.keys() | wants.keys()):
        old, new = (
            dict(enumerate(value)) if isinstance(value, list | tuple) else value
            for value in (has.get(name), wants.get(name))
        )
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


# ---- for evaluation -----------------------------------------------------------------------------


def read_metadata(path: str | Path) -> Metadata:
    """What a checkpoint, ours or a released one, says of its pre-training; no network is built.

    Of a released one's run, what neither the file nor the publication says is None.

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is neither, or one of fine-tuning.
    """
    path = Path(path)
    return pretraining_metadata(path, torch_file.read(path, mapped=True))


def pretraining_metadata(path: Path, content: Any) -> Metadata:
    """What a file's content says of its pre-training; CheckpointError as `read_metadata`."""
    if released.is_released(content):
        return released_metadata(released.released_method(path, content))
    metadata, _ = parsed(path, content)
    if metadata.kind != "pretraining":
        raise CheckpointError(
            f"{path} is a classifier, fine-tuned on {metadata.data_set}, not a checkpoint of "
            "pre-training"
        )
    try:
        metadata.pretrain  # noqa: B018 - its values are checked
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has values that no run can have: {error}") from error
    return metadata


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
        mel_statistics=released.read_bands(released.BANDS, config.spectrogram.mels),
    )


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
    path = Path(path)
    content = torch_file.read(path)
    metadata = pretraining_metadata(path, content)
    if released.is_released(content):
        return *released.released_encoders(path, content), metadata
    config, (_, content) = metadata.pretrain, parsed(path, content)
    check_backbone(path, config.backbone, backbone)
    own = {k: v for k, v in content["model"].items() if str(k).startswith(ENCODERS)}
    both = frozen(path, lambda: Encoders(config), own, backbone=config.backbone)
    return both.video_encoder, both.audio_encoder, metadata


def frozen(
    path: Path, build: Callable[[], Network], tensors: Mapping[str, Tensor], *, backbone: str
) -> Network:
    """A network with a file's tensors, in evaluation mode.

    Nothing large is built on the word of a file: names and shapes are compared before. Code of the
    user's own may need a network that exists for that.

    Raises:
        CheckpointError: for tensors that do not fit.
    """
    known = backbone in VIDEO_BACKBONES
    if known:
        with torch.device("meta"):
            check_tensors(path, tensors, build().state_dict())
    with torch.random.fork_rng():  # the initial weights are drawn, and replaced
        network = build()
    if not known:
        check_tensors(path, tensors, network.state_dict())
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)


def load_heads(path: str | Path) -> nn.ModuleDict:
    """By modality, the frozen heads that mapped features to the space of the loss.

    Empty for a released checkpoint, and for a method without heads. Methods and video encoders of
    the user's own have none either: a file's word alone does not make their code run.

    Raises:
        FileNotFoundError, CheckpointError: as `load_encoders`.
    """
    path = Path(path)
    content = torch_file.read(path, mapped=True)
    config = pretraining_metadata(path, content).pretrain
    ours = config.method in METHODS and config.backbone in VIDEO_BACKBONES
    heads = METHODS[config.method].heads if ours and not released.is_released(content) else {}
    if not heads:
        return nn.ModuleDict()
    _, content = parsed(path, content)
    tensors = {
        f"{modality}.{name.removeprefix(f'{head}.')}": tensor
        for modality, head in heads.items()
        for name, tensor in content["model"].items()
        if name.startswith(f"{head}.")
    }

    def build() -> nn.ModuleDict:
        method = build_method(config, 2, 0)
        return nn.ModuleDict({m: getattr(method, head) for m, head in heads.items()})

    return frozen(path, build, tensors, backbone=config.backbone)


ENCODERS = ("video_encoder.", "audio_encoder.")


class Encoders(nn.Module):
    """The two encoders of a run, untrained, under the names that checkpoints have for them."""

    def __init__(self, config: Pretrain):
        super().__init__()
        self.video_encoder = build_video_encoder(config.backbone, config.width)
        self.audio_encoder = AudioEncoder(config.width)


def load_released(path: str | Path) -> tuple[VideoEncoder, AudioEncoder]:
    """The encoders of a checkpoint that the thesis's author published, frozen, to evaluate.

    Both variants, xID and VICReg, are read; their heads, banks and optimiser are left out.
    No code in the file is run.

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is something else; it says what, and which tensors do not fit.
    """
    path = Path(path)
    return released.released_encoders(path, torch_file.read(path))


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
