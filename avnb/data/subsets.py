"""The training and validation videos of a run, drawn by a seed (thesis 4.1.1)."""

from collections.abc import Iterable

import numpy as np

from avnb.config import Pretrain, Subset
from avnb.data.datasets import Entry
from avnb.data.manifest import Manifest


def draw_subset(entries: Iterable[Entry], config: Subset) -> tuple[list[str], list[str]]:
    """Ids for training and for validation, disjoint, from the training split.

    First the same number of each class, as many as the smallest class and `subset_videos` allow;
    then, up to that, any of the rest; from what is left, any for validation that are in no group
    with those. Without groups, a draw from the drawn entries alone gives all of them again, but may
    exchange training and validation.
    """
    classes, group_of = dict[str, list[str]](), dict[str, str]()
    for entry in sorted(entries, key=lambda entry: entry.id):
        if entry.split == "train":
            classes.setdefault(entry.label, []).append(entry.id)
            group_of[entry.id] = entry.group or entry.id
    if not classes:
        return [], []
    rng, train = np.random.default_rng(config.subset_seed), config.subset_videos
    each = min(train // len(classes), *(len(ids) for ids in classes.values()))
    chosen, rest = list[str](), list[str]()
    for _, members in sorted(classes.items()):
        ids = [members[i] for i in rng.permutation(len(members))]
        chosen += ids[:each]
        rest += ids[each:]
    chosen += [rest[i] for i in rng.permutation(len(rest))]
    used = {group_of[i] for i in chosen[:train]}
    left = [i for i in chosen[train:] if group_of[i] not in used]
    return chosen[:train], left[: config.validation_videos]


def training_and_validation(manifest: Manifest, run: Pretrain) -> tuple[Manifest, Manifest]:
    """The videos of a run for training and for validation, in the order of their ids.

    Raises:
        ValueError: when there is no training video.
    """
    drawn = draw_subset(manifest.videos, run.subset)
    if not drawn[0]:
        raise ValueError(f"{manifest.name} in {manifest.folder} has no training video")
    known = {video.id: video for video in manifest.videos}
    train, validation = (manifest.only(known[i] for i in sorted(ids)) for ids in drawn)
    return train, validation
