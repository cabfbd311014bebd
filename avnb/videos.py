"""From official lists to one kind of manifest, and an audit of the files before training.

A reader turns a data set's own lists into entries (file, label, split); the audit decodes every
file once and writes two tables: the manifest of the videos that can be used, and the ledger of
those that cannot, with the reason. Nothing else in the package knows a data set's format.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
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


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The usable videos of a data set, all or a part of them."""

    name: str
    folder: Path  # of the videos
    where: Path  # of the manifest itself
    classes: tuple[str, ...]
    videos: tuple[Video, ...]
    listed: int  # videos that the official lists name, of both splits, there and usable or not

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
        about = {
            "name": self.name, "folder": str(self.folder), "classes": self.classes,
            "listed": self.listed,
        }  # fmt: skip
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
            listed=about["listed"],
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


def list_vggsound(folder: Path, fold: int, files: list[str]) -> Lists:
    """VGGSound: `vggsound.csv` without header, and files in `train/`, `test/` or flat.

    File names may be `<id>_<start>.mp4`, `<id>_<start:06d>.mp4` or `<id>_<ms>_<ms>.mp4`. An id
    may hold `_` or begin with `-`. Labels are numbered in sorted order.
    """
    table = need(folder / "vggsound.csv", "the list of VGGSound (id, start, label, split)")
    paths = {path.rpartition("/")[2]: path for path in reversed(files)}
    entries: list[Entry] = []
    with table.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if not row:
                continue
            if len(row) != 4 or row[3] not in ("train", "test") or not row[1].isdecimal():
                raise ValueError(f"{table}, line {number}: expected id,start,label,split; {row}")
            name, start, label = row[0], int(row[1]), row[2]
            official, ms = f"{name}_{start:06d}", f"{start * 1000}_{(start + 10) * 1000}"
            forms = (f"{official}.mp4", f"{name}_{start}.mp4", f"{name}_{ms}.mp4")
            path = next((paths[form] for form in forms if form in paths), forms[0])
            split: Split = "train" if row[3] == "train" else "test"
            entries.append(Entry(id=official, path=path, label=label, split=split))
    return sorted({e.label for e in entries}), entries, set()


UCF_LINE = re.compile(r"(\w+)/((v_\w+_g\d+)_c\d+)\.avi(?:\s+(\d+))?", re.IGNORECASE)


def ucf101_classes(index: Path) -> dict[str, str]:
    """The classes in the order of their labels, by their names in lower case."""
    classes = list[str]()
    for line, place in in_lines(need(index, "the class list, '1 ApplyEyeMakeup' a line")):
        number, name = (*line.split(maxsplit=1), "")[:2]
        if not name or number != str(len(classes) + 1):
            raise ValueError(
                f"{place}: expected '{len(classes) + 1} <Class>', as in '1 ApplyEyeMakeup', "
                f"found {line!r}"
            )
        classes.append(name)
    return {name.lower(): name for name in classes}


def list_ucf101(folder: Path, fold: int, files: list[str]) -> Lists:
    """UCF-101: `UCF-101/<Class>/v_<Class>_gNN_cNN.avi` or flat, and `ucfTrainTestlist/`.

    Labels come from `classInd.txt`, in its order. File names are matched without case: the
    class HandstandPushups has files named v_HandStandPushups.

    Raises:
        ValueError: for a line of another form or class, or a group in both splits.
    """
    lists = need(folder / "ucfTrainTestlist", "the folder of UCF-101's official lists")
    exact = ucf101_classes(lists / "classInd.txt")
    number = {name: str(i) for i, name in enumerate(exact, 1)}
    paths = {path.rpartition("/")[2].lower(): path for path in reversed(files)}
    entries, split_of = list[Entry](), dict[str, Split]()
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        table = need(lists / f"{split}list0{fold}.txt", f"the official {split} list")
        for line, place in in_lines(table):
            found = UCF_LINE.fullmatch(line)
            name = found[1].lower() if found else ""
            if found is None or (found[4] or number.get(name)) != number.get(name, ""):
                raise ValueError(
                    f"{place}: expected '<Class>/v_<Class>_gNN_cNN.avi', in the training list "
                    f"with the class's number in classInd.txt, found {line!r}"
                )
            if split_of.setdefault(found[3].lower(), split) != split:
                raise ValueError(
                    f"{place}: group {found[3]} stands in the training and in the test list of "
                    f"fold {fold}; its videos show the same scene, so a test would be no test"
                )
            path = paths.get(f"{found[2]}.avi".lower(), f"UCF-101/{found[1]}/{found[2]}.avi")
            entries.append(Entry(id=found[2], path=path, label=exact[name], split=split))
    return list(exact.values()), entries, set()


def list_hmdb51(folder: Path, fold: int, files: list[str]) -> Lists:
    """HMDB-51: `<class>/<video>.avi` and `testTrainMulti_7030_splits/`.

    Lines are `<video>.avi 0|1|2`: unused, training, test. Labels are the sorted class names.
    """
    lists = need(folder / "testTrainMulti_7030_splits", "the folder of HMDB-51's split files")
    names = [p.name for p in lists.iterdir()]
    tables = [m for name in names if (m := re.fullmatch(r"(.+)_test_split[123]\.txt", name))]
    classes = sorted({table[1] for table in tables})
    if not classes:
        raise FileNotFoundError(f"{lists} holds no file <class>_test_split{fold}.txt")
    roles: dict[str, Split] = {"1": "train", "2": "test"}
    entries, unused = list[Entry](), set[str]()
    for label in classes:
        table = need(lists / f"{label}_test_split{fold}.txt", f"the split file of {label}")
        for line, place in in_lines(table):
            name, _, role = line.rpartition(" ")
            path = f"{label}/{name.strip()}"
            if role not in ("0", "1", "2") or "/" in name or ".." in (label, name.strip()):
                raise ValueError(f"{place}: expected '<video>.avi 0|1|2', found {line!r}")
            if role in roles:
                key = path.removesuffix(".avi")
                entries.append(Entry(id=key, path=path, label=label, split=roles[role]))
            else:
                unused.add(path)
    return classes, entries, unused


LISTS = {"vggsound": list_vggsound, "ucf101": list_ucf101, "hmdb51": list_hmdb51}
NEVER_WHOLE = ("vggsound",)  # its videos are taken down from YouTube one by one
NAMED = 8  # of many files, an error names so many


def some_of(paths: Sequence[str]) -> str:
    """The first few of many, one a line."""
    rest = [f"and {len(paths) - NAMED} more"] if len(paths) > NAMED else []
    return "\n".join(f"  {path}" for path in [*paths[:NAMED], *rest])


def listing(name: str, folder: Path, fold: int = 1, *, allow_missing: bool = False) -> Listing:
    """Read a data set's lists and find their files.

    Args:
        fold: of the three official splits; VGGSound has but one.
        allow_missing: go on with the files that are there; collections of VGGSound are never
            whole, so it makes no difference for them.

    Raises:
        ValueError: for an unknown data set, or lists that cannot be understood.
        FileNotFoundError: when a list or a listed file is missing.
    """
    if name not in LISTS:
        raise ValueError(unknown_name("data set", name, LISTS))
    if fold not in (1, 2, 3):
        raise ValueError(f"there are folds 1, 2 and 3, no fold {fold}")
    files = files_below(need(folder, f"the folder of {name}"))
    classes, lines, unused = LISTS[name](folder, fold, files)
    unique: dict[str, Entry] = {}
    for entry in lines:
        if (first := unique.setdefault(entry.id, entry)) != entry:
            twice = [(e.split, e.label) for e in (first, entry)]
            raise ValueError(f"the lists of {name} in {folder} name {entry.id} twice: {twice}")
    there, used = set(files), {e.path for e in unique.values()} | unused
    found = Listing(
        name=name, folder=folder, classes=tuple(classes),
        entries=tuple(e for e in unique.values() if e.path in there),
        missing=tuple(e.path for e in unique.values() if e.path not in there),
        unlisted=tuple(p for p in files if p.endswith((".avi", ".mp4")) and p not in used),
    )  # fmt: skip
    check_there(found, allow_missing or name in NEVER_WHOLE)
    return found


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


# ---- the audit --------------------------------------------------------------------------------


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
        about = {"folder": str(what.folder), "files": digest([files, mismatches])}
        if stamp.exists() and json.loads(stamp.read_text()) == about:
            with (out / "ledger.csv").open(newline="") as file:
                return Manifest.load(out), [Unusable(**row) for row in csv.DictReader(file)]
        write_rows(out / "mismatches.csv", Mismatch, mismatches)
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
        name=what.name, folder=what.folder, where=out, classes=what.classes, videos=tuple(good),
        listed=what.listed,
    )  # fmt: skip
    manifest.save()
    return manifest, bad
