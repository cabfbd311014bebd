"""The manifest: one table of the usable videos, whatever the data set.

A reader turns a data set's own lists into entries (file, label, split); the audit decodes every
file once and writes two tables: the manifest of the videos that can be used, and the ledger of
those that cannot, with the reason. Nothing else in the package knows a data set's format.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from avnb.config import digest
from avnb.data.layouts import Entry, Split
from avnb.data.media import StreamInfo
from avnb.files import read_json, write_text


@dataclass(frozen=True, kw_only=True)
class Video(StreamInfo, Entry):
    """An entry whose file was decoded from beginning to end."""


PARSERS = {f.name: f.type if f.type in (int, float) else str for f in fields(Video)}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The usable videos of a data set, all or a part of them."""

    name: str
    folder: Path  # of the videos
    where: Path  # folder of the manifest itself
    classes: tuple[str, ...]  # in the order of their labels
    videos: tuple[Video, ...]
    listed: int  # videos named by the lists, of both splits, whether usable or not
    cache: Path | None = None  # folder of the files that are read instead of the videos
    cache_suffix: str = ""  # of their names
    encoding: str = ""  # of those that are not exactly the videos
    world: dict[str, Any] | None = None  # values of the synthetic world that the videos are of

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def digest(self) -> str:
        """Hash of the name, the classes, and each video's id, label, length, size and audio.

        And of the encoding, where the files are those of a cache that is not exact; and of the
        synthetic world's values, which say what the videos show.
        """
        rows = [
            (v.id, v.label, v.width, v.height, v.audio_hz, round(v.seconds, 3)) for v in self.videos
        ]
        encoding = [self.encoding] if self.encoding else []
        world = [self.world] if self.world else []
        return digest([self.name, self.classes, rows, *encoding, *world])

    @property
    def origin(self) -> str:
        """The data as result rows name it: `synthetic` or `real`, and the digest."""
        synthetic = (self.folder.parent / "scenes.json").exists()
        return f"{'synthetic' if synthetic else 'real'}:{self.digest}"

    @property
    def labels(self) -> list[int]:
        """Label of each video, numbered in the order of `classes`."""
        numbers = {name: i for i, name in enumerate(self.classes)}
        return [numbers[v.label] for v in self.videos]

    def split(self, name: Split) -> "Manifest":
        """The training or the test part."""
        return self.only(v for v in self.videos if v.split == name)

    def with_audio(self) -> "Manifest":
        """The videos that have an audio stream."""
        return self.only(v for v in self.videos if v.audio_hz)

    def only(self, videos: Iterable[Video]) -> "Manifest":
        """The same data set with the given videos."""
        return replace(self, videos=tuple(videos))

    def original(self, video: Video) -> Path:
        """The video's own file."""
        return self.folder / video.path

    def path(self, video: Video) -> Path:
        """The file that is read: the video's own, or what a cache holds of it."""
        if self.cache is None:
            return self.original(video)
        return self.cache / f"{digest(video.path)}{self.cache_suffix}"

    def save(self) -> None:
        """Write `manifest.csv` and `dataset.json` into the folder `where`."""
        table = self.where / "manifest.csv"
        write_table(table, PARSERS, map(asdict, self.videos))
        apart = ("where", "videos")
        metadata = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in apart}
        metadata["table"] = file_digest(table)
        write_text(self.where / "dataset.json", json.dumps(metadata, indent=1, default=str))

    @staticmethod
    def is_whole(where: Path) -> bool:
        """Whether what `save` wrote is there as it was written."""
        try:
            metadata = json.loads((where / "dataset.json").read_text())
            return bool(metadata["table"] == file_digest(where / "manifest.csv"))
        except (FileNotFoundError, KeyError, TypeError, ValueError):
            return False

    @classmethod
    def load(cls, where: str | Path) -> "Manifest":
        """Read what `save` wrote.

        Raises:
            ValueError: when the table was cut or changed since.
        """
        where = Path(where)
        metadata = read_json(where / "dataset.json", "the description of a manifest")
        table = where / "manifest.csv"
        if metadata.pop("table", "") != file_digest(table):
            raise ValueError(
                f"{table} was cut or changed, or is of an earlier version: delete {where}, and the "
                "audit writes it again; what it has decoded is remembered"
            )
        metadata |= {"folder": Path(metadata["folder"]), "classes": tuple(metadata["classes"])}
        if metadata.get("cache"):
            metadata["cache"] = Path(metadata["cache"])
        with table.open(newline="") as file:
            read = list(csv.DictReader(file))
        rows: list[dict[str, Any]]
        rows = [{name: PARSERS[name](cell) for name, cell in row.items()} for row in read]
        videos = tuple(Video(**row) for row in rows)
        return cls(where=where, videos=videos, **metadata)


def world_of(folder: Path) -> dict[str, Any] | None:
    """What the synthetic world was made from that a data set's folder is in; None for real videos.

    Raises:
        ValueError: when the world's mark was cut or changed.
    """
    mark = folder.parent / "world.json"
    if not (mark.exists() and (folder.parent / "scenes.json").exists()):
        return None
    values: dict[str, Any] = read_json(mark, "the mark of a synthetic world")
    return values


def file_digest(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_table(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write a CSV table with a header."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(columns), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())
