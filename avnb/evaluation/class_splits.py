"""The seen and the unseen classes of a test set: as published, matched by name, or from a file.

`Evaluation.class_split` names the rule; `auto` decides by the class names alone:

published   names of VGGSound and of UCF-101 or HMDB-51, all or some: the lists of the thesis's code
synthetic   names of the synthetic world, which says itself which of them mean the same: its names
            all consist of a few words, and text encoders cannot tell them apart
thesis      any other: the rule of thesis 4.3.1, three test classes above a cosine of 0.47
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from avnb.config import Evaluation
from avnb.data.manifest import Manifest
from avnb.data.synthetic import world
from avnb.evaluation import concepts, splits
from avnb.evaluation.class_names import TITLES, ClassList, class_list, from_file, normalised
from avnb.evaluation.concepts import Matched, Pair
from avnb.evaluation.encoder_source import EncoderSource
from avnb.evaluation.text_encoders import load_pair

PARTS = ("unseen", "seen")
MEANINGS = {**world.VGGSOUND, **world.UCF101, **world.HMDB51}  # of synthetic names
THESIS_TOP = 3
ADVICE = {
    "seen": "lower the threshold or raise top, so that more names match",
    "unseen": "raise the threshold or lower top, so that fewer names match",
}


@dataclass(frozen=True, kw_only=True)
class ClassSplit:
    """The classes of each part, as spelt in the data set, and how they were chosen."""

    title: str  # of both data sets
    rule: str  # published, synthetic, thesis or file
    classes: Mapping[str, list[str]]  # by part
    matched: Matched | None = None  # the names, where they were matched


def is_official(names: ClassList) -> bool:
    """Whether all names, in any spelling that reads the same, are in the list of that data set."""
    return names.key in TITLES and {*names.plain} <= {*class_list(names.key).plain}


def rule_for(pretraining: ClassList, target: ClassList, config: Evaluation) -> str:
    """The rule that is named, or that the names ask for.

    Raises:
        ValueError: when a rule is asked for that does not know these names.
    """
    key = target.key
    listed = pretraining.key == "vggsound" and key in concepts.TARGETS
    listed = listed and is_official(pretraining) and is_official(target)
    if config.class_split == "published" and not listed:
        raise ValueError(
            "lists of unseen classes were published for VGGSound with UCF-101 and HMDB-51; "
            f"{pretraining.title} has {len(pretraining)} names and {target.title} {len(target)}, "
            "which are not all theirs. class_split may be 'thesis', or name a file as "
            "`unseen_classes`"
        )
    strange = sorted({*pretraining.names, *target.names} - MEANINGS.keys())
    if config.class_split == "synthetic" and strange:
        raise ValueError(
            f"the synthetic world has no class {strange[0]!r}; class_split may be 'thesis'"
        )
    if config.class_split != "auto":
        return config.class_split
    if config.name_threshold or config.name_top:
        return "thesis"
    return "published" if listed else "thesis" if strange else "synthetic"


def name_pair(pretraining: ClassList, target: ClassList, config: Evaluation) -> tuple[Pair, int]:
    """The classes of two data sets as a pair to be matched, and the top-k to match it with.

    `config.name_threshold` and `config.name_top`, where not 0, replace the thesis's; the outliers
    are the thesis's where both lists are official, or those in the file `outliers`.
    """
    removed: tuple[str, ...] = ()
    if is_official(pretraining) and is_official(target):
        removed = concepts.outliers_of(pretraining.key, target.key)
    if config.outliers:
        removed = tuple(from_file(config.outliers).plain)
    usual = concepts.THRESHOLDS.get(target.key, concepts.DEFAULT_THRESHOLD)
    pair = Pair(
        queries=pretraining,
        targets=target,
        threshold=config.name_threshold or usual,
        outliers=tuple(name for name in removed if name in target.plain),
    )
    return pair, config.name_top or THESIS_TOP


def published_unseen(key: str) -> set[str]:
    """The normalised names of the classes that the thesis's code lists as unseen in VGGSound."""
    file = resources.files("avnb.evaluation").joinpath("classes", f"unseen_{key}.txt")
    return {*file.read_text(encoding="utf-8").splitlines()}


def synthetic_unseen(pretraining: ClassList, target: ClassList) -> set[str]:
    """The normalised names of the classes whose object and motion no pre-training class has."""
    known = {MEANINGS[name] for name in pretraining.names}
    return {normalised(name) for name in target.names if MEANINGS[name] not in known}


def listed_parts(target: ClassList, unseen: set[str]) -> dict[str, list[str]]:
    """The classes by part, given the normalised names of the unseen ones."""
    seen = {i for i, name in enumerate(target.plain) if name not in unseen}
    return splits.class_split(target.names, seen)


def split_classes(
    folder: Path | str, pretraining: ClassList, target: Manifest, config: Evaluation
) -> ClassSplit:
    """The seen and the unseen classes of a data set, also written to files below `folder`.

    Raises:
        ModelNotFoundError: when names have to be matched, and the text encoder is found nowhere.
        ValueError: when a part is empty; the message says what to change.
    """
    names = ClassList(target.name, TITLES.get(target.name, target.name), target.classes)
    title, matched = f"{pretraining.title} → {names.title}", None
    about: dict[str, Any] = {"queries": pretraining.key, "targets": names.key}
    if config.unseen_classes:
        rule, unseen = "file", from_file(config.unseen_classes).plain
        names.positions({*unseen})  # each must be a class
        parts = listed_parts(names, {*unseen})
    elif (rule := rule_for(pretraining, names, config)) == "published":
        parts = listed_parts(names, published_unseen(names.key))
    elif rule == "synthetic":
        parts = listed_parts(names, synthetic_unseen(pretraining, names))
    else:
        pair, top = name_pair(pretraining, names, config)
        matched = concepts.match(pair, *load_pair(config.text_encoders), top=top)
        parts, about = splits.matched_parts(matched)
    files = splits.write_parts(folder, {**about, "rule": rule}, parts)
    classes = {part: splits.read_classes(files[part]) for part in PARTS}
    check_parts(title, classes, matched)
    return ClassSplit(title=title, rule=rule, classes=classes, matched=matched)


def check_parts(title: str, classes: Mapping[str, list[str]], matched: Matched | None) -> None:
    """Raise ValueError when a part has no class."""
    for part, names in classes.items():
        if not names and matched is None:
            raise ValueError(f"{title}: the list leaves no class that is {part}")
        if not names and matched is not None:
            setting = f"threshold {matched.pair.threshold:g}, top {matched.top}"
            raise ValueError(f"{title}: no class is {part} at {setting}; {ADVICE[part]}")


def pretraining_classes(sources: Mapping[str, EncoderSource], config: Evaluation) -> ClassList:
    """The classes of the videos that the encoders were trained on, or those that a value names.

    `config.pretraining_classes` is a file of names, or the key of one of our lists.

    Raises:
        ValueError: when no encoder says it, or two were trained on different ones.
    """
    named = config.pretraining_classes
    if named:
        return class_list(named) if named in TITLES else from_file(named)
    found = {m: names for m, source in sources.items() if (names := source.trained_on)}
    if not found:
        raise ValueError(
            f"none of the encoders ({', '.join(sources)}) says on which classes it was trained: "
            f"give `pretraining_classes`, a file of names or one of {', '.join(TITLES)}"
        )
    if len({*found.values()}) > 1:
        counts = ", ".join(f"{m}: {len(c)} of {c.title}" for m, c in found.items())
        raise ValueError(
            f"the encoders were trained on different classes ({counts}), so there is no common "
            "split: give `pretraining_classes`, or compare fewer encoders"
        )
    return next(iter(found.values()))
