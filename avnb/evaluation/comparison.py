"""Paired comparisons: of methods over worlds and seeds, and of two checkpoints on the same videos.

Several tests are corrected by Holm (1979, Scandinavian Journal of Statistics 6, 65-70).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from avnb.evaluation.results import IDENTITY, outcomes


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What is expected of two methods, said before the runs are made.

    `above`: supported by a mean difference above 0 in a two-sided paired t-test, refuted by one
    below. `no better`: supported where a one-sided test finds the difference below `margin`,
    refuted where its 95 % interval lies wholly above it. All else is undecided.
    """

    name: str
    of: str  # a method, or what else stands in the column that is compared
    against: str  # another, or `chance`: that of the row itself
    expected: Literal["above", "no better"]
    task: str
    level: str
    metric: str
    margin: float  # points, above 0: the smallest difference that would matter


def compare(rows: pd.DataFrame, claims: Sequence[Claim], column: str = "method") -> pd.DataFrame:
    """Each claim tested over blocks, which are the worlds (`data`) and seeds that have both sides.

    `effect` is the mean difference in points, `low` and `high` Student's 95 % interval; `p_holm` is
    `p` corrected for all claims, a missing one counted as 1; `power` is that of a single two-sided
    t-test at 5 % to find a difference of `margin`, given the spread that was seen. Fewer than two
    blocks, or differences that are all equal, show no spread: no interval, p or power, undecided.

    ValueError when a block has several values of one side.
    """
    from statsmodels.stats.multitest import multipletests  # takes a second to import

    lines = [tested(claim, differences(rows, claim, column)) for claim in claims]
    table = pd.DataFrame(lines, pd.Index([claim.name for claim in claims], name="claim"))
    table["p_holm"] = multipletests(table["p"].fillna(1), method="holm")[1]
    margin, significant = [claim.margin for claim in claims], table["p_holm"] < 0.05
    more = np.array([claim.expected == "above" for claim in claims])
    supported = significant & (~more | (table["effect"] > 0))
    refuted = np.where(more, significant, table["low"] > margin)
    table["verdict"] = np.select([supported, refuted], ["supported", "refuted"], "undecided")
    return table


def differences(rows: pd.DataFrame, claim: Claim, column: str) -> pd.Series:
    """Points by which `of` is above `against`, by (data, seed), in the blocks that have both."""
    for name in ("task", "level", "metric"):
        rows = rows[rows[name] == getattr(claim, name)]
    other, value = (claim.of, "chance") if claim.against == "chance" else (claim.against, "value")
    rows = rows[rows[column].isin([claim.of, other])]
    wide = rows.pivot(index=["data", "seed"], columns=column, values=["value", "chance"])
    wide = wide.reindex(columns=[(value, other), ("value", claim.of)]).astype(float)
    return wide.diff(axis=1).iloc[:, 1].dropna()


def tested(claim: Claim, found: pd.Series) -> dict[str, float]:
    """The numbers of `compare` for one claim, from its differences by block."""
    from statsmodels.stats import power, weightstats  # take a second to import

    line = dict.fromkeys(("effect", "low", "high", "blocks", "p", "power"), np.nan)
    line |= {"effect": found.mean(), "blocks": len(found)}
    if len(found) > 1 and np.ptp(found) > 1e-9:
        sample, margin = weightstats.DescrStatsW(found), claim.margin
        line["low"], line["high"] = sample.tconfint_mean(0.05)
        line["p"] = sample.ttest_mean()[1]
        if claim.expected == "no better":
            line["p"] = sample.ttest_mean(margin, alternative="smaller")[1]
        sensitivity = power.TTestPower().power(margin / found.std(), len(found), 0.05)
        line["power"] = np.nan_to_num(sensitivity, nan=1.0)  # of differences far above the spread
    return line


def on_same_videos(
    rows: pd.DataFrame, against: str | float = "random", column: str = "method"
) -> pd.DataFrame:
    """The rows of single runs with `p` and `verdict`: is one apart from that of `against`?

    McNemar's exact test (1947, doi:10.1007/BF02295996) on the test videos that only one of two
    checkpoints gets right. Compared are rows that are about the same but for `column` and run, and
    `p` is corrected for those held against the same row. `verdict` is `above`, `below` or
    `undecided`; '' where nothing is compared: for `against` itself, and without `outcomes`.
    """
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.multitest import multipletests

    same = [name for name in (*IDENTITY, "source") if name in rows and name not in (column, "run")]
    known = rows.reset_index(names="row")[rows["outcomes"].to_numpy() != ""]
    others = known.loc[known[column] == against, [*same, "outcomes"]].drop_duplicates(same)
    pairs = known[known[column] != against].merge(others, on=same, suffixes=("", "_other"))
    found = []
    for _, pair in pairs.iterrows():
        one, other = outcomes(pair), outcomes({**pair, "outcomes": pair["outcomes_other"]})
        gained, lost = (one & ~other).sum(), (other & ~one).sum()
        p = mcnemar([[0, gained], [lost, 0]]).pvalue
        found.append((p, "above" if gained > lost else "below"))
    tests = pd.DataFrame(found, pairs["row"], ["p", "verdict"])
    family = pairs.groupby(same, dropna=False).ngroup().to_numpy()
    holm = tests.groupby(family)["p"].transform(lambda p: multipletests(p, method="holm")[1])
    tests = tests.assign(p=holm, verdict=tests["verdict"].where(holm < 0.05, "undecided"))
    return rows.assign(**tests.reindex(rows.index)).fillna({"verdict": ""})
