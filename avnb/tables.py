"""Tables and readings: rows in, a table or a few sentences out; no number is typed in."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from avnb.config import Pretrain
from avnb.figures import METHOD_NAMES
from avnb.videos import Manifest


def with_interval(row: Mapping[Any, Any]) -> str:
    """`61.3 [55.0, 67.4]`, or the value alone where no interval is known."""
    if pd.isna(row["low"]):
        return f"{row['value']:.2f}"
    return f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"


def beside_published(
    ours: pd.DataFrame, published: pd.DataFrame, task: str, dataset: str
) -> pd.DataFrame:
    """Our numbers with 95 % intervals beside the thesis's, one line a level and metric."""
    lines = []
    mine = ours[(ours["task"] == task) & (ours["dataset"] == dataset)]
    theirs = published[(published["task"] == task) & (published["dataset"] == dataset)]
    for (level, metric), some in mine.groupby(["level", "metric"], sort=False):
        line = {"level": level, "metric": metric, "n": int(some["n"].iloc[0])}
        line["chance"] = f"{some['chance'].iloc[0]:.1f}"
        for method in METHOD_NAMES:
            for row in (r for r in some.to_dict("records") if r["method"] == method):
                line[f"{METHOD_NAMES[method]}, here"] = with_interval(row)
            same = (theirs["level"] == level) & (theirs["metric"] == metric)
            for row in (r for r in theirs[same].to_dict("records") if r["method"] == method):
                line[f"{METHOD_NAMES[method]}, thesis"] = with_interval(row)
        lines.append(line)
    return pd.DataFrame(lines).fillna("–").set_index(["level", "metric"])


def verdict(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> str:
    """What two rows with intervals allow to be said of `one` against `other`."""
    names = METHOD_NAMES[one["method"]], METHOD_NAMES[other["method"]]
    numbers = f"({with_interval(one)} % against {with_interval(other)} %)"
    gap = one["value"] - other["value"]
    if one["low"] > other["high"]:
        return f"{names[0]} leads {names[1]} by {gap:.1f} points {numbers}; the intervals are apart"
    if one["high"] < other["low"]:
        return f"{names[0]} *trails* {names[1]} by {-gap:.1f} points {numbers}"
    return f"{names[0]} and {names[1]} cannot be told apart {numbers}; the intervals overlap"


SIZES = {
    "smoke": "This was made at **smoke** size, which only shows that every part works: its "
    "numbers mean nothing.",
    "demo": "This was made at **demo** size, on two processor cores and small data: its numbers "
    "show whether the method learns, and say nothing about real videos at full scale.",
}


def reading(rows: pd.DataFrame, pairs: list[tuple[str, str]], profile: str) -> str:
    """Sentences that read a figure aloud: xID against Random for each (level, metric)."""
    lines = []
    for level, metric in pairs:
        some = rows[(rows["level"] == level) & (rows["metric"] == metric)]
        of = {row["method"]: row for row in some.to_dict("records")}
        said = verdict(of["xid"], of["random"])
        lines.append(f"- **{level}, {metric}** (chance {of['xid']['chance']:.1f} %): {said}.")
    return "\n".join(
        [*lines, "", f"n = {int(rows['n'].iloc[0])} test videos. {SIZES.get(profile, '')}"]
    )


def reading_pretraining(log: pd.DataFrame, run: Pretrain) -> str:
    """What the curves of a pre-training run show, and whether its embeddings collapsed."""
    if log.empty:
        return f"`{run.method}` is not trained: its encoders stay as they were initialised."
    first, last = log.iloc[0], log.iloc[-1]
    gap = last["cosine_own"] - last["cosine_other"]
    q = [run.xid.q_at(run.optim.progress_at(e)) for e in (0, run.optim.epochs - 1)]
    lines = [
        f"- In the first epoch a clip's cosine with its own video's row was "
        f"{first['cosine_own']:.3f}, with others {first['cosine_other']:.3f}.",
        f"- In the last ({run.optim.epochs}) they were {last['cosine_own']:.3f} and "
        f"{last['cosine_other']:.3f}, a gap of {gap:.3f}.",
        f"- $q$ went from {q[0]:g} to {q[1]:g}, the learning rate from {first['lr']:g} to "
        f"{last['lr']:.2g}.",
    ]
    if last["cosine_other"] > 0.9 or gap < 0.05:
        lines.append("- **The gap is small: the embeddings carry little, or have collapsed.**")
    return "\n".join(lines)


def extents(rows: pd.DataFrame) -> pd.DataFrame:
    """Counts, lengths and share of sound of a manifest's videos, one line a split and in all."""
    lines = {}
    for name in ("train", "test", "all"):
        some = rows if name == "all" else rows[rows["split"] == name]
        if len(some):
            seconds = some["seconds"]
            lines[name] = {
                "videos": len(some), "classes": some["label"].nunique(),
                "hours": round(seconds.sum() / 3600, 2),
                "shortest, s": round(seconds.min(), 2), "median, s": round(seconds.median(), 2),
                "longest, s": round(seconds.max(), 2),
                "with sound, %": round(100 * (some["sound_hz"] > 0).mean(), 1),
            }  # fmt: skip
    return pd.DataFrame(lines).T.astype({"videos": int, "classes": int})


def reading_data(
    manifest: Manifest, rows: pd.DataFrame, mismatches: pd.DataFrame, ledger: pd.DataFrame
) -> str:
    """What a data set's tables say: what is missing, short, silent, and of what sizes."""
    kinds = mismatches["what"].value_counts()
    missing, stray = kinds.get("listed, but not there", 0), kinds.get("there, but in no list", 0)
    seconds, heard = rows["seconds"], rows["sound_hz"] > 0
    shortest, longest = rows.iloc[seconds.argmin()], rows.iloc[seconds.argmax()]
    loud = heard.groupby(rows["label"]).any()
    sizes = (rows["width"].astype(str) + " x " + rows["height"].astype(str)).value_counts()
    rates = rows["fps"].map("{:.4g}".format).value_counts()
    most = [100 * counts.iloc[0] / len(rows) for counts in (sizes, rates)]
    lines = [
        f"The lists name {manifest.listed} videos; {len(rows)} can be used. {missing} are missing, "
        f"{len(ledger)} cannot be read to their end, and {stray} files stand in no list. "
        f"{len(manifest.classes) - len(loud)} of {len(manifest.classes)} classes have no video.",
        f"A video lasts {seconds.median():.1f} s in the median. The shortest, "
        f"`{shortest['id']}`, has {shortest['seconds']:.2f} s and the longest, "
        f"`{longest['id']}`, {longest['seconds']:.2f} s; {100 * (seconds < 1).mean():.1f} % are "
        "shorter than one second, and a clip of one second shows those over again.",
        f"{100 * heard.mean():.1f} % have an audio stream. Classes without sound in any video: "
        f"{int((~loud).sum())} of {len(loud)}.",
        f"Sizes of frames: {len(sizes)}, the commonest {sizes.index[0]} in {most[0]:.0f} % of the "
        f"videos. Rates: {len(rates)}, the commonest {rates.index[0]} frames a second in "
        f"{most[1]:.0f} %.",
    ]
    return "\n".join(f"- {line}" for line in lines)
