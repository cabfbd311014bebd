"""How tables and sentences write and compare numbers."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from avnb.book.style import in_method_order, method_title
from avnb.data.manifest import Manifest
from avnb.evaluation.encoder_source import EncoderSource
from avnb.models.methods import METHODS
from avnb.profiles import Workspace

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
NUMBERS = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve",
)  # fmt: skip


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


def bullets(lines: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {line}" for line in lines)


def listed(words: Iterable[str], word: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    *most, last = words
    return f"{', '.join(most)} {word} {last}" if most else last


def number(count: int) -> str:
    """A count as people write it: in words up to twelve; `no` for none."""
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def counted(count: int, noun: str, nouns: str = "") -> str:
    """`no clips`, `one clip`, `36 clips`; `nouns` is the plural where it takes more than an s."""
    return f"{number(count)} {noun if count == 1 else nouns or noun + 's'}"


def agreeing(names: Sequence[str], singular: str, plural: str) -> str:
    """The names listed, with the form of the verb that fits their number."""
    return f"{listed(names)} {singular if len(names) == 1 else plural}"


def sentence(text: str) -> str:
    """With a capital and a full stop; names in code and names like xID stay as they are."""
    first, _, rest = text.partition(" ")
    capital = first[:1].upper() + first[1:] if first.islower() or first.isdigit() else first
    return f"{capital} {rest}".strip().removesuffix(".") + "."


def rounded(value: float) -> str:
    """Two digits at least, no more after the point than say anything: 42, 8.3, 0.26."""
    size = abs(value)
    return f"{value:.0f}" if size >= 9.95 or not size else f"{value:.{1 if size >= 0.95 else 2}f}"


def percent(value: float) -> str:
    """`42 %`, `8.3 %`, without a line break."""
    return f"{rounded(value)}\N{NO-BREAK SPACE}%"


def span(values: Iterable[float]) -> str:
    """`1.5 to 3.0`, or one number where both ends read the same."""
    ends = sorted(values)
    low, high = rounded(ends[0]), rounded(ends[-1])
    return low if low == high else f"{low} to {high}"


def title_in_text(method: str) -> str:
    """A method's title in a sentence; the name of one that is not the book's stands as code."""
    return method_title(method) if method in METHODS else literal(method)


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


def with_interval_below(row: Record) -> str:
    """As `with_interval`, for narrow columns: the interval may go on in a second line."""
    return with_interval(row).replace("\N{NO-BREAK SPACE}[", " [")


def with_spread(row: Record) -> str:
    """`61.3 ± 0.8 (3 seeds)`, mean and standard deviation; for one seed as `with_interval`."""
    if row.get("seeds", 1) == 1:
        return with_interval(row)
    return f"{row['value']:.1f} ± {row['spread']:.1f} ({row['seeds']} seeds)"


def side(one: Record, other: Record) -> int:
    """1 or -1 where the interval of `one` lies wholly above or below that of `other`, else 0."""
    return int(one["low"] > other["high"]) - int(one["high"] < other["low"])


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
