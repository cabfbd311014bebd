"""The audit: every file that is to be used is decoded once, before any training."""

import csv
import json
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from avnb.config import Subset, digest
from avnb.data.datasets import Listing
from avnb.data.manifest import Manifest, Video, world_of, write_table
from avnb.data.media import StreamInfo, inspect
from avnb.data.subsets import Drawn, draw_subset, draw_values, write_drawn
from avnb.data.video_frames import DecodeError
from avnb.files import appending, in_parallel, json_lines, locked, write_text

MAX_DAMAGED = Subset().max_damaged  # of a file's packets
INSPECTION = 4  # raised whenever `inspect` describes the same file differently


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """A row of the ledger."""

    path: str
    reason: str


Contents = StreamInfo | str  # of a file, or the reason why it cannot be read


def problem(contents: Contents, max_damaged: float) -> str:
    """Why a file cannot be used; '' when it can."""
    if isinstance(contents, str):
        return contents
    if contents.damaged > max_damaged:
        share, most = (100 * value for value in (contents.damaged, max_damaged))
        return f"{share:.1f} % of its packets cannot be decoded; {most:g} % may be (`max_damaged`)"
    return ""


def inspect_file(folder: Path, path: str) -> Contents:
    """Decode one file to its end."""
    try:
        return inspect(folder / path)
    except DecodeError as error:
        return error.reason


def file_state(path: Path) -> list[int]:
    """Size and date of a file; empty when it cannot be reached, as behind a broken link."""
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


def read_diary(diary: Path, states: dict[str, list[int]]) -> dict[str, Contents]:
    """The contents that earlier calls recorded of the files that are still in the given state."""
    known: dict[str, Contents] = {}
    for path, state, contents in json_lines(diary):
        if states.get(path) == state:
            known[path] = contents if isinstance(contents, str) else StreamInfo(**contents)
    return known


def decode_files(
    listing: Listing, states: dict[str, list[int]], diary: Path, workers: int
) -> dict[str, Contents]:
    """The contents of the files with a state; those not in the diary yet are decoded and added.

    Raises:
        FileNotFoundError: when a file vanishes that was there at the beginning.
    """
    contents = read_diary(diary, states)
    todo = [path for path in states if path not in contents]
    work, title = partial(inspect_file, listing.folder), f"audit of {listing.name}"
    results = in_parallel(work, todo, workers=workers, title=title, done=len(contents))
    with appending(diary) as add, closing(results):
        for i, result in results:
            path = todo[i]
            state = [INSPECTION, *file_state(listing.folder / path)]
            if isinstance(result, str) and len(state) == 1 < len(states[path]):
                raise FileNotFoundError(
                    f"{listing.folder / path} existed when the audit began and cannot be reached "
                    "any more: was a folder moved, or a disk unmounted?\n"
                    f"  {len(contents)} of {len(states)} files are done; the same call resumes "
                    "there"
                )
            contents[path] = result
            if state == states[path]:  # otherwise it has changed, and is decoded again next time
                record = result if isinstance(result, str) else asdict(result)
                add(json.dumps([path, state, record]))
    return contents


def decode_subset(
    listing: Listing,
    states: dict[str, list[int]],
    diary: Path,
    workers: int,
    subset: Subset,
    max_damaged: float,
) -> tuple[dict[str, Contents], Drawn]:
    """A draw of usable videos, and the contents of the files that had to be looked at for it.

    A drawn video that turns out to be unusable is replaced, as `draw_subset` says, until none is.
    """
    paths = {entry.id: entry.path for entry in listing.entries}
    contents, unusable = dict[str, Contents](), set[str]()
    while True:
        drawn = draw_subset(listing.entries, subset, unusable)
        ids = [*drawn[0], *drawn[1]]
        new = {paths[i]: states[paths[i]] for i in ids if paths[i] not in contents}
        contents |= decode_files(listing, new, diary, workers)
        found = {i for i in ids if problem(contents[paths[i]], max_damaged)}
        if not found:
            return contents, drawn
        unusable |= found


def audit(
    listing: Listing,
    out: str | Path,
    *,
    workers: int = 2,
    diary: Path | None = None,
    subset: Subset | None = None,
    max_damaged: float = MAX_DAMAGED,
) -> tuple[Manifest, list[Unusable]]:
    """Decode every listed file, or a subset; write `manifest.csv` and `ledger.csv` into `out`.

    Files that are only in the lists or only in the folder are named in `mismatches.csv`. What
    was looked at is a row of the manifest or of the ledger; the manifest's `listed` counts all.

    While lists and files stay the same, a second call reads the tables back. Results are recorded
    file by file, with size and date, in the diary: an interrupted call resumes where it was, and
    only new or changed files are decoded.

    Args:
        diary: a file that several audits of one folder may share; by default one in `out`.
        subset: decode only the training videos that it draws from the lists, and replacements of
            those that cannot be used; `train.txt` and `validation.txt` in `out` name the drawn.
        max_damaged: share of a file's packets that may fail to be decoded, in [0, 1]. Such files
            play with a flaw; the column `damaged` of the manifest gives the share of each.

    Raises:
        FileNotFoundError: when the folder vanishes during the audit.
        ValueError: when no file at all can be decoded.
    """
    out = Path(out)
    diary, stamp = diary or out / "decoded.jsonl", out / "audit.json"
    with locked(diary.parent):
        kinds = {
            "listed, but not there": listing.missing,
            "there, but in no list": listing.unlisted,
        }
        mismatches = [
            {"path": path, "what": what} for what, paths in kinds.items() for path in paths
        ]
        entries, folder = listing.entries, listing.folder
        states = {e.path: [INSPECTION, *file_state(folder / e.path)] for e in entries}
        key = digest([[[asdict(e), *states[e.path]] for e in entries], mismatches])
        metadata: dict[str, object] = {"folder": str(folder), "files": key}
        metadata["max_damaged"] = max_damaged
        if subset:
            metadata["subset"] = draw_values(subset)
        if stored(stamp) == metadata and Manifest.is_whole(out):
            with (out / "ledger.csv").open(newline="") as file:
                return Manifest.load(out), [Unusable(**row) for row in csv.DictReader(file)]
        write_table(out / "mismatches.csv", ("path", "what"), mismatches)
        if subset:
            contents, drawn = decode_subset(listing, states, diary, workers, subset, max_damaged)
            write_drawn(out, subset, drawn)
        else:
            contents = decode_files(listing, states, diary, workers)
        manifest, ledger = write_tables(listing, contents, out, max_damaged)
        write_text(stamp, json.dumps(metadata))
    return manifest, ledger


def stored(stamp: Path) -> dict[str, Any] | None:
    """What an audit wrote last; None where there is none, or it was cut: it is then made again."""
    try:
        found = json.loads(stamp.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_tables(
    listing: Listing, contents: dict[str, Contents], out: Path, max_damaged: float
) -> tuple[Manifest, list[Unusable]]:
    """Write manifest and ledger of the files with contents, in the order of the lists."""
    videos, ledger = [], []
    for entry in (e for e in listing.entries if e.path in contents):
        result = contents[entry.path]
        if reason := problem(result, max_damaged):
            ledger.append(Unusable(path=entry.path, reason=reason))
        elif isinstance(result, StreamInfo):
            videos.append(Video(**asdict(entry), **asdict(result)))
    write_table(out / "ledger.csv", ("path", "reason"), map(asdict, ledger))
    if not videos:
        raise ValueError(f"none of the {len(ledger)} videos can be decoded; see {out}/ledger.csv")
    manifest = Manifest(
        name=listing.name,
        folder=listing.folder,
        where=out,
        classes=listing.classes,
        videos=tuple(videos),
        listed=listing.listed,
        world=world_of(listing.folder),
    )
    manifest.save()
    return manifest, ledger
