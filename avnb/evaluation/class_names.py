"""Class names of five data sets, or from a file."""

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

CLASSES = Path(__file__).with_name("classes")
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

    @cached_property
    def plain(self) -> list[str]:
        """The normalised names, in the same order."""
        return [normalised(name) for name in self.names]

    @property
    def is_official(self) -> bool:
        """Whether all names, however spelt, are in the list of this key in TITLES."""
        return self.key in TITLES and {*self.plain} <= {*class_list(self.key).plain}


def normalised(name: str) -> str:
    """A class name in lower case, split into words and without punctuation.

    `ApplyEyeMakeup` -> `apply eye makeup`, `brush_hair` -> `brush hair`. As in the released code
    punctuation leaves no space behind: `dog bow-wow` -> `dog bowwow`.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name)
    kept = (c for c in spaced if unicodedata.category(c)[0] not in "PS")
    return " ".join("".join(kept).lower().split())


def class_list(key: str) -> ClassList:
    """One of the package's five lists, by a key of TITLES."""
    return ClassList(key, TITLES[key], from_file(CLASSES / f"{key}.txt").names)


def from_file(path: Path | str) -> ClassList:
    """A list from a text file, one name per line; empty lines are skipped."""
    lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise ValueError(f"{path} holds no class name; write one per line")
    return ClassList(Path(path).stem, Path(path).stem, names)
