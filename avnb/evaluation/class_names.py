"""Class names: the lists of five data sets, lists from a file, and their normalised form."""

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from avnb.config import unknown_name

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

    key: str  # name of the data set in result rows
    title: str
    names: tuple[str, ...]  # as spelt in the data set

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def plain(self) -> list[str]:
        """The normalised names, in the same order."""
        return [normalised(name) for name in self.names]

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
    file = resources.files("avnb.evaluation").joinpath("classes", f"{key}.txt")
    return ClassList(key, TITLES[key], tuple(file.read_text(encoding="utf-8").splitlines()))


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
    first: dict[str, int] = {}  # normalised name -> its line
    for number, name in names.items():
        plain, where = normalised(name), f"{path}, line {number}: {name!r}"
        if not plain:
            raise ValueError(f"{where} holds no word")
        if first.setdefault(plain, number) != number:
            raise ValueError(f"{where} reads {plain!r}, as line {first[plain]} does")
    if not names:
        raise ValueError(f"{path} holds no class name; write one per line")
    return ClassList(path.stem, path.stem, tuple(names.values()))
