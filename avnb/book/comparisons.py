"""Sentences that compare methods, and claim no more than their intervals allow."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from avnb.book.wording import (
    agreeing,
    listed,
    percent,
    records,
    rounded,
    rows_where,
    sentence,
    side,
    span,
    title_in_text,
)
from avnb.evaluation.class_names import TITLES

UNTRAINED = "an untrained encoder"
LEVELS = ("video", "clip")
Rows = Sequence[dict[Any, Any]]


def titles(rows: Iterable[dict[Any, Any]], *, values: bool = False) -> list[str]:
    """The methods of some rows, with their percentages if wanted."""
    return [
        title_in_text(row["method"]) + (f" ({percent(row['value'])})" if values else "")
        for row in rows
    ]


def by_side(rows: Rows, base: dict[Any, Any]) -> dict[int, list[dict[Any, Any]]]:
    """The rows above `base` (1), below it (-1) and not apart from it (0), the highest first."""
    ordered = sorted(rows, key=lambda row: -row["value"])
    return {way: [row for row in ordered if side(row, base) == way] for way in (1, -1, 0)}


def among(leading: Rows) -> str:
    """How the highest of several rows, highest first, stands to the others."""
    best, *others = leading
    groups, name = by_side(others, best), title_in_text(best["method"])
    if not groups[-1]:
        if len(others) == 1:
            return "the two cannot be told apart"
        return f"none of the others can be told apart from {name}"
    points = rounded(best["value"] - groups[-1][0]["value"])
    lead = f"{name} leads {listed(titles(groups[-1]))} by {points} points"
    lead += " or more" if len(groups[-1]) > 1 else ""
    if groups[0]:
        lead += f", but cannot be told apart from {listed(titles(groups[0]), 'or')}"
    return lead


def not_apart(level: Rows, leading: Rows, named: str) -> str:
    """Who cannot be told apart from the base, and who neither from it nor from the highest."""
    torn = [row for row in level if leading and not side(leading[0], row)]
    rest = [row for row in level if row not in torn]
    the = named.replace("an ", "the ", 1) if named.startswith("an ") else named
    parts = []
    if rest:
        parts.append(f"{agreeing(titles(rest), 'shows', 'show')} no clear difference from {the}")
    if torn:
        best = title_in_text(leading[0]["method"])
        parts.append(f"{listed(titles(torn))} can be told apart neither from {the} nor from {best}")
    return ", and ".join(parts)


def highest(rows: Rows, named: str) -> str:
    """The highest of the rows, and how it stands to the others and to chance."""
    best, *others = sorted(rows, key=lambda row: -row["value"])
    name = named if best["method"] == "random" else title_in_text(best["method"])
    text = f"{name} reaches {percent(best['value'])}, where guessing gives "
    text += percent(best["chance"])
    return text + (f"; {among([best, *others])}" if others else "")


def ranking(rows: Rows, base: str = "random", named: str = UNTRAINED) -> list[str]:
    """Who lies above `base`, who below it, and who cannot be told apart from it, in sentences.

    Args:
        rows: one result row per method, of one measure.
        base: a method; without it, or alone, the highest value is given.
        named: what the base is called in a sentence.
    """
    own = next((row for row in rows if row["method"] == base), None)
    others = [row for row in rows if row["method"] != base]
    if own is None or not others:
        return [highest(rows, named)]
    groups = by_side(others, own)
    above, below, level = groups[1], groups[-1], groups[0]
    its = f"{named} ({percent(own['value'])}; guessing gives {percent(own['chance'])})"
    if not above and not below:
        if len(level) == 1:
            return [f"{titles(level, values=True)[0]} cannot be told apart from {its}"]
        ends = span(row["value"] for row in level)
        return [f"no method can be told apart from {its}: the others reach {ends} %"]
    said = []
    if above:
        said.append(f"{agreeing(titles(above, values=True), 'does', 'do')} better than {its}")
        said[0] += f"; {among(above)}" if len(above) > 1 else ""
    if below:
        place = "worse" if above else f"worse than {its}"
        said.append(f"{agreeing(titles(below, values=True), 'does', 'do')} {place}")
    return said + ([not_apart(level, above, named)] if level else [])


def same_verdicts(one: Rows, other: Rows, base: str) -> bool:
    """Whether every method stands to `base` in both measures alike."""
    sides = []
    for rows in (one, other):
        found = {row["method"]: row for row in rows}
        sides.append({m: side(r, found[base]) for m, r in found.items()} if base in found else {})
    return sides[0] == sides[1]


def describe_accuracy(
    rows: pd.DataFrame,
    published: pd.DataFrame | None = None,
    base: str = "random",
    named: str = UNTRAINED,
) -> str:
    """Top-1 accuracy of whole videos by method, whether single clips agree, and the thesis's.

    Args:
        rows: result rows of one task and data set, or their `results.over_seeds`.
        published: the thesis's rows.
        base: the method that the others are held against.
        named: what the base is called in a sentence.
    """
    video, clip = (records(rows_where(rows, level=level, metric="top1")) for level in LEVELS)
    parts = [" ".join(map(sentence, ranking(video, base, named)))]
    if clip and len(video) > 1 and not same_verdicts(video, clip, base):
        groups = by_side(clip, next(row for row in clip if row["method"] == base))
        above = titles(row for row in groups[1] if row["method"] != base)
        better = agreeing(above, "does", "do") if above else "no method does"
        parts.append(f"Clip by clip, {better} better than {named}.")
    if published is not None:
        parts.append(describe_published(rows_where(published, task=rows["task"].iloc[0]), rows))
    return " ".join(filter(None, parts))


def describe_published(published: pd.DataFrame, rows: pd.DataFrame) -> str:
    """The highest two of the thesis's accuracies on the same data set; '' where it has none."""
    dataset = str(rows["dataset"].iloc[0])
    found = rows_where(published, dataset=dataset, level="video", metric="top1")
    if len(found) < 2:
        return ""
    first, second = titles(
        found.sort_values("value", ascending=False).head(2).to_dict("records"), values=True
    )
    place = TITLES.get(dataset, dataset)
    return f"In the thesis, on the real {place}, {first} is highest, followed by {second}."
