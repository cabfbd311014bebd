"""The data sets by name."""

from pathlib import Path

from avnb.data.hmdb51 import list_hmdb51
from avnb.data.listing import Listing, check_there, files_below, need
from avnb.data.manifest import Entry
from avnb.data.ucf101 import list_ucf101
from avnb.data.vggsound import list_vggsound
from avnb.values import unknown_name

LISTS = {"vggsound": list_vggsound, "ucf101": list_ucf101, "hmdb51": list_hmdb51}


NEVER_WHOLE = ("vggsound",)  # its videos are taken down from YouTube one by one


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
        name=name,
        folder=folder,
        classes=tuple(classes),
        entries=tuple(e for e in unique.values() if e.path in there),
        missing=tuple(e.path for e in unique.values() if e.path not in there),
        unlisted=tuple(p for p in files if p.endswith((".avi", ".mp4")) and p not in used),
    )
    check_there(found, allow_missing or name in NEVER_WHOLE)
    return found
