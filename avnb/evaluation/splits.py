"""Splits as files: seen and unseen classes, and few-shot draws, made once and read everywhere.

Nothing here is drawn in a training process or a worker: a draw is a function of the videos, their
labels and a seed, and lies in a folder named after all three.
"""

import csv
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from avnb.config import digest
from avnb.evaluation.concepts import Matched
from avnb.files import locked, write_text

PERCENTS = (5.0, 10.0, 20.0, 50.0, 100.0)


ROUNDED = {"down": 1e-9, "nearest": 0.5}  # added before the fraction is cut off
Rounding = Literal["down", "nearest"]


def draw_size(videos: int, percent: float, rounding: Rounding = "down") -> int:
    """Number of a class's videos in a draw, at least one; ValueError outside (0, 100] percent.

    The released code rounds down.
    """
    if not 0 < percent <= 100:
        raise ValueError(f"percent must lie in (0, 100], got {percent!r}")
    return max(1, int(videos * percent / 100 + ROUNDED[rounding]))


def few_shot(
    labels: Sequence[str], percent: float, seed: int, rounding: Rounding = "down"
) -> list[int]:
    """Positions of the videos drawn from each class, in ascending order.

    A class's videos are shuffled once and a draw takes the first of them, so that a smaller draw
    is part of every larger one. The order depends on the seed and the class's name alone, so that
    leaving out other classes changes nothing.

    Args:
        labels: class of each training video [N].
        percent: of the videos of each class, in (0, 100].
        seed: of the order.
        rounding: of the number of videos.
    """
    drawn: list[int] = []
    for label, group in pd.Series(range(len(labels))).groupby(list(labels)):
        rng = np.random.default_rng(int(digest([seed, label]), 16))
        order = rng.permutation(len(group))
        drawn += group.iloc[order[: draw_size(len(group), percent, rounding)]].tolist()
    return sorted(drawn)


def class_split(classes: Sequence[str], seen: Collection[int]) -> dict[str, list[str]]:
    """Classes with a label in `seen` and the others, in label order; ValueError for a bad label."""
    if wrong := sorted(i for i in seen if not 0 <= i < len(classes)):
        raise ValueError(f"seen holds the labels {wrong}; there are {len(classes)} classes")
    parts: dict[str, list[str]] = {"seen": [], "unseen": []}
    for i, name in enumerate(classes):
        parts["seen" if i in seen else "unseen"].append(name)
    return parts


def write_once(path: Path, text: str) -> None:
    """Write a file that is never changed later; ValueError when another text is there already."""
    with locked(path.parent):
        if not path.exists():
            write_text(path, text)
        elif path.read_text(encoding="utf-8") != text:
            raise ValueError(f"{path} was changed by hand; delete it, and it is made again")


def write_draws(
    folder: Path | str,
    ids: Sequence[str],
    labels: Sequence[str],
    *,
    seed: int,
    percents: Sequence[float] = PERCENTS,
    rounding: Rounding = "down",
) -> dict[float, Path]:
    """Few-shot draws of a training set as tables `video,label`, one file per percentage.

    They lie in a folder of their own in `folder`, named after the ids [N], the labels [N], the
    seed and the rounding. ValueError when ids and labels differ in number, or an id occurs twice.
    """
    if len(ids) != len(labels) or len(set(ids)) != len(ids):
        raise ValueError(
            f"a draw needs one label per video and unique ids; got {len(ids)} ids "
            f"({len(set(ids))} different) and {len(labels)} labels"
        )
    own = Path(folder) / f"few-shot-{digest([list(ids), list(labels), seed, rounding])}"
    files, table = {}, pd.DataFrame({"video": ids, "label": labels})
    for percent in percents:
        files[percent] = own / f"{percent:g}-percent.csv"
        drawn = table.iloc[few_shot(labels, percent, seed, rounding)]
        write_once(files[percent], drawn.to_csv(index=False, lineterminator="\n"))
    return files


def read_draw(path: Path | str) -> list[str]:
    """The ids of the videos in a draw, in the order of the file; ValueError for any other file."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        if table.fieldnames != ["video", "label"]:
            raise ValueError(f"{path} is no draw: its columns are {table.fieldnames}")
        return [row["video"] for row in table]


def matched_parts(matched: Matched) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """The seen and the unseen classes of a matched pair, and what decided it."""
    pair = matched.pair
    about: dict[str, Any] = {"queries": pair.queries.key, "targets": pair.targets.key}
    about |= {"names": pair.origin, "models": matched.method, "threshold": pair.threshold}
    about |= {"top": matched.top, "outliers": pair.outliers}
    return class_split(pair.targets.names, matched.seen()[1]), about


def write_parts(
    folder: Path | str, about: Mapping[str, Any], parts: Mapping[str, Sequence[str]]
) -> dict[str, Path]:
    """The classes of each part, one name per line, in label order.

    `about.json` beside them says how they were chosen.
    """
    name = f"concepts-{about['queries']}-{about['targets']}-{digest([about, parts])}"
    own = Path(folder) / name
    write_once(own / "about.json", json.dumps(about, indent=1))
    files = {part: own / f"{part}.txt" for part in parts}
    for part, names in parts.items():
        write_once(files[part], "".join(f"{name}\n" for name in names))
    return files


def write_classes(folder: Path | str, matched: Matched) -> dict[str, Path]:
    """The seen and the unseen classes of a matched pair, as `write_parts`."""
    parts, about = matched_parts(matched)
    return write_parts(folder, about, parts)


def read_classes(path: Path | str) -> list[str]:
    """The class names in a file of `write_parts`, as spelt in the data set."""
    return Path(path).read_text(encoding="utf-8").splitlines()
