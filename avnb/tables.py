"""Tables and readings: rows in, a table or a few sentences out; no number is typed in."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from avnb.concepts import Matched, outliers
from avnb.config import SIZES, Pretrain
from avnb.encoders import AudioEncoder, Layer, VideoEncoder, layers
from avnb.fewshot import PARTS
from avnb.figures import METHOD_NAMES, pair_title, rows_where
from avnb.health import complaint
from avnb.sources import Source
from avnb.videos import Manifest
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
    by_method = rows.sort_values("method", key=lambda m: m.map(list(METHOD_NAMES).index))
    return by_method.to_dict("records")


def beside_published(
    ours: pd.DataFrame, published: pd.DataFrame, task: str, dataset: str
) -> pd.DataFrame:
    """Our numbers beside the thesis's, one line a level, metric and method.

    `difference` is ours less the thesis's, in points; `run` is the end of the id of the run
    whose encoder was measured; the id names its folder.

    Args:
        ours: result rows, or what `results.over_seeds` makes of them.
        published: the thesis's.
        task: of the rows that are shown.
        dataset: of the rows that are shown.
    """
    mine = ours[(ours["task"] == task) & (ours["dataset"] == dataset)]
    theirs = published[(published["task"] == task) & (published["dataset"] == dataset)]
    known = {(r["level"], r["metric"], r["method"]): r for r in theirs.to_dict("records")}
    lines = []
    for (level, metric), some in mine.groupby(["level", "metric"], sort=False):
        for row in in_order(some):
            line = {"level": level, "metric": metric, "method": METHOD_NAMES[row["method"]]}
            line["here"] = measured(row)
            if same := known.get((level, metric, row["method"])):
                line["thesis"] = with_interval(same)
                line["difference"] = f"{row['value'] - same['value']:+.1f}"
            line |= {"chance": f"{row['chance']:.1f}", "n": str(int(row["n"]))}
            run = row["run"].rpartition("-")[2]  # the rest of the id stands in the row already
            lines.append(line | {"profile": row["profile"], "run": run})
    columns = ["level", "metric", "method", "here", "thesis", "difference", "chance", "n"]
    table = pd.DataFrame(lines, columns=[*columns, "profile", "run"]).fillna("–")
    return table.set_index(["level", "metric", "method"])


def made_by(sources: Mapping[str, Source], work: Workspace) -> str:
    """Where each number comes from: the run's id, its seed, its folder and what lies there."""
    lines = []
    for method, source in sources.items():
        file = source.checkpoint
        log = file.with_name("log.jsonl")
        there = f"`{file.name}`" + (f", `{log.name}`" if log.exists() else ", no log beside it")
        lines.append(
            f"- **{METHOD_NAMES[method]}**: run `{source.name}`, seed {source.run.seed}, in "
            f"`{shown(file.parent, work)}` ({there})"
        )
    return "\n".join(lines)


def shown(path: Path, work: Workspace) -> str:
    """A path below the folder of all profiles where it lies there."""
    root = work.folder.parent
    return str(path.relative_to(root.parent) if path.is_relative_to(root) else path)


def completeness(manifest: Manifest) -> str:
    """Whether n means all videos that the lists name."""
    used = f"{len(manifest)} of the {manifest.listed} videos that the lists name can be used here"
    if len(manifest) == manifest.listed:
        return f"All {manifest.listed} videos that the lists name were used."
    return f"**{used}** (both splits together); *n* counts test videos among these."


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


def reading(rows: pd.DataFrame, pairs: list[tuple[str, str]], profile: str) -> str:
    """Sentences that read a figure aloud, for each (level, metric).

    Each trained method is held against Random, and xID against the other trained ones.
    """
    lines = []
    for level, metric in pairs:
        some = rows[(rows["level"] == level) & (rows["metric"] == metric)]
        of = {row["method"]: row for row in in_order(some)}
        lines.append(f"- **{level}, {metric}** (chance {some['chance'].iloc[0]:.1f} %):")
        trained = [row for method, row in of.items() if method != "random"]
        said = [verdict(row, of["random"]) for row in trained] if "random" in of else []
        others = [row for row in trained if row["method"] != "xid"]
        if "xid" in of and others:
            said.append(standing(of["xid"], others))
        if not said:
            said = [f"{METHOD_NAMES[m]} {with_interval(row)} %" for m, row in of.items()]
        lines += [f"  - {sentence}." for sentence in said]
    n, seeds = int(rows["n"].iloc[0]), int(rows.get("seeds", pd.Series([1])).max())
    several = f" Values and interval ends are means over {seeds} seeds." if seeds > 1 else ""
    return "\n".join([*lines, "", f"n = {n} test videos.{several} {SIZES.get(profile, '')}"])


def standing(one: Mapping[Any, Any], others: Sequence[Mapping[Any, Any]]) -> str:
    """Which of the others `one` leads, which it trails, and which it cannot be told apart from."""
    ahead, behind, level = list[str](), list[str](), list[str]()
    for other in others:
        gap, name = one["value"] - other["value"], METHOD_NAMES[other["method"]]
        if one["low"] > other["high"]:
            ahead.append(f"{name} by {gap:.1f}")
        elif one["high"] < other["low"]:
            behind.append(f"{name} by {-gap:.1f}")
        else:
            level.append(name)
    parts = [("leads", ahead), ("*trails*", behind), ("cannot be told apart from", level)]
    said = "; ".join(f"{verb} {', '.join(names)}" for verb, names in parts if names)
    return f"Among the trained, {METHOD_NAMES[one['method']]} {said}"


# ---- classes ----------------------------------------------------------------------------------


def gains(one: Tensor, other: Tensor, label: Tensor, classes: Sequence[str]) -> pd.DataFrame:
    """Share of each class's videos that two predictions [V] get right, and the gain of `one`.

    In percent, the largest gain first; classes without a video are left out.
    """
    table = pd.DataFrame({
        "class": [classes[i] for i in label.tolist()],
        "here": 100.0 * (one == label).numpy(), "against": 100.0 * (other == label).numpy(),
    })  # fmt: skip
    groups = table.groupby("class", sort=True)
    found = groups.mean().assign(n=groups.size())
    found["gain"] = found["here"] - found["against"]
    return found.sort_values("gain", ascending=False, kind="stable")


def reading_confusion(counts: Tensor, classes: Sequence[str], method: str) -> str:
    """How many videos a confusion matrix [classes, classes] has right, and its largest mistakes."""
    total, right = int(counts.sum()), int(counts.diagonal().sum())
    of_class = counts.sum(dim=1)
    lines = [
        f"{METHOD_NAMES[method]} names {right} of {total} test videos rightly "
        f"({100 * right / total:.1f} %), and every video of "
        f"{int(((counts.diagonal() == of_class) & (of_class > 0)).sum())} of "
        f"{int((of_class > 0).sum())} classes."
    ]
    wrong = counts - counts.diagonal().diag()
    for at in wrong.flatten().argsort(descending=True, stable=True)[:3].tolist():
        true, taken = divmod(at, len(classes))
        if wrong[true, taken]:
            lines.append(
                f"`{classes[true]}` is taken for `{classes[taken]}` in {int(wrong[true, taken])} "
                f"of {int(of_class[true])} videos."
            )
    return "\n".join(f"- {line}" for line in lines)


def reading_gains(
    table: pd.DataFrame, method: str, against: str = "random", most: int = 3
) -> str:  # fmt: skip
    """Which classes `gains` has at its ends, and how many rise and fall."""
    if method == against:
        return (
            f"There is nothing to hold {METHOD_NAMES[method]} against: add `random` to `methods`."
        )
    rises, falls = int((table["gain"] > 0).sum()), int((table["gain"] < 0).sum())
    ends = [
        ", ".join(f"`{name}` ({row['gain']:+.1f})" for name, row in some.iterrows())
        for some in (table.head(most), table.tail(most)[::-1])
    ]
    step = 100 / table["n"].median()
    return (
        f"Under {METHOD_NAMES[method]}, {rises} of {len(table)} classes are recognised more often "
        f"than under {METHOD_NAMES[against]}, {falls} less often. Most is gained by {ends[0]}, "
        f"least by {ends[1]}, in points. One video is {step:.1f} points of a class, so a single "
        "class says little."
    )


def subset(manifest: Manifest, train: Manifest, validation: Manifest) -> pd.DataFrame:
    """How many videos there are, and how many of them a run uses."""
    lines = {}
    for name, some in (
        ("training split", manifest.split("train")), ("used for training", train),
        ("used for validation", validation),
    ):  # fmt: skip
        each = pd.Series([v.label for v in some.videos]).value_counts()
        lines[name] = {
            "videos": len(some), "without sound": len(some) - len(some.with_sound()),
            "classes": len(each),
            "a class": f"{each.min()} to {each.max()}" if len(each) else "–",
        }  # fmt: skip
    return pd.DataFrame.from_dict(lines, orient="index")


# ---- two protocols ----------------------------------------------------------------------------


def protocols(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy and seconds of both protocols, one line a level and metric."""
    lines = []
    for (level, metric), some in rows.groupby(["level", "metric"], sort=False):
        line: dict[str, Any] = {"level": level or "training", "metric": metric}
        line |= {row["protocol"]: with_interval(row) for row in some.to_dict("records")}
        n = some["n"].iloc[0]
        lines.append(line | {"n": "–" if pd.isna(n) else str(int(n))})
    return pd.DataFrame(lines).set_index(["level", "metric"])


def reading_protocols(rows: pd.DataFrame) -> str:
    """Whether cached and fresh clips lead to the same accuracy, and what each took."""
    lines = []
    timed = rows["metric"] == "seconds"
    for (level, metric), some in rows[~timed].groupby(["level", "metric"], sort=False):
        of = {row["protocol"]: row for row in some.to_dict("records")}
        one, other = of["cached"], of["released"]
        apart = one["low"] > other["high"] or one["high"] < other["low"]
        said = "the intervals are *apart*" if apart else "the intervals overlap"
        lines.append(
            f"- **{level}, {metric}**: {with_interval(one)} % cached, {with_interval(other)} % "
            f"with fresh clips; {said}."
        )
    seconds = rows[timed].set_index("protocol")["value"]
    times = seconds["released"] / seconds["cached"]
    return "\n".join([
        *lines,
        f"- Cached, the clips and the layer took {seconds['cached']:.1f} s; with fresh clips "
        f"{seconds['released']:.1f} s, {times:.1f} times as long.",
    ])  # fmt: skip


def reading_finetuning(
    rows: pd.DataFrame, pairs: Sequence[tuple[str, str]],
    logs: Mapping[str, Sequence[Mapping[str, float]]], profile: str,
) -> str:  # fmt: skip
    """Every method against Random for each (level, metric), and how far training came."""
    lines = []
    for level, metric in pairs:
        some = rows[(rows["level"] == level) & (rows["metric"] == metric)]
        of = {row["method"]: row for row in some.to_dict("records")}
        best = max(of.values(), key=lambda row: row["value"])
        lines.append(
            f"- **{level}, {metric}** (chance {best['chance']:.1f} %): "
            f"{METHOD_NAMES[best['method']]} is highest, {with_interval(best)} %."
        )
        if "random" in of:
            others = [of[name] for name in METHOD_NAMES if name in of and name != "random"]
            lines += [f"  - {verdict(row, of['random'])}." for row in others]
    for method, log in logs.items():
        first, last = (100 * log[at]["accuracy"] for at in (0, -1))
        lines.append(
            f"- {METHOD_NAMES[method]}, {len(log)} epochs: accuracy on training clips went from "
            f"{first:.1f} % to {last:.1f} %."
        )
    return "\n".join(
        [*lines, "", f"n = {int(rows['n'].iloc[0])} test videos. {SIZES.get(profile, '')}"]
    )


def reading_covariance(log: pd.DataFrame) -> str:
    """Whether VICReg's terms evolved as the thesis tells (4.2.3): first one falls, then the others.

    There the covariance fell in the first epochs, and rose while the other two came down.
    """
    if len(log) < 3:
        return f"Of how the three terms evolve, {len(log)} epochs show too little."
    low = int(log["covariance"].argmin())
    rose = f"The covariance was smallest after epoch {low + 1} of {len(log)}"
    after = log.iloc[low:]
    if low == 0:
        rose = "The covariance was smallest after the first epoch"
    fell = [n for n in ("invariance", "variance") if after[n].iloc[-1] < after[n].iloc[0]]
    if low == len(log) - 1:
        return f"{rose}, the last one; in the thesis it rose again while the other terms fell."
    if len(fell) == 2:
        return f"{rose} and rose while both other terms fell, as the thesis tells of its own runs."
    return f"{rose}; after that, unlike in the thesis, not both of the other terms fell."


def reading_pretraining(log: pd.DataFrame, run: Pretrain) -> str:
    """What the curves of a pre-training run show, and whether its embeddings collapsed."""
    if log.empty:
        return f"`{run.method}` is not trained: its encoders stay as they were initialised."
    first, last = log.iloc[0], log.iloc[-1]

    def went(name: str, figures: str = ".3f") -> str:
        return f"{name.replace('_', ' ')} {first[name]:{figures}} → {last[name]:{figures}}"

    lines = [f"From the first to the last of {len(log)} epochs: {went('loss')}."]
    if run.method == "xid":
        lines.append(
            f"{went('cosine_own')}, {went('cosine_other')}: a gap of "
            f"{last['cosine_own'] - last['cosine_other']:.3f} between own and other videos."
        )
    if run.method.startswith("vicreg"):
        lines.append(f"{went('invariance')}, {went('variance')}, {went('covariance')}.")
        below = last["variance"] > 0.5
        lines.append(
            "The hinge on the standard deviation is "
            + ("far from met: embeddings vary less than asked for."
               if below else "mostly met: dimensions vary about as much as asked for.")
        )  # fmt: skip
        lines.append(reading_covariance(log))
    if run.method == "supervised":
        seen = list(log["validation_accuracy"])
        lines.append(
            f"{went('accuracy')} in training; on validation videos {went('validation_accuracy')}, "
            f"at best {max(seen):.3f} after epoch {seen.index(max(seen)) + 1}."
        )
    ranks = [name for name in map(str, log.columns) if name.endswith("_rank")]
    lines.append("Effective rank: " + ", ".join(went(name, ".1f") for name in ranks) + ".")
    wrong = [said for row in log.to_dict("records") if (said := complaint(row))]  # type: ignore[arg-type]
    lines.append(f"**{wrong[-1]}.**" if wrong else "No collapse was seen at the end of any epoch.")
    return "\n".join(f"- {line}" for line in lines)


# ---- toys -------------------------------------------------------------------------------------

SHRUNK = 0.3  # of a standard deviation at the start: less is said to be a collapse


def reading_toys(logs: Mapping[str, pd.DataFrame], dims: int) -> str:
    """What became of size, rank and agreement of the first view under each set of terms."""
    lines = []
    for name, log in logs.items():
        first, last = log.iloc[0], log.iloc[-1]
        line = (
            f"- **{name}**: standard deviation {first['first_std']:.2f} to "
            f"{last['first_std']:.2f}, effective rank {first['first_rank']:.1f} to "
            f"{last['first_rank']:.1f} of {dims}, invariance {first['invariance']:.2f} to "
            f"{last['invariance']:.3f}."
        )
        if last["first_std"] < SHRUNK * first["first_std"]:
            line += " The views agree because nothing varies any more: *collapse*."
        lines.append(line)
    return "\n".join(lines)


def reading_noise(rows: pd.DataFrame, base: str) -> str:
    """How each loss fares against `base` at each share; a lead is one in every seed."""
    table = rows.pivot_table(index="share", columns=["loss", "seed"], values="retrieved")
    others = [name for name in rows["loss"].unique() if name != base]
    lines, seeds = [], rows["seed"].nunique()
    ahead: dict[str, list[str]] = {"leads": [], "trails": [], "cannot be told apart": []}
    for share in table.index:
        parts = [f"{base} {table.loc[share, base].mean():.1f} %"]
        for name in others:
            better = int((table.loc[share, name] > table.loc[share, base]).sum())
            worse = int((table.loc[share, name] < table.loc[share, base]).sum())
            parts.append(f"{name} {table.loc[share, name].mean():.1f} % ({better} of {seeds})")
            said = "leads" if better == seeds else "trails" if worse == seeds else ""
            ahead[said or "cannot be told apart"].append(f"{name} at {100 * share:.0f} %")
        lines.append(f"- **{100 * share:.0f} % wrong**: {', '.join(parts)}.")
    lines += [
        "",
        f"In brackets: in how many seeds a loss finds more than {base}. Against {base}:",
        "",
    ]
    lines += [f"- {said}: {'; '.join(where) or 'nowhere'}." for said, where in ahead.items()]
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
