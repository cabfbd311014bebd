"""From official lists to one kind of manifest, and an audit of the files before training.

A reader turns a data set's own lists into entries (file, label, split); the audit decodes every
file once and writes two tables: the manifest of the videos that can be used, and the ledger of
those that cannot, with the reason. Nothing else in the package knows a data set's format.
"""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

from avnb.files import write_aside
from avnb.values import digest

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

    start: float  # time stamp of the first frame
    seconds: float
    fps: float
    width: int
    height: int
    audio_hz: int  # 0 when there is no audio stream


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
            (v.id, v.label, v.width, v.height, v.audio_hz, round(v.seconds, 3)) for v in self.videos
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

    def with_audio(self) -> "Manifest":
        """The videos that have an audio stream."""
        return self.only(v for v in self.videos if v.audio_hz)

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
        metadata = {
            "name": self.name,
            "folder": str(self.folder),
            "classes": self.classes,
            "listed": self.listed,
        }
        write_aside(self.where / "dataset.json", json.dumps(metadata, indent=1))

    @classmethod
    def load(cls, out: Path) -> "Manifest":
        """Read what `save` wrote."""
        metadata = json.loads((out / "dataset.json").read_text())
        return cls(
            name=metadata["name"],
            folder=Path(metadata["folder"]),
            where=out,
            classes=tuple(metadata["classes"]),
            videos=tuple(read_rows(out / "manifest.csv")),
            listed=metadata["listed"],
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
