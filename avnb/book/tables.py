"""Tables of result rows, and tables as files."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from avnb.book.plots import OUTPUT, by_method, in_method_order, method_title, title
from avnb.evaluation import comparison, results
from avnb.evaluation.comparison import Claim, on_same_videos
from avnb.evaluation.features import EncoderSource
from avnb.profiles import Workspace

Table = TypeVar("Table")
Record = Mapping[Any, Any] | pd.Series


def with_interval(row: Record) -> str:
    """`61.3 [55.0, 67.4]`, or the value alone when there is no interval."""
    if pd.isna(row["low"]):
        return f"{row['value']:.2f}"
    return f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"


def published_table(
    ours: pd.DataFrame, published: pd.DataFrame, **lines: Mapping[str, object]
) -> pd.DataFrame:
    """Our numbers above the thesis's of the same task and data set, one column per method.

    `difference`, ours less the thesis's in points, is there only where the data are the real ones
    and the profile is the thesis's: other numbers have another level of chance. `verdict` holds
    the checkpoint against that of `random`, on the same videos. `lines` has further values by
    method.
    """
    blocks = [by_method(block) for _, block in ours.groupby(["level", "metric"], sort=False)]
    same = ["task", "dataset", "level", "metric", "method"]
    rows = on_same_videos(pd.concat(blocks))
    rows = rows.merge(published[[*same, "value"]], "left", on=same, suffixes=("", "_thesis"))
    comparable = (rows["profile"] == "thesis") & rows["data"].str.startswith("real")
    difference = (rows["value"] - rows["value_thesis"])[comparable]
    cells = pd.DataFrame(
        {
            "here": [with_interval(row) for row in rows.to_dict("records")],
            "thesis": rows["value_thesis"].map("{:.2f}".format, na_action="ignore"),
            "difference": difference.map("{:+.1f}".format, na_action="ignore"),
            **{name: rows["method"].map(values) for name, values in lines.items()},
            "verdict": rows["verdict"],
        }
    ).dropna(axis=1, how="all")
    level = rows["level"].map(title) + rows["n"].map(", n = {:.0f}".format)
    metric = rows["metric"].map(title) + rows["chance"].map(", chance {:.1f}".format)
    named = cells.assign(level=level, metric=metric, method=rows["method"])
    long = named.melt(["level", "metric", "method"], var_name="", value_name="cell")
    order = [(*block, line) for block in zip(level, metric, strict=True) for line in cells]
    known = long.dropna(subset="cell").query("cell != ''").set_index(["level", "metric", ""]).index
    filled = [line for line in dict.fromkeys(order) if line in known]
    return methods_as_columns(long, ["level", "metric", ""], filled)


def methods_as_columns(cells: pd.DataFrame, index: list[str], lines: Iterable[Any]) -> pd.DataFrame:
    """The column `cell` of rows with `method` and `index`, in the order of `lines`."""
    wide = cells.pivot(index=index, columns="method", values="cell").loc[list(lines)]
    wide = wide[in_method_order(cells["method"])].rename(columns=method_title)
    return wide.rename_axis(columns=None).astype(object).fillna("–").replace("", "–")


def by_columns(rows: pd.DataFrame, index: Sequence[str] = ("level", "metric")) -> pd.DataFrame:
    """Values with intervals, one column per method, one line per value of `index`."""
    cells = rows.assign(cell=[with_interval(row) for row in rows.to_dict("records")])
    for name in set(index) & {"level", "metric"}:
        cells[name] = cells[name].map(title)
    lines = cells.set_index(list(index)).index.unique()
    return methods_as_columns(cells, list(index), lines)


def effects(compared: pd.DataFrame) -> pd.DataFrame:
    """The table of `comparison.compare` in words: effect with its interval, p, power, verdict."""
    table, ends = pd.DataFrame(index=compared.index), list[str]()
    for _, row in compared.iterrows():
        known = f" [{row['low']:+.1f}, {row['high']:+.1f}]" if pd.notna(row["low"]) else ""
        ends.append(f"{row['effect']:+.1f}{known}")
    table["effect, points"] = ends
    table["blocks"] = compared["blocks"].astype(int)
    shown = compared["p_holm"].map("{:.4f}".format, na_action="ignore").fillna("–")
    table["p after Holm"] = shown.replace("0.0000", "< 0.0001")
    table["power"] = compared["power"].round(2).astype(object).fillna("–")
    return table.assign(verdict=compared["verdict"])


def claims(chapter: str = "", path: Path | str = "") -> pd.DataFrame:
    """The thesis's claims, tested on the blocks of the studies: all, or shortly those of a chapter.

    A margin of 10 points would matter. `path` is a file of rows in the place of those stored.
    """
    asked = asked_claims()
    chapters = asked.pop("chapter")
    every = [Claim(name=str(n), margin=10.0, **line) for n, line in asked.T.to_dict().items()]
    rows = plain_blocks(path)
    found = effects(comparison.compare(rows, every)).set_axis(asked.index)
    thesis, words = results.published().query("dataset == 'ucf101'"), []
    for claim in every:
        of, against = method_title(claim.of), method_title(claim.against)
        words.append(f"{of} {claim.expected.replace('better', 'better than')} {against}")
    found.insert(0, "claimed", words)
    found.insert(1, "thesis, %", [both_means(thesis, claim) for claim in every])
    found.insert(2, "here, %", [both_means(rows, claim) for claim in every])
    short = ["claimed", "thesis, %", "here, %", "verdict"]
    return found.loc[chapters == chapter, short] if chapter else found


def asked_claims() -> pd.DataFrame:
    """What the thesis claims, and the chapter that measures it."""
    table = Path(comparison.__file__).with_name("claims.csv")
    return pd.read_csv(table, sep=";", comment="#", index_col="claim").fillna({"level": ""})


def plain_blocks(path: Path | str = "") -> pd.DataFrame:
    """Rows of the five methods in the worlds that are reported; `xid, seen` has a half of xID."""
    rows = results.studies(path)
    rows = rows[rows["seed"].isin(results.REPORTED) & (rows["space"] == "{}")]
    half = rows[rows["task"] == "half"]
    return pd.concat([rows, half.assign(method=half["method"] + ", " + half["level"], level="")])


def both_means(rows: pd.DataFrame, claim: Claim) -> str:
    """Means of what a claim compares, with chance; a dash where there are none."""
    for name in ("task", "level", "metric"):
        rows = rows[rows[name] == getattr(claim, name)]
    means = rows.groupby("method")["value"].mean().reindex([claim.of, claim.against]).dropna()
    chance = rows["chance"].mean()
    form = "{:.2f}" if set(rows["source"]) == {"thesis"} else "{:.1f}"  # as published
    words = [" against ".join(means.map(form.format)), f"chance {chance:.1f}"]
    return ", ".join(words if chance > 0 else words[:1]) or "–"


def runs_table(sources: Mapping[str, EncoderSource], work: Workspace) -> pd.DataFrame:
    """Where the numbers come from: run id, seed and checkpoint of every encoder."""
    lines = {}
    for method, source in sources.items():
        line = {"run": source.config.backbone, "seed": "–", "checkpoint": "none, made by its code"}
        if (path := source.checkpoint) is not None:
            build = work.folder.parent
            shown = path.relative_to(build.parent) if path.is_relative_to(build) else path
            line = {"run": source.name, "seed": str(source.config.seed), "checkpoint": str(shown)}
        lines[method_title(method)] = line
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("method")


def save(table: Table, name: str) -> Table:
    """Write a data frame, or that of a `Styler`, as CSV and LaTeX, and return it for display.

    What is displayed has one line of headers: the last level of the index is named there.
    """
    styled: Any = table
    frame: pd.DataFrame = getattr(styled, "data", styled)
    names = list(frame.index.names)
    index = frame.index.name is not None or not isinstance(frame.index, pd.RangeIndex)
    frame.to_csv(OUTPUT.path(name, "csv"), index=index)
    text = (frame.reset_index() if index else frame).map(str)
    OUTPUT.path(name, "tex").write_text(text.to_latex(index=False, escape=True))
    if styled is frame and any(names) and frame.columns.nlevels == 1:
        styled = frame.rename_axis(**{"index": [None] * len(names), "columns": names[-1]})
    return styled
