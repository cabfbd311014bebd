"""UCF-101: its official lists and file names."""

import re
from pathlib import Path

from avnb.data.listing import Lists, in_lines, need
from avnb.data.manifest import Entry, Split

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
