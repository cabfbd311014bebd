"""From official lists to one kind of manifest, and an audit of the files before training.

A reader turns a data set's own lists into entries (file, label, split); the audit decodes every
file once and writes two tables: the manifest of the videos that can be used, and the ledger of
those that cannot, with the reason. Nothing else in the package knows a data set's format.
"""

import csv
import json
import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from avnb.config import digest, unknown_name
from avnb.decode import DecodeError, inspect

Split = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a data set's lists; `path` is relative to the data set's folder."""

    id: str
    path: str
    label: str
    split: Split


@dataclass(frozen=True, kw_only=True)
class Video(Entry):
    """An entry whose file was decoded from beginning to end."""

    seconds: float
    fps: float
    width: int
    height: int
    sound_hz: int  # 0 when there is no audio stream


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What the lists of a data set say: classes in label order, and every video."""

    name: str
    folder: Path
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The usable videos of a data set, all or a part of them."""

    name: str
    folder: Path
    classes: tuple[str, ...]
    videos: tuple[Video, ...]

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def digest(self) -> str:
        """Stands for the data: changes with any class, id, label or length."""
        rows = [(v.id, v.label, round(v.seconds, 3)) for v in self.videos]
        return digest([self.name, self.classes, rows])

    @property
    def labels(self) -> list[int]:
        """Label of each video, counted in the order of `classes`."""
        number = {name: i for i, name in enumerate(self.classes)}
        return [number[v.label] for v in self.videos]

    def split(self, name: Split) -> "Manifest":
        """The training or the test part."""
        return self.only(v for v in self.videos if v.split == name)

    def with_sound(self) -> "Manifest":
        """The videos that have an audio stream."""
        return self.only(v for v in self.videos if v.sound_hz)

    def only(self, videos: Iterable[Video]) -> "Manifest":
        """The same data set with the given videos."""
        return Manifest(
            name=self.name, folder=self.folder, classes=self.classes, videos=tuple(videos)
        )

    def path(self, video: Video) -> Path:
        """Where the video's file lies."""
        return self.folder / video.path

    def save(self, out: Path) -> Path:
        """Write `manifest.csv` and what belongs to it into the folder `out`."""
        out.mkdir(parents=True, exist_ok=True)
        write_rows(out / "manifest.csv", Video, self.videos)
        about = {"name": self.name, "folder": str(self.folder), "classes": self.classes}
        (out / "dataset.json").write_text(json.dumps(about, indent=1))
        return out

    @classmethod
    def load(cls, out: Path) -> "Manifest":
        """Read what `save` wrote."""
        about = json.loads((out / "dataset.json").read_text())
        return cls(
            name=about["name"],
            folder=Path(about["folder"]),
            classes=tuple(about["classes"]),
            videos=tuple(read_rows(out / "manifest.csv")),
        )


def write_rows(path: Path, kind: type, rows: Iterable[object]) -> None:
    """A CSV table of dataclass rows, written aside and renamed."""
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        table = csv.DictWriter(file, [f.name for f in fields(kind)])
        table.writeheader()
        table.writerows(asdict(row) for row in rows)  # type: ignore[call-overload]
    partial.replace(path)


def read_rows(path: Path) -> list[Video]:
    """The videos of a manifest table."""
    kinds = {f.name: f.type for f in fields(Video)}
    convert = {"float": float, "int": int, float: float, int: int}
    with path.open(newline="") as file:
        return [
            Video(**{name: convert.get(kinds[name], str)(text) for name, text in row.items()})
            for row in csv.DictReader(file)
        ]


# ---- the three formats ------------------------------------------------------------------------


def need(path: Path, what: str) -> Path:
    """The path, or a FileNotFoundError that says what was expected there."""
    if not path.exists():
        there = sorted(p.name for p in path.parent.iterdir())[:8] if path.parent.is_dir() else None
        beside = f"its folder holds {there}" if there is not None else "its folder is missing too"
        raise FileNotFoundError(f"{path} is missing: {what}\n  {beside}")
    return path


def files_below(folder: Path) -> dict[str, str]:
    """Every file below a folder: name in lower case -> path relative to it."""
    return {p.name.lower(): p.relative_to(folder).as_posix() for p in folder.rglob("*.*")}


def list_vggsound(folder: Path, fold: int = 1) -> Listing:
    """VGGSound: `vggsound.csv` without header, and files in `train/`, `test/` or flat.

    File names may be `<id>_<start>.mp4`, `<id>_<start:06d>.mp4` or `<id>_<ms>_<ms>.mp4`. An id
    may hold `_` or begin with `-`. Labels are numbered in sorted order. Lines whose file is not
    there are left out: no collection of VGGSound is complete.
    """
    table = need(folder / "vggsound.csv", "the list of VGGSound (id, start, label, split)")
    files, entries, labels = files_below(folder), [], set()
    with table.open(newline="") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if len(row) != 4 or row[3] not in ("train", "test") or not row[1].isdigit():
                raise ValueError(f"{table}, line {number}: expected id,start,label,split; {row}")
            name, start, label = row[0], int(row[1]), row[2]
            labels.add(label)
            ms = f"{name}_{start * 1000}_{(start + 10) * 1000}.mp4"
            for file_name in (f"{name}_{start}.mp4", f"{name}_{start:06d}.mp4", ms):
                if path := files.get(file_name.lower()):
                    split: Split = "train" if row[3] == "train" else "test"
                    key = f"{name}_{start:06d}"
                    entries.append(Entry(id=key, path=path, label=label, split=split))
                    break
    classes = tuple(sorted(labels))
    return Listing(name="vggsound", folder=folder, classes=classes, entries=tuple(entries))


def list_ucf101(folder: Path, fold: int = 1) -> Listing:
    """UCF-101: `UCF-101/<Class>/v_*.avi` or flat, and `ucfTrainTestlist/`.

    Labels come from `classInd.txt`, in its order. File names are matched without case: the
    class HandstandPushups has files named v_HandStandPushups.
    """
    lists = need(folder / "ucfTrainTestlist", "the folder of UCF-101's official lists")
    index = need(lists / "classInd.txt", "the class list, '1 ApplyEyeMakeup' a line")
    classes = tuple(line.split()[1] for line in index.read_text().splitlines() if line.strip())
    exact = {name.lower(): name for name in classes}
    files, entries = files_below(folder), []
    for split in ("train", "test"):
        table = need(lists / f"{split}list0{fold}.txt", f"the official {split} list")
        for line in filter(str.strip, table.read_text().splitlines()):
            class_name, name = line.split()[0].split("/")
            if class_name.lower() not in exact:
                raise ValueError(f"{table}: {line!r} names a class that is not in {index}")
            if path := files.get(name.lower()):
                label = exact[class_name.lower()]
                key = Path(name).stem
                entries.append(Entry(id=key, path=path, label=label, split=split))
    return Listing(name="ucf101", folder=folder, classes=classes, entries=tuple(entries))


def list_hmdb51(folder: Path, fold: int = 1) -> Listing:
    """HMDB-51: `<class>/<video>.avi` and `testTrainMulti_7030_splits/`.

    Lines are `<video>.avi 0|1|2`: unused, training, test. Labels are the sorted class names.
    """
    lists = need(folder / "testTrainMulti_7030_splits", "the folder of HMDB-51's split files")
    ending = f"_test_split{fold}.txt"
    tables = sorted(p for p in lists.iterdir() if p.name.endswith(ending))
    if not tables:
        raise FileNotFoundError(f"{lists} holds no file that ends in {ending}")
    roles: dict[str, Split] = {"1": "train", "2": "test"}
    entries = []
    for table in tables:
        label = table.name.removesuffix(ending)
        for line in filter(str.strip, table.read_text().splitlines()):
            name, role = line.rsplit(maxsplit=1)
            path = f"{label}/{name}"
            if role not in ("0", "1", "2") or "/" in name:
                raise ValueError(f"{table}: expected '<video>.avi 0|1|2', found {line!r}")
            if role in roles and (folder / path).exists():
                key = path.removesuffix(".avi")
                entries.append(Entry(id=key, path=path, label=label, split=roles[role]))
    classes = tuple(t.name.removesuffix(ending) for t in tables)
    return Listing(name="hmdb51", folder=folder, classes=classes, entries=tuple(entries))


LISTS = {"vggsound": list_vggsound, "ucf101": list_ucf101, "hmdb51": list_hmdb51}


def listing(name: str, folder: Path, fold: int = 1) -> Listing:
    """Read a data set's lists.

    Raises:
        ValueError: for an unknown data set, or lists that cannot be understood.
        FileNotFoundError: when a list is missing, or not one listed file is there.
    """
    if name not in LISTS:
        raise ValueError(unknown_name("data set", name, LISTS))
    need(folder, f"the folder of {name}")
    found = LISTS[name](folder, fold)
    if not found.entries:
        raise FileNotFoundError(f"{folder} holds the lists of {name}, but none of their videos")
    return found


# ---- the audit --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """A row of the ledger."""

    path: str
    reason: str


def look_at(folder: Path, entry: Entry) -> Video | Unusable:
    """Decode one entry's file to its end."""
    try:
        found = inspect(folder / entry.path)
    except DecodeError as error:
        return Unusable(path=entry.path, reason=error.reason)
    return Video(**asdict(entry), **asdict(found))


def audit(what: Listing, out: Path, *, workers: int = 2) -> tuple[Manifest, list[Unusable]]:
    """Decode every listed file; write `manifest.csv` and `ledger.csv` into `out`.

    Done once: a second call with the same lists reads the tables back.

    Raises:
        ValueError: when no file at all can be decoded.
    """
    stamp, key = out / "audit.json", digest([asdict(e) for e in what.entries])
    about = {"entries": key, "folder": str(what.folder)}
    if stamp.exists() and json.loads(stamp.read_text()) == about:
        with (out / "ledger.csv").open(newline="") as file:
            return Manifest.load(out), [Unusable(**row) for row in csv.DictReader(file)]
    out.mkdir(parents=True, exist_ok=True)
    found: dict[int, Video | Unusable] = {}
    # Spawned, not forked: the caller may hold threads of torch or of a Jupyter kernel.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    with pool, tqdm(total=len(what.entries), desc=f"audit of {what.name}") as bar:
        jobs = {pool.submit(look_at, what.folder, e): i for i, e in enumerate(what.entries)}
        for job in as_completed(jobs):
            found[jobs[job]] = job.result()
            bar.update()
    rows = [found[i] for i in range(len(found))]
    bad = [row for row in rows if isinstance(row, Unusable)]
    good = tuple(row for row in rows if isinstance(row, Video))
    write_rows(out / "ledger.csv", Unusable, bad)
    if not good:
        raise ValueError(f"none of the {len(bad)} videos can be decoded; see {out}/ledger.csv")
    manifest = Manifest(name=what.name, folder=what.folder, classes=what.classes, videos=good)
    manifest.save(out)
    stamp.write_text(json.dumps(about))
    return manifest, bad
