"""Pre-training methods by name; a method of your own is named by its class.

| base:       what training asks of a module, what methods have in common, and `random`
| supervised: classes from video and audio side by side
| vicreg:     VICReg between video and audio, and between two clips of a video
| xid:        cross-modal instance discrimination
| agreement:  two relatives of xID, in which both memory banks decide positives, or trust
| clusters:   the clusters of one modality are the labels of the other
| in_batch:   contrast among the clips of a batch
| timing:     is the sound in time?
"""

import torch

from avnb.config import Pretrain
from avnb.models.encoders import initialise
from avnb.models.methods.agreement import CrossModalAgreement, RobustDiscrimination
from avnb.models.methods.base import Method, Random, derive_seed
from avnb.models.methods.clusters import CrossModalClusters
from avnb.models.methods.in_batch import InBatchContrast
from avnb.models.methods.supervised import Supervised
from avnb.models.methods.timing import Synchronisation
from avnb.models.methods.vicreg import AudioVisualVICReg, VisualVICReg
from avnb.models.methods.xid import CrossModalDiscrimination
from avnb.models.own import find, resolved_spec

# In the order of tables and figures.
METHODS: dict[str, type[Method]] = {
    "random": Random,
    "supervised": Supervised,
    "vicreg_av": AudioVisualVICReg,
    "vicreg_v": VisualVICReg,
    "xid": CrossModalDiscrimination,
    "in_batch": InBatchContrast,
    "r_xid": RobustDiscrimination,
    "avid_cma": CrossModalAgreement,
    "avts": Synchronisation,
    "xdc": CrossModalClusters,
}


def find_method(name: str) -> type[Method]:
    """The class of a method: a name of METHODS, `package.module:Class` or `file.py:Class`.

    Raises:
        ValueError: for an unknown name, or what is no subclass of `Method`; others as `find`.
    """
    method = find("method", name, METHODS)
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise ValueError(f"method {name!r} is not a subclass of avnb.models.methods.Method")
    return method


def parse_methods(text: str) -> tuple[str, ...]:
    """`"random, xid"` -> ("random", "xid"); paths of a user's own files become absolute.

    Raises:
        ValueError: for a method named twice, or no method; others as `find_method`.
    """
    names = [resolved_spec(name.strip()) for name in text.split(",") if name.strip()]
    labels = [method_label(name) for name in names if find_method(name)]
    if not names or len(set(labels)) < len(labels):
        raise ValueError(f"methods = {text!r}: name each once, and at least one of {[*METHODS]}")
    return tuple(names)


def method_label(name: str) -> str:
    """What result rows and folders call a method: its name, or the name of a user's class."""
    return name.rpartition(":")[2]


def build_method(config: Pretrain, videos: int, classes: int) -> Method:
    """The method of a run, initialised from its seed; global generators are left as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(config.seed, 0))
        method = find_method(config.method)(config, videos, classes)
        if config.he_heads:
            for name in method.heads.values():
                initialise(getattr(method, name))
        return method
