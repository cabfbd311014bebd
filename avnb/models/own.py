"""The user's own code, named as `package.module:name` or `file.py:name`, and video backbones.

Whatever is named is imported, that is, executed: name only code that you trust.
"""

import functools
import hashlib
import importlib
import sys
from collections.abc import Callable, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from avnb.config import unknown_name
from avnb.files import absolute
from avnb.models.encoders import VideoEncoder

# Each takes the width and returns a module [B, 3, T, S, S] -> [B, features].
VIDEO_BACKBONES: dict[str, Callable[[int], nn.Module]] = {"r2plus1d_18": VideoEncoder}


def file_of(text: str) -> Path | None:
    """The absolute path of the file that a spec `file.py:name` names; None for any other text."""
    source, _, name = text.rpartition(":")
    is_file = source.endswith(".py") and name.isidentifier()
    return absolute(source) if is_file else None


def is_spec(text: str) -> bool:
    """Whether a text names a user's code (a path without `.py:` in it does not)."""
    module, _, name = text.rpartition(":")
    dotted = all(part.isidentifier() for part in [*module.split("."), name])
    return dotted or file_of(text) is not None


def resolved_spec(text: str) -> str:
    """The same name with the path of its file made absolute; other names as they are."""
    file = file_of(text)
    return f"{file}:{text.rpartition(':')[2]}" if file else text


def source_digest(text: str) -> str:
    """Hash of the file that a spec names, so that changed code is another run; '' without one."""
    file = file_of(text)
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file else ""


@functools.cache
def module_of(file: Path, content: str) -> ModuleType:
    """The module in a file, whose `content` is given by its digest: changed code runs again."""
    spec = spec_from_file_location(f"avnb_own_{content}", file)
    assert spec and spec.loader
    sys.modules[spec.name] = module_from_spec(spec)  # dataclasses look here
    spec.loader.exec_module(sys.modules[spec.name])
    return sys.modules[spec.name]


def find(kind: str, text: str, known: Mapping[str, Any]) -> Any:
    """The entry of a registry, or the object that a spec names.

    Raises:
        ValueError: for a text that is neither.
        FileNotFoundError: when the spec names a file that does not exist.
        ImportError: when there is no such module, or it defines no such name.
    """
    if text in known:
        return known[text]
    if not is_spec(text):
        hint = "; one of your own is given as package.module:name or file.py:name"
        raise ValueError(unknown_name(kind, text, known) + hint)
    source, _, name = text.rpartition(":")
    file = file_of(text)
    if file and not file.is_file():
        raise FileNotFoundError(f"{file}, named as code of your own, does not exist")
    module = module_of(file, source_digest(text)) if file else importlib.import_module(source)
    if not hasattr(module, name):
        names = [n for n in vars(module) if not n.startswith("_")][:12]
        raise ImportError(f"{text!r}: {source} defines no {name!r}; it has {', '.join(names)}")
    return getattr(module, name)


class OwnEncoder(nn.Module):
    """Any module [B, 3, T, S, S] -> [B, D] as a video encoder with `features` = D.

    Models of torchvision lose their classification head. D is measured; ValueError when the output
    is not [B, D].
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        if type(network).__module__.startswith("torchvision."):
            for head in {"fc", "head", "classifier"} & dict(network.named_children()).keys():
                setattr(network, head, nn.Identity())
        self.network = network
        with torch.no_grad():
            shape = network.eval()(torch.zeros(2, 3, 16, 112, 112)).shape
        network.train()
        if len(shape) != 2 or shape[0] != 2:
            name, wants = type(network).__name__, "a video encoder maps [B, 3, T, S, S] to [B, D]"
            raise ValueError(f"{wants}; {name} gives {tuple(shape)} for B = 2")
        self.features = int(shape[1])

    def forward(self, frames: Tensor) -> Tensor:
        """Normalised frames [B, 3, T, S, S] -> [B, D]."""
        return self.network(frames)


def build_video_encoder(name: str, width: int) -> VideoEncoder:
    """A video encoder: a name of VIDEO_BACKBONES, or a callable that returns an `nn.Module`.

    Raises:
        ValueError: for an unknown name, or no module from clips to features; others as `find`.
    """
    build = find("video backbone", name, VIDEO_BACKBONES)
    if name in VIDEO_BACKBONES:
        return cast(VideoEncoder, build(width))
    network = build()
    if not isinstance(network, nn.Module):
        raise ValueError(f"{name!r} gives {type(network).__name__}, not a torch.nn.Module")
    return cast(VideoEncoder, OwnEncoder(network))
