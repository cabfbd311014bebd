"""Paired comparisons: of methods over worlds and seeds, and of two checkpoints on the same videos.

Several tests are corrected by Holm (1979, Scandinavian Journal of Statistics 6, 65-70).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from avnb.evaluation.results import IDENTITY, outcomes

ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What is expected of two methods, said before the runs are made.

    `above`: supported by a difference above 0 in a two-sided paired t-test, refuted by one below.
    `no better`, as `no worse` and `no cost`, means equivalent: supported where two one-sided tests
    (Schuirmann 1987, doi:10.1007/BF01068419) find the difference within `margin` of 0, refuted
    where its 95 % interval lies wholly beyond the margin, on either side. All else is undecided.
    """

    name: str
    of: str  # a method, or what else stands in the column that is compared
    against: str  # another, or `chance`: that of the row itself
    expected: Literal["above", "no better"]
    task: str
    level: str
    metric: str
    margin: float  # points, above 0: the smallest difference that would matter
    space: str = ""  # any where empty


def compare(rows: pd.DataFrame, claims: Sequence[Claim], column: str = "method") -> pd.DataFrame:
    """Each claim tested over blocks, which are the worlds (`data`) and seeds that have both sides.

    `effect` is the mean difference in points with Student's 95 % interval, `low` and `high`;
    `p_holm` is `p` corrected for the number of claims, and `power` the chance of a two-sided test
    at 5 % to find a difference of `margin`, given the spread that was seen. Fewer than two blocks,
    or differences that are all equal, show no spread: no interval, no p, undecided.

    ValueError when a block has several values of one side.
    """
    names = pd.Index([claim.name for claim in claims], name="claim")
    table = pd.DataFrame(
        [tested(claim, differences(rows, claim, column)) for claim in claims], names
    )
    table["p_holm"] = holm(table["p"])
    table["verdict"] = [
        verdict(claim, line) for claim, line in zip(claims, table.itertuples(), strict=True)
    ]
    return table


def differences(rows: pd.DataFrame, claim: Claim, column: str = "method") -> pd.Series:
    """Points by which `of` is above `against`, by (data, seed), in the blocks that have both."""
    for name in ("task", "level", "metric", *(["space"] if claim.space else [])):
        rows = rows[rows[name] == getattr(claim, name)]
    of, against = (
        rows[rows[column] == side].set_index(["data", "seed"])
        for side in (claim.of, claim.of if claim.against == "chance" else claim.against)
    )
    if not (of.index.is_unique and against.index.is_unique):
        raise ValueError(f"{claim.name}: several rows of one side in a block (data, seed)")
    other = against["chance" if claim.against == "chance" else "value"]
    return (of["value"] - other).dropna()


def tested(claim: Claim, of: pd.Series) -> dict[str, float]:
    """The numbers of `compare` for one claim, from its differences by block."""
    from statsmodels.stats.power import TTestPower  # take a second to import
    from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

    line = dict.fromkeys(("effect", "low", "high", "blocks", "p", "power"), np.nan)
    line |= {"effect": of.mean(), "blocks": len(of)}
    if len(of) > 1 and np.ptp(of) > 1e-9:
        sample, power = DescrStatsW(of), TTestPower().power
        line["low"], line["high"] = sample.tconfint_mean(ALPHA)
        line["p"] = sample.ttest_mean()[1]
        if claim.expected == "no better":
            line["p"] = ttost_paired(of, 0 * of, -claim.margin, claim.margin)[0]
        line["power"] = power(claim.margin / of.std(), len(of), ALPHA)
    return line


def verdict(claim: Claim, line: Any) -> str:
    """What a line of `compare` says of its claim."""
    significant, expects_more = line.p_holm < ALPHA, claim.expected == "above"
    beyond = line.low > claim.margin or line.high < -claim.margin
    if significant and (line.effect > 0 or not expects_more):
        return "supported"
    return "refuted" if (significant if expects_more else beyond) else "undecided"


def holm(p: pd.Series) -> pd.Series:
    """p-values corrected for their number; a missing one counts, and stays missing."""
    from statsmodels.stats.multitest import multipletests

    return pd.Series(multipletests(p.fillna(1), method="holm")[1], p.index).where(p.notna())


def on_same_videos(
    rows: pd.DataFrame, against: str | float = "random", column: str = "method"
) -> pd.DataFrame:
    """The rows of single runs with `p` and `verdict`: is one apart from that of `against`?

    McNemar's exact test (1947, doi:10.1007/BF02295996) on the test videos that only one of two
    checkpoints gets right. Compared are rows that are about the same but for `column` and run, and
    `p` is corrected for those held against the same row. `verdict` is `above`, `below` or
    `undecided`; '' where nothing is compared: for `against` itself, and without `outcomes`.
    """
    same = [name for name in (*IDENTITY, "source") if name in rows and name not in (column, "run")]
    others = rows.loc[rows[column] == against, [*same, "outcomes"]].drop_duplicates(same)
    both = rows.merge(others, "left", on=same, suffixes=("", "_other"))
    known = (both[["outcomes", "outcomes_other"]].fillna("") != "").all(axis=1)
    both["family"] = both.groupby(same, dropna=False).ngroup()
    pairs = both[known & (both[column] != against)]
    tests = pd.DataFrame([mcnemar(row) for _, row in pairs.iterrows()], pairs.index, ["gain", "p"])
    tests["p"] = tests.groupby(pairs["family"])["p"].transform(holm)
    tests["verdict"] = np.where(tests["gain"] > 0, "above", "below")
    tests.loc[tests["p"] >= ALPHA, "verdict"] = "undecided"
    tests = tests.reindex(both.index).set_axis(rows.index)
    return rows.assign(p=tests["p"], verdict=tests["verdict"].fillna(""))


def mcnemar(pair: pd.Series) -> tuple[int, float]:
    """Videos gained less those lost against the other `outcomes`, and McNemar's exact p."""
    from statsmodels.stats import contingency_tables

    one, other = outcomes(pair), outcomes({**pair, "outcomes": pair["outcomes_other"]})
    gained, lost = (one & ~other).sum(), (other & ~one).sum()
    return gained - lost, contingency_tables.mcnemar([[0, gained], [lost, 0]]).pvalue
