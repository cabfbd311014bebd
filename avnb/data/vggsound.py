"""VGGSound: its official list and file names."""

import re
from pathlib import Path

from avnb.data.listing import Lists, csv_rows
from avnb.data.manifest import Entry, Split

START = re.compile(r"[0-9]{1,9}")  # seconds


def list_vggsound(folder: Path, fold: int, files: list[str]) -> Lists:
    """VGGSound: `vggsound.csv` without header, and files in `train/`, `test/` or flat.

    File names may be `<id>_<start>.mp4`, `<id>_<start:06d>.mp4` or `<id>_<ms>_<ms>.mp4`. An id
    may contain `_` or begin with `-`. Labels are numbered in sorted order.
    """
    table = folder / "vggsound.csv"
    paths = {path.rpartition("/")[2]: path for path in reversed(files)}
    entries: list[Entry] = []
    for row, place in csv_rows(table):
        if len(row) != 4 or row[3] not in ("train", "test") or not START.fullmatch(row[1]):
            raise ValueError(f"{place}: expected id,start,label,split; {row}")
        name, start, label = row[0], int(row[1]), row[2]
        if not name or "/" in name or name in (".", ".."):
            raise ValueError(f"{place}: {name!r} is no name of a video")
        official, ms = f"{name}_{start:06d}", f"{start * 1000}_{(start + 10) * 1000}"
        forms = (f"{official}.mp4", f"{name}_{start}.mp4", f"{name}_{ms}.mp4")
        path = next((paths[form] for form in forms if form in paths), forms[0])
        split: Split = "train" if row[3] == "train" else "test"
        entries.append(Entry(id=official, path=path, label=label, split=split))
    return sorted({e.label for e in entries}), entries, set()
