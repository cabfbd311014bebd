"""Intervals that hold what they promise, and rows of several seeds as one."""

import numpy as np
import pandas as pd
import pytest

from avnb.evaluation import results
from avnb.evaluation.results import Row

ROW = {"task": "probe", "metric": "top1", "dataset": "ucf101", "n": 40, "chance": 8.3}


def wilson(right, n, level=0.95):
    scores = np.arange(n) < right
    return results.interval(scores, bootstrap_resamples=1, seed=0, level=level)[1:]


def test_wilson_at_values_that_were_worked_out_by_hand():
    z2 = 1.959964**2
    assert wilson(0, 10) == pytest.approx((0, z2 / (10 + z2)), abs=1e-6)  # 0.2775
    assert wilson(10, 10) == pytest.approx((10 / (10 + z2), 1), abs=1e-6)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(5, 10, level=0.5) == pytest.approx((0.3957, 0.6043), abs=1e-4)


@pytest.mark.parametrize("right", [0, 1])
def test_all_right_or_all_wrong_is_not_certain(right):
    mean, low, high = results.interval(np.full(12, right), bootstrap_resamples=100, seed=0)
    assert mean == right and (low, high) == pytest.approx(wilson(12 * right, 12))
    assert high - low > 0.2


@pytest.mark.parametrize("clips", [1, 5])
def test_the_interval_covers_the_truth_about_95_times_in_100(clips):
    """One clip a video: right or wrong, Wilson. Five: shares, bootstrap."""
    rng, covered = np.random.default_rng(0), 0
    for i in range(300):
        scores = (rng.random((120, clips)) < rng.beta(3, 2, (120, 1))).mean(axis=1)
        _, low, high = results.interval(scores, bootstrap_resamples=400, seed=i)
        covered += low <= 0.6 <= high
    assert 0.90 < covered / 300 < 0.985


def test_the_same_seed_gives_the_same_interval_and_no_video_none():
    scores = np.random.default_rng(0).random(30)
    one, same, other = (results.interval(scores, bootstrap_resamples=50, seed=s) for s in (1, 1, 2))
    assert one == same != other
    with pytest.raises(ValueError, match="at least one video"):
        results.interval(np.array([]), bootstrap_resamples=50, seed=0)


def test_seeds_become_mean_and_spread():
    values = {"xid": (30.0, 40.0, 50.0), "random": (10.0,)}
    rows = [
        Row(method=method, value=v, low=v - 5, high=v + 6, seed=s, **ROW)
        for method, every in values.items()
        for s, v in enumerate(every)
    ]
    table = results.over_seeds(results.frame(vars(r) for r in rows)).set_index("method")
    xid, random = table.loc["xid"], table.loc["random"]
    assert (xid["value"], xid["spread"], xid["seeds"]) == (40, 10, 3)
    assert (xid["low"], xid["high"], xid["n"]) == (35, 46, 40)
    assert (random["value"], random["low"], random["seeds"]) == (10, 5, 1)
    assert pd.isna(random["spread"])


def test_the_best_is_a_trained_one_if_there_is_one():
    rows = [Row(method=m, value=v, **ROW) for m, v in (("random", 9), ("xid", 3), ("vicreg_v", 5))]
    table = results.frame(vars(r) for r in rows)
    assert results.best(table, metric="top1") == "vicreg_v"
    assert results.best(table.head(1), metric="top1") == "random"
    with pytest.raises(ValueError, match="no result row"):
        results.best(table, metric="top5")


def test_both_protocols_are_kept_side_by_side():
    rows = [
        vars(Row(method="xid", value=v, protocol=p, **ROW))
        for v, p in ((1.0, "cached"), (2.0, "released"), (3.0, "cached"))
    ]
    assert sorted(results.frame(rows)["value"]) == [2, 3]
