"""Tables and readings: rows in, a table or a few sentences out; no number is typed in."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from avnb.concepts import Matched, outliers
from avnb.config import Pretrain
from avnb.encoders import AudioEncoder, Layer, VideoEncoder, layers
from avnb.fewshot import PARTS
from avnb.figures import METHOD_NAMES, pair_title, rows_where
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


def architecture(found: list[Layer], shape: tuple[int, ...]) -> pd.DataFrame:
    """Thesis Table 4.1 or 4.2 with parameters and MACs: size, channels, kernel, stride a layer.

    `shape` is the input's. Axes are s (space, one side of a square) and t (time) of a video, f
    (frequency) and t of a sound.
    """
    axes = {"s": -1, "t": 0} if len(shape) == 4 else {"f": 0, "t": 1}
    lines: list[dict[str, Any]] = [{"layer": "input", **sizes(shape, axes)}]
    for layer in found:
        line = {"layer": layer.name, **sizes(layer.shape, axes)}
        line |= {f"K_{axis}": layer.kernel[at] for axis, at in axes.items()}
        line |= {f"S_{axis}": layer.stride[at] for axis, at in axes.items()}
        cost = {"parameters": f"{layer.parameters:,}", "MMAC": f"{layer.macs / 1e6:,.1f}"}
        lines.append(line | cost)
    table = pd.DataFrame(lines, dtype=object).set_index("layer").rename_axis(None)
    return table.fillna("–")


def sizes(shape: tuple[int, ...], axes: dict[str, int]) -> dict[str, int]:
    """Size along each axis, and channels."""
    return {f"X_{axis}": shape[1:][at] for axis, at in axes.items()} | {"C": shape[0]}


def clip_costs(runs: Mapping[str, Pretrain]) -> pd.DataFrame:
    """What one pre-training clip of each run is, and costs in both encoders together."""
    lines = {}
    for name, run in runs.items():
        picture = (3, run.clip.frames, run.clip.frame_px, run.clip.frame_px)
        sound = (1, run.spectrogram.mels, run.spectrogram.frames(run.clip.samples))
        both = layers(VideoEncoder(run.width), picture) + layers(AudioEncoder(run.width), sound)
        lines[name] = {
            "width": run.width,
            "picture": " x ".join(map(str, picture[1:])),
            "sound": " x ".join(map(str, sound[1:])),
            "parameters": sum(layer.parameters for layer in both),
            "GMAC": sum(layer.macs for layer in both) / 1e9,
        }
    return pd.DataFrame.from_dict(lines, orient="index")


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


# ---- seen concepts ----------------------------------------------------------------------------


def seen_concepts(ours: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Table 4.5: our counts beside the thesis's, each column headed by the models it is made with.

    Args:
        ours: result rows `seen`, one a pair of data sets.
        published: the thesis's, of the same pairs or of others.
    """
    theirs = {pair_title(row): row for row in published.to_dict("records")}
    lines = []
    for row in ours.to_dict("records"):
        line = {"": pair_title(row), "classes": int(row["n"])}
        line[f"here: {row['method']}"] = counted(row)
        known = theirs.get(pair_title(row))
        name = f"thesis: {published['method'].iloc[0]}"
        line[name] = counted(known) if known else "–"
        lines.append(line)
    return pd.DataFrame(lines).fillna("–").set_index("").rename_axis(None)


def counted(row: Mapping[Any, Any]) -> str:
    """`54 (53 %)`, of a row that counts among n."""
    return f"{int(row['value'])} ({100 * row['value'] / row['n']:.0f} %)"


def groups(matched: Sequence[Matched]) -> pd.DataFrame:
    """Every class of a pre-training set that matches something, with what it matches."""
    lines = []
    for m in matched:
        asked, against = m.pair.queries, m.pair.targets
        for i, found in enumerate(m.seen()[0]):
            if found:
                line = {"pre-training set": asked.title, "class": asked.names[i]}
                line |= {"cosine": f"{m.primary[i].max():.3f}", "test set": against.title}
                lines.append(line | {"matches": ", ".join(against.names[t] for t in found)})
    columns = ["pre-training set", "class", "cosine", "test set", "matches"]
    return pd.DataFrame(lines, columns=columns)


# Rows that do not hold every typed word are hidden; without scripts the whole table stays.
SEARCH = """const words = this.value.toLowerCase().split(/\\s+/);
for (const row of this.parentElement.querySelectorAll('tbody tr')) {
  const text = row.textContent.toLowerCase();
  row.hidden = !words.every(word => text.includes(word));
}"""


def searchable(table: pd.DataFrame, caption: str, rows_shown: int = 14) -> str:
    """The table as HTML with a field above that keeps the rows holding all words typed in.

    Args:
        table: any; its index is left out.
        caption: says what the table was made with.
        rows_shown: about so many at once; the others are scrolled to.
    """
    body = table.to_html(index=False, border=0).replace("<th>", '<th style="text-align: left">')
    return (
        f'<div><p>{html.escape(caption)}</p><input type="search" style="width: 20em" '
        f'placeholder="search {len(table)} rows" aria-label="search the table" '
        f'oninput="{html.escape(SEARCH)}">'
        f'<div style="max-height: {rows_shown * 2.2:g}em; overflow: auto">{body}</div></div>'
    )


def struck(matched: Sequence[Matched]) -> pd.DataFrame:
    """The outliers struck by hand, why, and how many classes would match them here otherwise."""
    at = {(m.pair.queries.key, m.pair.targets.key): m for m in matched}
    lines = []
    for row in outliers():
        m = at.get((row["queries"], row["targets"]))
        if m is None:
            continue
        label = m.pair.targets.plain.index(row["target"])
        again = sum(label in found for found in m.seen(struck=False)[0])
        line = {"pair": m.pair.title, "struck": row["target"], "why": row["reason"]}
        lines.append(line | {"reached from, e.g.": row["reached_from"], "matches here": again})
    columns = ["pair", "struck", "why", "reached from, e.g.", "matches here"]
    return pd.DataFrame(lines, columns=columns)


def reading_cosines(rows: pd.DataFrame) -> str:
    """How many classes have a near enough relative; result rows `queries`."""
    lines = [
        f"- **{pair_title(row)}**: {int(row['value'])} of {int(row['n'])} classes "
        f"({100 * row['value'] / row['n']:.0f} %) have a target above the threshold."
        for row in rows.to_dict("records")
    ]
    return "\n".join(lines)


def reading_sensitivity(rows: pd.DataFrame, low: str, high: str) -> str:
    """How far each count moves between two settings; result rows `seen`."""
    lines = []
    for _, some in rows.groupby(["dataset", "level"], sort=False):
        value = {row["split"]: int(row["value"]) for row in some.to_dict("records")}
        lines.append(
            f"- **{pair_title(some.iloc[0])}**: {value[low]} at {low}, {value[high]} at {high}."
        )
    return "\n".join(lines)


def reading_models(rows: pd.DataFrame) -> str:
    """How often both models share nothing among their top targets; result rows `shared k`."""
    none = rows[rows["metric"] == "shared 0"]
    parts = [
        f"{pair_title(row)} {100 * row['value'] / row['n']:.0f} %"
        for row in none.to_dict("records")
    ]
    return "Share of classes for which the two models have no target in common: " + ", ".join(parts)


def reading_coverage(ours: pd.DataFrame, published: pd.DataFrame) -> str:
    """What each pre-training set knows of all test classes together, here and in the thesis."""
    lines = []
    for level, some in ours.groupby("level", sort=False):
        here = f"{counted_all(some)} here"
        theirs = published[published["level"] == level]
        beside = f", {counted_all(theirs)} in the thesis" if len(theirs) else ""
        lines.append(f"- **{pair_title(some.iloc[0]).split(' → ')[0]}**: {here}{beside}.")
    return "\n".join(lines)


def counted_all(rows: pd.DataFrame) -> str:
    """`127 of 152 classes (84 %)`, over all rows."""
    value, n = int(rows["value"].sum()), int(rows["n"].sum())
    return f"{value} of {n} classes ({100 * value / n:.0f} %)"


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


# ---- few-shot probes --------------------------------------------------------------------------


def few_shot(
    ours: pd.DataFrame, published: pd.DataFrame, level: str = "video", metric: str = "top1"
) -> pd.DataFrame:
    """Accuracy with its interval, one line a part and percentage, one column a method.

    Args:
        ours: as `fewshot.over_seeds` gives them.
        published: the thesis's `supervised`, the same.
    """
    named = METHOD_NAMES.items()
    columns = {
        name: rows_where(ours[ours["method"] == m], level=level, metric=metric) for m, name in named
    }
    columns |= {"Supervised, thesis": rows_where(published, level=level, metric=metric)}
    lines: dict[tuple[str, float], dict[str, str]] = {}
    for name, rows in columns.items():
        for row in rows.to_dict("records"):
            lines.setdefault((row["part"], row["percent"]), {})[name] = with_interval(row)
    asked = {(row["part"], row["percent"]) for row in ours.to_dict("records")}
    order = sorted(asked, key=lambda key: (PARTS.index(key[0]), key[1]))
    table = pd.DataFrame([{"classes": part, "%": f"{percent:g}"} | lines[part, percent]
                          for part, percent in order])  # fmt: skip
    return table.fillna("–").set_index(["classes", "%"])


def reading_few_shot(rows: pd.DataFrame, profile: str) -> str:
    """How far each method comes with the fewest and with all videos; video level, top-1."""
    some, lines = rows_where(rows, level="video", metric="top1"), []
    few, many = some["percent"].min(), some["percent"].max()
    for part in PARTS:
        mine = some[some["part"] == part]
        said = []
        for method, name in METHOD_NAMES.items():
            at = {r["percent"]: r for r in mine[mine["method"] == method].to_dict("records")}
            if at:
                said.append(f"{name} from {with_interval(at[few])} to {with_interval(at[many])}")
        first = mine.iloc[0]
        lines.append(
            f"- **{part} classes** (n = {int(first['n'])} test videos, chance "
            f"{first['chance']:.1f} %), from {few:g} % to {many:g} % of the training videos: "
            f"{'; '.join(said)}."
        )
    return "\n".join([*lines, "", seeds_said(rows), SIZES.get(profile, "")])


def seeds_said(rows: pd.DataFrame) -> str:
    """What the intervals are made of."""
    seeds = int(rows["seeds"].min())
    if seeds == 1:
        return "Intervals: bootstrap over test videos, of a single draw; another may differ more."
    return (
        f"Intervals: the wider of Student's t over {seeds} seeds (draw and start of the layer) and "
        "the bootstrap over test videos."
    )


def side(row: Mapping[Any, Any]) -> int:
    """1 or -1 where a difference's interval lies wholly on one side of zero, else 0."""
    return int(row["low"] > 0) - int(row["high"] < 0)


def reading_gaps(differences: pd.DataFrame) -> str:
    """In how many settings a method is above `supervised`, below, or not to be told from it."""
    lines = []
    for part in PARTS:
        said = []
        for method, some in differences[differences["part"] == part].groupby("method", sort=False):
            sides = [side(row) for row in some.to_dict("records")]
            said.append(
                f"{METHOD_NAMES[str(method)]} is above in {sides.count(1)}, below in "
                f"{sides.count(-1)}, not to be told apart in {sides.count(0)}"
            )
        total = len(sides) if said else 0
        lines.append(
            f"- **{part} classes**, {total} settings (level, top-k, %): {'; '.join(said)}."
        )
    return "\n".join(lines)


def reading_unseen(differences: pd.DataFrame) -> str:
    """Whether the lead over `supervised` is another on unseen classes; all videos, top-1."""
    some = rows_where(differences, level="video", metric="top1")
    some, lines = some[some["percent"] == some["percent"].max()], []
    for method, both in some.groupby("method", sort=False):
        unseen, seen = (both[both["part"] == part].iloc[0] for part in PARTS)
        if unseen["low"] > seen["high"]:
            said = "it gains more where pre-training gave no name"
        elif unseen["high"] < seen["low"]:
            said = "it gains *less* where pre-training gave no name"
        else:
            said = "the intervals overlap, so the two cannot be told apart"
        lines.append(
            f"- **{METHOD_NAMES[str(method)]}** against Supervised: {with_interval(unseen)} points "
            f"on unseen classes, {with_interval(seen)} on seen ones; {said}."
        )
    return "\n".join(lines)


def reading_halves(ours: pd.DataFrame, published: pd.DataFrame) -> str:
    """Accuracy of `supervised` on either half, here and in the thesis."""
    said = []
    for where, rows in ("here", ours), ("in the thesis", published):
        some = rows_where(rows[rows["method"] == "supervised"], level="video", metric="top1")
        at = {
            r["part"]: r for r in some[some["percent"] == some["percent"].max()].to_dict("records")
        }
        if len(at) == len(PARTS):
            unseen, seen = (with_interval(at[part]) for part in PARTS)
            said.append(f"{where} {unseen} % on the unseen classes and {seen} % on the seen ones")
    return f"Supervised, with all training videos (video level, top-1): {'; '.join(said)}."
