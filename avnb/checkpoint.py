"""Checkpoints: written whole or not at all, resumed by default, refused when another run's.

Those that the thesis's author published can be read as well.
"""

import os
import pickle
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avnb.config import Pretrain, binding
from avnb.encoders import AudioEncoder, VideoEncoder
from avnb.methods import Method, build

FORMAT = 2


class CheckpointError(ValueError):
    """A checkpoint that does not fit, or is none."""


def save(path: Path, about: dict[str, Any], method: nn.Module, **rest: Any) -> None:
    """Write aside, flush to disk, rename: an interruption leaves the old file or the new one.

    `about` is what the run is: its plain values, the classes, the digest of the data.

    Raises:
        CheckpointError: when it cannot be written, as on a full disk; the old file stays.
    """
    partial = path.with_suffix(".partial")
    whole = {"format": FORMAT, "about": about, "method": method.state_dict(), **rest}
    try:
        with partial.open("wb") as file:
            torch.save(whole, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # the latter is what torch makes of a short write
        partial.unlink(missing_ok=True)
        before = "the one before it is kept" if path.exists() else "there is none before it"
        raise CheckpointError(f"{path} could not be written ({error}); {before}") from error


# What torch.load was seen to raise for files that are none of torch's, or damaged.
UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError,
    AttributeError, AssertionError, struct.error,
)  # fmt: skip


def read(path: Path) -> Any:
    """What torch.save wrote into a file, on the CPU. No code in it is run (`weights_only`).

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is a folder, not torch's, damaged, or holds more than data.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is not a checkpoint: it is a folder; name the file in it")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        if code := re.search(r"GLOBAL (\S+)", str(error)):  # torch's own words advise to run it
            why = f"it holds {code[1]}, which is code and was not run; only tensors, numbers, "
            why += "texts, lists and dictionaries of them are read"
        elif isinstance(error, RuntimeError):
            why = str(error).partition("\n")[0]
        else:
            why = f"torch cannot read it ({type(error).__name__})"
        raise CheckpointError(f"{path} is not a checkpoint, or is damaged: {why}") from error


def some(names: Iterable[Any], most: int = 6) -> str:
    """The first few names, and how many more there are."""
    every = [str(name) for name in names]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return f"{every[:most]}{more}"


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote, on the CPU.

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is not a checkpoint of this package.
    """
    return written_by_us(path, read(path))


def written_by_us(path: Path, found: Any) -> dict[str, Any]:
    """The content of a file of `save`, or CheckpointError."""
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        kind = some(found) if isinstance(found, dict) else type(found).__name__
        raise CheckpointError(f"{path} was not written by avnb (format {FORMAT}); it holds {kind}")
    return found


def differences(has: dict[Any, Any], wants: dict[Any, Any], prefix: str = "") -> list[str]:
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


def check_same(path: Path, has: dict[str, Any], wants: dict[str, Any]) -> None:
    """Raise CheckpointError, with the differences, unless the same run wrote the file."""
    if lines := differences(binding(has), binding(wants)):
        more = [f"  and {len(lines) - 8} other values"] if len(lines) > 8 else []
        raise CheckpointError(
            "\n".join([f"{path} was written by another run.", *lines[:8], *more])
            + "\nGive this run its own folder, or delete that file to start again."
        )


def encoders(path: Path) -> tuple[VideoEncoder, AudioEncoder, dict[str, Any]]:
    """Both encoders, frozen in evaluation mode, and what the run was.

    From a checkpoint of this package or from a released one. Of the latter's run, what is not in
    the file is None: the digest of its data and its statistics of the mel bands (`bands`).

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is neither.
    """
    found = read(path)
    if not (isinstance(found, dict) and "format" in found):
        video, audio, name = released(path, found)
        return video, audio, about_released(name)
    found = written_by_us(path, found)
    if "run" not in found["about"]:
        raise CheckpointError(
            f"{path} is a classifier, fine-tuned on {found['about'].get('data_set')}, not a "
            "checkpoint of pre-training"
        )
    run = Pretrain.from_flat(**found["about"]["run"])
    about = found["about"]
    method: Method = build(run, about["videos"], len(about["classes"]))
    method.load_state_dict(found["method"])
    method.eval().requires_grad_(False)
    return method.video_encoder, method.audio_encoder, about


# ---- released checkpoints -----------------------------------------------------------------------

LAYOUT = ("epoch", "model", "optimizer", "train_criterion")
BLOCK = {
    "first.0": "spatial_conv1", "first.1": "spatial_bn1", "first.3": "temporal_conv1",
    "norm1": "temporal_bn1", "second.0": "spatial_conv2", "second.1": "spatial_bn2",
    "second.3": "temporal_conv2", "norm2": "out_bn", "skip": "res_conv",
}  # fmt: skip
LINEAR = ("weight", "bias")
NORM = (*LINEAR, "running_mean", "running_var", "num_batches_tracked")
HEADS: dict[
    str, tuple[str, dict[int, tuple[str, ...]]]
] = {  # by method: the head's name and the tensors of its layers
    "xid": ("proj.projection", {0: LINEAR, 2: LINEAR, 4: LINEAR}),
    "vicreg_av": ("exp.expansion", {0: LINEAR, 1: NORM, 3: LINEAR, 4: NORM, 6: LINEAR}),
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
        stage, layer_number, kind = inner
        inner = [f"block{int(stage) + 1}", f"{('conv', 'bn')[int(kind)]}{int(layer_number) + 1}"]
    return ".".join([f"{side}_model", *inner, tensor])


def head_keys(method: str) -> list[str]:
    """The released names of both heads' tensors; the heads themselves are not read."""
    head, layers = HEADS[method]
    return [
        f"{side}_{head}.{number}.{tensor}"
        for side in ("video", "audio")
        for number, tensors in layers.items()
        for tensor in tensors
    ]


def faults(model: Mapping[str, Any], wants: Mapping[str, Tensor], heads: list[str]) -> list[str]:
    """Lines that say where the tensors of a released file differ from what is wanted."""
    every = [*wants, *heads]
    missing = [name for name in every if name not in model]
    unexpected = sorted(model.keys() - set(every))
    wrong = []
    for name in sorted(wants.keys() & model.keys()):
        value, shape = model[name], tuple(wants[name].shape)
        has = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if has != shape:
            wrong.append(f"{name} is {has}, expected {shape}")
    found = {"missing": missing, "unexpected": unexpected, "of another shape": wrong}
    return [f"  {len(names)} {kind}: {some(names)}" for kind, names in found.items() if names]


def model_of(path: Path, found: Any) -> dict[str, Any]:
    """The tensors of a released file by name, or CheckpointError that says what it is instead."""
    if isinstance(found, dict) and isinstance(found.get("model"), dict):
        return {str(name).removeprefix("module."): value for name, value in found["model"].items()}
    if isinstance(found, dict) and "format" in found and "method" in found:
        raise CheckpointError(
            f"{path} is a checkpoint of avnb, not one released with the thesis; "
            "`checkpoint.encoders` reads both"
        )
    if isinstance(found, dict) and found and all(isinstance(v, Tensor) for v in found.values()):
        kind = f"a bare state dict, as torchvision's weights are, with {some(found)}"
    else:
        names = f" of {some(found)}" if isinstance(found, dict) else ""
        kind = f"a {type(found).__name__}{names}"
    raise CheckpointError(
        f"{path} is neither a checkpoint of avnb nor one released with the thesis, but {kind}\n"
        f"  a released one: a dict of {list(LAYOUT)}, of which `model` holds tensors by name"
    )


def released(path: Path, found: Any) -> tuple[VideoEncoder, AudioEncoder, str]:
    """Encoders and method of a released file's content, or CheckpointError."""
    model = model_of(path, found)
    held = [m for m, (head, _) in HEADS.items() if any(f"_{head}." in name for name in model)]
    with torch.random.fork_rng():  # their first weights are drawn, and replaced
        video, audio = VideoEncoder(), AudioEncoder()
    both = nn.ModuleDict({"video_encoder": video, "audio_encoder": audio})
    ours = both.state_dict()
    wants = {released_key(name): value for name, value in ours.items()}
    lines = faults(model, wants, [key for method in held for key in head_keys(method)])
    if len(held) != 1:
        names = [f"video_{head}" for head, _ in HEADS.values()]
        lines.append(f"  expected the heads of one method, {' or '.join(names)}; found {held}")
    if lines:
        raise CheckpointError(
            "\n".join([f"{path} does not hold the networks released with the thesis:", *lines])
        )
    both.load_state_dict({name: model[released_key(name)] for name in ours})
    both.eval().requires_grad_(False)
    return video, audio, held[0]


def load_released(path: Path) -> tuple[VideoEncoder, AudioEncoder]:
    """The encoders of a checkpoint that the thesis's author published, frozen, to evaluate.

    Both variants, xID and VICReg, are read; their heads, banks and optimiser are left behind.
    No code in the file is run.

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is something else; it says what, and which tensors do not fit.
    """
    video, audio, _ = released(path, read(path))
    return video, audio


def about_released(method: str) -> dict[str, Any]:
    """What is known of a released run: the thesis's values, but none of its statistics."""
    return {
        "run": Pretrain.from_flat(method=method, peak=0.95).flat(), "data": None,
        "data_set": "vggsound", "videos": 50_000, "without_sound": None, "classes": [],
        "bands": None,
    }  # fmt: skip
