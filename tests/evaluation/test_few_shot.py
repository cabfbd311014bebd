"""Few-shot probes: draws, labels within the classes of a part, rows, means and differences."""

import itertools
from collections import Counter

import pytest
import torch

from avnb.config import Evaluation
from avnb.data.manifest import Manifest
from avnb.evaluation import few_shot, linear, probe, results
from avnb.evaluation.features import EncoderSource, Features
from avnb.evaluation.probe import ProbeFeatures
from avnb.profiles import Workspace

QUICK = Evaluation(probe_epochs=7, probe_lr=0.3, probe_batch=8, bootstrap_resamples=50)
LABELS = ["run"] * 70 + ["YoYo"] * 3 + ["brush_hair"] * 41


# ---- draws --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "videos, percent, down, nearest",
    [(70, 5, 3, 4), (70, 10, 7, 7), (3, 5, 1, 1), (1, 50, 1, 1), (41, 20, 8, 8), (41, 100, 41, 41),
     (70, 0.1, 1, 1), (29, 100 * 7 / 29, 7, 7), (10, 14, 1, 1), (10, 16, 1, 2)],
)  # fmt: skip
def test_a_draw_is_rounded_and_holds_at_least_one_video(videos, percent, down, nearest):
    assert few_shot.draw_size(videos, percent) == down
    assert few_shot.draw_size(videos, percent, "nearest") == nearest


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_smaller_draws_are_part_of_larger_ones(seed):
    percents = (1, 5, 7.5, 10, 20, 50, 99, 100)
    drawn = [few_shot.drawn_rows(LABELS, percent, seed) for percent in percents]
    for small, large in itertools.pairwise(drawn):
        assert set(small) <= set(large)
    assert drawn[-1] == list(range(len(LABELS)))
    assert Counter(LABELS[i] for i in drawn[1]) == {"run": 3, "YoYo": 1, "brush_hair": 2}


def test_a_draw_depends_on_the_seed_and_not_on_the_other_classes():
    whole = few_shot.drawn_rows(LABELS, 20, seed=3)
    assert whole == few_shot.drawn_rows(LABELS, 20, seed=3) != few_shot.drawn_rows(LABELS, 20, 4)
    assert few_shot.drawn_rows(LABELS[:70], 20, seed=3) == [i for i in whole if i < 70]
    assert whole == sorted(whole) and whole[:14] != list(range(14))


@pytest.mark.parametrize("text", ["", "5,ten", "0,5", "5,101", "nan"])
def test_shares_that_are_no_percentages_are_an_error(text):
    assert few_shot.percentages("20, 5,2.5,100") == (2.5, 5, 20, 100)
    with pytest.raises(ValueError, match=r"write percentages in \(0, 100\]"):
        few_shot.percentages(text)


@pytest.fixture
def target(manifests) -> Manifest:
    return Manifest.load(manifests / "ucf101")


@pytest.fixture
def classes(target):
    return {"unseen": list(target.classes[::2]), "seen": list(target.classes[1::2])}


def test_draws_are_files_nested_and_of_their_own_classes(target, classes, tmp_path):
    drawn = few_shot.draws(target, classes, tmp_path, percents=(40, 100), seeds=(0, 1))
    assert [(d.seed, d.split) for d in drawn[:4]] == [
        (0, "unseen, 40 %"), (0, "seen, 40 %"), (0, "unseen, 100 %"), (0, "seen, 100 %"),
    ]  # fmt: skip
    files = sorted(tmp_path.glob("*/*-percent.csv"))
    assert len(files) == 4 and len({file.parent for file in files}) == 2 and len(drawn) == 8
    train = target.split("train")
    for few, all_of in ((drawn[0], drawn[2]), (drawn[1], drawn[3])):
        assert set(few.videos.tolist()) < set(all_of.videos.tolist())
        assert {train.videos[i].label for i in few.videos.tolist()} == set(classes[few.part])
        assert {train.labels[i] for i in all_of.videos.tolist()} == set(few.classes.tolist())
        assert few.classes.tolist() == sorted(few.classes.tolist())
    again = few_shot.drawn_rows([v.label for v in train.videos], 40, seed=1)
    assert sorted(torch.cat([drawn[4].videos, drawn[5].videos]).tolist()) == again
    rows = files[0].read_text().splitlines()
    assert rows[0] == "video,label" and rows[1].split(",")[0] in {v.id for v in train.videos}
    before = files[0].stat().st_mtime_ns
    repeated = few_shot.draws(target, classes, tmp_path, percents=(40, 100), seeds=(0, 1))
    assert all(torch.equal(a.videos, b.videos) for a, b in zip(drawn, repeated, strict=True))
    assert files[0].stat().st_mtime_ns == before
    files[0].write_text("video,label\n")
    with pytest.raises(ValueError, match=r"-percent\.csv was changed by hand"):
        few_shot.draws(target, classes, tmp_path, percents=(40, 100), seeds=(0, 1))


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


# ---- training and rows --------------------------------------------------------------------------


def probe_features(target, seed=0, apart=3.0):
    """Clips around a centre of their class."""
    centre = apart * torch.randn(40, 6, generator=torch.Generator().manual_seed(99))
    parts = {}
    for name, split, clips in (("train", "train", 3), ("clip", "test", 4), ("video", "test", 2)):
        label = torch.tensor(target.split(split).labels)
        noise = torch.randn(len(label), clips, 6, generator=torch.Generator().manual_seed(seed))
        video = centre[label][:, None] + noise
        parts[name] = Features(video=video, audio=video[..., :0], label=label)
    return ProbeFeatures(**parts)


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


def test_rows_are_complete_and_say_what_a_probe_alone_says(target, classes, tmp_path):
    drawn = few_shot.draws(target, classes, tmp_path, percents=(40, 100), seeds=(3, 4))
    known = {"random": probe_features(target, apart=0.0), "xid": probe_features(target, 2)}
    same = {"data": "synthetic:1", "dataset": "ucf101", "profile": "smoke"}
    metadata = {m: {"method": m, "run": f"{m}-1", **same} for m in known}
    rows = few_shot.measure(known, drawn, QUICK, metadata)
    table = results.frame(vars(row) for row in rows)
    assert len(table) == 2 * len(drawn) * 4  # none has another's identity
    assert set(table["split"]) == {f"{p}, {s} %" for p in classes for s in (40, 100)}
    assert set(table["seed"]) == {3, 4} and set(table["task"]) == {"few-shot"}
    assert table["chance"].unique().round(4).tolist() == [16.6667, 83.3333]
    for draw in drawn:
        one = few_shot.training(known["xid"].train, draw)
        ((layer, _),) = linear.fit_together([one], QUICK)
        video, label = few_shot.of_classes(known["xid"].video, draw.classes)
        right = 100 * probe.video_level(layer, video, label, 1).mean().item()
        about = {"method": "xid", "split": draw.split, "seed": draw.seed}
        found = results.select(table, **about, level="video", metric="top1")
        assert found["value"].item() == pytest.approx(right) and found["n"].item() == len(label)
    means = table[table["metric"] == "top1"].groupby("method")["value"].mean()
    assert means["random"] < 50 < 80 < means["xid"]


def source(tiny, folder):
    return {"xid": EncoderSource(method="xid", name="x", config=tiny, checkpoint=folder / "a.pt")}


def test_one_call_gives_the_rows_of_the_chapter(target, classes, tmp_path, monkeypatch, tiny):
    known = {"xid": probe_features(target)}
    monkeypatch.setattr(few_shot, "extract_each", lambda *_: known)
    work = Workspace("smoke", tmp_path, {})
    same = source(tiny, tmp_path), target, classes, QUICK, work
    rows = few_shot.few_shot_rows(*same, shares=(40, 100), seeds=2)
    assert rows.equals(results.read(work.results)) and set(rows["seed"]) == {0, 1}
    drawn = few_shot.draws(target, classes, tmp_path / "splits", percents=(40, 100), seeds=(0, 1))
    assert set(rows["split"]) == {draw.split for draw in drawn} and len(rows) == 4 * len(drawn)
    one = few_shot.few_shot_rows(*same, shares=(100,))
    assert set(one["seed"]) == {0} and len(results.read(work.results)) == len(rows)
    other = {"unseen": classes["seen"], "seen": classes["unseen"]}
    swapped = few_shot.few_shot_rows(same[0], target, other, QUICK, work, shares=(100,))
    assert set(swapped["data"]).isdisjoint(one["data"])  # other halves are other test data


def test_fresh_clips_train_a_layer_of_each_draw_on_its_own_videos(
    target, classes, tmp_path, monkeypatch, tiny
):
    asked, moved = [], []

    def fit_fresh(frozen, train, config, *, classes):
        asked.append(([v.id for v in train.videos], config.seed, classes.tolist()))
        return linear.Probe(weight=torch.zeros(len(classes), 6), bias=torch.zeros(len(classes))), []

    def tested_by(frozen, test, config):
        moved.append(len(test))
        return {"video": known["xid"].clip}

    known = {"xid": probe_features(target)}
    monkeypatch.setattr(few_shot, "extract_each", lambda *_: known)
    monkeypatch.setattr(few_shot, "FrozenEncoders", lambda source: torch.nn.Identity())
    monkeypatch.setattr(few_shot, "fit_fresh", fit_fresh)
    monkeypatch.setattr(few_shot, "tested_by", tested_by)
    work, config = Workspace("smoke", tmp_path, {}), QUICK.changed(probe_clips="fresh")
    few = source(tiny, tmp_path), target, classes
    few_shot.few_shot_rows(*few, config, work, shares=(40,), seeds=2)
    drawn = few_shot.draws(target, classes, tmp_path / "splits", percents=(40,), seeds=(0, 1))
    ids = [v.id for v in target.split("train").videos]
    assert asked == [([ids[i] for i in d.videos], d.seed, d.classes.tolist()) for d in drawn]
    assert not moved
    few_shot.few_shot_rows(*few, config.changed(probe_batch_norm="train"), work, shares=(40,))
    assert moved == 2 * [len(target.split("test"))]


# ---- over seeds ---------------------------------------------------------------------------------


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


def test_the_published_boxes_are_all_there():
    rows = results.select(results.published(), task="few-shot", dataset="ucf101")
    table = few_shot.over_seeds(rows)
    assert len(table) == 40 and table["low"].isna().all()
    one = table[
        (table["level"] == "video") & (table["metric"] == "top1") & (table["part"] == "seen")
    ]
    assert one["value"].tolist() == [5.32, 8.82, 14.67, 18.22, 20.85]
    assert one["percent"].tolist() == [5, 10, 20, 50, 100]
