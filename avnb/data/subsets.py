"""The training and validation videos of a run: drawn once from a seed, kept as files of ids.

Thesis 4.1.1.
"""

from pathlib import Path

import numpy as np

from avnb.config import Pretrain, Subset
from avnb.data.manifest import Manifest
from avnb.files import locked, write_text
from avnb.values import digest


def draw_subset(manifest: Manifest, config: Subset) -> tuple[list[str], list[str]]:
    """Ids for training and for validation, disjoint, from the training split.

    First the same number of each class, as many as the smallest class and `subset_videos` allow;
    then, up to `subset_videos`, any of the rest; from what is left, any for validation.
    """
    rng = np.random.default_rng(config.subset_seed)
    classes: dict[str, list[str]] = {}
    for video in sorted(manifest.split("train").videos, key=lambda v: v.id):
        classes.setdefault(video.label, []).append(video.id)
    if not classes:
        raise ValueError(f"{manifest.name} in {manifest.folder} has no training video")
    each = min(config.subset_videos // len(classes), *(len(ids) for ids in classes.values()))
    chosen, rest = list[str](), list[str]()
    for _, members in sorted(classes.items()):
        ids = [members[i] for i in rng.permutation(len(members))]
        chosen += ids[:each]
        rest += ids[each:]
    rest = [rest[i] for i in rng.permutation(len(rest))]
    more = config.subset_videos - len(chosen)
    return chosen + rest[:more], rest[more:][: config.validation_videos]


def subset_files(manifest: Manifest, config: Subset) -> tuple[Path, Path]:
    """Files with the ids for training and for validation, one a line, beside the manifest.

    They are drawn unless they exist.
    """
    key = [config.subset_videos, config.validation_videos, config.subset_seed, manifest.digest]
    folder = manifest.where / f"subset-{digest(key)}"
    paths = folder / "train.txt", folder / "validation.txt"
    with locked(folder):
        if not all(path.exists() for path in paths):
            for path, ids in zip(paths, draw_subset(manifest, config), strict=True):
                write_text(path, "".join(f"{i}\n" for i in sorted(ids)))
    return paths


def load_subset(manifest: Manifest, ids: str | Path) -> Manifest:
    """The videos whose ids are in a file, in its order.

    Raises:
        ValueError: for an id that is no training video of the manifest.
    """
    ids, known = Path(ids), {v.id: v for v in manifest.split("train").videos}
    selected = ids.read_text().split("\n")[:-1]
    unknown = [i for i in selected if i not in known]
    if unknown:
        raise ValueError(
            f"{ids} names {len(unknown)} videos, {unknown[0]!r} first, that are no training "
            f"videos of {manifest.where / 'manifest.csv'}; delete {ids.parent} to draw again"
        )
    return manifest.only(known[i] for i in selected)


def apply_missing_audio(manifest: Manifest, run: Pretrain) -> Manifest:
    """The videos, those without audio kept, dropped or refused as `missing_audio` says.

    Raises:
        ValueError: when there are some and `missing_audio` is `error`.
    """
    silent = len(manifest) - len(manifest.with_audio())
    if silent and run.missing_audio == "error":
        raise ValueError(
            f"{silent} of {len(manifest)} training videos of {manifest.folder} have no audio "
            "stream; `missing_audio` may be 'silence' (zeros instead) or 'drop'"
        )
    return manifest.with_audio() if run.missing_audio == "drop" else manifest


def training_and_validation(manifest: Manifest, run: Pretrain) -> tuple[Manifest, Manifest]:
    """The videos of a run for training and for validation; drawn if they have not been."""
    train, validation = (load_subset(manifest, ids) for ids in subset_files(manifest, run.subset))
    return apply_missing_audio(train, run), apply_missing_audio(validation, run)
