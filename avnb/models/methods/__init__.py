"""Ways to pre-train, by name; a method of your own is named by its class.

base         what training asks of a module, what all methods have in common
untrained    random: no pre-training
late_fusion  supervised: video and audio features side by side
vicreg       vicreg_av and vicreg_v
xid          xid: instance discrimination against memory banks
"""

import torch

from avnb.config import Pretrain, unknown_name
from avnb.models.methods.base import Method, TrainableModule, derive_seed
from avnb.models.methods.random import Random
from avnb.models.methods.supervised import Supervised
from avnb.models.methods.vicreg import AudioVisualVICReg, VisualVICReg
from avnb.models.methods.xid import CrossModalDiscrimination
from avnb.models.specs import is_spec, load_spec, resolved_spec

__all__ = [
    "METHODS",
    "Method",
    "TrainableModule",
    "build_method",
    "derive_seed",
    "find_method",
    "method_label",
    "parse_methods",
]

# In the order of tables and figures.
METHODS: dict[str, type[Method]] = {
    "random": Random,
    "supervised": Supervised,
    "vicreg_av": AudioVisualVICReg,
    "vicreg_v": VisualVICReg,
    "xid": CrossModalDiscrimination,
}


def find_method(name: str) -> type[Method]:
    """The class of a method: a name of METHODS, `package.module:Class` or `file.py:Class`.

    Raises:
        ValueError: for an unknown name, or a class that is no `Method`.
        FileNotFoundError, ImportError: when the module of a class cannot be found or imported.
    """
    if name in METHODS:
        return METHODS[name]
    if not is_spec(name):
        hint = "; a class of your own is given as package.module:Class or file.py:Class"
        raise ValueError(unknown_name("method", name, METHODS) + hint)
    found = load_spec(name)
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise ValueError(
            f"method {name!r} is {found!r}, not a subclass of {Method.__module__}.Method"
        )
    return found


def parse_methods(text: str) -> tuple[str, ...]:
    """`"random, xid"` -> ("random", "xid"); files of a user's own methods become absolute.

    Raises:
        ValueError: when a method does not exist, is named twice, or none is.
        FileNotFoundError, ImportError: as `find_method`.
    """
    names = [resolved_spec(name.strip()) for name in text.split(",") if name.strip()]
    labels = [method_label(name) for name in names if find_method(name)]
    if not names or len(set(labels)) < len(labels):
        raise ValueError(
            f"methods = {text!r}: name each once, separated by commas, and at least one of "
            + ", ".join(METHODS)
        )
    return tuple(names)


def method_label(name: str) -> str:
    """What result rows and folders call a method: its name, or the name of a user's class."""
    return name.rpartition(":")[2]


def build_method(config: Pretrain, videos: int, classes: int) -> Method:
    """The method of a run, initialised from its seed; global generators are left as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(config.seed, 0))
        return find_method(config.method)(config, videos, classes)
