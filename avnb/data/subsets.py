"""Which training videos are used: drawn once from a seed, kept as files of ids (thesis 4.1.1)."""

from pathlib import Path

import numpy as np

from avnb.config import Pretrain, Subset
from avnb.data.manifest import Manifest, Video
from avnb.files import locked, write_aside
from avnb.values import digest


def draw(manifest: Manifest, config: Subset) -> tuple[list[str], list[str]]:
    """Ids for training and for validation, disjoint, from the training split.

    First as many of each class as the smallest class has, or as fit; then, up to
    `subset_videos`, any of the rest; from what is left, any for validation.
    """
    rng = np.random.default_rng(config.subset_seed)
    classes: dict[str, list[str]] = {}
    for video in sorted(manifest.split("train").videos, key=lambda v: v.id):
        classes.setdefault(video.label, []).append(video.id)
    if not classes:
        raise ValueError(f"{manifest.name} in {manifest.folder} has no training video")
    smallest = min(len(ids) for ids in classes.values())
    each = min(smallest, config.subset_videos // len(classes))
    chosen: list[str] = []
    rest: list[str] = []
    for label in sorted(classes):
        ids = [classes[label][i] for i in rng.permutation(len(classes[label]))]
        chosen += ids[:each]
        rest += ids[each:]
    rest = [rest[i] for i in rng.permutation(len(rest))]
    more = config.subset_videos - len(chosen)
    return chosen + rest[:more], rest[more:][: config.validation_videos]


def files(manifest: Manifest, config: Subset) -> tuple[Path, Path]:
    """Files of the ids for training and for validation, one a line, beside the manifest.

    Drawn when they are not there.
    """
    key = [config.subset_videos, config.validation_videos, config.subset_seed, manifest.digest]
    folder = manifest.where / f"subset-{digest(key)}"
    paths = folder / "train.txt", folder / "validation.txt"
    with locked(folder):
        if not all(path.exists() for path in paths):
            for path, ids in zip(paths, draw(manifest, config), strict=True):
                write_aside(path, "".join(f"{i}\n" for i in sorted(ids)))
    return paths


def chosen(manifest: Manifest, ids: Path) -> Manifest:
    """The videos whose ids stand in a file, in its order.

    Raises:
        ValueError: for an id that is no training video of the manifest.
    """
    known: dict[str, Video] = {v.id: v for v in manifest.split("train").videos}
    wanted = ids.read_text().split("\n")[:-1]
    unknown = [i for i in wanted if i not in known]
    if unknown:
        raise ValueError(
            f"{ids} names {len(unknown)} videos, {unknown[0]!r} first, that are no training "
            f"videos of {manifest.where / 'manifest.csv'}; delete {ids.parent} to draw again"
        )
    return manifest.only(known[i] for i in wanted)


def heard(manifest: Manifest, run: Pretrain) -> Manifest:
    """The videos, with those without sound treated as the run says.

    Raises:
        ValueError: when there are some and `missing_audio` is `error`.
    """
    silent = len(manifest) - len(manifest.with_audio())
    if silent and run.missing_audio == "error":
        raise ValueError(
            f"{silent} of {len(manifest)} training videos of {manifest.folder} have no audio "
            "stream; `missing_audio` may be 'silence' (they are heard as zeros) or 'drop'"
        )
    return manifest.with_audio() if run.missing_audio == "drop" else manifest


def training(manifest: Manifest, run: Pretrain) -> tuple[Manifest, Manifest]:
    """The videos of a run for training and for validation; the files are drawn if need be."""
    train, validation = (chosen(manifest, path) for path in files(manifest, run.subset))
    return heard(train, run), heard(validation, run)
