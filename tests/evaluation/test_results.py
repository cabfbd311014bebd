"""Intervals that hold what they promise, and rows of several seeds as one."""

import json
import subprocess
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

import avnb
from avnb.config import Evaluation
from avnb.evaluation import results
from avnb.evaluation.results import Row

ROW = {"task": "probe", "metric": "top1", "dataset": "ucf101", "n": 40, "chance": 8.3}


def wilson(right, n):
    return results.interval(np.arange(n) < right, Evaluation(bootstrap_resamples=1))[1:]


def test_wilson_at_values_that_were_worked_out_by_hand():
    z2 = 1.959964**2
    assert wilson(0, 10) == pytest.approx((0, z2 / (10 + z2)), abs=1e-6)  # 0.2775
    assert wilson(10, 10) == pytest.approx((10 / (10 + z2), 1), abs=1e-6)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


@pytest.mark.parametrize("clips", [1, 5])
def test_the_interval_covers_the_truth_about_95_times_in_100(clips):
    """One clip a video: right or wrong, Wilson. Five: shares, bootstrap."""
    rng, covered = np.random.default_rng(0), 0
    for i in range(300):
        scores = (rng.random((120, clips)) < rng.beta(3, 2, (120, 1))).mean(axis=1)
        _, low, high = results.interval(scores, Evaluation(bootstrap_resamples=400, seed=i))
        covered += low <= 0.6 <= high
    assert 0.90 < covered / 300 < 0.985


def test_the_same_seed_gives_the_same_interval_and_no_video_none():
    scores, config = np.random.default_rng(0).random(30), Evaluation(bootstrap_resamples=50)
    one, same, other = (results.interval(scores, replace(config, seed=s)) for s in (1, 1, 2))
    assert one == same != other
    with pytest.raises(ValueError, match="at least one video"):
        results.interval(np.array([]), config)


def test_seeds_become_their_mean_with_students_interval():
    values = {"xid": (30.0, 40.0, 50.0), "vicreg_v": (39.0, 40.0, 41.0), "random": (10.0,),
              "same": (10.0, 10.0)}  # fmt: skip
    rows = [
        Row(method=method, value=v, low=v - 5, high=v + 6, seed=s, time=f"2026-01-0{s + 1}", **ROW)
        for method, every in values.items()
        for s, v in enumerate(every)
    ]
    table = results.over_seeds(results.frame(vars(r) for r in rows)).set_index("method")
    xid, narrow, random, same = (table.loc[method] for method in values)
    half = 4.302653 * 10 / 3**0.5  # t of two degrees of freedom
    assert (xid["value"], xid["n"], xid["seed"]) == (40, 40, 0)
    assert [xid["low"], xid["high"]] == pytest.approx([40 - half, 40 + half])
    assert [narrow["low"], narrow["high"]] == [35, 46]  # seeds agree, but videos are few
    assert (random["value"], random["low"], random["high"]) == (10, 5, 16)
    assert (same["value"], same["low"], same["high"]) == (10, 5, 16)


def test_rows_are_selected_by_values_or_lists_and_none_is_an_error():
    rows = [Row(method=m, value=v, **ROW) for m, v in (("random", 9), ("xid", 3), ("vicreg_v", 5))]
    table = results.frame(vars(r) for r in rows)
    chosen = results.select(table, method=["xid", "random"], metric="top1")
    assert chosen["value"].tolist() == [9, 3]
    with pytest.raises(ValueError, match="no result row"):
        results.select(table, metric="top5")


def test_a_row_is_stored_once_with_time_and_version_and_a_new_value_again(tmp_path):
    file, row = tmp_path / "results.jsonl", Row(method="xid", value=30, **ROW)
    for value in (30, 30, 31, 31, 30):
        results.record(file, [replace(row, value=value), replace(row, method="random")])
    stored = [json.loads(line) for line in file.read_text().splitlines()]
    assert [r["value"] for r in stored if r["method"] == "xid"] == [30, 31, 30]
    assert sum(r["method"] == "random" for r in stored) == 1
    assert all(r["version"] == avnb.__version__ for r in stored)
    assert all(datetime.fromisoformat(r["time"]).tzinfo for r in stored)
    assert results.read(file).set_index("method").loc["xid", "value"] == 30


def test_what_is_not_a_row_is_named_and_a_torn_last_line_is_left_out(tmp_path):
    file, row = tmp_path / "results.jsonl", Row(method="xid", value=30, **ROW)
    results.record(file, [row, replace(row, method="random")])
    whole = file.read_text()
    file.write_text(whole + '{"task": "pro')
    assert len(results.read(file)) == 2
    results.record(file, [row])
    assert file.read_text() == whole
    file.write_text(whole + '{"rank": 3}\n')
    with pytest.raises(ValueError, match=r"results.jsonl holds .* not a result row.*'rank'"):
        results.read(file)
    assert results.read(tmp_path / "none.jsonl").empty


def test_percent_rows_are_a_hundred_times_the_scores():
    about = {"task": "probe", "metric": "top1", "dataset": "ucf101", "method": "xid"}
    row = results.percent_row(np.array([1, 0, 0, 1.0]), Evaluation(seed=2), **about)
    assert (row.value, row.n, row.seed) == (50, 4, 2)
    assert (row.low, row.high) == pytest.approx([100 * x for x in wilson(2, 4)])


def test_outcomes_are_kept_in_the_order_of_the_videos(tmp_path):
    about = {"task": "probe", "metric": "top1", "dataset": "ucf101", "method": "xid"}
    right, config = np.random.default_rng(0).random(243) < 0.4, Evaluation(bootstrap_resamples=9)
    row = results.percent_row(right, config, **about)
    assert len(row.outcomes) == 2 * 31
    assert results.percent_row(np.arange(9) % 8 == 0, config, **about).outcomes == "8080"
    results.record(tmp_path / "rows.jsonl", [row])
    (stored,) = results.read(tmp_path / "rows.jsonl").to_dict("records")
    assert (results.outcomes(stored) == right).all()
    shares = results.percent_row(right / 2, config, **about)
    with pytest.raises(ValueError, match="no outcomes"):
        results.outcomes(vars(shares))


def test_a_row_names_the_commit_and_whether_files_differ_from_it(tmp_path):
    def git(*command):
        made = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path), *command]
        return subprocess.run(made, check=True, capture_output=True, text=True).stdout.strip()

    commit = results.commit.__wrapped__  # not the one that is kept
    assert commit(tmp_path) == ""
    git("init")
    (tmp_path / "new.py").touch()
    git("add", "new.py")
    git("commit", "-m", "first")
    head = git("rev-parse", "--short", "HEAD")
    assert commit(tmp_path) == head
    (tmp_path / "new.py").write_text("changed")
    assert commit(tmp_path) == f"{head}+"
    row = Row(method="xid", value=30, **ROW)
    assert results.record(tmp_path / "rows.jsonl", [row])["commit"].item() == results.commit()


def test_the_published_rows_hold_the_tables_of_the_thesis():
    rows = results.published()
    sizes = {"probe": 40, "finetune": 40, "retrieval": 8, "few-shot": 80, "concepts": 6}
    assert rows.groupby("task").size().to_dict() == sizes
    assert set(rows["source"]) == {"thesis"}
    one = results.select(rows, task="probe", method="xid", dataset="ucf101", level="video")
    assert dict(zip(one["metric"], one["value"], strict=True)) == {"top1": 51.2, "top5": 80.91}
    one = results.select(rows, task="finetune", method="xid", dataset="hmdb51")
    assert list(one["value"]) == [38.2, 69.6, 42.85, 73.69]
    about = {"method": "supervised", "dataset": "ucf101", "level": "video", "metric": "top1"}
    seen = [f"seen, {percent} %" for percent in (5, 10, 20, 50, 100)]
    one = results.select(rows, task="few-shot", split=seen, **about)
    assert one["value"].tolist() == [5.32, 8.82, 14.67, 18.22, 20.85]
    with pytest.raises(ValueError, match="no result row has"):
        results.select(rows, method="none")
