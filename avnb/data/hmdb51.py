"""HMDB-51: its official lists and file names."""

import re
from pathlib import Path

from avnb.data.listing import Lists, need, numbered_lines
from avnb.data.manifest import Entry, Split


def list_hmdb51(folder: Path, fold: int, files: list[str]) -> Lists:
    """HMDB-51: `<class>/<video>.avi` and `testTrainMulti_7030_splits/`.

    Lines are `<video>.avi 0|1|2`: unused, training, test. Labels are the sorted class names.
    """
    lists = folder / "testTrainMulti_7030_splits"
    tables = [re.fullmatch(r"(.+)_test_split[123]\.txt", p.name) for p in lists.iterdir()]
    classes = sorted({match[1] for match in tables if match})
    if not classes:
        raise FileNotFoundError(f"{lists} holds no file <class>_test_split{fold}.txt")
    roles: dict[str, Split] = {"1": "train", "2": "test"}
    entries, unused = list[Entry](), set[str]()
    for label in classes:
        table = need(lists / f"{label}_test_split{fold}.txt", f"the split file of {label}")
        for line, place in numbered_lines(table):
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
