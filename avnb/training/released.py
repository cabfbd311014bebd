"""Checkpoints that the thesis's author released: their layout, and the encoders in them."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avnb.data.layouts import read_list
from avnb.models.encoders import AudioEncoder, VideoEncoder
from avnb.training.torch_file import CheckpointError, check_tensors, shortened

BANDS = Path(__file__).with_name("released_bands.csv")  # published beside the code
LAYOUT = ("epoch", "model", "optimizer", "train_criterion")
LINEAR = ("weight", "bias")
NORM = (*LINEAR, "running_mean", "running_var", "num_batches_tracked")
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
# By method: the head's name and the tensors of its layers.
HEADS: dict[str, tuple[str, dict[int, tuple[str, ...]]]] = {
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
        stage, number, kind = inner
        inner = [f"block{int(stage) + 1}", f"{('conv', 'bn')[int(kind)]}{int(number) + 1}"]
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


def is_released(content: Any) -> bool:
    """Whether a file's content may be a released checkpoint rather than one of ours."""
    return not (isinstance(content, dict) and "format" in content)


def tensors_of(path: Path, content: Any) -> dict[str, Any]:
    """The tensors of a released file by name.

    Raises:
        CheckpointError: when the content is something else; it says what.
    """
    if not is_released(content) and content.keys() & {"metadata", "about"}:
        raise CheckpointError(
            f"{path} is a checkpoint of avnb, not one released with the thesis; "
            "`checkpoint.load_encoders` reads both"
        )
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        return {str(k).removeprefix("module."): v for k, v in content["model"].items()}
    if (
        isinstance(content, dict)
        and content
        and all(isinstance(v, Tensor) for v in content.values())
    ):
        kind = f"a bare state dict, as torchvision's weights are, with {shortened(content)}"
    else:
        names = f" of {shortened(content)}" if isinstance(content, dict) else ""
        kind = f"a {type(content).__name__}{names}"
    raise CheckpointError(
        f"{path} is neither a checkpoint of avnb nor one released with the thesis, but {kind}\n"
        f"  a released one: a dict of {list(LAYOUT)}, of which `model` holds tensors by name"
    )


def released_methods(tensors: Mapping[str, Any]) -> list[str]:
    """The methods whose heads are among the tensors; a released file has exactly one."""
    return [m for m, (head, _) in HEADS.items() if any(f"_{head}." in name for name in tensors)]


def mismatches(tensors: Mapping[str, Any], expected: Mapping[str, Tensor]) -> list[str]:
    """Lines that say where the tensors of a released file differ from what is expected."""
    methods = released_methods(tensors)
    every = [*expected, *(key for method in methods for key in head_keys(method))]
    wrong_shape = []
    for name in sorted(expected.keys() & tensors.keys()):
        value, shape = tensors[name], tuple(expected[name].shape)
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if found != shape:
            wrong_shape.append(f"{name} is {found}, expected {shape}")
    kinds = {
        "missing": [name for name in every if name not in tensors],
        "unexpected": sorted(tensors.keys() - set(every)),
        "of another shape": wrong_shape,
    }
    lines = [f"  {len(names)} {k}: {shortened(names)}" for k, names in kinds.items() if names]
    if len(methods) != 1:
        heads = " or ".join(f"video_{head}" for head, _ in HEADS.values())
        lines.append(f"  expected the heads of one method, {heads}; found {methods}")
    return lines


def released_method(path: Path, content: Any) -> str:
    """The method that a released file was trained with.

    Raises:
        CheckpointError: when the content is something else; it says which tensors do not fit.
    """
    tensors = tensors_of(path, content)
    with torch.device("meta"):  # names and shapes alone
        both = nn.ModuleDict({"video_encoder": VideoEncoder(), "audio_encoder": AudioEncoder()})
    expected = {released_key(name): value for name, value in both.state_dict().items()}
    if lines := mismatches(tensors, expected):
        raise CheckpointError(
            "\n".join([f"{path} does not hold the networks released with the thesis:", *lines])
        )
    return released_methods(tensors)[0]


def released_encoders(path: Path, content: Any) -> tuple[VideoEncoder, AudioEncoder]:
    """The frozen encoders in a released file's content, or CheckpointError."""
    released_method(path, content)
    tensors = tensors_of(path, content)
    with torch.random.fork_rng():  # their initial weights are drawn, and replaced
        video, audio = VideoEncoder(), AudioEncoder()
    both = nn.ModuleDict({"video_encoder": video, "audio_encoder": audio})
    expected = {released_key(name): value for name, value in both.state_dict().items()}
    check_tensors(path, {name: tensors[name] for name in expected}, expected)
    both.load_state_dict({name: tensors[released_key(name)] for name in both.state_dict()})
    both.eval().requires_grad_(False)
    return video, audio


def read_bands(path: str | Path, bands: int) -> list[list[float]]:
    """Mean and deviation of each mel band, from a table `band,mean,std`.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no such table, or one of another number of bands.
    """
    path = Path(path).expanduser()
    rows = list(csv.DictReader(read_list(path).splitlines()))
    try:
        found = {int(row["band"]): (float(row["mean"]), float(row["std"])) for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no table of the columns band, mean, std: {error}") from error
    if sorted(found) != list(range(bands)) or len(rows) != bands:
        raise ValueError(f"{path} has {len(rows)} rows; the bands 0 to {bands - 1} are needed")
    if wrong := [i for i, (m, s) in found.items() if not (math.isfinite(m) and 0 < s < math.inf)]:
        raise ValueError(f"{path}: band {wrong[0]} needs a finite mean and a deviation above 0")
    return [[found[i][side] for i in range(bands)] for side in (0, 1)]
