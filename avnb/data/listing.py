"""The videos named by a data set's lists, checked against the files in its folder."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from avnb.data.manifest import Entry

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov")
SHOWN_FILES = 8  # an error names so many of many files

Lists = tuple[Sequence[str], list[Entry], set[str]]  # classes, entries, and files not to be used


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


def numbered_lines(table: Path) -> Iterator[tuple[str, str]]:
    """Each non-empty line and its place; CRLF and a byte order mark are accepted."""
    for number, line in enumerate(table.read_text(encoding="utf-8-sig").splitlines(), 1):
        if line.strip():
            yield line.strip(), f"{table}, line {number}"


def is_video(path: str) -> bool:
    """Whether a file name has one of the known suffixes."""
    return path.lower().endswith(VIDEO_SUFFIXES)


def files_below(folder: Path) -> list[str]:
    """Relative paths of everything below a folder whose name has a suffix; follows links."""
    paths, visited = [], set()
    for base, folders, names in os.walk(folder, followlinks=True):
        here = Path(base).resolve()
        if here in visited:  # a link back to a folder above
            folders.clear()
            continue
        visited.add(here)
        below = Path(base).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        paths += [prefix + name for name in [*folders, *names] if "." in name[1:]]
    return sorted(paths)


def first_lines(paths: Sequence[str]) -> str:
    """The first few of many paths, one a line."""
    rest = [f"and {len(paths) - SHOWN_FILES} more"] if len(paths) > SHOWN_FILES else []
    return "\n".join(f"  {path}" for path in [*paths[:SHOWN_FILES], *rest])


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
