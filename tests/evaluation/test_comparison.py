"""Paired comparisons against formulae, and by hand where there are few numbers."""

from itertools import product
from math import comb

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from avnb.config import Evaluation
from avnb.evaluation import results
from avnb.evaluation.comparison import Claim, compare, on_same_videos

ABOUT = {"task": "probe", "metric": "top1", "level": "video", "dataset": "ucf101"}
BLOCKS = list(product(("one", "two"), range(3)))  # data, seed
XID = np.array([50, 52, 51, 49, 55, 50.5])
OTHER = np.array([40, 44, 39, 40, 43, 41.0])
NEAR = OTHER + np.array([1, -1, 0.5, 0, -0.5, 1.5])


def rows_of(**values):
    """A row of each method in every block, but where its value is nan."""
    rows = [
        results.Row(method=method, value=value, chance=20, data=data, seed=seed, **ABOUT)
        for method, every in values.items()
        for (data, seed), value in zip(BLOCKS, every, strict=True)
    ]
    return results.frame(vars(r) for r in rows if r.value == r.value)


def claim(of, against, expected="above", margin=4.0, name="it"):
    about = {name: ABOUT[name] for name in ("task", "metric", "level")}
    return Claim(name=name, of=of, against=against, expected=expected, margin=margin, **about)


def one(rows, *args, **more):
    return compare(rows, [claim(*args, **more)]).loc["it"]


def test_effect_interval_p_and_power_are_those_of_the_paired_t_test():
    rows, d = rows_of(xid=XID, random=OTHER).sample(frac=1, random_state=0), XID - OTHER
    found, error = one(rows, "xid", "random"), d.std(ddof=1) / 6**0.5
    half = 2.570582 * error  # t of five degrees of freedom
    assert [found.low, found.high] == pytest.approx([found.effect - half, found.effect + half])
    assert found.effect == pytest.approx(d.mean())
    assert found.p == pytest.approx(2 * stats.t.sf(d.mean() / error, 5))
    assert (found.blocks, found.verdict) == (6, "supported")
    edge, shift = stats.t.isf(0.025, 5), 4 / error
    power = stats.nct.sf(edge, 5, shift) + stats.nct.cdf(-edge, 5, shift)
    assert found.power == pytest.approx(power)
    assert one(rows, "random", "xid").verdict == "refuted"
    assert one(rows, "random", "chance").effect == pytest.approx((OTHER - 20).mean())


def test_no_better_is_a_difference_below_the_margin():
    rows, d = rows_of(xid=XID, near=NEAR, random=OTHER), NEAR - OTHER
    found, error = one(rows, "near", "random", "no better"), d.std(ddof=1) / 6**0.5
    assert found.p == pytest.approx(stats.t.sf((4 - d.mean()) / error, 5))
    assert found.verdict == "supported"
    assert one(rows, "near", "random", "no better", margin=0.3).verdict == "undecided"
    assert one(rows, "xid", "random", "no better").verdict == "refuted"
    assert one(rows, "random", "xid", "no better").verdict == "supported"  # it is far worse


def test_p_values_are_corrected_for_all_claims_and_a_missing_one_counts():
    sides = (("xid", "random"), ("near", "chance"), ("xid", "none"))
    claims = [claim(*pair, name=pair[0] + pair[1]) for pair in sides]
    table = compare(rows_of(xid=XID, near=NEAR, random=OTHER), claims)
    first, second = sorted(table["p"][:2])
    assert sorted(table["p_holm"]) == pytest.approx([3 * first, 2 * second, 1])
    assert table.loc["xidnone", ["blocks", "verdict"]].tolist() == [0, "undecided"]


@pytest.mark.filterwarnings("error")
def test_blocks_that_lack_a_side_are_left_out_and_no_spread_is_no_test():
    some = np.where(np.arange(6) < 4, OTHER, np.nan)
    found = one(rows_of(xid=XID, random=some), "xid", "random")
    assert found.blocks == 4 and found.effect == pytest.approx((XID - OTHER)[:4].mean())
    alone = np.where(np.arange(6) < 1, OTHER, np.nan)
    for random, blocks in ((alone, 1), (XID - 0.1, 6), (XID, 6)):
        for expected in ("above", "no better"):
            found = one(rows_of(xid=XID, random=random), "xid", "random", expected)
            assert (found.blocks, found.verdict) == (blocks, "undecided")
            assert found[["low", "high", "p", "power"]].isna().all()
    twice = rows_of(xid=XID, random=OTHER)
    twice = pd.concat([twice, twice.assign(run="another")])
    with pytest.raises(ValueError, match="duplicate"):
        compare(twice, [claim("xid", "random")])


def test_checkpoints_are_compared_on_the_videos_that_only_one_gets_right():
    base = np.arange(40) < 20
    scores = {"random": base, "better": np.arange(40) < 32, "alike": base[::-1], "clips": base / 2}
    about = ABOUT | {"data": "one", "profile": "demo"}
    rows = [
        results.percent_row(x, Evaluation(bootstrap_resamples=9), method=m, run=m, **about)
        for m, x in scores.items()
    ]
    table = results.frame(vars(r) for r in rows).iloc[::-1]
    alone = table[table["method"] != "random"].assign(data="two")
    table = pd.concat([table, alone], ignore_index=True)
    found = on_same_videos(table)
    assert found.drop(columns=["p", "verdict"]).equals(table)
    assert set(found.loc[found["data"] == "two", "verdict"]) == {""}
    found = found[found["data"] == "one"].set_index("method")
    assert found["verdict"].tolist() == ["", "undecided", "above", ""]
    assert found.loc["better", "p"] == pytest.approx(2 * 2 * 0.5**12)  # 12 gained, of two tests
    assert found.loc["alike", "p"] == 1 and found["p"].isna().sum() == 2
    back = on_same_videos(table[table["data"] == "one"], "better").set_index("method")
    assert back["verdict"].tolist() == ["", "below", "", "below"]
    worse = 2 * sum(comb(28, k) for k in range(9)) / 2**28  # alike gains 8 and loses 20
    assert back.loc["alike", "p"] == pytest.approx(worse)
