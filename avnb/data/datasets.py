"""Data sets: what their lists name, checked against the files in their folders."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from avnb.config import unknown_name
from avnb.data import layouts
from avnb.data.layouts import SPLIT_FILE, UNWRITABLE, Entry, Lists, files_below, is_video, shown


@dataclass(frozen=True)
class DataSet:
    """The properties of a data set that others ask for."""

    title: str
    read_lists: Callable[[Path, int, list[str]], Lists]  # of a folder, a fold and its files
    marker: str = ""  # file or folder that shows the layout; none in a plain folder
    folds: int = 3  # official splits
    may_be_incomplete: bool = False  # its videos vanish one by one from where they were published


DATA_SETS = {
    "vggsound": DataSet("VGGSound", layouts.list_vggsound, "vggsound.csv", 1, True),
    "ucf101": DataSet("UCF-101", layouts.list_ucf101, "ucfTrainTestlist"),
    "hmdb51": DataSet("HMDB-51", layouts.list_hmdb51, "testTrainMulti_7030_splits"),
    "folder": DataSet("Own videos", layouts.list_folder, folds=10**9),  # each seeds another draw
}


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The lists of a data set, checked against its folder."""

    name: str
    folder: Path
    classes: tuple[str, ...]  # in the order of their labels
    entries: tuple[Entry, ...]  # those whose file exists
    missing: tuple[str, ...] = ()  # listed files that do not exist
    unlisted: tuple[str, ...] = ()  # videos that no list names; of a plain folder, other files too

    @property
    def listed(self) -> int:
        """Number of videos that the lists name, with or without a file."""
        return len(self.entries) + len(self.missing)


def detect(folder: str | Path) -> str:
    """The data set whose marker lies in a folder; `folder` for videos without a marker.

    Raises:
        FileNotFoundError: when there is neither; it says what was found, and lists the layouts.
    """
    folder = Path(folder)
    for name, data_set in DATA_SETS.items():
        if data_set.marker and (folder / data_set.marker).exists():
            return name
    files = files_below(folder)
    if (folder / SPLIT_FILE).exists() or any(map(is_video, files)):
        return "folder"
    known = [f"{name}: {layout(name)}" for name in DATA_SETS]
    raise FileNotFoundError(
        f"{folder} holds no data set; none of its {len(files)} files is a video or an official "
        f"list: {shown(files)}\nKnown layouts: {shown(known)}"
    )


def layout(name: str) -> str:
    """How the folder of a data set is recognised."""
    return f"{DATA_SETS[name].title}, with {DATA_SETS[name].marker or '<class>/<video>'} in it"


def display_name(name: str, folder: Path) -> str:
    """The name in result rows: the data set's, or a plain folder's own in safe characters."""
    if DATA_SETS[name].marker:
        return name
    safe = re.sub(r"[\W_]+", "-", folder.resolve().name.lower()).strip("-") or "folder"
    return f"{safe}-own" if safe in DATA_SETS and safe != name else safe


def listing(
    name: str, folder: str | Path, fold: int = 1, *, allow_missing: bool = False
) -> Listing:
    """Read a data set's lists and find their files.

    Args:
        name: a key of `DATA_SETS`; empty to detect it.
        fold: number of the official split, or seed of the draw in a plain folder; from 1.
        allow_missing: accept that files are missing, as always for VGGSound.

    Raises:
        ValueError: for an unknown data set or fold, or lists that cannot be parsed.
        FileNotFoundError: when the folder, a list or a listed file is missing.
    """
    folder, name = Path(folder), name or detect(folder)
    if name not in DATA_SETS:
        raise ValueError(unknown_name("data set", name, DATA_SETS))
    data_set = DATA_SETS[name]
    if not 1 <= fold <= data_set.folds:
        raise ValueError(f"{data_set.title} has no fold {fold}; allowed: 1 to {data_set.folds}")
    if not (folder / data_set.marker).exists():
        looks_like = layout(detect(folder))
        raise FileNotFoundError(f"{folder} is not {layout(name)}; it looks like {looks_like}")
    files = files_below(folder)
    classes, entries, unused = data_set.read_lists(folder, fold, files)
    layouts.check_classes(classes, folder)
    unique = unique_entries(entries, folder)
    existing, used = set(files), {entry.path for entry in entries} | unused
    unlisted = [path for path in files if path not in used]
    if data_set.marker:
        unlisted = [path for path in unlisted if is_video(path)]
    found = Listing(
        name=display_name(name, folder),
        folder=folder,
        classes=tuple(classes),
        entries=tuple(entry for entry in unique if entry.path in existing),
        missing=tuple(entry.path for entry in unique if entry.path not in existing),
        # Bytes that are no UTF-8 are written as \xNN.
        unlisted=tuple(os.fsencode(p).decode("utf-8", "backslashreplace") for p in unlisted),
    )
    check_complete(found, allow_missing or data_set.may_be_incomplete)
    return found


def unique_entries(entries: list[Entry], folder: Path) -> list[Entry]:
    """The entries, each once; ValueError for two of one id, and a path that cannot be written."""
    unique = dict[str, Entry]()
    for entry in entries:
        if UNWRITABLE.search(entry.path):
            raise ValueError(f"{folder} holds {entry.path!r}: rename it on one line, in UTF-8")
        if (first := unique.setdefault(entry.id, entry)) != entry:
            both = [(e.split, e.label, e.path) for e in (first, entry)]
            raise ValueError(f"the lists in {folder} name {entry.id} twice: {both}")
    return list(unique.values())


def check_complete(found: Listing, allow_missing: bool) -> None:
    """Raise FileNotFoundError, with their names, when files are missing that must not be."""
    unlisted = f"\nFiles there that no list names: {shown(found.unlisted)}"
    if not found.entries:
        raise FileNotFoundError(
            f"{found.folder} holds the lists of {found.name}, and none of their videos, as "
            f"{shown(found.missing[:1])}{unlisted}"
        )
    if found.missing and not allow_missing:
        raise FileNotFoundError(
            f"{len(found.missing)} of the {found.listed} videos that the lists of {found.name} "
            f"name are not in {found.folder}: {shown(found.missing)}{unlisted}\n"
            f"To go on with the {len(found.entries)} that are there: allow_missing=True, on the "
            "command line --allow-missing."
        )
