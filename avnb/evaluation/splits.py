"""Splits as files: seen and unseen classes, and few-shot draws, made once and read by everybody.

Nothing here is drawn in a training process or a worker: a draw is a function of the videos, their
labels and a seed, and lies in a folder named after all three.
"""

import csv
import io
import json
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from avnb.evaluation.concepts import Matched
from avnb.files import locked, write_aside
from avnb.values import digest

PERCENTS = (5.0, 10.0, 20.0, 50.0, 100.0)


def draw_size(videos: int, percent: float) -> int:
    """How many of a class's videos a draw of so many percent holds: rounded, at least one.

    Raises:
        ValueError: for a percentage outside (0, 100].
    """
    if not 0 < percent <= 100:
        raise ValueError(f"percent must lie in (0, 100], got {percent!r}")
    return max(1, int(videos * percent / 100 + 0.5))


def few_shot(labels: Sequence[str], percent: float, seed: int) -> list[int]:
    """Positions of the videos drawn from each class, in ascending order.

    A class's videos are put into one random order, and a draw takes its beginning: a smaller
    draw is part of every larger one. The order depends on the seed and the class's name alone,
    so that leaving out other classes changes nothing.

    Args:
        labels: class of each training video [N].
        percent: of the videos of each class, in (0, 100].
        seed: of the order.
    """
    where: dict[str, list[int]] = {}
    for position, label in enumerate(labels):
        where.setdefault(label, []).append(position)
    drawn = []
    for label, positions in where.items():
        rng = np.random.default_rng(int(digest([seed, label]), 16))
        order = rng.permutation(len(positions))
        drawn += [positions[i] for i in order[: draw_size(len(positions), percent)]]
    return sorted(drawn)


def class_split(classes: Sequence[str], seen: Collection[int]) -> dict[str, list[str]]:
    """The classes with a label in `seen`, and the others, each in label order.

    Raises:
        ValueError: for a label that no class has.
    """
    if wrong := sorted(i for i in seen if not 0 <= i < len(classes)):
        raise ValueError(f"seen holds the labels {wrong}; there are {len(classes)} classes")
    return {
        "seen": [name for i, name in enumerate(classes) if i in seen],
        "unseen": [name for i, name in enumerate(classes) if i not in seen],
    }


def write_once(path: Path, text: str) -> None:
    """Write a file that nothing may change later; one that is there must say the same.

    Raises:
        ValueError: when it says something else.
    """
    with locked(path.parent):
        if not path.exists():
            write_aside(path, text)
        elif path.read_text(encoding="utf-8") != text:
            raise ValueError(f"{path} was changed by hand; delete it, and it is made again")


def write_draws(
    folder: Path,
    ids: Sequence[str],
    labels: Sequence[str],
    *,
    seed: int,
    percents: Sequence[float] = PERCENTS,
) -> dict[float, Path]:
    """Few-shot draws of a training set as tables `video,label`, one file a percentage.

    Args:
        folder: below which the draws of these videos and this seed get a folder of their own.
        ids: of the videos, each once [N].
        labels: class of each video [N].
        seed: of the draws.
        percents: of the videos of each class, in (0, 100].

    Raises:
        ValueError: when ids and labels do not fit, or an id comes twice.
    """
    if len(ids) != len(labels) or len(set(ids)) != len(ids):
        raise ValueError(
            f"a draw needs one label a video and every id once; got {len(ids)} ids "
            f"({len(set(ids))} different) and {len(labels)} labels"
        )
    own = folder / f"few-shot-{digest([list(ids), list(labels), seed])}"
    made = {}
    for percent in percents:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["video", "label"])
        table.writerows((ids[i], labels[i]) for i in few_shot(labels, percent, seed))
        made[percent] = own / f"{percent:g}-percent.csv"
        write_once(made[percent], text.getvalue())
    return made


def read_draw(path: Path) -> list[str]:
    """The ids of the videos in a draw, in their order; ValueError for another kind of file."""
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        if table.fieldnames != ["video", "label"]:
            raise ValueError(f"{path} is no draw: its columns are {table.fieldnames}")
        return [row["video"] for row in table]


def write_classes(folder: Path, matched: Matched) -> dict[str, Path]:
    """The seen and the unseen classes of a matched pair, one name a line, in label order.

    Beside them `about.json` says by which models, threshold and outliers they were split.
    """
    pair = matched.pair
    metadata = {
        "queries": pair.queries.key,
        "targets": pair.targets.key,
        "names": pair.origin,
        "models": matched.models,
        "threshold": pair.threshold,
        "top": matched.top,
        "outliers": pair.outliers,
    }
    parts = class_split(pair.targets.names, matched.seen()[1])
    own = folder / f"concepts-{pair.queries.key}-{pair.targets.key}-{digest([metadata, parts])}"
    write_once(own / "about.json", json.dumps(metadata, indent=1))
    made = {}
    for part, names in parts.items():
        made[part] = own / f"{part}.txt"
        write_once(made[part], "".join(f"{name}\n" for name in names))
    return made


def read_classes(path: Path) -> list[str]:
    """The class names in a file of `write_classes`, as the data set writes them."""
    return path.read_text(encoding="utf-8").splitlines()
