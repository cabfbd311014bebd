"""Videos of the user's own: a plain folder, its split drawn from a seed or read from a list."""

import re
from pathlib import Path, PurePosixPath

from avnb.config import digest
from avnb.data.listing import VIDEO_SUFFIXES, Lists, csv_rows, first_lines, is_video, numbered_lines
from avnb.data.manifest import Entry, Split

SPLIT_FILE, GROUP_FILE, HEADER = "split.csv", "groups.txt", ["path", "label", "split"]
LAYOUT = f"<class>/<any name>.<{'|'.join(s[1:] for s in VIDEO_SUFFIXES)}>"
UNLABELLED = "unlabelled"


def list_folder(folder: Path, fold: int, files: list[str]) -> Lists:
    """Own videos: `<class>/.../<any name>.<mp4|avi|mkv|webm|mov>`, or unlabelled without classes.

    Where `split.csv` (path,label,split) lies in the folder, it is the list. Otherwise a quarter
    of each class's groups is drawn for the test, from the names and the seed `fold` alone. A
    group is one file, or, where `groups.txt` holds a regular expression, the files in whose
    names its capture group matches the same text. Labels are numbered in sorted order.

    Raises:
        FileNotFoundError: when there is neither a video nor a list.
        ValueError: for a malformed list or pattern, or videos beside the class folders.
    """
    if (folder / SPLIT_FILE).exists():
        entries = read_split(folder / SPLIT_FILE)
    else:
        labels = label_videos(folder, files)
        groups = {path: path for path in labels}
        if (folder / GROUP_FILE).exists():
            groups = match_groups(folder / GROUP_FILE, list(labels))
        entries = draw_split(labels, groups, fold)
    for entry in entries:
        if re.search(r"[\r\n\ud800-\udfff]", entry.path):  # ids are written one a line, in UTF-8
            name = f"{folder} holds {entry.path!r}"
            raise ValueError(f"{name}: rename it without line breaks, in UTF-8")
    return sorted({e.label for e in entries}), entries, set()


def label_videos(folder: Path, files: list[str]) -> dict[str, str]:
    """The label of each video: its top folder, or `unlabelled` where there are no class folders."""
    visible = [path for path in files if is_video(path) and not re.search(r"(^|/)\.", path)]
    videos = [path for path in visible if not (folder / path).is_dir()]
    if not videos:
        raise FileNotFoundError(
            f"{folder} holds no video; expected {LAYOUT}, found {len(files)} other files:\n"
            + first_lines(files)
        )
    loose = [path for path in videos if "/" not in path]
    if 0 < len(loose) < len(videos):
        raise ValueError(
            f"{folder} holds class folders, and {len(loose)} videos in none of them:\n"
            f"{first_lines(loose)}\n"
            f"Move them into the folder of a class, or list all videos in {SPLIT_FILE}."
        )
    return {path: UNLABELLED if loose else path.partition("/")[0] for path in videos}


def match_groups(table: Path, paths: list[str]) -> dict[str, str]:
    """The group of each file, by the pattern in `groups.txt`."""
    lines = [line for line, _ in numbered_lines(table)]
    try:
        pattern = re.compile("\n".join(lines))
        problem = "" if pattern.groups == 1 else f"it has {pattern.groups} capture groups"
    except re.error as error:
        problem = str(error)
    if len(lines) != 1 or problem:
        raise ValueError(
            f"{table}: expected one line, a regular expression with one capture group, as in "
            rf"'^(\w+)_\d+', found {lines}" + (f": {problem}" if problem else "")
        )
    matches = {path: pattern.search(path.rpartition("/")[2]) for path in paths}
    groups = {path: match[1] for path, match in matches.items() if match and match[1] is not None}
    if unmatched := [path for path in paths if path not in groups]:
        raise ValueError(
            f"{table}: {lines[0]!r} finds no group in {len(unmatched)} of {len(paths)} file "
            f"names:\n{first_lines(unmatched)}"
        )
    return groups


def draw_split(labels: dict[str, str], groups: dict[str, str], fold: int) -> list[Entry]:
    """Entries sorted by path, with a quarter of each class's groups in the test split.

    At least one group is tested where a class has two. Groups are ranked by a hash of their name
    and the fold, so a name that occurs in several classes tends to the same side in all.
    """
    members: dict[str, set[str]] = {}
    for path, label in labels.items():
        members.setdefault(label, set()).add(groups[path])
    tested = set[tuple[str, str]]()
    for label, names in members.items():
        ranked = sorted(names, key=lambda name: (digest([fold, name]), name))
        tested |= {(label, name) for name in ranked[: (len(ranked) + 2) // 4]}
    splits: dict[bool, Split] = {True: "test", False: "train"}
    return [
        Entry(id=path, path=path, label=label, split=splits[(label, groups[path]) in tested])
        for path, label in sorted(labels.items())
    ]


def read_split(table: Path) -> list[Entry]:
    """The entries of `split.csv`; ValueError, with the line, for a bad row."""
    entries: dict[str, Entry] = {}
    rows = csv_rows(table)
    header, _ = next(rows, ([], ""))
    if header != HEADER:
        raise ValueError(f"{table}, line 1: expected {','.join(HEADER)!r}, found {header}")
    for row, place in rows:
        if len(row) != 3 or not all(row) or row[2] not in ("train", "test"):
            raise ValueError(
                f"{place}: expected a path, a label, and 'train' or 'test', found {row}"
            )
        parts = PurePosixPath(row[0]).parts
        if not parts or ".." in parts or row[0].startswith("/"):
            raise ValueError(
                f"{place}: {row[0]!r} is not inside the folder; write paths relative to "
                f"{table.parent}"
            )
        path = "/".join(parts)
        if path in entries:
            raise ValueError(f"{place}: {path!r} is listed twice")
        split: Split = "train" if row[2] == "train" else "test"
        entries[path] = Entry(id=path, path=path, label=row[1], split=split)
    return list(entries.values())
