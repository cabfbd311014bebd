"""The audit: every listed file is decoded once, before any training."""

import csv
import json
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from avnb.data.decoding import Stream, inspect
from avnb.data.listing import Listing
from avnb.data.manifest import Manifest, Video, write_rows
from avnb.data.video_frames import DecodeError
from avnb.files import appending, in_parallel, locked, write_aside
from avnb.values import digest

INSPECTION = 2  # raised when `inspect` would say something else of the same file than before


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """A row of the ledger."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """A row of the table of files that the lists or the folder know alone."""

    path: str
    what: str


Found = Stream | str  # what a file holds, or the reason why it cannot be read


def look_at(folder: Path, path: str) -> Found:
    """Decode one file to its end."""
    try:
        return inspect(folder / path)
    except DecodeError as error:
        return error.reason


def state(path: Path) -> list[int]:
    """Size and date of a file; empty when it cannot be reached, as behind a broken link."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def remembered(diary: Path, states: dict[str, list[int]]) -> dict[str, Found]:
    """What earlier calls have found in the files that are still in the given state."""
    found: dict[str, Found] = {}
    if diary.exists():
        with diary.open(errors="replace") as file:
            for line in file:
                try:
                    path, was, what = json.loads(line)
                except ValueError:  # torn when its process was killed
                    continue
                if states.get(path) == was:
                    found[path] = what if isinstance(what, str) else Stream(**what)
    return found


def decode_rest(
    what: Listing, states: dict[str, list[int]], diary: Path, workers: int
) -> dict[str, Found]:
    """What every listed file holds; what the diary does not know yet is decoded and added.

    Raises:
        FileNotFoundError: when a file vanishes that was there at the beginning.
    """
    found = remembered(diary, states)
    todo = [path for path in states if path not in found]
    results = in_parallel(
        partial(look_at, what.folder),
        todo,
        workers=workers,
        title=f"audit of {what.name}",
        done=len(found),
    )
    with appending(diary) as add, closing(results):
        for i, result in results:
            path = todo[i]
            now = [INSPECTION, *state(what.folder / path)]
            if isinstance(result, str) and len(now) == 1 < len(states[path]):
                raise FileNotFoundError(
                    f"{what.folder / path} was there when the audit began and cannot be reached "
                    "any more: was a folder moved, or a disk unmounted?\n"
                    f"  {len(found)} of {len(states)} files are done; the same call goes on there"
                )
            found[path] = result
            if now == states[path]:  # else it changed meanwhile: not to be remembered
                add(json.dumps([path, now, result if isinstance(result, str) else asdict(result)]))
    return found


def audit(
    what: Listing, out: Path, *, workers: int = 2, diary: Path | None = None
) -> tuple[Manifest, list[Unusable]]:
    """Decode every listed file; write `manifest.csv` and `ledger.csv` into `out`.

    Files that the lists or the folder know alone are named in `mismatches.csv`.

    Done once: while lists and files stay the same, a second call reads the tables back. What
    was decoded is remembered file by file, with size and date, in the diary: a call that was
    interrupted goes on where it was, and new files are looked at alone.

    Args:
        diary: a file that several audits of one folder may share; by default `out` has its own.

    Raises:
        FileNotFoundError: when the folder vanishes on the way.
        ValueError: when no file at all can be decoded.
    """
    diary, stamp = diary or out / "decoded.jsonl", out / "audit.json"
    with locked(diary.parent):
        mismatches = [*(Mismatch(path=p, what="listed, but not there") for p in what.missing)]
        mismatches += [Mismatch(path=p, what="there, but in no list") for p in what.unlisted]
        states = {e.path: [INSPECTION, *state(what.folder / e.path)] for e in what.entries}
        files = [[asdict(e), *states[e.path]] for e in what.entries]
        metadata = {"folder": str(what.folder), "files": digest([files, mismatches])}
        if stamp.exists() and json.loads(stamp.read_text()) == metadata:
            with (out / "ledger.csv").open(newline="") as file:
                return Manifest.load(out), [Unusable(**row) for row in csv.DictReader(file)]
        write_rows(out / "mismatches.csv", Mismatch, mismatches)
        manifest, bad = tabulate(what, decode_rest(what, states, diary, workers), out)
        write_aside(stamp, json.dumps(metadata))
    return manifest, bad


def tabulate(what: Listing, found: dict[str, Found], out: Path) -> tuple[Manifest, list[Unusable]]:
    """Write the two tables, in the order of the lists."""
    good, bad = [], []
    for entry in what.entries:
        holds = found[entry.path]
        if isinstance(holds, str):
            bad.append(Unusable(path=entry.path, reason=holds))
        else:
            good.append(Video(**asdict(entry), **asdict(holds)))
    write_rows(out / "ledger.csv", Unusable, bad)
    if not good:
        raise ValueError(f"none of the {len(bad)} videos can be decoded; see {out}/ledger.csv")
    manifest = Manifest(
        name=what.name,
        folder=what.folder,
        where=out,
        classes=what.classes,
        videos=tuple(good),
        listed=what.listed,
    )
    manifest.save()
    return manifest, bad
