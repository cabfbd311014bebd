"""How tables and sentences write and compare numbers."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from avnb.data.manifest import Manifest
from avnb.evaluation.encoder_source import EncoderSource
from avnb.report.style import in_method_order, method_title
from avnb.workspace import Workspace

LEVELS = {
    "v->v": "video to video",
    "a->a": "audio to audio",
    "v->a": "video to audio",
    "a->v": "audio to video",
    "va->va": "both to both",
    "clip": "single clips",
    "video": "whole videos",
}
METRICS = {"top1": "top-1 accuracy", "top5": "top-5 accuracy", "R@1": "recall@1", "R@5": "recall@5"}
Record = Mapping[Any, Any] | pd.Series
VERBS = {1: "leads", -1: "*trails*", 0: "cannot be told apart from"}


def rows_where(rows: pd.DataFrame, **values: str) -> pd.DataFrame:
    """The rows whose columns have these values; possibly none."""
    for name, value in values.items():
        rows = rows[rows[name] == value]
    return rows


def records(rows: pd.DataFrame) -> list[dict[Any, Any]]:
    """The rows as dicts, in the order of the methods."""
    order = in_method_order(rows["method"])
    ordered = rows.sort_values("method", key=lambda names: names.map(order.index), kind="stable")
    return ordered.to_dict("records")


def level_title(level: str) -> str:
    """What is classified or searched, as people say it."""
    return LEVELS.get(level, level)


def metric_title(metric: str) -> str:
    """The measure as people say it."""
    return METRICS.get(metric, metric)


def bullets(sentences: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def literal(name: str) -> str:
    """A name of the user's as Markdown code, whatever it holds: nothing in it is interpreted."""
    fence = "`" * (1 + max(map(len, re.findall("`+", name)), default=0))
    room = " " if name.startswith("`") or name.endswith("`") else ""
    return f"{fence}{room}{name}{room}{fence}"


def label(name: str) -> str:
    """A name of the user's as text in a figure, where dollars would begin a formula."""
    return name.replace("$", r"\$")


def with_interval(row: Record) -> str:
    """`61.3 [55.0, 67.4]` without line breaks, or the value alone when there is no interval."""
    if pd.isna(row["low"]):
        return f"{row['value']:.2f}"
    text = f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def with_spread(row: Record) -> str:
    """`61.3 ± 0.8 (3 seeds)`, mean and standard deviation; for one seed as `with_interval`."""
    if row.get("seeds", 1) == 1:
        return with_interval(row)
    return f"{row['value']:.1f} ± {row['spread']:.1f} ({row['seeds']} seeds)"


def side(one: Record, other: Record) -> int:
    """1 or -1 where the interval of `one` lies wholly above or below that of `other`, else 0."""
    return int(one["low"] > other["high"]) - int(one["high"] < other["low"])


def standing(one: Record, others: Sequence[Record]) -> str:
    """Which of the others `one` leads, which it trails, and which are too close to call."""
    groups: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for other in others:
        way = side(one, other)
        gap = f" by {abs(one['value'] - other['value']):.1f}" if way else ""
        groups[way].append(method_title(other["method"]) + gap)
    parts = [f"{VERBS[way]} {', '.join(names)}" for way, names in groups.items() if names]
    return f"Among the trained methods, {method_title(one['method'])} {'; '.join(parts)}"


def describe_runs(sources: Mapping[str, EncoderSource], work: Workspace) -> str:
    """Where each number comes from: run id, seed, folder and files of every encoder."""
    lines, build = [], work.folder.parent
    for method, source in sources.items():
        title = f"**{method_title(method)}**"
        if source.checkpoint is None:
            lines.append(f"{title}: `{source.config.backbone}`, as its code makes it")
            continue
        folder, name = source.checkpoint.parent, source.checkpoint.name
        shown = folder.relative_to(build.parent) if folder.is_relative_to(build) else folder
        log = ", `log.jsonl`" if (folder / "log.jsonl").exists() else ", no log beside it"
        run = f"run `{source.name}`, seed {source.config.seed}"
        lines.append(f"{title}: {run}, in `{shown}` (`{name}`{log})")
    return bullets(lines)


def describe_completeness(manifest: Manifest) -> str:
    """Whether the numbers cover all videos that the official lists name."""
    if len(manifest) == manifest.listed:
        return f"All {manifest.listed} listed videos were used."
    used = f"{len(manifest)} of the {manifest.listed} listed videos were usable"
    return f"**{used}** (both splits together); *n* counts the test videos among them."
