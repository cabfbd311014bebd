"""Preparing a data set: every source video is read once, and written into the store.

Each file is converted by a process of its own, under limits of the system, so that a hostile or
broken one costs its row in `rejected.csv` and nothing else. What is done is noted at once: an
interrupted call resumes, and only new or changed files are converted::

    build/<profile>/data/<name>-<id>/      of one folder of source videos
        files-<form>/                      the store: a file a video
        prepared-<form>.jsonl              of each source its size, date, hash, and its outcome
        fold1/videos.csv, rejected.csv     the tables; fold1-subset-<id> for a part
"""

import hashlib
import itertools
import json
import multiprocessing
import os
import resource
import shutil
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pandas as pd

from avnb.config import Subset, digest
from avnb.data import datasets
from avnb.data.datasets import Entry, Listing, shown
from avnb.data.manifest import Manifest, Video
from avnb.data.source import DecodeError
from avnb.data.store import RAW, Form, Stored, convert
from avnb.data.subsets import draw_subset
from avnb.data.synthetic import world
from avnb.files import appending, in_parallel, json_lines, locked, replacing, write_text
from avnb.processes import die_with_parent
from avnb.profiles import Workspace, cores

LIMIT_GB = 500.0  # of disk
SIZE_RATIO = 1.2  # of a store to its sources, at most as far as we have seen
MEMORY_GB, CPU_SECONDS, WALL_SECONDS = 6.0, 1800, 3600  # of the conversion of one file

# A line of the journal: a source's path, its state (size and date), a hash of its content, and what
# the store has (`stored`), or the `reason` why it has nothing.
Record = dict[str, Any]


def state_of(path: Path) -> list[int]:
    """Size and date of a file; empty when it cannot be reached, as behind a broken link."""
    try:
        return [path.stat().st_size, path.stat().st_mtime_ns]
    except OSError:
        return []


def prepare_file(folder: Path, form: Form, job: tuple[str, Path, Record]) -> Record:
    """Convert a source to its target, unless its content is that of the last record."""
    path, target, last = job
    source = folder / path
    record: Record = {"path": path, "state": state_of(source)}
    try:
        with source.open("rb") as file:
            record["content"] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        return {**record, "reason": error.strerror}
    if last.get("content") == record["content"]:
        return {**last, **record}
    target.unlink(missing_ok=True)
    try:
        with replacing(target) as aside:
            return {**record, "stored": asdict(convert_alone(source, aside, form))}
    except DecodeError as error:
        return {**record, "reason": str(error)}


def convert_alone(source: Path, target: Path, form: Form) -> Stored:
    """Convert a file in a process of its own; DecodeError says also which limit it broke.

    OSError when the target cannot be written, as on a full disk.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=send_converted, args=(theirs, source, target, form))
    child.start()
    theirs.close()  # so that the end of the process is the end of the pipe
    try:
        outcome: Any = f"took more than {WALL_SECONDS} s"
        if ours.poll(WALL_SECONDS):
            outcome = ours.recv()
    except EOFError:
        outcome = f"ended its process, or took more than {CPU_SECONDS} s of processor time"
    finally:
        child.kill()
        child.join()
    if isinstance(outcome, OSError):
        raise outcome
    if not isinstance(outcome, Stored):
        raise DecodeError(outcome)
    return outcome


def send_converted(pipe: Connection, source: Path, target: Path, form: Form) -> None:
    """In a process of its own: set the limits, convert, send the outcome."""
    die_with_parent(os.getppid())
    most = int(MEMORY_GB * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    try:
        pipe.send(convert(source, target, form))
    except DecodeError as error:
        pipe.send(str(error))
    except OSError as error:
        pipe.send(OSError(error.errno, error.strerror, str(target)))
    except MemoryError:
        pipe.send(f"takes more than {MEMORY_GB:g} GB of memory")


class Store:
    """The store of one folder of source videos, in one form."""

    def __init__(self, folder: Path, where: Path, form: Form):
        self.folder, self.form, key = folder, form, f"{form.codec}-{digest(form)}"
        self.files, self.journal = where / f"files-{key}", where / f"prepared-{key}.jsonl"
        self.files.mkdir(parents=True, exist_ok=True)
        self.records: dict[str, Record] = {row["path"]: row for row in json_lines(self.journal)}

    def target(self, path: str) -> Path:
        """The file of the store for a source."""
        return self.files / f"{hashlib.sha256(path.encode()).hexdigest()[:20]}{self.form.suffix}"

    def prepare(self, paths: list[str], title: str, limit_gb: float) -> None:
        """Convert what is new or has changed, in parallel; `records` then has all `paths`.

        Raises:
            ValueError: when the store would take more than its limit, or than the disk has.
        """
        jobs, size = list[tuple[str, Path, Record]](), 0
        for path in paths:
            last, state = self.records.get(path, {}), state_of(self.folder / path)
            if "stored" in last and not self.target(path).exists():
                last = {}
            if last.get("state") != state or "content" not in last:
                jobs.append((path, self.target(path), last))
                size += sum(state[:1])
        needed, free = SIZE_RATIO * size / 1e9, shutil.disk_usage(self.files).free / 1e9
        if self.form.codec == "h264" and needed > min(limit_gb, free):
            raise ValueError(
                f"{len(jobs)} videos would take up to {needed:.1f} GB in {self.files}; the limit "
                f"is {limit_gb:g} GB, and {free:.1f} GB are free: raise the limit (--limit-gb), or "
                "set AVNB_BUILD to a folder on a larger disk"
            )
        work, done = partial(prepare_file, self.folder, self.form), len(paths) - len(jobs)
        results = in_parallel(work, jobs, workers=cores(), title=title, done=done)
        with appending(self.journal) as add, closing(results):
            for record in results:
                self.records[record["path"]] = record
                add(json.dumps(record))

    def video(self, entry: Entry, out: Path) -> Video:
        """The row of an entry that can be used, for a table in `out`."""
        record, file = self.records[entry.path], os.path.relpath(self.target(entry.path), out)
        stored, content = record["stored"], record["content"]
        seconds = stored["frames"] / stored["fps"]
        return Video(**asdict(entry), **stored, seconds=seconds, file=file, content=content)


def prepare(
    listing: Listing,
    where: Path,
    out: Path,
    *,
    form: Form,
    subset: Subset | None = None,
    limit_gb: float = LIMIT_GB,
) -> Manifest:
    """Prepare the videos of a listing, all or a draw, in the store `where`; what is done is kept.

    The tables go to `out`: `videos.csv`, and `rejected.csv` with a reason for each file that cannot
    be used, is missing, or is in no list. Raises as `load_dataset` does.
    """
    entries = listing.entries
    if subset:
        ids = {*itertools.chain(*draw_subset(entries, subset))}
        entries = tuple(entry for entry in entries if entry.id in ids)
    with locked(where):
        store = Store(listing.folder, where, form)
        store.prepare([e.path for e in entries], f"preparing {listing.name}", limit_gb)
        rejected = rejected_files(listing, entries, store)
        write_text(out / "rejected.csv", rejected.to_csv(index=False))
        usable = (entry for entry in entries if "stored" in store.records[entry.path])
        videos = tuple(store.video(entry, out) for entry in usable)
        if not videos:
            path, reason, _ = rejected.iloc[-1]
            raise ValueError(
                f"none of the {len(entries)} videos can be used ({path}: {reason}); see "
                f"{out}/rejected.csv"
            )
        warn(rejected, pd.DataFrame(list(videos)))
        known = {name: getattr(listing, name) for name in ("name", "folder", "classes", "listed")}
        manifest = Manifest(where=out, videos=videos, form=digest(form), **known)
        manifest.save()
        return manifest


def rejected_files(listing: Listing, entries: Iterable[Entry], store: Store) -> pd.DataFrame:
    """`path`, `reason` and `label` of each file that is not used; in no list, its folder's name."""
    rows = [(e.path, "in the lists, but not in the folder", e.label) for e in listing.missing]
    rows += [
        (p, "in the folder, but in no list, or no video by its ending", Path(p).parent.name)
        for p in listing.unlisted
    ]
    records = ((entry, store.records[entry.path]) for entry in entries)
    rows += [(e.path, record["reason"], e.label) for e, record in records if "reason" in record]
    return pd.DataFrame(rows, columns=["path", "reason", "label"])


def warn(rejected: pd.DataFrame, videos: pd.DataFrame) -> None:
    """Say which classes have no usable video, in all or a split, and what else is odd.

    These are files that are in training and test, and sound that was left out.
    """
    usable = {"", *videos["label"], *(Path(path).parent.name for path in videos["path"])}
    lost = rejected.loc[~rejected["label"].isin(usable), "label"].value_counts()
    if len(lost):
        names = ", ".join(f"{name!r} ({count})" for name, count in lost.items())
        print(f"of these no file can be used, for the reasons in rejected.csv: {names}")
    for split in sorted({*videos["split"]}):
        named = {*videos["label"]} - {*videos.loc[videos["split"] == split, "label"]}
        if named:
            print(f"no {split} video that can be used is of:{shown(sorted(named))}")
    mute = videos[videos["sound_lost"] != ""]
    if len(mute):
        lines = (mute["path"] + ": " + mute["sound_lost"]).tolist()
        print(f"of {len(mute)} files the sound, or a part of it, was left out:{shown(lines)}")
    both = videos[videos.groupby("content")["split"].transform("nunique") > 1]
    if len(both):
        paths = shown(both.sort_values("content")["path"].tolist())
        print(f"{len(both)} files in training and test have the same content:{paths}")


def synthetic_folder(work: Workspace, data_set: str) -> Path:
    """The folder of a data set of the profile's synthetic world, which is made first."""
    if work.name == "thesis" or data_set == "folder":
        raise ValueError(
            "the profile 'thesis' and own videos need a data set's folder; for synthetic videos, "
            "use the profile 'demo' or 'smoke' with 'vggsound', 'ucf101', 'hmdb51' or 'located'"
        )
    values = world.World.from_flat(**work.values["world"])
    made = work.folder / f"world-{digest({'format': world.FORMAT, **values.flat()})}"
    return world.make(values, made, workers=cores()) / (data_set or "vggsound")


def load_dataset(
    work: Workspace,
    data_set: str,
    folder: str = "",
    *,
    fold: int = 1,
    allow_missing: bool = False,
    subset: Subset | None = None,
    limit_gb: float = LIMIT_GB,
) -> Manifest:
    """The prepared videos of a data set: a real one in `folder`, or the synthetic one if empty.

    Args:
        data_set: its key; empty: detected in the folder, or the VGGSound-like one without.
        folder: of the data set, in its official layout.
        subset: of a pre-training: no other videos of a real folder are looked at than those that
            it draws from the lists.
        limit_gb: of disk that the store may take.

    Raises:
        FileNotFoundError: when the folder, its lists or (unless allowed) files are missing.
        ValueError: for an unknown data set, bad lists, or a store that would be too large.
    """
    if folder:
        root, form = Path(folder).expanduser().resolve(), Form()
    else:  # a world is small: all of it, with its frames as they are
        root, form, subset = synthetic_folder(work, data_set), RAW, None
    listing = datasets.listing(data_set, root, fold, allow_missing=allow_missing)
    where = work.folder / "data" / f"{listing.name}-{digest(str(root))}"
    out = where / (f"fold{fold}-subset-{digest(subset)}" if subset else f"fold{fold}")
    return prepare(listing, where, out, form=form, subset=subset, limit_gb=limit_gb)
