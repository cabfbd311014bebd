"""What a data set's lists name, held against what lies in its folder."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from avnb.data.manifest import Entry


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What the lists of a data set say, held against what lies in its folder."""

    name: str
    folder: Path
    classes: tuple[str, ...]  # in the order of their labels
    entries: tuple[Entry, ...]  # those whose file is there
    missing: tuple[str, ...] = ()  # listed, but not there
    unlisted: tuple[str, ...] = ()  # there, but in no list

    @property
    def listed(self) -> int:
        """Videos that the lists name, with or without a file."""
        return len(self.entries) + len(self.missing)


def need(path: Path, what: str) -> Path:
    """The path, or a FileNotFoundError that says what was expected there."""
    if not path.exists():
        there = sorted(p.name for p in path.parent.iterdir())[:8] if path.parent.is_dir() else None
        beside = f"its folder holds {there}" if there is not None else "its folder is missing too"
        raise FileNotFoundError(f"{path} is missing: {what}\n  {beside}")
    return path


def in_lines(table: Path) -> Iterator[tuple[str, str]]:
    """Each line that is not empty, and where it stands; CRLF and a byte order mark may occur."""
    for number, line in enumerate(table.read_text(encoding="utf-8-sig").splitlines(), 1):
        if line.strip():
            yield line.strip(), f"{table}, line {number}"


def files_below(folder: Path) -> list[str]:
    """Paths, relative to a folder, of all that looks like a file below it; links are followed."""
    found, seen = [], set()
    for base, folders, names in os.walk(folder, followlinks=True):
        here = Path(base).resolve()
        if here in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(here)
        below = Path(base).relative_to(folder).as_posix()
        lead = "" if below == "." else f"{below}/"
        found += [lead + name for name in [*folders, *names] if "." in name[1:]]
    return sorted(found)


Lists = tuple[Sequence[str], list[Entry], set[str]]  # classes, entries, and files not to be used


NAMED = 8  # of many files, an error names so many


def some_of(paths: Sequence[str]) -> str:
    """The first few of many, one a line."""
    rest = [f"and {len(paths) - NAMED} more"] if len(paths) > NAMED else []
    return "\n".join(f"  {path}" for path in [*paths[:NAMED], *rest])


def check_there(found: Listing, allow_missing: bool) -> None:
    """FileNotFoundError when files are missing that must not be; it names them."""
    others = ""
    if found.unlisted:
        count = len(found.unlisted)
        others = f"\n{count} videos there stand in no list:\n{some_of(found.unlisted)}"
    if not found.entries:
        raise FileNotFoundError(
            f"{found.folder} holds the lists of {found.name}, but none of their videos, "
            f"as\n{some_of(found.missing[:1])}{others}"
        )
    if found.missing and not allow_missing:
        raise FileNotFoundError(
            f"{len(found.missing)} of the {found.listed} videos that the lists of {found.name} "
            f"name are not in {found.folder}:\n{some_of(found.missing)}{others}\n"
            f"To go on with the {len(found.entries)} that are there: allow_missing=True, on the "
            "command line --allow-missing."
        )
