"""Video backbones by name; one of your own is named as `package.module:callable`."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from avnb.config import unknown_name
from avnb.models.encoders import VideoEncoder
from avnb.models.specs import is_spec, load_spec

# Each takes the width and gives a module [B, 3, T, S, S] -> [B, features].
VIDEO_BACKBONES: dict[str, Callable[[int], nn.Module]] = {"r2plus1d_18": VideoEncoder}
HEADS = ("fc", "head", "classifier")  # what torchvision's video models classify with


class OwnEncoder(nn.Module):
    """Any module from [B, 3, T, S, S] to [B, D] as a video encoder with `features` = D.

    Models of torchvision lose their classification head. The width is measured on a clip of
    16 frames of 112 x 112.

    Raises:
        ValueError: when the output is not [B, D].
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        if type(network).__module__.startswith("torchvision."):
            for name in HEADS:
                if hasattr(network, name):
                    setattr(network, name, nn.Identity())
        self.network = network
        training = network.training
        with torch.no_grad():
            shape = network.eval()(torch.zeros(2, 3, 16, 112, 112)).shape
        network.train(training)
        if len(shape) != 2 or shape[0] != 2:
            raise ValueError(
                f"a video encoder maps [B, 3, T, S, S] to [B, D]; {type(network).__name__} gives "
                f"{tuple(shape)} for B = 2"
            )
        self.features = int(shape[1])

    def forward(self, frames: Tensor) -> Tensor:
        """frames [B, 3, T, S, S], normalised -> [B, D]."""
        return self.network(frames)


def build_video_encoder(name: str, width: int) -> VideoEncoder:
    """A video encoder: a name of VIDEO_BACKBONES, or a callable that returns an `nn.Module`.

    Raises:
        ValueError: for an unknown name, or something that is no module from clips to features.
        FileNotFoundError, ImportError: when the callable cannot be found.
    """
    if name in VIDEO_BACKBONES:
        return cast(VideoEncoder, VIDEO_BACKBONES[name](width))
    if not is_spec(name):
        hint = "; one of your own is given as package.module:callable or file.py:callable"
        raise ValueError(unknown_name("video backbone", name, VIDEO_BACKBONES) + hint)
    network = load_spec(name)()
    if not isinstance(network, nn.Module):
        raise ValueError(f"{name!r} gives {type(network).__name__}, not a torch.nn.Module")
    return cast(VideoEncoder, OwnEncoder(network))
