"""Checkpoints that the thesis's author released."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avnb.config import Pretrain
from avnb.models.encoders import AudioEncoder, VideoEncoder
from avnb.models.methods import Method, build
from avnb.training.checkpoint import CheckpointError, read, some, written_by_us


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
    metadata = found["about"]
    method: Method = build(run, metadata["videos"], len(metadata["classes"]))
    method.load_state_dict(found["method"])
    method.eval().requires_grad_(False)
    return method.video_encoder, method.audio_encoder, metadata


LAYOUT = ("epoch", "model", "optimizer", "train_criterion")


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
        "run": Pretrain.from_flat(method=method, peak=0.95).flat(),
        "data": None,
        "data_set": "vggsound",
        "videos": 50_000,
        "without_audio": None,
        "classes": [],
        "mel_statistics": None,
    }
