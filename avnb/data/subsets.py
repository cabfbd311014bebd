"""The training and validation videos of a run, drawn by a seed (thesis 4.1.1)."""

from collections.abc import Collection, Iterable

import numpy as np

from avnb.config import Pretrain, Subset
from avnb.data.datasets import Entry
from avnb.data.manifest import Manifest

Drawn = tuple[list[str], list[str]]  # ids for training and for validation


def draw_subset(
    entries: Iterable[Entry], config: Subset, unusable: Collection[str] = frozenset()
) -> Drawn:
    """Ids for training and for validation, disjoint, from the training split.

    First the same number of each class, as many as the smallest class and `subset_videos` allow;
    then, up to that, any of the rest; from what is left, any for validation. The seed alone orders
    the videos; `unusable` ids are passed over. One among the first is replaced by the next of its
    class, if there is one, and by the next of the rest otherwise. So one more unusable id adds one
    other to the draw, and all that were drawn before remain in it, though one for validation may
    become one for training.
    """
    classes = dict[str, list[str]]()
    for entry in sorted(entries, key=lambda entry: entry.id):
        if entry.split == "train":
            classes.setdefault(entry.label, []).append(entry.id)
    if not classes:
        return [], []
    rng, train = np.random.default_rng(config.subset_seed), config.subset_videos
    each = min(train // len(classes), *(len(ids) for ids in classes.values()))
    chosen, rest = list[str](), list[str]()
    for _, members in sorted(classes.items()):
        ids = [members[i] for i in rng.permutation(len(members))]
        chosen += [i for i in ids if i not in unusable][:each]
        rest += ids[each:]
    passed = {*chosen, *unusable}
    rest = [rest[i] for i in rng.permutation(len(rest)) if rest[i] not in passed]
    more = train - len(chosen)
    return chosen + rest[:more], rest[more:][: config.validation_videos]


def draw_values(config: Subset) -> list[int]:
    """The values that decide a draw."""
    return [config.subset_videos, config.validation_videos, config.subset_seed]


def training_and_validation(manifest: Manifest, run: Pretrain) -> tuple[Manifest, Manifest]:
    """The videos of a run for training and for validation, in the order of their ids.

    A manifest of a draw alone gives that draw, which was made from all videos of the lists.

    Raises:
        ValueError: when there is no training video, or the manifest holds another draw.
    """
    values, drawn = draw_values(run.subset), manifest.drawn
    if drawn and drawn["values"] != values:
        raise ValueError(
            f"{manifest.where} holds the videos of the subset {drawn['values']} (subset_videos, "
            f"validation_videos, subset_seed) alone, and cannot give {values}: "
            "load_dataset(..., subset=...) gives those"
        )
    ids = drawn["ids"] if drawn else draw_subset(manifest.videos, run.subset)
    if not ids[0]:
        raise ValueError(f"{manifest.name} in {manifest.folder} has no training video")
    known = {video.id: video for video in manifest.videos}
    train, validation = (manifest.only(known[i] for i in sorted(part)) for part in ids)
    return train, validation
