"""What the studies show: figures, and sentences that go no further than intervals do.

A variant is one run of pre-training, and another seed may change what it reaches by more than
other test videos would. Its interval therefore holds both: see `with_seeds`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import special

from avnb.book.findings import VERDICTS
from avnb.book.style import LINES, chance_line, in_method_order, method_colour, method_title
from avnb.book.wording import (
    level_title,
    listed,
    metric_title,
    percent,
    records,
    rounded,
    rows_where,
    sentence,
    side,
    with_interval,
    with_interval_below,
    with_spread,
)
from avnb.data.synthetic.world import World
from avnb.evaluation import results, studies
from avnb.profiles import PROFILES

ACCURACY = {"task": "probe", "level": "video", "metric": "top1"}
MEASURES = (("video", "top1"), ("v->v", "R@1"), ("a->a", "R@1"))
TITLES = {
    "huber_delta": "Huber",
    "audio_rest_prob": "half of the audio updates dropped",
    "lam": "λ = {}",
    "negatives": "{} negatives",
    "temperature": "temperature {}",
    "shuffle_steps": "clips of a video within {} steps",
    "q_last": "q fixed at {}",
    "residual_scale": "residual branches at their full scale",
    "projector_batch_norm": "no BatchNorm in the projector",
    "invariance_weight": "the thesis's weights",
    "cache": "{} cache",
    "expander_dim": "an expander of {}",
    "lr": "learning rate {}",
}


def variant_title(row: Mapping[Any, Any], name: str) -> str:
    """A variant of a study in words: its method, and what differs."""
    changes = json.loads(row["space"])
    if row["method"] == "xid" and name == "noise":
        loss = "InfoNCE" if changes.get("xid_loss") == "info_nce" else "RINCE"
        return f"{method_title('xid')}, {loss}"
    said = [TITLES[name].format(value) for name, value in changes.items() if name in TITLES]
    return ", ".join([method_title(row["method"]), *filter(None, [" and ".join(said)])])


def study_rows(name: str, rows: pd.DataFrame, **where: str) -> pd.DataFrame:
    """The rows of a study with these values, by default its accuracies, titled."""
    chosen = studies.of_study(rows, name)
    chosen = rows_where(chosen, **(where or ACCURACY)).reset_index(drop=True)
    chosen = with_seeds(chosen, studies.of_study(rows, "methods"))
    if name == "noise":
        usual = World.from_flat(**PROFILES[chosen["profile"].iloc[0]]["world"])
        chosen["dubbed_fraction"] = chosen["dubbed_fraction"].fillna(usual.dubbed_fraction)
    return chosen.assign(title=[variant_title(row, name) for row in chosen.to_dict("records")])


def with_seeds(rows: pd.DataFrame, seeds: pd.DataFrame) -> pd.DataFrame:
    """Rows of single runs, their intervals widened by what another seed may change.

    Each end moves to the root of the sum of squares of its distance from the value and of
    `seed_reach`, which `seeds`, the rows of runs that differ in their seed alone, tell of each
    measure: of an untrained encoder, and of all trained ones together.
    """
    same = ["task", "level", "metric"]
    reach = {
        (*measure, trained): seed_reach(of)
        for (*measure, trained), of in seeds.assign(trained=is_trained).groupby([*same, "trained"])
    }
    keys = zip(*(rows[name] for name in same), is_trained(rows), strict=True)
    reaches = np.array([reach.get(key, 0.0) for key in keys])
    low, high = (np.hypot(rows["value"] - rows[end], reaches) for end in ("low", "high"))
    ends = {"low": rows["value"] - low, "high": rows["value"] + high}
    return rows.assign(**{name: end.clip(0, 100) for name, end in ends.items()})


def is_trained(rows: pd.DataFrame) -> pd.Series:
    """Whether each row is of a method that learns."""
    return rows["method"] != "random"


def seed_reach(rows: pd.DataFrame) -> float:
    """How far another seed may lead, in 95 % of the cases; 0 where there is one seed only.

    Student's t times the standard deviation over seeds, pooled over methods.
    """
    spread = rows.groupby("method")["value"].agg(["var", "size"])
    freedom = int((spread["size"] - 1).sum())
    if not freedom:
        return 0.0
    return float(special.stdtrit(freedom, 0.975) * spread["var"].mean() ** 0.5)


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for all seeds of pre-training of a method, with their spread."""
    return results.over_seeds(rows.assign(run=""), student=True)


def seeds_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Every method's measures, as mean and standard deviation over seeds."""
    lines = {
        method_title(str(method)): {
            f"{level_title(level)}, {metric_title(metric)}": with_spread(row.iloc[0])
            for level, metric in MEASURES
            if not (row := rows_where(of, level=level, metric=metric)).empty
        }
        for method, of in summary.groupby("method", sort=False)
    }
    titles = [method_title(method) for method in in_method_order(summary["method"])]
    return pd.DataFrame(lines).T.loc[titles].rename_axis("method")


def variants_table(name: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Each variant's accuracy, recall within modalities, and the rank of its embeddings."""
    columns = {
        ("video", "top1"): "top-1 accuracy, %",
        ("v->v", "R@1"): "video to video, %",
        ("a->a", "R@1"): "audio to audio, %",
        ("video", "rank"): "rank, video",
        ("audio", "rank"): "rank, audio",
    }
    lines: dict[str, dict[str, str]] = {}
    for row in study_rows(name, rows, source="this book").to_dict("records"):
        if column := columns.get((row["level"], row["metric"])):
            cell = f"{row['value']:.1f}" if row["metric"] == "rank" else with_interval_below(row)
            lines.setdefault(row["title"], {})[column] = cell
    table = pd.DataFrame(lines).T.reindex(columns=list(columns.values()))
    return table.fillna("–").rename_axis("variant")


def plot_wrong_pairs(rows: pd.DataFrame) -> Figure:
    """Accuracy by the share of videos with another sound, a line per loss."""
    fig, ax = plt.subplots(figsize=(7, 3.4))
    for number, (title, of) in enumerate(rows.groupby("title", sort=False)):
        line = of.sort_values("dubbed_fraction")
        x = 100 * line["dubbed_fraction"] + 1.2 * (number - 1.5)  # intervals side by side
        spread = [line["value"] - line["low"], line["high"] - line["value"]]
        ax.errorbar(
            x, line["value"], spread, marker="o", capsize=3, color=LINES[number], label=title
        )
    chance_line(ax, rows)
    ax.set(xlabel="videos with another sound, %", ylabel="top-1 accuracy, %", ylim=(0, None))
    ax.legend(fontsize=8)
    return fig


def plot_variants(rows: pd.DataFrame) -> Figure:
    """A point per variant with its 95 % interval, and chance."""
    fig, ax = plt.subplots(figsize=(7, 0.42 * len(rows) + 1.2))
    for place, row in enumerate(rows.to_dict("records")):
        spread = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
        ax.errorbar(
            row["value"],
            place,
            xerr=spread,
            marker="o",
            capsize=3,
            color=method_colour(row["method"]),
        )
    chance_line(ax, rows, upright=True)
    ax.set_yticks(range(len(rows)), rows["title"])
    ax.invert_yaxis()
    ax.set(xlabel="top-1 accuracy, %", xlim=(0, None))
    ax.legend(fontsize=8)
    return fig


def plot_pairs(rows: pd.DataFrame, levels: Mapping[str, str]) -> Figure:
    """Two measurements of each method side by side, with their 95 % intervals."""
    fig, ax = plt.subplots(figsize=(7, 3.2))
    order = in_method_order(rows["method"])
    for number, (level, title) in enumerate(levels.items()):
        of = rows_where(rows, level=level).set_index("method").loc[order]
        spread = [of["value"] - of["low"], of["high"] - of["value"]]
        x = np.arange(len(order)) + 0.38 * (number - 0.5)
        bars = ax.bar(x, of["value"], 0.36, yerr=spread, capsize=3, label=title, color="#52606d")
        for bar, method in zip(bars, order, strict=True):
            bar.set(facecolor=method_colour(method), alpha=1 if number == 0 else 0.45)
    chance_line(ax, rows)
    ax.set_xticks(range(len(order)), [method_title(method) for method in order])
    ax.set(ylabel="top-1 accuracy, %", ylim=(0, None))
    ax.legend(fontsize=8)
    return fig


def plot_causes(rows: pd.DataFrame) -> Figure:
    """Points above chance with which a linear layer reads each cause, a panel per modality."""
    import seaborn as sns

    order = in_method_order(rows["method"])
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    for ax, modality in zip(axes, ("video", "audio"), strict=True):
        of = rows_where(rows, level=modality)
        table = of.assign(gain=of["value"] - of["chance"]).pivot(
            index="method", columns="metric", values="gain"
        )
        table = table.loc[order, list(dict.fromkeys(of["metric"]))]
        table.index = [method_title(method) for method in order]
        options = {"vmin": 0, "vmax": 90, "cmap": "Blues", "annot": True, "fmt": ".0f"}
        sns.heatmap(table, ax=ax, cbar=False, **options)
        ax.set(title=f"from {modality}", xlabel="", ylabel="")
        ax.tick_params(axis="y", labelrotation=0)
        ax.tick_params(axis="x", labelrotation=45)
    return fig


# ---- sentences ----------------------------------------------------------------------------------


def one_row(rows: pd.DataFrame, title: str) -> dict[Any, Any]:
    """The row with this title; ValueError when there is none."""
    return dict(results.select(rows, title=title).iloc[0])


def judged(claim: str, one: Mapping[Any, Any], other: Mapping[Any, Any]) -> str:
    """The claim that the first lies above the second, and what the intervals say to it."""
    said = f"{with_interval(one)} against {with_interval(other)}"
    return sentence(f"{claim}: **{VERDICTS[side(one, other)]}** ({said})")


def describe_wrong_pairs(rows: pd.DataFrame) -> str:
    """At which shares of wrong sounds the robust losses lie above the others."""
    xid, vicreg = method_title("xid"), method_title("vicreg_av")
    pairs = {
        "RINCE does better than InfoNCE": (f"{xid}, RINCE", f"{xid}, InfoNCE"),
        "RINCE does better than VICReg-AV": (f"{xid}, RINCE", vicreg),
        "VICReg-AV does better with Huber's loss": (f"{vicreg}, Huber", vicreg),
    }
    shares, said = sorted({float(share) for share in rows["dubbed_fraction"]}), []
    for claim, titles in pairs.items():
        groups: dict[int, list[str]] = {1: [], 0: [], -1: []}
        for share in shares:
            of = rows[rows["dubbed_fraction"] == share]
            one, other = (one_row(of, title) for title in titles)
            both = f"{rounded(one['value'])} against {rounded(other['value'])}"
            groups[side(one, other)].append(f"{percent(100 * share)} ({both})")
        verdicts = [
            f"**{VERDICTS[way]}** at {listed(found)}" for way, found in groups.items() if found
        ]
        said.append(sentence(f"{claim}: by share of wrong sounds, {'; '.join(verdicts)}"))
    return " ".join(said)


def describe_audio_path(rows: pd.DataFrame) -> str:
    """Whether VICReg does better without audio, and whether the thesis's remedies help."""
    vicreg, without = method_title("vicreg_av"), method_title("vicreg_v")
    plain = one_row(rows, vicreg)
    dropped = one_row(rows, f"{vicreg}, {TITLES['audio_rest_prob']}")
    return " ".join((
        judged("VICReg does better without audio", one_row(rows, without), plain),
        judged("Huber's loss helps VICReg-AV", one_row(rows, f"{vicreg}, Huber"), plain),
        judged("dropping audio updates helps VICReg-AV", dropped, plain),
    ))  # fmt: skip


def describe_variants(rows: pd.DataFrame) -> str:
    """By method, which variants lie above and below the plain run, and which cannot be told."""
    words = {1: "better with {}", -1: "worse with {}"}
    sentences = []
    for method in in_method_order(rows["method"]):
        base, of = method_title(method), rows_where(rows, method=method)
        own = one_row(of, base)
        groups: dict[int, list[str]] = {1: [], -1: [], 0: []}
        for row in of[of["title"] != base].to_dict("records"):
            variant = row["title"].removeprefix(f"{base}, ")
            groups[side(row, own)].append(f"{variant} ({rounded(row['value'])})")
        name = f"{base} ({percent(own['value'])})"
        if said := [text.format(listed(groups[way])) for way, text in words.items() if groups[way]]:
            sentences.append(sentence(f"{name} does {' and '.join(said)}"))
        if same := groups[0]:
            sentences.append(sentence(f"no clear difference to {name} shows with {listed(same)}"))
    return " ".join(sentences)


def gap(rows: pd.DataFrame, method: str, level: str) -> tuple[float, float]:
    """Points by which the supervised encoder leads on these classes, and their variance."""
    pair = [results.select(rows, method=m, level=level).iloc[0] for m in ("supervised", method)]
    shares = [row["value"] / 100 for row in pair]
    variance = sum(p * (1 - p) / row["n"] for p, row in zip(shares, pair, strict=True))
    return pair[0]["value"] - pair[1]["value"], 1e4 * variance


def describe_seen(rows: pd.DataFrame, methods: Sequence[str]) -> str:
    """Whether the supervised encoder's lead is larger on seen classes than on unseen ones.

    The difference of two leads has a normal 95 % interval.
    """
    leads, verdicts = [], dict[str, list[str]]()
    for method in methods:
        (seen, a), (unseen, b) = (gap(rows, method, level) for level in ("seen", "unseen"))
        half = 1.96 * (a + b) ** 0.5
        way = int(seen - unseen > half) - int(unseen - seen > half)
        leads.append(f"{method_title(method)} by {rounded(seen)} and {rounded(unseen)} points")
        verdicts.setdefault(VERDICTS[way], []).append(method_title(method))
    said = (f"**{verdict}** against {listed(names)}" for verdict, names in verdicts.items())
    return (
        f"On seen and on unseen classes, the supervised encoder leads {listed(leads)}. That it "
        f"leads more on seen ones is {listed(said)}."
    )


def describe_batch_norm(rows: pd.DataFrame) -> str:
    """For which methods the probe changes when BatchNorm's statistics move with it."""
    ways: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for method in in_method_order(rows["method"]):
        moved, frozen = (
            results.select(rows, method=method, level=level).iloc[0] for level in ("train", "eval")
        )
        ways[side(moved, frozen)].append(method_title(method))
    words = {1: "helps", -1: "harms", 0: "makes no clear difference to"}
    said = [f"{words[way]} {listed(found)}" for way, found in ways.items() if found]
    return sentence(f"letting the statistics move {listed(said)}")


def describe_causes(rows: pd.DataFrame) -> str:
    """By modality, which methods read which causes better than an untrained encoder."""
    said = []
    for modality in ("video", "audio"):
        of, kept = rows_where(rows, level=modality), dict[tuple[str, ...], list[str]]()
        for cause in dict.fromkeys(of["metric"]):
            found = {row["method"]: row for row in records(rows_where(of, metric=cause))}
            above = tuple(
                method_title(method)
                for method, row in found.items()
                if method != "random" and side(row, found["random"]) > 0
            )
            kept.setdefault(above, []).append(str(cause))
        parts = (
            f"{listed(causes)} by {listed(methods) if methods else 'none'}"
            for methods, causes in kept.items()
        )
        said.append(f"From {modality}, better than untrained: {'; '.join(parts)}.")
    return " ".join(said)


def describe_study_rows(rows: pd.DataFrame) -> str:
    """How many rows of how many runs there are, when they were made and with which version."""
    days = sorted({time[:10] for time in rows["time"]})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    versions = listed(sorted({f"avnb {version}" for version in rows["version"]}))
    return (
        f"{len(rows)} rows of {rows['run'].nunique()} runs, made {when} (UTC) with {versions}, "
        f"profile {listed(sorted(set(rows['profile'])))}, videos "
        f"{listed(sorted(set(rows['data'])))}."
    )
