"""The layouts of data sets: a function reads the lists and the names of files in a folder.

A new layout is such a function, and a line in `datasets.DATA_SETS`. Nothing else in the package
knows a data set's format.
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Literal, NoReturn

from avnb.config import digest

ENDINGS = "mp4 avi mkv webm mov m4v mts 3gp wmv mpg mpeg flv ts ogv"
VIDEO_SUFFIXES = tuple(f".{ending}" for ending in ENDINGS.split())
SPLIT_FILE, GROUP_FILE, HEADER = "split.csv", "groups.txt", ["path", "label", "split"]
UNLABELLED = "unlabelled"
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


Lists = tuple[Sequence[str], list[Entry], set[str]]  # classes, entries, files not to be used


def read_list(table: Path) -> str:
    """The text of a list, without a byte order mark.

    Raises:
        FileNotFoundError: when there is none; it says what is beside it.
        ValueError: for another encoding than UTF-8; with the line.
    """
    if not table.is_file():
        beside = sorted(p.name for p in table.parent.iterdir()) if table.parent.is_dir() else []
        raise FileNotFoundError(f"{table} is missing; its folder holds {shown(beside)}")
    content = table.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{table}, line {line}: is not UTF-8 text; save it as UTF-8") from error


def csv_rows(table: Path) -> Iterator[tuple[list[str], str]]:
    """Each non-empty row of a CSV list and its place."""
    rows = csv.reader(read_list(table).splitlines(keepends=True))
    try:
        yield from ((row, f"{table}, line {rows.line_num}") for row in rows if row)
    except csv.Error as error:
        raise ValueError(f"{table}, line {rows.line_num}: {error}") from error


def matched_lines(table: Path, form: str, meant: str) -> Iterator[tuple[re.Match[str], str]]:
    """Each non-empty line, stripped and matched with a pattern without case, and its place."""
    for number, line in enumerate(map(str.strip, read_list(table).splitlines()), 1):
        match, place = re.fullmatch(form, line, re.IGNORECASE), f"{table}, line {number}"
        if match:
            yield match, place
        elif line:
            raise ValueError(f"{place}: expected {meant}, found {line!r}")


def is_video(path: str) -> bool:
    """Whether a file name has one of the known suffixes."""
    return path.lower().endswith(VIDEO_SUFFIXES)


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


def check_classes(classes: Sequence[str], where: Path) -> None:
    """Raise ValueError for a class without a name of one line, and for the same name twice."""
    for label in classes:
        if not label.strip() or UNWRITABLE.search(label):
            raise ValueError(f"{where} has the class {label!r}: a class needs a name of one line")
    for one, other in pairwise(sorted(classes, key=str.casefold)):
        if one.casefold() == other.casefold():
            raise ValueError(f"{where} has the classes {one!r} and {other!r}: name them apart")


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
    lists = folder / "ucfTrainTestlist"
    index = lists / "classInd.txt"
    lines = [match for match, _ in matched_lines(index, r"(\d+)\s+(.+)", "'<number> <Class>'")]
    labels, numbers = [line[2] for line in lines], [int(line[1]) for line in lines]
    check_classes(labels, index)
    if numbers != [*range(1, len(lines) + 1)]:
        raise ValueError(f"{index}: its classes should be numbered 1, 2, ..., not {numbers}")
    classes = {label.lower(): (str(i), label) for i, label in enumerate(labels, 1)}
    paths = {path.rpartition("/")[2].lower(): path for path in reversed(files)}
    entries, split_of = list[Entry](), dict[str, Split]()
    form, meant = r"(\w+)/((v_\w+_g\d+)_c\d+)\.avi(?:\s+(\d+))?", "'<Class>/v_<Class>_gNN_cNN.avi'"
    for split in SPLITS.values():
        for match, place in matched_lines(lists / f"{split}list0{fold}.txt", form, meant):
            number, label = classes.get(match[1].lower(), ("", ""))
            if not label or (match[4] or number) != number:
                raise ValueError(f"{place}: classInd.txt has no class {match[4] or ''} {match[1]}")
            if split_of.setdefault(match[3].lower(), split) != split:
                raise ValueError(
                    f"{place}: group {match[3]} is in the training and in the test list of fold "
                    f"{fold}; its videos show the same scene, so the test would be contaminated"
                )
            path = paths.get(f"{match[2]}.avi".lower(), f"UCF-101/{match[1]}/{match[2]}.avi")
            entries.append(Entry(id=match[2], path=path, label=label, split=split))
    return labels, entries, set()


def list_hmdb51(folder: Path, fold: int, files: list[str]) -> Lists:
    """HMDB-51: `<class>/<video>.avi` and `testTrainMulti_7030_splits/`.

    Lines are `<video>.avi 0|1|2`: unused, training, test. Labels are the sorted class names.
    """
    lists = folder / "testTrainMulti_7030_splits"
    tables = [re.fullmatch(r"(.+)_test_split[123]\.txt", p.name) for p in lists.iterdir()]
    classes = sorted({match[1] for match in tables if match})
    if not classes:
        raise FileNotFoundError(f"{lists} holds no file <class>_test_split{fold}.txt")
    entries, unused = list[Entry](), set[str]()
    for label in classes:
        table = lists / f"{label}_test_split{fold}.txt"
        for match, _ in matched_lines(table, r"([^/]+?)\s+([012])", "'<video>.avi 0|1|2'"):
            path = f"{label}/{match[1]}"
            if match[2] == "0":
                unused.add(path)
                continue
            key, split = path.removesuffix(".avi"), SPLITS["train" if match[2] == "1" else "test"]
            entries.append(Entry(id=key, path=path, label=label, split=split))
    return classes, entries, unused


def list_folder(folder: Path, fold: int, files: list[str]) -> Lists:
    """Own videos: `<class>/.../<any name>`, or unlabelled without class folders.

    The split is what `split.csv` (path,label,split) says, where there is one; or `train/` and
    `test/` above the folders of the classes; or drawn: a quarter of each class's groups is
    tested, by their names and the seed `fold`. A group is one file, or, where `groups.txt` holds
    a regular expression, the files in whose names its capture group matches the same text.
    Labels are numbered in sorted order.
    """
    if (folder / SPLIT_FILE).exists():
        entries = read_split(folder / SPLIT_FILE, files)
    else:
        videos = [path for path in files if is_video(path)]
        if not videos:
            raise FileNotFoundError(
                f"{folder} holds no video, named <class>/<any name> with one of the endings "
                f"{' '.join(VIDEO_SUFFIXES)}; it holds {shown(files)}"
            )
        splits = split_folders(folder, videos)
        labels = label_videos(folder, videos, inside=bool(splits))
        splits = splits or draw_split(labels, groups_of(folder / GROUP_FILE, videos), fold)
        entries = [Entry(id=p, path=p, label=labels[p], split=splits[p]) for p in videos]
    return sorted({entry.label for entry in entries}), entries, {SPLIT_FILE, GROUP_FILE}


def read_split(table: Path, files: Iterable[str]) -> list[Entry]:
    """The entries of `split.csv`; ValueError, with the line, for a bad row."""
    rows, entries, there = csv_rows(table), dict[str, Entry](), set(files)
    if (header := next(rows, ([], ""))[0]) != HEADER:
        raise ValueError(f"{table}, line 1: expected {','.join(HEADER)!r}, found {header}")
    for row, place in rows:
        if len(row) != 3 or not all(row) or row[2] not in SPLITS:
            raise ValueError(
                f"{place}: expected a path, a label, and 'train' or 'test' (a run draws its "
                f"validation videos from 'train'), found {row}"
            )
        given = row[0] if row[0] in there else row[0].replace("\\", "/")  # as Windows writes it
        path = PurePosixPath(given).as_posix()
        if ".." in path.split("/") or re.match("/|[A-Za-z]:", path):
            raise ValueError(f"{place}: {row[0]!r} is not a path relative to {table.parent}")
        if path in entries:
            raise ValueError(f"{place}: {path!r} is listed twice")
        entries[path] = Entry(id=path, path=path, label=row[1], split=SPLITS[row[2]])
    return list(entries.values())


def split_folders(folder: Path, videos: list[str]) -> dict[str, Split]:
    """The split of each video where `train/` and `test/` hold all of them; {} without these."""
    tops = {path.partition("/")[0] for path in videos}
    if not SPLITS.keys() <= tops:
        return {}
    if more := sorted(tops - SPLITS.keys()):
        raise ValueError(
            f"{folder} holds train/ and test/, and videos beside them: {shown(more)}\nMove these "
            f"away, or list all videos in {SPLIT_FILE}"
        )
    return {path: SPLITS[path.partition("/")[0]] for path in videos}


def label_videos(folder: Path, videos: list[str], *, inside: bool) -> dict[str, str]:
    """The label of each video: the top folder (`inside` one of the split), or `unlabelled`."""
    places = {path: path.split("/")[inside:] for path in videos}
    loose = [path for path, parts in places.items() if len(parts) == 1]
    if 0 < len(loose) < len(videos):
        raise ValueError(
            f"{folder} holds class folders, and {len(loose)} videos in none of them: "
            f"{shown(loose)}\nMove them to a class, or list all videos in {SPLIT_FILE}"
        )
    return {path: UNLABELLED if loose else parts[0] for path, parts in places.items()}


def groups_of(table: Path, videos: list[str]) -> dict[str, str]:
    """The group of each video, by the pattern in `groups.txt`; each by itself without one."""
    if not table.exists():
        return {path: path for path in videos}
    pattern = read_list(table).strip()
    try:
        found = {path: re.search(pattern, path.rpartition("/")[2]) for path in videos}
        groups = {path: match[1] for path, match in found.items() if match and match[1]}
    except (re.error, IndexError) as error:
        raise ValueError(
            f"{table}: expected a regular expression with a capture group, as in "
            rf"'^(\w+)_\d+', found {pattern!r}: {error}"
        ) from error
    if unmatched := [path for path in videos if path not in groups]:
        raise ValueError(f"{table}: {pattern!r} finds no group in the names of {shown(unmatched)}")
    return groups


def draw_split(labels: Mapping[str, str], groups: Mapping[str, str], fold: int) -> dict[str, Split]:
    """The split of each video: a quarter of each class's groups is tested, at least one of two.

    Groups are taken in the order of a hash of their names and the fold. A group that several
    classes share is on one side in all of them: it is tested where one of them still lacks it,
    and it is the last for training in none.
    """
    classes = dict[str, set[str]]()
    for path, label in labels.items():
        classes.setdefault(groups[path], set()).add(label)
    left = Counter(label for shared in classes.values() for label in shared)
    wanted = Counter({label: (count + 2) // 4 for label, count in left.items()})
    tested = set[str]()
    for group in sorted(classes, key=lambda name: (digest([fold, name]), name)):
        shared = classes[group]
        if any(wanted[label] > 0 for label in shared) and all(left[label] > 1 for label in shared):
            tested.add(group)
            wanted.subtract(shared)
            left.subtract(shared)
    return {path: "test" if groups[path] in tested else "train" for path in labels}
