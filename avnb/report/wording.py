"""How numbers are written and compared in tables and sentences."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from avnb.data.manifest import Manifest
from avnb.evaluation.encoder_source import Source
from avnb.report.style import METHOD_TITLES
from avnb.workspace import Workspace


def with_interval(row: Mapping[Any, Any]) -> str:
    """`61.3 [55.0, 67.4]` that no line break divides, or the value alone without an interval."""
    if pd.isna(row["low"]):
        return f"{row['value']:.2f}"
    text = f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def measured(row: Mapping[Any, Any]) -> str:
    """As `with_interval`, or `61.3 ± 0.8 (3 seeds)`: mean and standard deviation over seeds."""
    if row.get("seeds", 1) == 1:
        return with_interval(row)
    return f"{row['value']:.1f} ± {row['spread']:.1f} ({row['seeds']} seeds)"


def in_order(rows: pd.DataFrame) -> list[dict[Any, Any]]:
    """The rows in the methods' order."""
    by_method = rows.sort_values("method", key=lambda m: m.map(list(METHOD_TITLES).index))
    return by_method.to_dict("records")


def describe_runs(sources: Mapping[str, Source], work: Workspace) -> str:
    """Where each number comes from: the run's id, its seed, its folder and what lies there."""
    lines = []
    for method, source in sources.items():
        file = source.checkpoint
        log = file.with_name("log.jsonl")
        there = f"`{file.name}`" + (f", `{log.name}`" if log.exists() else ", no log beside it")
        lines.append(
            f"- **{METHOD_TITLES[method]}**: run `{source.name}`, seed {source.run.seed}, in "
            f"`{shown(file.parent, work)}` ({there})"
        )
    return "\n".join(lines)


def shown(path: Path, work: Workspace) -> str:
    """A path below the folder of all profiles where it lies there."""
    root = work.folder.parent
    return str(path.relative_to(root.parent) if path.is_relative_to(root) else path)


def describe_completeness(manifest: Manifest) -> str:
    """Whether n means all videos that the lists name."""
    used = f"{len(manifest)} of the {manifest.listed} videos that the lists name can be used here"
    if len(manifest) == manifest.listed:
        return f"All {manifest.listed} videos that the lists name were used."
    return f"**{used}** (both splits together); *n* counts test videos among these."


def verdict(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> str:
    """What two rows with intervals allow to be said of `one` against `other`."""
    names = METHOD_TITLES[one["method"]], METHOD_TITLES[other["method"]]
    numbers = f"({with_interval(one)} % against {with_interval(other)} %)"
    gap = one["value"] - other["value"]
    if one["low"] > other["high"]:
        return f"{names[0]} leads {names[1]} by {gap:.1f} points {numbers}; the intervals are apart"
    if one["high"] < other["low"]:
        return f"{names[0]} *trails* {names[1]} by {-gap:.1f} points {numbers}"
    return f"{names[0]} and {names[1]} cannot be told apart {numbers}; the intervals overlap"


def standing(one: Mapping[Any, Any], others: Sequence[Mapping[Any, Any]]) -> str:
    """Which of the others `one` leads, which it trails, and which it cannot be told apart from."""
    ahead, behind, level = list[str](), list[str](), list[str]()
    for other in others:
        gap, name = one["value"] - other["value"], METHOD_TITLES[other["method"]]
        if one["low"] > other["high"]:
            ahead.append(f"{name} by {gap:.1f}")
        elif one["high"] < other["low"]:
            behind.append(f"{name} by {-gap:.1f}")
        else:
            level.append(name)
    parts = [("leads", ahead), ("*trails*", behind), ("cannot be told apart from", level)]
    said = "; ".join(f"{verb} {', '.join(names)}" for verb, names in parts if names)
    return f"Among the trained, {METHOD_TITLES[one['method']]} {said}"
