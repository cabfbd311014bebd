"""From official lists to one kind of manifest, and an audit of the files before training.

A reader turns a data set's own lists into entries (file, label, split); the audit decodes every
file once and writes two tables: the manifest of the videos that can be used, and the ledger of
those that cannot, with the reason. Nothing else in the package knows a data set's format.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Literal

from avnb.config import digest, unknown_name
from avnb.decode import DecodeError, Stream, inspect
from avnb.files import appending, in_parallel, locked, write_aside

Split = Literal["train", "test"]
INSPECTION = 2  # raised when `inspect` would say something else of the same file than before


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

    start: float  # time stamp of the first frame
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
    entries: tuple[Entry, ...]  # those whose file is there
    listed: int  # lines of the lists, with or without a file


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The usable videos of a data set, all or a part of them."""

    name: str
    folder: Path  # of the videos
    where: Path  # of the manifest itself
    classes: tuple[str, ...]
    videos: tuple[Video, ...]

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def digest(self) -> str:
        """Stands for the data: changes with any class, id, label, length, size or sound."""
        rows = [
            (v.id, v.label, v.width, v.height, v.sound_hz, round(v.seconds, 3)) for v in self.videos
        ]
        return digest([self.name, self.classes, rows])

    @property
    def origin(self) -> str:
        """`synthetic` or `real`, and the digest: what result rows say of their data."""
        made = (self.folder.parent / "scenes.json").exists()
        return f"{'synthetic' if made else 'real'}:{self.digest}"

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
        return replace(self, videos=tuple(videos))

    def path(self, video: Video) -> Path:
        """Where the video's file lies."""
        return self.folder / video.path

    def save(self) -> None:
        """Write `manifest.csv` and what belongs to it into the folder `where`."""
        self.where.mkdir(parents=True, exist_ok=True)
        write_rows(self.where / "manifest.csv", Video, self.videos)
        about = {"name": self.name, "folder": str(self.folder), "classes": self.classes}
        write_aside(self.where / "dataset.json", json.dumps(about, indent=1))

    @classmethod
    def load(cls, out: Path) -> "Manifest":
        """Read what `save` wrote."""
        about = json.loads((out / "dataset.json").read_text())
        return cls(
            name=about["name"],
            folder=Path(about["folder"]),
            where=out,
            classes=tuple(about["classes"]),
            videos=tuple(read_rows(out / "manifest.csv")),
        )


def write_rows(path: Path, kind: type, rows: Iterable[object]) -> None:
    """A CSV table of dataclass rows."""
    text = io.StringIO()
    table = csv.DictWriter(text, [f.name for f in fields(kind)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(row) for row in rows)  # type: ignore[call-overload]
    write_aside(path, text.getvalue())


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


def in_lines(table: Path) -> Iterator[tuple[str, str]]:
    """Each line that is not empty, and where it stands."""
    for number, line in enumerate(table.read_text().splitlines(), 1):
        if line.strip():
            yield line.strip(), f"{table}, line {number}"


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
    files, entries, labels, number = files_below(folder), [], set(), 0
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
    return Listing(
        name="vggsound", folder=folder, classes=classes, entries=tuple(entries), listed=number
    )


def list_ucf101(folder: Path, fold: int = 1) -> Listing:
    """UCF-101: `UCF-101/<Class>/v_*.avi` or flat, and `ucfTrainTestlist/`.

    Labels come from `classInd.txt`, in its order. File names are matched without case: the
    class HandstandPushups has files named v_HandStandPushups.
    """
    lists = need(folder / "ucfTrainTestlist", "the folder of UCF-101's official lists")
    index = need(lists / "classInd.txt", "the class list, '1 ApplyEyeMakeup' a line")
    classes = []
    for line, place in in_lines(index):
        if len(line.split()) != 2:
            raise ValueError(f"{place}: expected '1 ApplyEyeMakeup', found {line!r}")
        classes.append(line.split()[1])
    exact = {name.lower(): name for name in classes}
    files, entries, listed = files_below(folder), [], 0
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        table = need(lists / f"{split}list0{fold}.txt", f"the official {split} list")
        for line, place in in_lines(table):
            class_name, _, name = line.split()[0].partition("/")
            if class_name.lower() not in exact or not name:
                raise ValueError(
                    f"{place}: expected '<Class>/v_<Class>_gNN_cNN.avi', found {line!r}"
                )
            listed += 1
            if path := files.get(name.lower()):
                label = exact[class_name.lower()]
                entries.append(Entry(id=Path(name).stem, path=path, label=label, split=split))
    return Listing(
        name="ucf101", folder=folder, classes=tuple(classes), entries=tuple(entries), listed=listed
    )


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
    entries, listed = [], 0
    for table in tables:
        label = table.name.removesuffix(ending)
        for line, place in in_lines(table):
            name, _, role = line.rpartition(" ")
            path = f"{label}/{name.strip()}"
            if role not in ("0", "1", "2") or "/" in name or ".." in (label, name.strip()):
                raise ValueError(f"{place}: expected '<video>.avi 0|1|2', found {line!r}")
            listed += role in roles
            if role in roles and (folder / path).exists():
                key = path.removesuffix(".avi")
                entries.append(Entry(id=key, path=path, label=label, split=roles[role]))
    classes = tuple(t.name.removesuffix(ending) for t in tables)
    return Listing(
        name="hmdb51", folder=folder, classes=classes, entries=tuple(entries), listed=listed
    )


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
        partial(look_at, what.folder), todo, workers=workers,
        title=f"audit of {what.name}", done=len(found),
    )  # fmt: skip
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
        states = {e.path: [INSPECTION, *state(what.folder / e.path)] for e in what.entries}
        files = [[asdict(e), *states[e.path]] for e in what.entries]
        about = {"folder": str(what.folder), "files": digest(files)}
        if stamp.exists() and json.loads(stamp.read_text()) == about:
            with (out / "ledger.csv").open(newline="") as file:
                return Manifest.load(out), [Unusable(**row) for row in csv.DictReader(file)]
        manifest, bad = tabulate(what, decode_rest(what, states, diary, workers), out)
        write_aside(stamp, json.dumps(about))
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
        name=what.name, folder=what.folder, where=out, classes=what.classes, videos=tuple(good)
    )
    manifest.save()
    return manifest, bad
