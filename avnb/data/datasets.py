"""Data sets: what their lists name, checked against the files in their folders.

A new data set is a function that reads its lists, and a line in `DATA_SETS`. Nothing else in the
package knows a data set's format.
"""

import collections
import csv
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NoReturn

from avnb.config import digest, unknown_name

ENDINGS = (
    "mp4 avi mkv webm mov m4v mts m2ts 3gp 3g2 wmv asf mpg mpeg m2v vob flv f4v ts ogv divx xvid "
    "mxf dv nut wtv"
)
VIDEO_SUFFIXES = tuple(f".{ending}" for ending in ENDINGS.split())
SPLIT_FILE = "split.csv"
HEADERS = "path,label,split", "path,label,group", "path,label,split,group"
UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # on a line, in UTF-8

Split = Literal["train", "test"]
SPLITS: dict[str, Split] = {"train": "train", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a data set's lists; `path` is relative to the data set's folder."""

    id: str
    path: str
    label: str
    split: Split
    group: str = ""  # of videos that no split divides; '' for a video of its own


Lists = tuple[Sequence[str], list[Entry], set[str]]  # classes, entries, files not to be used


def lines_of(table: Path) -> Iterator[tuple[str, str]]:
    """Each non-empty line of a list, stripped, and its place; ValueError unless it is UTF-8."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{table} is not UTF-8 text ({error}); save it as UTF-8") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield line.strip(), f"{table}, line {number}"


def csv_rows(table: Path) -> Iterator[tuple[list[str], str]]:
    """Each row of a CSV list, its cells stripped, and its place."""
    for line, place in lines_of(table):
        yield [cell.strip() for cell in next(csv.reader([line]))], place


def matched_lines(table: Path, form: str, meant: str) -> Iterator[tuple[re.Match[str], str]]:
    """Each non-empty line, matched with a pattern without case, and its place."""
    for line, place in lines_of(table):
        match = re.fullmatch(form, line, re.IGNORECASE)
        if not match:
            raise ValueError(f"{place}: expected {meant}, found {line!r}")
        yield match, place


def refuse(error: OSError) -> NoReturn:
    """A folder that may not be listed is an error: its videos would count as missing."""
    raise error


def files_below(folder: Path) -> list[str]:
    """Relative paths of the files below a folder but for hidden ones; follows links."""
    paths, visited = list[str](), set[Path]()
    for base, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        if Path(base).resolve() in visited:  # a link back to a folder above
            folders.clear()
            continue
        visited.add(Path(base).resolve())
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(base).relative_to(folder)
        paths += [(below / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(paths)


def shown(paths: Sequence[str], most: int = 8) -> str:
    """The first few of many paths, one a line."""
    rest = [f"and {len(paths) - most} more"] if len(paths) > most else []
    return "\n  ".join(["", *paths[:most], *rest]) if paths else "nothing"


def list_vggsound(folder: Path, fold: int, files: list[str]) -> Lists:
    """VGGSound: `vggsound.csv` without header, and files in `train/`, `test/` or flat.

    File names may be `<id>_<start>.mp4`, `<id>_<start:06d>.mp4` or `<id>_<ms>_<ms>.mp4`. An id
    may contain `_` or begin with `-`. Labels are numbered in sorted order.
    """
    paths = {path.rpartition("/")[2]: path for path in reversed(files)}
    entries = list[Entry]()
    for row, place in csv_rows(folder / "vggsound.csv"):
        if len(row) != 4 or row[3] not in SPLITS or not re.fullmatch("[0-9]{1,9}", row[1]):
            raise ValueError(f"{place}: expected id,start,label,train|test, found {row}")
        name, start = row[0], int(row[1])
        official, ms = f"{name}_{start:06d}", f"{start * 1000}_{(start + 10) * 1000}"
        forms = (f"{official}.mp4", f"{name}_{start}.mp4", f"{name}_{ms}.mp4")
        path = next((paths[form] for form in forms if form in paths), forms[0])
        entries.append(Entry(id=official, path=path, label=row[2], split=SPLITS[row[3]]))
    return sorted({entry.label for entry in entries}), entries, set()


def list_ucf101(folder: Path, fold: int, files: list[str]) -> Lists:
    """UCF-101: `UCF-101/<Class>/v_<Class>_gNN_cNN.avi` or flat, and `ucfTrainTestlist/`.

    Labels come from `classInd.txt`, in its order. Names are matched without case: the class
    HandstandPushups has files named v_HandStandPushups. No group may be in both splits.
    """
    lists, meant = folder / "ucfTrainTestlist", "'<Class>/v_<Class>_gNN_cNN.avi'"
    index = matched_lines(lists / "classInd.txt", r"\d+\s+(.+)", "'<number> <Class>'")
    labels = [match[1] for match, _ in index]
    classes = {label.lower(): label for label in labels}
    paths = {path.rpartition("/")[2].lower(): path for path in reversed(files)}
    entries, split_of = list[Entry](), dict[str, Split]()
    for split in SPLITS.values():
        form = r"(\w+)/((v_\w+_g\d+)_c\d+)\.avi(?:\s+\d+)?"
        for match, place in matched_lines(lists / f"{split}list0{fold}.txt", form, meant):
            if match[1].lower() not in classes:
                raise ValueError(f"{place}: classInd.txt has no class {match[1]}")
            if split_of.setdefault(match[3].lower(), split) != split:
                raise ValueError(
                    f"{place}: group {match[3]} is in the training and in the test list of fold "
                    f"{fold}; its videos show the same scene, so the test would be contaminated"
                )
            path = paths.get(f"{match[2]}.avi".lower(), f"UCF-101/{match[1]}/{match[2]}.avi")
            label = classes[match[1].lower()]
            entries.append(Entry(id=match[2], path=path, label=label, split=split))
    return labels, entries, set()


def list_hmdb51(folder: Path, fold: int, files: list[str]) -> Lists:
    """HMDB-51: `<class>/<video>.avi` and `testTrainMulti_7030_splits/`.

    Lines are `<video>.avi 0|1|2`: unused, training, test. Labels are the sorted class names.
    """
    lists, entries, unused = folder / "testTrainMulti_7030_splits", list[Entry](), set[str]()
    classes = {p.name.rpartition("_test_split")[0] for p in lists.glob("*_test_split?.txt")}
    for label in sorted(classes):
        table = lists / f"{label}_test_split{fold}.txt"
        for match, _ in matched_lines(table, r"([^/]+?)\s+([012])", "'<video>.avi 0|1|2'"):
            path = f"{label}/{match[1]}"
            if match[2] == "0":
                unused.add(path)
                continue
            key, split = path.removesuffix(".avi"), SPLITS["train" if match[2] == "1" else "test"]
            entries.append(Entry(id=key, path=path, label=label, split=split))
    return sorted(classes), entries, unused


def list_esc50(folder: Path, fold: int, files: list[str]) -> Lists:
    """ESC-50: `meta/esc50.csv` and `audio/<file>.wav`, 5 s of sound each, in five folds.

    Tested is the fold of that number. Clips of one recording are in the same fold.
    """
    rows, labels = csv_rows(folder / "meta/esc50.csv"), dict[int, str]()
    header, entries = next(rows, ([], ""))[0], list[Entry]()
    if header[:4] != ["filename", "fold", "target", "category"]:
        raise ValueError(
            f"{folder}/meta/esc50.csv, line 1: expected ESC-50's header, found {header}"
        )
    for row, place in rows:
        if len(row) != len(header) or not re.fullmatch(
            r"[^/]+\.wav [1-5] \d{1,2}", " ".join(row[:3])
        ):
            raise ValueError(f"{place}: expected {','.join(header)}, found {row}")
        known = dict(zip(header, row, strict=True))
        name, label = known["filename"], labels.setdefault(int(row[2]), row[3])
        split = SPLITS["test" if int(row[1]) == fold else "train"]
        group = known.get("src_file", "")
        key = name.removesuffix(".wav")
        entries.append(Entry(id=key, path=f"audio/{name}", label=label, split=split, group=group))
    return [labels[number] for number in sorted(labels)], entries, set()


def list_folder(folder: Path, fold: int, files: list[str]) -> Lists:
    """Own videos: what `split.csv` says; or folders of classes, a quarter of each class tested.

    They are `<class>/<video>`, or with a split `train/<class>/<video>` and `test/<class>/<video>`.
    """
    if (folder / "groups.txt").exists():
        raise ValueError(
            f"{folder}/groups.txt is not read: give `group` as a column of {SPLIT_FILE}"
        )
    if (folder / SPLIT_FILE).exists():
        is_split, entries = read_split(folder / SPLIT_FILE)
    else:
        videos = [path for path in files if path.lower().endswith(VIDEO_SUFFIXES)]
        is_split, entries = read_folders(folder, videos)
    entries = entries if is_split else with_splits(entries, fold)
    return sorted({entry.label for entry in entries}), entries, {SPLIT_FILE}


def read_folders(folder: Path, videos: list[str]) -> tuple[bool, list[Entry]]:
    """Whether the folders are a split, and the entries; `unlabelled` without folders of classes.

    ValueError for folders that are named as parts of a split, but are not just `train` and `test`.
    """
    tops = {path.partition("/")[0].lower() for path in videos if "/" in path}
    parts = {*SPLITS, "training", "testing", "val", "valid", "validation"}
    is_split = tops >= {*SPLITS} or (bool(tops) and tops <= parts)
    if len(tops) == 1 and {path.split("/")[1].lower() for path in videos if "/" in path} >= {
        *SPLITS
    }:
        raise ValueError(f"{folder} holds one folder, with 'train' and 'test': give that one")
    if is_split and tops != {*SPLITS}:
        raise ValueError(
            f"{folder} holds the folders {sorted(tops)}; expected one for each class, or just "
            "'train' and 'test' that hold them (a run draws its validation videos from 'train')"
        )
    depth, entries = int(is_split), list[Entry]()
    with_class = any(path.count("/") > depth for path in videos)
    for path in videos:
        top, *below = [*path.split("/")[:-1], "unlabelled"]
        if path.count("/") >= depth + with_class:
            label, split = (below[0], SPLITS[top.lower()]) if is_split else (top, "train")
            entries.append(Entry(id=path, path=path, label=label, split=split))
    return is_split, entries


def with_splits(entries: list[Entry], fold: int) -> list[Entry]:
    """The entries, a quarter of each class tested, at least one of two; no group is divided.

    Tested are the first groups in the order of a hash of their names and the fold, as long as each
    of their classes comes nearer to its quarter by them, and keeps a video for training.
    """
    groups, tested = dict[str, list[Entry]](), collections.Counter[str]()
    for entry in entries:
        groups.setdefault(entry.group or entry.path, []).append(entry)
    total, split_of = collections.Counter(entry.label for entry in entries), dict[str, Split]()
    for name in sorted(groups, key=lambda name: digest([fold, name])):
        own = collections.Counter(entry.label for entry in groups[name])
        fits = all(
            tested[c] + n / 2 <= (total[c] + 2) // 4 and n < total[c] for c, n in own.items()
        )
        tested += own if fits else {}
        split_of[name] = SPLITS["test" if fits else "train"]
    return [replace(e, split=split_of[e.group or e.path]) for e in entries]


def read_split(table: Path) -> tuple[bool, list[Entry]]:
    """Whether `split.csv` has a split, and its entries; ValueError, with the line, for bad rows."""
    rows = csv_rows(table)
    header, _ = next(rows, ([], ""))
    if ",".join(header) not in HEADERS:
        raise ValueError(f"{table}, line 1: expected one of {HEADERS}, found {header}")
    entries, split_of = list[Entry](), dict[str, str]()
    for row, place in rows:
        given = {"split": "train", "group": "", **dict(zip(header, row, strict=False))}
        given["split"] = given["split"].lower()
        if len(row) != len(header) or given["split"] not in SPLITS:
            raise ValueError(
                f"{place}: expected {','.join(header)} with 'train' or 'test' as split (a run "
                f"draws its validation videos from 'train'), found {row}"
            )
        split, group = SPLITS[given["split"]], given["group"]
        if group and split_of.setdefault(group, split) != split:
            raise ValueError(f"{place}: group {group!r} is in both splits; keep it in one of them")
        path = given["path"].replace("\\", "/").removeprefix("./")  # as Windows writes it
        entries.append(Entry(id=path, path=path, label=given["label"], split=split, group=group))
    return "split" in header, entries


@dataclass(frozen=True)
class DataSet:
    """The properties of a data set that others ask for."""

    title: str
    read_lists: Callable[[Path, int, list[str]], Lists]  # of a folder, a fold and its files
    marker: str = ""  # file or folder that shows the layout; none in a plain folder
    folds: int = 3  # official splits
    may_be_incomplete: bool = False  # its videos vanish one by one from where they were published


DATA_SETS = {
    "vggsound": DataSet("VGGSound", list_vggsound, "vggsound.csv", 1, True),
    "ucf101": DataSet("UCF-101", list_ucf101, "ucfTrainTestlist"),
    "hmdb51": DataSet("HMDB-51", list_hmdb51, "testTrainMulti_7030_splits"),
    "esc50": DataSet("ESC-50", list_esc50, "meta/esc50.csv", 5),
    "folder": DataSet("Own videos", list_folder, folds=10**9),  # each seeds another draw
    "located": DataSet("Located objects", list_folder, folds=10**9),  # of the synthetic world only
}


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The lists of a data set, checked against its folder."""

    name: str
    folder: Path
    classes: tuple[str, ...]  # in the order of their labels
    entries: tuple[Entry, ...]  # those whose file exists
    missing: tuple[Entry, ...] = ()  # those whose file does not exist
    unlisted: tuple[str, ...] = ()  # videos that no list names; of a plain folder, other files too

    @property
    def listed(self) -> int:
        """Number of videos that the lists name, with or without a file."""
        return len(self.entries) + len(self.missing)


def detect(folder: Path) -> str:
    """The data set whose marker lies in a folder; `folder` for videos without a marker."""
    for name, data_set in DATA_SETS.items():
        if data_set.marker and (folder / data_set.marker).exists():
            return name
    return "folder"


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
    folder, name = Path(folder), name or detect(Path(folder))
    if name not in DATA_SETS:
        raise ValueError(unknown_name("data set", name, DATA_SETS))
    data_set = DATA_SETS[name]
    if not 1 <= fold <= data_set.folds:
        raise ValueError(f"{data_set.title} has no fold {fold}; allowed: 1 to {data_set.folds}")
    if not (folder / data_set.marker).exists():
        raise FileNotFoundError(
            f"{folder} is not {data_set.title}: it has no {data_set.marker}; it may be the folder "
            f"of {detect(folder)!r}"
        )
    files = files_below(folder)
    classes, entries, unused = data_set.read_lists(folder, fold, files)
    unique, existing = unique_entries(entries, folder), {*files}
    used = {entry.path for entry in entries} | unused
    endings = VIDEO_SUFFIXES if data_set.marker else ""  # of a plain folder, all files
    unlisted = [path for path in files if path not in used and path.lower().endswith(endings)]
    found = Listing(
        name=display_name(name, folder),
        folder=folder,
        classes=tuple(classes),
        entries=tuple(entry for entry in unique if entry.path in existing),
        missing=tuple(entry for entry in unique if entry.path not in existing),
        # Bytes that are no UTF-8 are written as \xNN.
        unlisted=tuple(os.fsencode(p).decode("utf-8", "backslashreplace") for p in unlisted),
    )
    if not found.entries or (found.missing and not (allow_missing or data_set.may_be_incomplete)):
        lost = shown([entry.path for entry in found.missing])
        raise FileNotFoundError(
            f"{folder} holds {len(found.entries)} of the {found.listed} videos of {found.name}; "
            f"not there are: {lost}\nand in no list are: {shown(found.unlisted)}\n"
            "To go on with those that are there: --allow-missing, in Python allow_missing=True"
        )
    return found


def unique_entries(entries: list[Entry], folder: Path) -> list[Entry]:
    """The entries, each once; ValueError for two of one id, and what cannot be written."""
    unique = dict[str, Entry]()
    for entry in entries:
        if UNWRITABLE.search(entry.path + entry.label) or not entry.label:
            raise ValueError(
                f"{folder} holds {entry.path!r} of {entry.label!r}: both need a name of one line, "
                "in UTF-8"
            )
        if (first := unique.setdefault(entry.id, entry)) != entry:
            both = [(e.split, e.label, e.path) for e in (first, entry)]
            raise ValueError(f"the lists in {folder} name {entry.id} twice: {both}")
    return list(unique.values())
