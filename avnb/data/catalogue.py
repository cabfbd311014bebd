"""The data sets of a workspace: real ones in given folders, or those of its synthetic world."""

from pathlib import Path
from typing import Any

from avnb.config import Subset, digest
from avnb.data import audit, cache, datasets
from avnb.data.datasets import Listing
from avnb.data.manifest import Manifest
from avnb.data.subsets import draw_values
from avnb.data.synthetic import world
from avnb.data.synthetic.world import World
from avnb.profiles import Workspace, cores

FRAMES_GB = 2.0  # decoded frames of a synthetic data set that are kept


def synthetic_world(work: Workspace) -> Path:
    """The folder of the profile's synthetic world, which is made if it does not exist.

    Raises:
        ValueError: for the profile `thesis`, which has none.
    """
    if work.name == "thesis":
        raise ValueError(
            "the profile 'thesis' runs on real data: give the data set's folder, or use the "
            "profile 'demo' or 'smoke' for synthetic videos"
        )
    values = World.from_flat(**work.values["world"])
    return world.make(values, work.folder / f"world-{world.world_id(values)}", workers=cores())


def audited(
    work: Workspace,
    data_set: str,
    folder: str,
    *,
    fold: int,
    allow_missing: bool,
    subset: Subset | None,
    max_damaged: float | None = None,
    out: Path | None = None,
) -> tuple[Listing, Manifest, list[audit.Unusable]]:
    """What a data set's lists name, its audited videos, and the files that cannot be used.

    Args:
        work: the workspace, which keeps what is found.
        data_set: its key; empty: detected in the folder.
        folder: of the data set; empty: the synthetic one.
        fold: official split.
        allow_missing: go on without files that are listed and missing.
        subset: of a pre-training, whose videos alone are looked at.
        max_damaged: share of a file's packets that may fail; by default the subset's.
        out: folder for the tables, instead of the workspace's.
    """
    if folder:
        root = Path(folder).expanduser().resolve()
    else:
        data_set = data_set or "vggsound"
        if data_set in datasets.DATA_SETS and not datasets.DATA_SETS[data_set].marker:
            raise ValueError(f"data set {data_set!r} is your own videos: give their folder")
        root = synthetic_world(work) / data_set
    listing = datasets.listing(data_set, root, fold, allow_missing=allow_missing)
    where = work.folder / "manifests" / f"{listing.name}-{digest(str(root))}"
    if max_damaged is None:
        max_damaged = subset.max_damaged if subset else audit.MAX_DAMAGED
    training = sum(entry.split == "train" for entry in listing.entries)
    if not (folder and subset and (subset.subset_ids or training > drawn_videos(subset))):
        subset = None
    name, diary = f"fold{fold}", where / "decoded.jsonl"
    if subset:
        name += f"-subset-{digest(draw_values(subset))}"
    options: dict[str, Any] = {"workers": cores(), "diary": diary, "subset": subset}
    found = audit.audit(listing, out or where / name, max_damaged=max_damaged, **options)
    return listing, *found


def drawn_videos(subset: Subset) -> int:
    """Videos that a pre-training draws."""
    return subset.subset_videos + subset.validation_videos


def load_dataset(
    work: Workspace,
    data_set: str,
    folder: str = "",
    *,
    fold: int = 1,
    allow_missing: bool = False,
    subset: Subset | None = None,
    form: str = "",
) -> Manifest:
    """The audited videos of a data set: a real one in `folder`, or the synthetic one if empty.

    An empty `data_set` is detected in the folder; without a folder it is the VGGSound-like one.
    With the `subset` of a pre-training, no others than the videos that it draws are looked at in a
    real folder that has more for training; evaluation uses whole data sets.

    The files are those of a cache of this `form`, by default of the one that `make_cache` has
    written if it has them; of synthetic videos, those with decoded frames if they take less than
    FRAMES_GB.

    Raises:
        FileNotFoundError: when the folder, its lists or (unless allowed) files are missing.
        ValueError: for an unknown data set, lists that cannot be parsed, or own videos without
            their folder.
    """
    options: dict[str, Any] = {"fold": fold, "allow_missing": allow_missing, "subset": subset}
    _, found, _ = audited(work, data_set, folder, **options)
    where = found.where.parent
    if form:
        return cache.cached(found, form, where)
    used = cache.in_use(found, where)
    if used.cache is None and not folder and cache.size_gb(found, cache.FRAMES) <= FRAMES_GB:
        return cache.cached(found, cache.FRAMES, where)
    return used


def make_cache(
    work: Workspace,
    data_set: str,
    folder: str,
    form: str,
    *,
    fold: int = 1,
    allow_missing: bool = False,
    subset: Subset | None = None,
    limit_gb: float = cache.LIMIT_GB,
) -> Manifest:
    """Write a cache of a real data set; from then on `load_dataset` gives its videos.

    Raises:
        ValueError, FileNotFoundError, DecodeError: as `load_dataset` and `cache.cached`.
    """
    options: dict[str, Any] = {"fold": fold, "allow_missing": allow_missing, "subset": subset}
    _, found, _ = audited(work, data_set, folder, **options)
    where = found.where.parent
    made = cache.cached(found, form, where, limit_gb=limit_gb)
    cache.choose(where, form, limit_gb)
    return made
