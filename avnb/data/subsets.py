"""The training and validation videos of a run: drawn once from a seed, kept as files of ids.

Thesis 4.1.1.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from avnb.config import Pretrain, Subset, digest
from avnb.data.layouts import Entry, read_list
from avnb.data.manifest import Manifest
from avnb.files import locked, read_json, write_text

Drawn = tuple[list[str], list[str]]  # ids for training and for validation


def read_ids(file: str) -> list[str]:
    """The ids in a file, one a line.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: for an id that stands there twice, and a file without any.
    """
    path = Path(file).expanduser()
    ids = [line.strip() for line in read_list(path).splitlines() if line.strip()]
    if not ids:
        raise ValueError(f"{path} holds no id of a training video; write one a line")
    ((name, times),) = Counter(ids).most_common(1)
    if times > 1:
        raise ValueError(f"{path} holds {name!r} {times} times")
    return ids


def draw_values(config: Subset) -> list[int | str]:
    """The values that decide a draw; of files of ids, what they hold."""
    values = [config.subset_videos, config.validation_videos, config.subset_seed]
    files = [digest(read_ids(file)) for file in (config.subset_ids, config.validation_ids) if file]
    return [*values, *files]


def draw_subset(
    entries: Iterable[Entry], config: Subset, unusable: Collection[str] = frozenset()
) -> Drawn:
    """Ids for training and for validation, disjoint, from the training split.

    Files of ids take the place of either draw; the unusable among them are not replaced.

    Raises:
        ValueError: for a file that names no training video, or one for both purposes.
    """
    entries = sorted((e for e in entries if e.split == "train"), key=lambda entry: entry.id)
    labels = {entry.id: entry.label for entry in entries}
    files = config.subset_ids, config.validation_ids
    train, validation = (read_ids(file) if file else [] for file in files)
    if unknown := [name for name in (*train, *validation) if name not in labels]:
        raise ValueError(
            f"{' or '.join(filter(None, files))} names {unknown[0]!r}, no training video of the "
            f"lists; their ids are such as {min(labels, default='')!r}"
        )
    if both := {*train} & {*validation}:
        raise ValueError(f"{' and '.join(files)} both name {min(both)!r}")
    rest = {i: label for i, label in labels.items() if i not in {*train, *validation}}
    wanted = 2 if train else config.subset_videos, config.validation_videos
    drawn = draw_balanced(rest, *wanted, config.subset_seed, unusable)
    usable = [[i for i in ids if i not in unusable] for ids in (train, validation)]
    return usable[0] if train else drawn[0], usable[1] if validation else drawn[1]


def draw_balanced(
    labels: Mapping[str, str], train: int, validation: int, seed: int, unusable: Collection[str]
) -> Drawn:
    """So many ids for training and for validation, drawn from labels by sorted id.

    First the same number of each class, as many as the smallest class and `train` allow; then,
    up to `train`, any of the rest; from what is left, any for validation. The seed alone orders
    the videos; `unusable` ids are passed over. One among the first is replaced by the next of its
    class, if there is one, and by the next of the rest otherwise. So one more unusable id adds one
    other to the draw, and all that were drawn before remain in it, though one for validation may
    become one for training.
    """
    classes = dict[str, list[str]]()
    for name, label in labels.items():
        classes.setdefault(label, []).append(name)
    if not classes:
        return [], []
    rng = np.random.default_rng(seed)
    each = min(train // len(classes), *(len(ids) for ids in classes.values()))
    chosen, rest = list[str](), list[str]()
    for _, members in sorted(classes.items()):
        ids = [members[i] for i in rng.permutation(len(members))]
        chosen += [i for i in ids if i not in unusable][:each]
        rest += ids[each:]
    passed = {*chosen, *unusable}
    rest = [rest[i] for i in rng.permutation(len(rest)) if rest[i] not in passed]
    more = train - len(chosen)
    return chosen + rest[:more], rest[more:][:validation]


def write_drawn(folder: Path, config: Subset, drawn: Drawn) -> None:
    """Write a draw's ids, one a line in sorted order, and at last what it was drawn with."""
    record: dict[str, object] = {"values": draw_values(config)}
    for name, ids in zip(("train.txt", "validation.txt"), map(sorted, drawn), strict=True):
        write_text(folder / name, "".join(f"{i}\n" for i in ids))
        record[name] = digest(ids)
    write_text(folder / "drawn.json", json.dumps(record))


def subset_files(manifest: Manifest, config: Subset) -> tuple[Path, Path]:
    """Files with the ids for training and for validation, one a line, beside the manifest.

    They are drawn from the manifest's videos unless they exist. A manifest that holds a subset
    alone has them beside it, drawn from all videos of the lists.

    Raises:
        ValueError: when there is no training video, or the manifest holds another subset.
    """
    values, folder = draw_values(config), manifest.where
    if not (folder / "drawn.json").exists():
        if not manifest.split("train").videos:
            raise ValueError(f"{manifest.name} in {manifest.folder} has no training video")
        folder /= f"subset-{digest([*values, manifest.digest])}"
        with locked(folder):
            if not (folder / "drawn.json").exists():
                write_drawn(folder, config, draw_subset(manifest.videos, config))
    stored = read_json(folder / "drawn.json", "a draw")["values"]
    if stored != values:
        raise ValueError(
            f"{manifest.where} holds the videos of the subset {stored} (subset_videos, "
            f"validation_videos, subset_seed) alone, and cannot give {values}: "
            "load_dataset(..., subset=...) gives those"
        )
    return folder / "train.txt", folder / "validation.txt"


def load_subset(manifest: Manifest, ids: str | Path) -> Manifest:
    """The videos whose ids are in a file that `subset_files` gave, in its order.

    Raises:
        ValueError: for a file that was cut or changed since it was drawn, or an id that is no
            training video of the manifest.
    """
    ids = Path(ids)
    selected, known = ids.read_text().split("\n")[:-1], {v.id: v for v in manifest.videos}
    drawn = read_json(ids.parent / "drawn.json", "a draw")[ids.name] == digest(selected)
    if not drawn or not known.keys() >= {*selected}:
        raise ValueError(
            f"{ids} was changed since it was drawn, or the videos of {manifest.where} were: delete "
            f"{ids.parent} to draw again, or give a list of your own as `subset_ids`"
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
