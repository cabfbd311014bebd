"""Tables of result rows, and tables as files."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from scipy import special

from avnb.book.plots import OUTPUT, by_method, in_method_order, method_title, title
from avnb.evaluation.features import EncoderSource
from avnb.evaluation.results import verdict
from avnb.profiles import Workspace

Table = TypeVar("Table")
Record = Mapping[Any, Any] | pd.Series


def with_interval(row: Record) -> str:
    """`61.3 [55.0, 67.4]`, or the value alone when there is no interval."""
    if pd.isna(row["low"]):
        return f"{row['value']:.2f}"
    return f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"


def with_spread(row: Record) -> str:
    """`61.3 ± 0.8 (3 seeds)`, mean and standard deviation; for one seed as `with_interval`."""
    if row.get("seeds", 1) == 1:
        return with_interval(row)
    return f"{row['value']:.1f} ± {row['spread']:.1f} ({row['seeds']} seeds)"


def published_table(
    ours: pd.DataFrame, published: pd.DataFrame, task: str, dataset: str, against: str = "random"
) -> pd.DataFrame:
    """Our numbers beside the thesis's for one task and data set, by level, metric and method.

    `difference`, ours less the thesis's in points, is there only where the data are the real ones
    and the profile is the thesis's: other numbers have another level of chance. `verdict` holds
    the interval here against that of the method `against`.

    Args:
        ours: result rows, or their `results.over_seeds`.
        published: the thesis's rows, `results.published()`.
        task: `probe`, `finetune` or `retrieval`.
        dataset: its key.
        against: the method that the others are held against; without its rows, no verdict.
    """
    index = ["level", "metric", "method"]
    chosen = published[(published["task"] == task) & (published["dataset"] == dataset)]
    theirs = {tuple(row[name] for name in index): row for row in chosen.to_dict("records")}
    ours = ours[(ours["task"] == task) & (ours["dataset"] == dataset)]
    lines = [
        published_line(row, theirs.get((row["level"], row["metric"], row["method"])))
        for _, block in ours.groupby(index[:2], sort=False)
        for row in with_verdict(by_method(block), against).to_dict("records")
    ]
    columns = [*index, "here", "thesis", "difference", "verdict", "chance", "n"]
    if not any("difference" in line for line in lines):
        columns.remove("difference")
    return pd.DataFrame(lines, columns=columns, dtype=object).fillna("–").set_index(index)


def published_line(row: Record, thesis: Record | None) -> dict[str, str]:
    """A line of `published_table`."""
    line = {"level": title(row["level"]), "metric": title(row["metric"])}
    line |= {"method": method_title(row["method"]), "here": with_spread(row)}
    line |= {"verdict": row["verdict"], "chance": f"{row['chance']:.1f}", "n": f"{row['n']:.0f}"}
    if thesis:
        line["thesis"] = with_interval(thesis)
        if row["profile"] == "thesis" and row["data"].startswith("real"):
            line["difference"] = f"{row['value'] - thesis['value']:+.1f}"
    return line


def with_verdict(rows: pd.DataFrame, against: str) -> pd.DataFrame:
    """Rows with `results.verdict`; a dash where nothing is compared, as for `against` itself."""
    judged = verdict(rows, against=against)
    return judged.assign(verdict=judged["verdict"].replace("", "–"))


def with_variant_verdict(rows: pd.DataFrame, variant: str, against: str) -> pd.DataFrame:
    """Rows with the verdict of each variant against one of them, within each method.

    `variant` is the column that names them. What `space` and `protocol` say of them is left aside.
    """
    judged = []
    for _, of in rows.groupby("method", sort=False):
        alike = of.assign(method=of[variant], space="", protocol="", **{variant: ""})
        judged.append(of.assign(verdict=with_verdict(alike, against)["verdict"].to_numpy()))
    return pd.concat(judged)


def seed_reach(rows: pd.DataFrame) -> float:
    """How far another seed may lead, in 95 % of the cases; 0 where there is one seed only.

    Student's t times the standard deviation over seeds, pooled over methods.
    """
    spread = rows.groupby("method")["value"].agg(["var", "size"])
    freedom = int((spread["size"] - 1).sum())
    if not freedom:
        return 0.0
    return float(special.stdtrit(freedom, 0.975) * spread["var"].mean() ** 0.5)


def with_seeds(rows: pd.DataFrame, seeds: pd.DataFrame) -> pd.DataFrame:
    """Rows of single runs, their intervals widened by what another seed may change.

    Each end moves to the root of the sum of squares of its distance from the value and of
    `seed_reach`, which `seeds`, the rows of runs that differ in their seed alone, tell of each
    measure: of an untrained encoder, and of all trained ones together.
    """
    same = ["task", "level", "metric", "trained"]
    groups = seeds.assign(trained=seeds["method"] != "random").groupby(same)
    reach = groups.apply(seed_reach, include_groups=False).rename("reach").reset_index()
    judged = rows.assign(trained=rows["method"] != "random").merge(reach, how="left", on=same)
    reaches = judged["reach"].fillna(0).to_numpy()
    low, high = (np.hypot(rows["value"] - rows[end], reaches) for end in ("low", "high"))
    ends = {"low": rows["value"] - low, "high": rows["value"] + high}
    return rows.assign(**{name: end.clip(0, 100) for name, end in ends.items()})


def by_columns(rows: pd.DataFrame, index: Sequence[str] = ("level", "metric")) -> pd.DataFrame:
    """Values with intervals or spread, one column per method, one line per value of `index`."""
    cells = rows.assign(cell=[with_spread(row) for row in rows.to_dict("records")])
    for name in set(index) & {"level", "metric"}:
        cells[name] = cells[name].map(title)
    lines = pd.MultiIndex.from_frame(cells[list(index)]).unique()
    wide = cells.pivot(index=list(index), columns="method", values="cell").reindex(lines)
    wide = wide[in_method_order(rows["method"])].rename(columns=method_title)
    return wide.rename_axis(columns=None).astype(object).fillna("–")


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
    """Write a data frame, or that of a `Styler`, as CSV and LaTeX, and return it for display."""
    frame: pd.DataFrame = getattr(table, "data", table)
    index = frame.index.name is not None or not isinstance(frame.index, pd.RangeIndex)
    frame.to_csv(OUTPUT.path(name, "csv"), index=index)
    text = (frame.reset_index() if index else frame).map(str)
    OUTPUT.path(name, "tex").write_text(text.to_latex(index=False, escape=True))
    return table
