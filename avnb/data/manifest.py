"""The prepared videos of a data set, as one table: `videos.csv`, which pandas and a person read.

Nothing after this module knows a data set's own format. `file` is relative to the table.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from avnb.config import digest
from avnb.data.datasets import Entry, Split
from avnb.data.store import Stored
from avnb.files import write_text


@dataclass(frozen=True, kw_only=True)
class Video(Stored, Entry):
    """An entry whose source was read, and the file of the store that holds it."""

    seconds: float
    file: str  # relative to the folder of the table
    content: str  # hash of the source


FIRST = ["id", "label", "split", "seconds", "audio", "file"]  # columns
TYPES: Any = {f.name: f.type if f.type in (int, float, bool) else str for f in fields(Video)}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The usable videos of a data set, all or a part of them."""

    name: str
    folder: Path  # of the source videos
    where: Path  # of the tables
    classes: tuple[str, ...]  # in the order of their labels
    videos: tuple[Video, ...]
    listed: int  # videos named by the lists, of both splits, whether usable or not
    form: str  # of the store's files

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def digest(self) -> str:
        """Hash of the name, the classes, each video's id, label and content, and the form."""
        rows = [(v.id, v.label, v.content) for v in self.videos]
        return digest([self.name, self.classes, rows, self.form])

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
        """The videos that have sound."""
        return self.only(v for v in self.videos if v.audio)

    def only(self, videos: Iterable[Video]) -> "Manifest":
        """The same data set with the given videos."""
        return replace(self, videos=tuple(videos))

    def path(self, video: Video) -> Path:
        """The file of the store."""
        return self.where / video.file

    def save(self) -> None:
        """Write `videos.csv`, and `dataset.json` with what no column holds."""
        table = pd.DataFrame(list(self.videos)).set_index(FIRST)
        write_text(self.where / "videos.csv", table.to_csv())
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        del kept["videos"], kept["where"]
        write_text(self.where / "dataset.json", json.dumps(kept, indent=1, default=str))

    @classmethod
    def load(cls, where: str | Path) -> "Manifest":
        """Read what `save` wrote."""
        where = Path(where)
        kept = json.loads((where / "dataset.json").read_text())
        kept |= {"folder": Path(kept["folder"]), "classes": tuple(kept["classes"])}
        table = pd.read_csv(where / "videos.csv", dtype=TYPES, keep_default_na=False)
        rows: Any = table.to_dict("records")
        return cls(where=where, videos=tuple(Video(**row) for row in rows), **kept)
