"""The videos named by a data set's lists, checked against the files in its folder, and drawn."""

import csv
import json
import os
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from avnb.config import Subset, digest
from avnb.data.manifest import Entry, file_digest
from avnb.files import write_text

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov")
SHOWN_FILES = 8  # an error names so many of many files

Lists = tuple[Sequence[str], list[Entry], set[str]]  # classes, entries, and files not to be used
Drawn = tuple[list[str], list[str]]  # ids for training and for validation


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The lists of a data set, checked against its folder."""

    name: str
    folder: Path
    classes: tuple[str, ...]  # in the order of their labels
    entries: tuple[Entry, ...]  # those whose file exists
    missing: tuple[str, ...] = ()  # listed files that do not exist
    unlisted: tuple[str, ...] = ()  # videos in the folder that no list names

    @property
    def listed(self) -> int:
        """Number of videos that the lists name, with or without a file."""
        return len(self.entries) + len(self.missing)


def need(path: Path, description: str) -> Path:
    """The path, or a FileNotFoundError that says what should be there and what is beside it."""
    if not path.exists():
        beside = "its folder is missing too"
        if path.parent.is_dir():
            beside = f"its folder holds {sorted(p.name for p in path.parent.iterdir())[:8]}"
        raise FileNotFoundError(f"{path} is missing: {description}\n  {beside}")
    return path


def read_list(table: Path) -> str:
    """The text of a list; a byte order mark is accepted.

    Raises:
        ValueError: for a folder or a device in its place, or another encoding than UTF-8; with the
            line.
        OSError: when it may not be read.
    """
    if table.exists() and not table.is_file():
        raise ValueError(f"{table} should be a text file, and is none")
    content = table.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{table}, line {line}: is not UTF-8 text (byte {content[error.start]:#04x}); save the "
            "list as UTF-8"
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"{table}, line {line}: holds a NUL character; it is no list")
    return text


def csv_rows(table: Path) -> Iterator[tuple[list[str], str]]:
    """Each non-empty row of a CSV list and its place; ValueError for what is no CSV."""
    rows = csv.reader(read_list(table).splitlines(keepends=True))
    try:
        for row in rows:
            if row:
                yield row, f"{table}, line {rows.line_num}"
    except csv.Error as error:
        raise ValueError(f"{table}, line {rows.line_num}: {error}") from error


def numbered_lines(table: Path) -> Iterator[tuple[str, str]]:
    """Each non-empty line and its place; CRLF and a byte order mark are accepted."""
    for number, line in enumerate(read_list(table).splitlines(), 1):
        if line.strip():
            yield line.strip(), f"{table}, line {number}"


def check_labels(labels: Iterable[str], where: Path) -> None:
    """Raise ValueError for a label that cannot be written down, or that differs in case alone."""
    first: dict[str, str] = {}
    for label in dict.fromkeys(labels):
        if not label.strip() or any(unicodedata.category(c) in ("Cc", "Cs") for c in label):
            raise ValueError(f"{where} has the class {label!r}: a class needs a name of one line")
        if first.setdefault(label.casefold(), label) != label:
            other = first[label.casefold()]
            raise ValueError(f"{where} has the classes {other!r} and {label!r}: name them apart")


def is_video(path: str) -> bool:
    """Whether a file name has one of the known suffixes."""
    return path.lower().endswith(VIDEO_SUFFIXES)


def files_below(folder: Path) -> list[str]:
    """Relative paths of everything below a folder whose name has a suffix; follows links."""
    paths, visited = [], set()
    for base, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        here = Path(base).resolve()
        if here in visited:  # a link back to a folder above
            folders.clear()
            continue
        visited.add(here)
        below = Path(base).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        paths += [prefix + name for name in [*folders, *names] if "." in name[1:]]
    return sorted(paths)


def refuse(error: OSError) -> NoReturn:
    """A folder that may not be listed is named: its videos would count as missing."""
    raise PermissionError(
        f"{error.filename} cannot be listed ({error.strerror}): give yourself the permission, or "
        "move the folder out of the data set"
    ) from error


def printable(path: str) -> str:
    """A path as text that can be written: bytes that are no UTF-8 as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def first_lines(paths: Sequence[str]) -> str:
    """The first few of many paths, one a line."""
    rest = [f"and {len(paths) - SHOWN_FILES} more"] if len(paths) > SHOWN_FILES else []
    return "\n".join(f"  {printable(path)}" for path in [*paths[:SHOWN_FILES], *rest])


def check_complete(listing: Listing, allow_missing: bool) -> None:
    """Raise FileNotFoundError, with their names, when files are missing that must not be."""
    unlisted = ""
    if listing.unlisted:
        count = len(listing.unlisted)
        unlisted = f"\n{count} videos there are in no list:\n{first_lines(listing.unlisted)}"
    if not listing.entries:
        raise FileNotFoundError(
            f"{listing.folder} holds the lists of {listing.name}, but none of their videos, "
            f"as\n{first_lines(listing.missing[:1])}{unlisted}"
        )
    if listing.missing and not allow_missing:
        raise FileNotFoundError(
            f"{len(listing.missing)} of the {listing.listed} videos that the lists of "
            f"{listing.name} name are not in {listing.folder}:\n"
            f"{first_lines(listing.missing)}{unlisted}\n"
            f"To go on with the {len(listing.entries)} that are there: allow_missing=True, on the "
            "command line --allow-missing."
        )


def draw_values(config: Subset) -> list[int | str]:
    """The values that decide a draw; of files of ids, what they hold."""
    values = [config.subset_videos, config.validation_videos, config.subset_seed]
    files = [digest(read_ids(file)) for file in (config.subset_ids, config.validation_ids) if file]
    return [*values, *files]


def read_ids(file: str) -> dict[str, int]:
    """The ids in a file, one a line, with their line numbers.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: for an id that stands there twice, and a file without any.
    """
    path = need(Path(file).expanduser(), "a text file with the id of a training video a line")
    ids: dict[str, int] = {}
    for number, line in enumerate(read_list(path).splitlines(), 1):
        if (name := line.strip()) and ids.setdefault(name, number) != number:
            raise ValueError(f"{path}, line {number}: {name!r} stands in line {ids[name]} as well")
    if not ids:
        raise ValueError(f"{path} holds no id; write one a line")
    return ids


def given_ids(file: str, known: Collection[str]) -> list[str]:
    """The ids in a file, each of which must be known."""
    for name, number in read_ids(file).items():
        if name not in known:
            example = f", such as {min(known)!r}" if known else ""
            raise ValueError(
                f"{file}, line {number}: {name!r} is no training video of the lists; their ids are "
                f"the names of the files without folder and ending{example}"
            )
    return [*read_ids(file)]


def draw_subset(
    entries: Iterable[Entry], config: Subset, unusable: Collection[str] = frozenset()
) -> Drawn:
    """Ids for training and for validation, disjoint, from the training split.

    First the same number of each class, as many as the smallest class and `subset_videos` allow;
    then, up to `subset_videos`, any of the rest; from what is left, any for validation. The seed
    alone orders the entries; `unusable` ids are passed over. One among the first is replaced by
    the next of its class, if there is one, and by the next of the rest otherwise. So one more
    unusable id adds one other to the draw, and all that were drawn before remain in it, though
    one for validation may become one for training.

    Files of ids take the place of either draw; the unusable among them are not replaced.

    Raises:
        ValueError: for a file that names no training video, or one for both purposes.
    """
    if config.subset_ids or config.validation_ids:
        return draw_given(entries, config, unusable)
    rng = np.random.default_rng(config.subset_seed)
    classes: dict[str, list[str]] = {}
    for entry in sorted((e for e in entries if e.split == "train"), key=lambda e: e.id):
        classes.setdefault(entry.label, []).append(entry.id)
    if not classes:
        return [], []
    each = min(config.subset_videos // len(classes), *(len(ids) for ids in classes.values()))
    chosen, rest = list[str](), list[str]()
    for _, members in sorted(classes.items()):
        ids = [members[i] for i in rng.permutation(len(members))]
        chosen += [i for i in ids if i not in unusable][:each]
        rest += ids[each:]
    passed = {*chosen, *unusable}
    rest = [rest[i] for i in rng.permutation(len(rest)) if rest[i] not in passed]
    more = config.subset_videos - len(chosen)
    return chosen + rest[:more], rest[more:][: config.validation_videos]


def draw_given(entries: Iterable[Entry], config: Subset, unusable: Collection[str]) -> Drawn:
    """As `draw_subset`, where a file names the videos of one purpose, or files those of both."""
    entries = [entry for entry in entries if entry.split == "train"]
    known = {entry.id for entry in entries}
    files = config.subset_ids, config.validation_ids
    named = [given_ids(file, known) if file else [] for file in files]
    if both := {*named[0]} & {*named[1]}:
        raise ValueError(f"{' and '.join(files)} both name {min(both)!r}")
    rest = [entry for entry in entries if entry.id not in {*named[0], *named[1]}]
    own = replace(config, subset_ids="", validation_ids="")
    train, validation = ([i for i in ids if i not in unusable] for ids in named)
    if not config.subset_ids:
        train, _ = draw_subset(rest, replace(own, validation_videos=0), unusable)
    elif not config.validation_ids:
        _, validation = draw_subset(rest, replace(own, subset_videos=2), unusable)
    return train, validation


def drawn_files(folder: Path) -> tuple[Path, Path]:
    """The files of a draw's ids, one a line."""
    return folder / "train.txt", folder / "validation.txt"


def write_drawn(folder: Path, drawn: Drawn) -> None:
    """Write the ids of a draw, in sorted order, and beside them the hash of both files."""
    hashes = {}
    for path, ids in zip(drawn_files(folder), drawn, strict=True):
        write_text(path, "".join(f"{i}\n" for i in sorted(ids)))
        hashes[path.name] = file_digest(path)
    write_text(folder / "drawn.json", json.dumps(hashes))
