"""Class names: the lists of five data sets, lists from a file, and names as a model reads them."""

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from avnb.values import unknown_name

TITLES = {
    "vggsound": "VGGSound",
    "audioset": "AudioSet",
    "kinetics400": "Kinetics-400",
    "ucf101": "UCF-101",
    "hmdb51": "HMDB-51",
}


@dataclass(frozen=True)
class ClassList:
    """The class names of a data set, in its label order."""

    key: str  # as result rows name it
    title: str
    names: tuple[str, ...]  # as the data set writes them

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def plain(self) -> list[str]:
        """The names as a language model reads them, in the same order."""
        return [normalised(name) for name in self.names]

    def positions(self, plain_names: set[str]) -> set[int]:
        """Label of each of these normalised names; ValueError for one that is not in the list."""
        if unknown := plain_names - set(self.plain):
            message = unknown_name(f"class of {self.title}", min(unknown), self.plain)
            raise ValueError(message)
        return {i for i, name in enumerate(self.plain) if name in plain_names}


def normalised(name: str) -> str:
    """A class name in lower case, without punctuation, its words apart.

    `ApplyEyeMakeup` -> `apply eye makeup`, `brush_hair` -> `brush hair`. Punctuation goes without
    leaving a space, as in the released code: `dog bow-wow` -> `dog bowwow`, `police car (siren)`
    -> `police car siren`.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name)
    kept = (c for c in spaced if unicodedata.category(c)[0] not in "PS")
    return " ".join("".join(kept).lower().split())


def class_list(key: str) -> ClassList:
    """One of the five lists of the package; ValueError for an unknown one."""
    if key not in TITLES:
        raise ValueError(unknown_name("class list", key, TITLES))
    text = (
        resources.files("avnb.evaluation")
        .joinpath("classes", f"{key}.txt")
        .read_text(encoding="utf-8")
    )
    return ClassList(key, TITLES[key], tuple(text.splitlines()))


def from_file(path: Path) -> ClassList:
    """A list from a text file, one name a line; empty lines are passed over.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: for a file that is not UTF-8 text or holds no name; for a name without a
            letter or figure, and two names that a model would read alike, with their lines.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: a text file with one class name a line")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        plain = normalised(line)
        if line.strip() and not plain:
            raise ValueError(f"{path}, line {number}: {line!r} holds no word")
        if plain in seen and plain:
            raise ValueError(
                f"{path}, line {number}: {line!r} reads {plain!r}, as line {seen[plain]} does"
            )
        seen[plain] = number
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise ValueError(f"{path} holds no class name; write one a line")
    return ClassList(path.stem, path.stem, names)
