"""The registry of data sets: a new one is a module with a reader, and one line here."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from avnb.config import unknown_name
from avnb.data.folder import LAYOUT, SPLIT_FILE, list_folder
from avnb.data.hmdb51 import list_hmdb51
from avnb.data.listing import (
    Listing,
    Lists,
    check_complete,
    check_labels,
    files_below,
    first_lines,
    is_video,
    need,
)
from avnb.data.manifest import Entry
from avnb.data.ucf101 import list_ucf101
from avnb.data.vggsound import list_vggsound


@dataclass(frozen=True)
class DataSet:
    """The properties of a data set that others ask for."""

    title: str
    read_lists: Callable[[Path, int, list[str]], Lists]  # of a folder, a fold and its files
    marker: str = ""  # file or folder that shows the layout; none in a plain folder
    folds: int = 3  # official splits; in a plain folder any fold is the seed of a draw
    may_be_incomplete: bool = False  # its videos vanish one by one from where they were published


DATA_SETS = {
    "vggsound": DataSet("VGGSound", list_vggsound, "vggsound.csv", 1, may_be_incomplete=True),
    "ucf101": DataSet("UCF-101", list_ucf101, "ucfTrainTestlist"),
    "hmdb51": DataSet("HMDB-51", list_hmdb51, "testTrainMulti_7030_splits"),
    "folder": DataSet("Own videos", list_folder),
}


def detect(folder: str | Path) -> str:
    """The data set whose marker lies in a folder; `folder` for videos without a marker.

    Raises:
        FileNotFoundError: when there is neither; it says what was found, and lists the layouts.
    """
    folder = need(Path(folder), "the folder of a data set")
    for name, data_set in DATA_SETS.items():
        if data_set.marker and (folder / data_set.marker).exists():
            return name
    files = files_below(folder)
    if (folder / SPLIT_FILE).exists() or any(map(is_video, files)):
        return "folder"
    layouts = "\n".join(f"  {name}: {layout(name)}" for name in DATA_SETS)
    raise FileNotFoundError(
        f"{folder} holds no data set; of its {len(files)} files none is a video or an official "
        f"list:\n{first_lines(files) or '  (empty)'}\nKnown layouts:\n{layouts}"
    )


def layout(name: str) -> str:
    """How the folder of a data set is recognised."""
    data_set = DATA_SETS[name]
    return f"{data_set.title}, with `{data_set.marker or LAYOUT}` in the folder"


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
        FileNotFoundError: when a list or a listed file is missing.
    """
    folder, name = Path(folder), name or detect(folder)
    if name not in DATA_SETS:
        raise ValueError(unknown_name("data set", name, DATA_SETS))
    data_set = DATA_SETS[name]
    if fold < 1 or (data_set.marker and fold > data_set.folds):
        allowed = ", ".join(map(str, range(1, data_set.folds + 1)))
        raise ValueError(
            f"{data_set.title} has no fold {fold}; allowed: {allowed}"
            + ("" if data_set.marker else " ..., each the seed of another draw")
        )
    need(folder, f"the folder of {name}")
    try:
        need(folder / data_set.marker, f"the official lists of {data_set.title}")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}{suggestion(folder)}") from None
    files = files_below(folder)
    classes, entries, unused = data_set.read_lists(folder, fold, files)
    check_labels([*classes, *(entry.label for entry in entries)], folder)
    unique: dict[str, Entry] = {}
    for entry in entries:
        if (first := unique.setdefault(entry.id, entry)) != entry:
            both = [(e.split, e.label) for e in (first, entry)]
            raise ValueError(f"the lists of {name} in {folder} name {entry.id} twice: {both}")
    existing, used = set(files), {e.path for e in unique.values()} | unused
    result = Listing(
        name=display_name(name, folder),
        folder=folder,
        classes=tuple(classes),
        entries=tuple(e for e in unique.values() if e.path in existing),
        missing=tuple(e.path for e in unique.values() if e.path not in existing),
        unlisted=tuple(path for path in files if is_video(path) and path not in used),
    )
    check_complete(result, allow_missing or data_set.may_be_incomplete)
    return result


def suggestion(folder: Path) -> str:
    """A line that names the data set in a folder which lacks the marker of the one asked for."""
    try:
        name = detect(folder)
    except FileNotFoundError:
        return ""
    return f"\n  it looks like {name!r} ({layout(name)})"
