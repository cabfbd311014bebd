"""UCF-101: its official lists and file names."""

import re
import typing
from pathlib import Path

from avnb.data.listing import Lists, need, numbered_lines
from avnb.data.manifest import Entry, Split

UCF_LINE = re.compile(r"(\w+)/((v_\w+_g\d+)_c\d+)\.avi(?:\s+(\d+))?", re.IGNORECASE)


def ucf101_classes(index: Path) -> dict[str, str]:
    """The classes in the order of their labels, by their names in lower case."""
    classes: list[str] = []
    for line, place in numbered_lines(need(index, "the class list, '1 ApplyEyeMakeup' a line")):
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
        ValueError: for a malformed line, an unknown class, or a group in both splits.
    """
    lists = folder / "ucfTrainTestlist"
    classes = ucf101_classes(lists / "classInd.txt")
    numbers = {name: str(i) for i, name in enumerate(classes, 1)}
    paths = {path.rpartition("/")[2].lower(): path for path in reversed(files)}
    entries, split_of = list[Entry](), dict[str, Split]()
    for split in typing.get_args(Split):
        table = need(lists / f"{split}list0{fold}.txt", f"the official {split} list")
        for line, place in numbered_lines(table):
            match = UCF_LINE.fullmatch(line)
            name = match[1].lower() if match else ""
            if match is None or (match[4] or numbers.get(name)) != numbers.get(name, ""):
                raise ValueError(
                    f"{place}: expected '<Class>/v_<Class>_gNN_cNN.avi', in the training list "
                    f"with the class's number in classInd.txt, found {line!r}"
                )
            if split_of.setdefault(match[3].lower(), split) != split:
                raise ValueError(
                    f"{place}: group {match[3]} is in the training and in the test list of fold "
                    f"{fold}; its videos show the same scene, so the test would be contaminated"
                )
            path = paths.get(f"{match[2]}.avi".lower(), f"UCF-101/{match[1]}/{match[2]}.avi")
            entries.append(Entry(id=match[2], path=path, label=classes[name], split=split))
    return list(classes.values()), entries, set()
