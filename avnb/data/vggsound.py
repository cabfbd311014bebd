"""VGGSound: its official list and file names."""

import csv
from pathlib import Path

from avnb.data.listing import Lists
from avnb.data.manifest import Entry, Split


def list_vggsound(folder: Path, fold: int, files: list[str]) -> Lists:
    """VGGSound: `vggsound.csv` without header, and files in `train/`, `test/` or flat.

    File names may be `<id>_<start>.mp4`, `<id>_<start:06d>.mp4` or `<id>_<ms>_<ms>.mp4`. An id
    may contain `_` or begin with `-`. Labels are numbered in sorted order.
    """
    table = folder / "vggsound.csv"
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
