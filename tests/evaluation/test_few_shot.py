"""Few-shot probes: together as alone, on the right classes, with intervals that say enough."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from avnb import distributed, report
from avnb.config import Evaluation
from avnb.data.manifest import Manifest
from avnb.evaluation import batched_probes, class_splits, few_shot, probe, results, splits
from avnb.evaluation.batched_probes import Training
from avnb.evaluation.encoder_source import EncoderSource
from avnb.evaluation.features import Features
from avnb.evaluation.probe_features import ProbeFeatures
from avnb.profiles import Workspace

HOW = Evaluation.from_flat(probe_epochs=7, probe_lr=1e-2, probe_batch=8, bootstrap_resamples=50)
QUICK = Evaluation.from_flat(**{**HOW.flat(), "probe_lr": 0.3})


@pytest.fixture(autouse=True)
def one_thread():
    """`probe.fit` too: on a busy machine two threads wait for each other at every step."""
    with distributed.one_thread():
        yield


def features(videos, clips, label, seed=0, width=6, apart=3.0):
    """Clips around a centre of their class."""
    g = torch.Generator().manual_seed(seed)
    centre = apart * torch.randn(40, width, generator=torch.Generator().manual_seed(99))
    noise = torch.randn(videos, clips, width, generator=g)
    video = centre[label][:, None] + noise
    return Features(video=video, audio=video[..., :0], label=label)


def alone(one: Training, config=HOW):
    config = Evaluation.from_flat(**{**config.flat(), "seed": one.seed})
    return probe.fit(one.features[one.videos], one.label, one.classes, config)


@pytest.fixture
def some_trainings():
    """Layers of other lengths, classes, seeds and clips a video; batches that are not full."""
    made = []
    for i, (videos, clips, classes) in enumerate(
        [(40, 3, 4), (3, 3, 2), (17, 10, 5), (40, 3, 4), (16, 7, 3), (1, 2, 1)]
    ):
        label = torch.arange(60) % classes
        rows = torch.randperm(60, generator=torch.Generator().manual_seed(i))[:videos]
        whole = features(60, clips, label, seed=i).video
        made.append(
            Training(features=whole, videos=rows, label=label[rows], classes=classes, seed=i)
        )
    return made


@pytest.mark.parametrize("together", [1, 4, 20])
def test_a_layer_comes_out_of_a_batch_as_it_does_alone(some_trainings, together):
    fitted = batched_probes.fit_together(some_trainings, HOW, together=together)
    for one, (layer, losses) in zip(some_trainings, fitted, strict=True):
        expected, curve = alone(one)
        torch.testing.assert_close(layer.weight, expected.weight, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(layer.bias, expected.bias, atol=2e-5, rtol=1e-4)
        assert losses == pytest.approx(curve, rel=1e-4, abs=1e-6)


def test_encoders_of_different_widths_are_trained_in_one_call(some_trainings):
    wide = replace(
        some_trainings[0], features=some_trainings[0].features.repeat_interleave(2, dim=2)
    )
    mixed = [wide, *some_trainings[1:], wide]
    for one, (layer, _) in zip(mixed, batched_probes.fit_together(mixed, HOW), strict=True):
        torch.testing.assert_close(layer.weight, alone(one)[0].weight, atol=2e-5, rtol=1e-4)


def test_another_seed_is_another_layer_and_what_is_beside_it_changes_nothing(some_trainings):
    one = some_trainings[2]
    other = Training(**{**vars(one), "seed": 5})
    (a, _), (b, _) = batched_probes.fit_together([one, other], HOW)
    assert (a.weight - b.weight).abs().max() > 1e-2
    (c, _), *_ = batched_probes.fit_together([one, *some_trainings], HOW)
    torch.testing.assert_close(a.weight, c.weight, atol=2e-5, rtol=1e-4)


def test_a_layer_without_videos_or_with_a_label_out_of_range_is_an_error(some_trainings):
    one = some_trainings[0]
    none = Training(**{**vars(one), "videos": one.videos[:0], "label": one.label[:0]})
    with pytest.raises(ValueError, match="got 0 videos"):
        batched_probes.fit_together([none], HOW)
    with pytest.raises(ValueError, match=r"a label in \[0, 3\)"):
        batched_probes.fit_together([Training(**{**vars(one), "classes": 3})], HOW)


# ---- draws and rows ---------------------------------------------------------------------------


@pytest.fixture
def target(manifests) -> Manifest:
    return Manifest.load(manifests / "ucf101")


@pytest.fixture
def classes(target):
    return {"unseen": list(target.classes[::2]), "seen": list(target.classes[1::2])}


def probe_features(target, seed=0, apart=3.0):
    parts = {}
    for name, split, clips in (("train", "train", 3), ("clip", "test", 4), ("video", "test", 2)):
        label = torch.tensor(target.split(split).labels)
        parts[name] = features(len(label), clips, label, seed=seed, apart=apart)
    return ProbeFeatures(**parts)


def test_draws_are_files_nested_and_of_their_own_classes(target, classes, tmp_path):
    drawn = few_shot.draws(target, classes, tmp_path, percents=(40, 100), seeds=(0, 1))
    assert [(d.seed, d.split) for d in drawn[:4]] == [
        (0, "unseen, 40 %"), (0, "seen, 40 %"), (0, "unseen, 100 %"), (0, "seen, 100 %"),
    ]  # fmt: skip
    assert len(list(tmp_path.glob("*/*-percent.csv"))) == 4 and len(drawn) == 8
    train = target.split("train")
    for few, all_of in ((drawn[0], drawn[2]), (drawn[1], drawn[3])):
        assert set(few.videos.tolist()) < set(all_of.videos.tolist())
        labels = {train.videos[i].label for i in few.videos.tolist()}
        assert labels == set(classes[few.part])
        assert {train.labels[i] for i in all_of.videos.tolist()} == set(few.classes.tolist())
    again = splits.few_shot([v.label for v in train.videos], 40, seed=1)
    both = torch.cat([drawn[4].videos, drawn[5].videos])
    assert sorted(both.tolist()) == again


def test_labels_are_counted_within_the_part_and_the_test_set_stays_whole(target, classes, tmp_path):
    known = probe_features(target)
    draw = few_shot.draws(target, classes, tmp_path, percents=(40,))[1]
    one = few_shot.training(known.train, draw)
    assert one.classes == len(classes["seen"]) and set(one.label.tolist()) == set(range(6))
    train = target.split("train").videos
    for row, label in zip(one.videos.tolist(), one.label.tolist(), strict=True):
        assert sorted(classes["seen"], key=target.classes.index)[label] == train[row].label
    video, label = few_shot.of_classes(known.clip, draw.classes)
    expected = [v for v in target.split("test").videos if v.label in classes["seen"]]
    assert len(video) == len(label) == len(expected)


def measured(target, classes, folder, **more):
    drawn = few_shot.draws(target, classes, folder, percents=(40, 100), seeds=(3, 4))
    known = {"random": probe_features(target, apart=0.0), "supervised": probe_features(target, 1),
             "xid": probe_features(target, 2)}  # fmt: skip
    same = {"data": "synthetic:1", "dataset": "ucf101", "profile": "smoke"}
    metadata = {m: {"method": m, "run": f"{m}-1", **same} for m in known}
    return drawn, known, list(few_shot.measure(known, drawn, QUICK, metadata))


def test_rows_are_complete_and_say_what_a_probe_alone_says(target, classes, tmp_path):
    drawn, known, rows = measured(target, classes, tmp_path)
    table = results.frame(vars(row) for row in rows)
    assert len(table) == 3 * len(drawn) * 4  # none has another's identity
    assert set(table["split"]) == {f"{p}, {s} %" for p in class_splits.PARTS for s in (40, 100)}
    assert set(table["seed"]) == {3, 4} and set(table["task"]) == {"few-shot"}
    needed = ["low", "high", "n", "chance", "run", "data", "profile"]
    assert table[needed].notna().all(axis=None) and (table[needed] != "").all(axis=None)
    assert table["chance"].unique().round(4).tolist() == [16.6667, 83.3333]
    draw = drawn[0]
    layer, _ = alone(few_shot.training(known["xid"].train, draw), QUICK)
    video, label = few_shot.of_classes(known["xid"].video, draw.classes)
    right = 100 * probe.video_level(layer, video, label, 1).mean().item()
    one = results.select(
        table, method="xid", split=draw.split, seed=draw.seed, level="video", metric="top1"
    )
    assert one["value"].item() == pytest.approx(right) and one["n"].item() == len(label)
    means = table[table["metric"] == "top1"].groupby("method")["value"].mean()
    assert means["random"] < 50 < 80 < means["xid"]


def test_one_call_gives_the_rows_of_the_chapter(target, classes, tmp_path, monkeypatch, tiny):
    features = {"xid": probe_features(target)}
    monkeypatch.setattr(few_shot, "extract_each", lambda *_: features)
    sources = {
        "xid": EncoderSource(
            method="xid", name="xid-1", config=tiny, checkpoint=tmp_path / "last.pt"
        )
    }
    work = Workspace("smoke", tmp_path, {})
    same = sources, target, classes, QUICK, work
    rows = few_shot.few_shot_rows(*same, shares=(40, 100), seeds=2)
    assert rows.equals(results.read(work.results)) and set(rows["seed"]) == {0, 1}
    drawn = few_shot.draws(target, classes, tmp_path / "splits", percents=(40, 100), seeds=(0, 1))
    assert set(rows["split"]) == {draw.split for draw in drawn} and len(rows) == 4 * len(drawn)
    one = few_shot.few_shot_rows(*same, shares=(100,))
    assert set(one["seed"]) == {0} and len(results.read(work.results)) == len(rows)


def test_an_empty_part_is_an_error_in_words(target, tmp_path):
    with pytest.raises(ValueError, match="unseen part of ucf101 holds no class"):
        few_shot.draws(target, {"unseen": []}, tmp_path)
    with pytest.raises(ValueError, match="'BallBounce' is unknown; did you mean 'BallBouncing'"):
        few_shot.draws(target, {"seen": ["BallBounce"]}, tmp_path)
    gone = target.only(v for v in target.videos if v.label != "BallBouncing")
    with pytest.raises(ValueError, match="no seen class of ucf101 has a training video"):
        few_shot.draws(gone, {"seen": ["BallBouncing"]}, tmp_path)
    with pytest.raises(ValueError, match=r"no test video belongs to the classes \[77\]"):
        few_shot.of_classes(probe_features(target).clip, torch.tensor([77]))


@pytest.mark.parametrize("text", ["", "5,ten", "0,5", "5,101", "nan"])
def test_shares_that_are_no_percentages_are_an_error(text):
    assert few_shot.percentages("20, 5,2.5") == (2.5, 5, 20)
    with pytest.raises(ValueError, match=r"write percentages in \(0, 100\]"):
        few_shot.percentages(text)


# ---- over seeds, figures, words ---------------------------------------------------------------


def row(method, value, seed=0, part="seen", percent=5, half=2.0, **more):
    base = {"task": "few-shot", "metric": "top1", "level": "video", "dataset": "ucf101", "n": 40,
            "chance": 10.0, "profile": "demo", "run": method, "data": "x"}  # fmt: skip
    return vars(results.Row(
        method=method, value=value, low=value - half, high=value + half, seed=seed,
        split=f"{part}, {percent:g} %", **{**base, **more},
    ))  # fmt: skip


def test_the_interval_over_seeds_is_students_or_the_videos_whichever_is_wider():
    rows = results.frame(row("xid", v, seed) for seed, v in enumerate([40.0, 50.0, 60.0]))
    (mean,) = few_shot.over_seeds(rows).to_dict("records")
    half = 4.302653 * 10 / 3**0.5  # t of two degrees of freedom
    assert (mean["value"], mean["seeds"]) == (50, 3)
    assert mean["low"] == pytest.approx(50 - half) and mean["high"] == pytest.approx(50 + half)
    wide = results.frame(row("xid", 50.0 + seed, seed, half=30) for seed in range(3))
    (mean,) = few_shot.over_seeds(wide).to_dict("records")
    assert (mean["low"], mean["high"]) == (21, 81)
    (single,) = few_shot.over_seeds(rows[:1]).to_dict("records")
    assert (single["low"], single["high"], single["seeds"]) == (38, 42, 1)


def test_differences_are_taken_seed_by_seed():
    values = [(30.0, 35.0), (60.0, 65.0), (90.0, 95.0)]
    rows = results.frame(
        row(m, v, seed)
        for seed, pair in enumerate(values)
        for m, v in zip(["supervised", "xid"], pair, strict=True)
    )
    (gap,) = few_shot.gaps(rows).to_dict("records")
    assert gap["value"] == 5 and gap["high"] - gap["value"] == pytest.approx(8**0.5)
    assert (gap["method"], gap["percent"], gap["seeds"]) == ("xid", 5, 3)
    with pytest.raises(ValueError, match="'supervised', which was not measured"):
        few_shot.gaps(rows[rows["method"] == "xid"])


@pytest.fixture(scope="module")
def published():
    return results.select(results.published(), task="few-shot", dataset="ucf101")


@pytest.fixture(scope="module")
def ours():
    """Three methods, both levels and metrics, two shares, three seeds."""
    height = {"random": 8.0, "supervised": 30.0, "xid": 45.0}
    return results.frame(
        row(m, v + percent / 5 + seed, seed, part, percent, level=level, metric=metric)
        for m, v in height.items() for part in class_splits.PARTS for percent in (5, 100)
        for seed in range(3) for level in ("clip", "video") for metric in ("top1", "top5")
    )  # fmt: skip


def test_the_published_boxes_are_all_there(published):
    table = few_shot.over_seeds(published)
    assert len(table) == 40 and table["low"].isna().all()
    one = table[
        (table["level"] == "video") & (table["metric"] == "top1") & (table["part"] == "seen")
    ]
    assert one["value"].tolist() == [5.32, 8.82, 14.67, 18.22, 20.85]


def test_the_figures_show_every_method_share_and_box(ours, published):
    means, theirs = few_shot.over_seeds(ours), few_shot.over_seeds(published)
    fig = report.plot_few_shot(means)
    assert len(fig.axes) == 8
    for ax in fig.axes:
        assert ax.get_yscale() == ax.get_xscale() == "log" and len(ax.containers) == 3
    nothing = means.assign(value=means["value"].where(means["method"] != "random", 0.0), low=0.0)
    assert len(report.plot_few_shot(nothing).axes[0].containers) == 3  # zero, on such an axis
    fig = report.plot_few_shot_gaps(few_shot.gaps(ours), means, theirs)
    assert all(len(ax.containers) == 2 for ax in fig.axes)  # supervised is the line at zero
    (ax,) = [a for a in fig.axes if a.get_title() == "unseen classes, clip level, top-5"]
    assert {t.get_text() for t in ax.texts} >= {"32.0", "51.0", "21.4", "76.4"}
    plt.close("all")


def test_words_follow_the_intervals(ours, published):
    means, theirs = few_shot.over_seeds(ours), few_shot.over_seeds(published)
    differences = few_shot.gaps(ours)
    assert "Student's t over three seeds" in report.describe_intervals(means)
    sides = report.gaps_table(differences)
    assert sides.loc[("unseen", "Random")].tolist() == [0, 8, 0, 8]
    assert sides.loc[("seen", "xID"), "above"] == 8
    said = report.describe_unseen(differences, means)
    assert said.startswith("On either half, xID leads Supervised by 15 points and Random trails it")
    assert "No method's lead or lag on unseen classes can be told apart" in said
    assert "xID needs 100 % of them on either half" in said
    alone = means[means["method"] == "xid"]
    said = report.describe_unseen(differences.iloc[:0], alone)
    assert said.startswith("Only one method was evaluated")
    more = differences.assign(
        low=differences["low"].where(differences["part"] == "seen", 40), high=99
    ).assign(high=lambda t: t["high"].where(t["part"] == "unseen", 20))
    said = report.describe_unseen(more, means)
    assert "Against Supervised, Random and xID do better on unseen than on seen classes." in said
    said = report.describe_halves(means, theirs)
    assert "47\xa0% on unseen and 21\xa0% on seen classes in the thesis" in said
    table = report.few_shot_table(means, theirs)
    assert table.loc[("seen", "5"), "Supervised, thesis"] == "5.32"
    assert table.loc[("seen", "5"), "Random"] == "10.0 [7.5,\xa012.5]"
    assert isinstance(table, pd.DataFrame) and len(table) == 4
