"""Preparing a data set: every source video is read once, and written into the store.

Each file is converted by a process of its own, under limits of the system, so that a hostile or
broken one costs its row in `rejected.csv` and nothing else. What is done is noted at once: an
interrupted call resumes, and only new or changed files are converted.

build/<profile>/data/<name>-<id>/      of one folder of source videos
    files-<form>/                      the store: a file a video
    prepared-<form>.jsonl              of each source its size, date, hash, and what became of it
    fold1/videos.csv, rejected.csv     the tables; fold1-subset-<id> for a part, with train.txt
"""

import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from avnb.config import Subset, digest
from avnb.data import datasets
from avnb.data.datasets import Listing
from avnb.data.layouts import Entry
from avnb.data.manifest import Manifest, Video, write_table
from avnb.data.source import DecodeError
from avnb.data.store import RAW, Form, Stored, convert
from avnb.data.subsets import draw_subset, draw_values, write_drawn
from avnb.data.synthetic import world
from avnb.files import appending, in_parallel, json_lines, locked
from avnb.processes import die_with_parent
from avnb.profiles import Workspace, cores

LIMIT_GB = 500.0  # of disk
SIZE_RATIO = 1.2  # of a store to its sources, at most as far as we have seen
MEMORY_GB, CPU_SECONDS, WALL_SECONDS = 6.0, 1800, 3600  # of the conversion of one file

Outcome = Stored | str  # what the store has of a video, or the reason why it has nothing


# ---- one file -----------------------------------------------------------------------------------


def convert_alone(source: Path, target: Path, form: Form) -> Outcome:
    """Convert a file in a process of its own, which may not take more than the limits."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=converted, args=(theirs, source, target, form))
    child.start()
    theirs.close()  # so that the end of the process is the end of the pipe
    try:
        if ours.poll(WALL_SECONDS):
            outcome: Outcome = ours.recv()
            return outcome
        return f"took more than {WALL_SECONDS} s"
    except EOFError:
        child.join()
        if child.exitcode == -signal.SIGXCPU:
            return f"took more than {CPU_SECONDS} s of processor time"
        return f"ended the process that read it (exit code {child.exitcode})"
    finally:
        child.kill()
        child.join()
        aside(target).unlink(missing_ok=True)


def converted(pipe: Connection, source: Path, target: Path, form: Form) -> None:
    """Send the outcome of a conversion; `target` exists only when it is whole."""
    die_with_parent(os.getppid())
    most = int(MEMORY_GB * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    try:
        outcome: Outcome = convert(source, aside(target), form)
        aside(target).replace(target)
    except DecodeError as error:
        outcome = str(error)
    except MemoryError:
        outcome = f"takes more than {MEMORY_GB:g} GB of memory"
    pipe.send(outcome)


def aside(target: Path) -> Path:
    """Where a file is written before it is whole."""
    return target.with_name(f".{target.name}.partial")


@dataclass(frozen=True)
class Job:
    """A file to be converted."""

    path: str  # relative to the folder
    target: Path
    content: str  # hash at the last time, whose outcome is `known`
    known: Outcome | None


def content_of(path: Path) -> str:
    """Hash of a file's bytes; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError:
        return ""


def prepare_file(folder: Path, form: Form, job: Job) -> tuple[str, Outcome]:
    """The content's hash, and the outcome; converted unless the content is the known one."""
    source = folder / job.path
    content = content_of(source)
    if job.known is not None and content == job.content:
        return content, job.known
    job.target.unlink(missing_ok=True)
    return content, convert_alone(source, job.target, form)


# ---- a data set ---------------------------------------------------------------------------------


def printable(path: str) -> str:
    """A path as text that can be written: bytes that are no UTF-8 as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def state_of(path: Path) -> list[int]:
    """Size and date of a file; empty when it cannot be reached, as behind a broken link."""
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


class Store:
    """The store of one folder of source videos, in one form.

    Args:
        folder: of the source videos.
        where: of the store.
        form: of its files.
        limit_gb: of disk that it may take.
    """

    def __init__(self, folder: Path, where: Path, form: Form, limit_gb: float):
        self.folder, self.where, self.form, self.limit_gb = folder, where, form, limit_gb
        key = f"{form.codec}-{digest(asdict(form))}"
        self.files, self.journal = where / f"files-{key}", where / f"prepared-{key}.jsonl"
        self.files.mkdir(parents=True, exist_ok=True)
        self.states = dict[str, list[int]]()
        self.known = dict[str, tuple[str, Outcome]]()
        for path, state, content, outcome in json_lines(self.journal):
            self.states[path] = state
            self.known[path] = content, outcome if isinstance(outcome, str) else Stored(**outcome)

    def target(self, path: str) -> Path:
        """The file of the store for a source."""
        return self.files / f"{hashlib.sha256(path.encode()).hexdigest()[:20]}{self.form.suffix}"

    def is_current(self, path: str, state: list[int], present: set[str]) -> bool:
        """Whether a source was prepared in this state, and its file is there."""
        if path not in self.known or self.states[path] != state:
            return False
        return isinstance(self.known[path][1], str) or self.target(path).name in present

    def prepare(self, paths: list[str], title: str) -> None:
        """Convert what is new or has changed, in parallel; `known` then holds all `paths`.

        Raises:
            ValueError: when the store would take more than its limit, or than the disk has.
            FileNotFoundError: when a file vanishes that was there at the beginning.
        """
        states = {path: state_of(self.folder / path) for path in paths}
        present = {file.name for file in self.files.iterdir()}
        todo = [path for path in paths if not self.is_current(path, states[path], present)]
        self.check_size([states[path] for path in todo])
        jobs = []
        for path in todo:
            content, outcome = self.known.get(path, ("", None))
            gone = isinstance(outcome, Stored) and self.target(path).name not in present
            jobs.append(Job(path, self.target(path), content, None if gone else outcome))
        work, done = partial(prepare_file, self.folder, self.form), len(paths) - len(todo)
        results = in_parallel(work, jobs, workers=cores(), title=title, done=done)
        with appending(self.journal) as add, closing(results):
            for i, (content, outcome) in results:
                path = todo[i]
                if states[path] and not state_of(self.folder / path):
                    raise FileNotFoundError(
                        f"{self.folder / path} was there at the beginning and is gone: was a "
                        "folder moved, or a disk unmounted? The same call resumes"
                    )
                self.states[path], self.known[path] = states[path], (content, outcome)
                value = outcome if isinstance(outcome, str) else asdict(outcome)
                add(json.dumps([path, states[path], content, value]))

    def check_size(self, states: list[list[int]]) -> None:
        """Raise ValueError when sources of these sizes would fill the disk."""
        needed = SIZE_RATIO * sum(state[0] for state in states if state) / 1e9
        free = shutil.disk_usage(self.files).free / 1e9
        if self.form.codec == "h264" and needed > min(self.limit_gb, free):
            raise ValueError(
                f"{len(states)} videos would take up to {needed:.1f} GB in {self.files}; the limit "
                f"is {self.limit_gb:g} GB, and {free:.1f} GB are free: raise the limit "
                "(--limit-gb), or set AVNB_BUILD to a folder on a larger disk"
            )

    def outcome(self, path: str) -> Outcome:
        """What became of a source."""
        return self.known[path][1]

    def video(self, entry: Entry, where: Path) -> Video:
        """The row of an entry whose source is in the store, for a table in `where`."""
        content, stored = self.known[entry.path]
        assert isinstance(stored, Stored)
        file = os.path.relpath(self.target(entry.path), where)
        seconds = stored.frames / stored.fps
        return Video(**asdict(entry), **asdict(stored), seconds=seconds, file=file, content=content)


def prepare_drawn(store: Store, listing: Listing, subset: Subset, out: Path) -> list[Entry]:
    """Prepare a draw of usable videos; returns all entries that were looked at for it.

    A drawn video that turns out to be unusable is replaced, as `draw_subset` says, until none is.
    """
    entries, unusable = {entry.id: entry for entry in listing.entries}, set[str]()
    seen = dict[str, Entry]()
    while True:
        drawn = draw_subset(listing.entries, subset, unusable)
        new = {i: entries[i] for ids in drawn for i in ids if i not in seen}
        store.prepare([entry.path for entry in new.values()], f"preparing {listing.name}")
        seen |= new
        wrong = {i for i, entry in new.items() if isinstance(store.outcome(entry.path), str)}
        if not wrong:
            write_drawn(out, subset, drawn)
            return [entry for entry in listing.entries if entry.id in seen]
        unusable |= wrong


def write_tables(store: Store, listing: Listing, entries: list[Entry], out: Path) -> Manifest:
    """Write `videos.csv`, `rejected.csv` and `mismatches.csv` of the entries.

    Raises:
        ValueError: when none of them can be used.
    """
    outcomes = {entry.path: store.outcome(entry.path) for entry in entries}
    rejected = [
        {"path": printable(path), "reason": reason}
        for path, reason in outcomes.items()
        if isinstance(reason, str)
    ]
    write_table(out / "rejected.csv", ("path", "reason"), rejected)
    kinds = {"listed, but not there": listing.missing, "there, but in no list": listing.unlisted}
    rows = [{"path": printable(path), "what": w} for w, paths in kinds.items() for path in paths]
    write_table(out / "mismatches.csv", ("path", "what"), rows)
    videos = [store.video(e, out) for e in entries if isinstance(outcomes[e.path], Stored)]
    if not videos:
        raise ValueError(f"none of the {len(rejected)} videos can be used; see {out}/rejected.csv")
    manifest = Manifest(
        name=listing.name,
        folder=listing.folder,
        where=out,
        classes=listing.classes,
        videos=tuple(videos),
        listed=listing.listed,
        form=digest(asdict(store.form)),
    )
    manifest.save()
    return manifest


def prepare(
    listing: Listing,
    where: Path,
    out: Path,
    *,
    form: Form,
    subset: Subset | None = None,
    limit_gb: float = LIMIT_GB,
) -> Manifest:
    """Prepare the videos of a data set, all or a draw; what is done is kept.

    Args:
        listing: of the data set.
        where: folder of the store.
        out: folder of the tables.
        form: of the store's files.
        subset: of which the videos are drawn.
        limit_gb: of disk that the store may take.

    Raises:
        ValueError: when no video can be used, or the store would be too large.
        FileNotFoundError: when a file vanishes on the way.
    """
    with locked(where, waiting=f"another process is preparing {listing.folder}; waiting for it"):
        store = Store(listing.folder, where, form, limit_gb)
        if subset:
            entries = prepare_drawn(store, listing, subset, out)
        else:
            entries = list(listing.entries)
            store.prepare([entry.path for entry in entries], f"preparing {listing.name}")
        return write_tables(store, listing, entries, out)


def synthetic_world(work: Workspace) -> Path:
    """The folder of the profile's synthetic world, which is made if it does not exist.

    Raises:
        ValueError: for the profile `thesis`, which has none.
    """
    if work.name == "thesis":
        raise ValueError(
            "the profile 'thesis' runs on real data: give the data set's folder, or use the "
            "profile 'demo' or 'smoke' for synthetic videos"
        )
    values = world.World.from_flat(**work.values["world"])
    return world.make(values, work.folder / f"world-{world.world_id(values)}", workers=cores())


def load_dataset(
    work: Workspace,
    data_set: str,
    folder: str = "",
    *,
    fold: int = 1,
    allow_missing: bool = False,
    subset: Subset | None = None,
    form: Form | None = None,
    limit_gb: float = LIMIT_GB,
) -> Manifest:
    """The prepared videos of a data set: a real one in `folder`, or the synthetic one if empty.

    Args:
        work: the workspace, which keeps the store.
        data_set: its key; empty: detected in the folder, or the VGGSound-like one without.
        folder: of the data set, in its official layout.
        fold: official split.
        allow_missing: go on without files that are listed and missing.
        subset: of a pre-training: of a real folder that has more for training, no other videos
            than those that it draws are looked at.
        form: of the store; by default H.264, and frames as they are for synthetic videos.
        limit_gb: of disk that the store may take.

    Raises:
        FileNotFoundError: when the folder, its lists or (unless allowed) files are missing.
        ValueError: for an unknown data set, lists that cannot be parsed, own videos without their
            folder, or a store that would be too large.
    """
    if folder:
        root = Path(folder).expanduser().resolve()
    else:
        data_set = data_set or "vggsound"
        if data_set in datasets.DATA_SETS and not datasets.DATA_SETS[data_set].marker:
            raise ValueError(f"data set {data_set!r} is your own videos: give their folder")
        root = synthetic_world(work) / data_set
    listing = datasets.listing(data_set, root, fold, allow_missing=allow_missing)
    where = work.folder / "data" / f"{listing.name}-{digest(str(root))}"
    training = sum(entry.split == "train" for entry in listing.entries)
    name = f"fold{fold}"
    if not (folder and subset and (subset.subset_ids or training > drawn_videos(subset))):
        subset = None
    else:
        name += f"-subset-{digest(draw_values(subset))}"
    return prepare(
        listing,
        where,
        where / name,
        form=form or (Form() if folder else RAW),
        subset=subset,
        limit_gb=limit_gb,
    )


def drawn_videos(subset: Subset) -> int:
    """Videos that a pre-training draws."""
    return subset.subset_videos + subset.validation_videos
