"""Few-shot probes: draws, labels within the classes of a part, rows."""

import itertools
from collections import Counter

import pytest
import torch

from avnb.config import Evaluation
from avnb.data.manifest import Manifest
from avnb.evaluation import few_shot, probe, results
from avnb.evaluation.features import EncoderSource, Features
from avnb.profiles import Workspace

QUICK = Evaluation(probe_epochs=7, probe_lr=0.3, probe_batch=8, bootstrap_resamples=50)
LABELS = ["run"] * 70 + ["YoYo"] * 3 + ["brush_hair"] * 41


@pytest.mark.parametrize(
    "videos, percent, drawn",
    [(70, 5, 3), (70, 10, 7), (3, 5, 1), (1, 50, 1), (41, 20, 8), (41, 100, 41), (70, 0.1, 1),
     (29, 100 * 7 / 29, 7), (10, 14, 1), (10, 16, 1)],
)  # fmt: skip
def test_a_draw_is_rounded_down_and_holds_at_least_one_video(videos, percent, drawn):
    assert len(few_shot.drawn_rows(videos * ["run"], percent, seed=0)) == drawn


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


@pytest.fixture
def target(manifests) -> Manifest:
    return Manifest.load(manifests / "ucf101")


@pytest.fixture
def classes(target):
    return {"unseen": list(target.classes[::2]), "seen": list(target.classes[1::2])}


def test_draws_are_nested_and_of_their_own_classes(target, classes):
    drawn = few_shot.draws(target, classes, [40, 100], range(2))
    assert list(drawn) == [(part, percent) for percent in (40, 100) for part in classes]
    train = target.split("train")
    for (part, percent), (labels, videos) in drawn.items():
        assert [target.classes[i] for i in labels] == classes[part] and len(videos) == 2
        for seed, rows in enumerate(videos.tolist()):
            assert {train.videos[i].label for i in rows} == set(classes[part])
            assert set(rows) <= set(drawn[part, 100][1][seed].tolist())
            every = few_shot.drawn_rows([v.label for v in train.videos], percent, seed)
            assert rows == [i for i in every if train.labels[i] in labels]
    gone = target.only(v for v in target.videos if v.label != "BallBouncing")
    with pytest.raises(ValueError, match="no seen class of ucf101 has a training video"):
        few_shot.draws(gone, {"seen": ["BallBouncing"]}, [5], range(1))


def probe_features(target, seed=0, apart=3.0):
    """Clips around a centre of their class."""
    centre = apart * torch.randn(40, 6, generator=torch.Generator().manual_seed(99))
    parts = {}
    for name, split, clips in (("train", "train", 3), ("clip", "test", 4), ("video", "test", 2)):
        label = torch.tensor(target.split(split).labels)
        noise = torch.randn(len(label), clips, 6, generator=torch.Generator().manual_seed(seed))
        video = centre[label][:, None] + noise
        parts[name] = Features(video=video, audio=video[..., :0], label=label)
    return parts


def test_rows_are_complete_and_say_what_a_probe_alone_says(
    target, classes, tmp_path, monkeypatch, tiny
):
    known = {"random": probe_features(target, apart=0.0), "xid": probe_features(target, 2)}
    monkeypatch.setattr(probe, "probe_features", lambda source, *_: known[source.method])
    work, config = Workspace("smoke", tmp_path, {}), QUICK.changed(seed=3)
    sources = {
        m: EncoderSource(method=m, name=m, config=tiny, checkpoint=tmp_path / "a.pt") for m in known
    }
    drawn = few_shot.draws(target, classes, [40, 100], range(3, 5))
    table = few_shot.few_shot_rows(sources, target, drawn, config, work)
    assert table.equals(results.read(work.results))
    assert len(table) == 2 * 2 * len(drawn) * 4  # none has another's identity
    assert set(table["split"]) == {f"{p}, {s} %" for p in classes for s in (40, 100)}
    assert set(table["seed"]) == {3, 4} and set(table["task"]) == {"few-shot"}
    assert table["chance"].unique().round(4).tolist() == [16.6667, 83.3333]
    train, test = known["xid"]["train"], known["xid"]["video"]
    for (part, percent), (labels, videos) in drawn.items():
        number = {label: i for i, label in enumerate(labels.tolist())}
        shown = [row for row, label in enumerate(test.label.tolist()) if label in number]
        for seed, rows in zip((3, 4), videos, strict=True):
            own = torch.tensor([number[i] for i in train.label[rows].tolist()])
            layer, _ = probe.fit(train.video[rows], own, len(labels), QUICK.changed(seed=seed))
            right = layer(test.video[shown]).softmax(-1).mean(1).argmax(1)
            right = [number[int(i)] for i in test.label[shown]] == right.numpy()
            about = {"method": "xid", "split": f"{part}, {percent} %", "seed": seed}
            found = results.select(table, **about, level="video", metric="top1")
            assert found["value"].item() == pytest.approx(100 * right.mean())
            assert found["n"].item() == len(shown)
    means = table[table["metric"] == "top1"].groupby("method")["value"].mean()
    assert means["random"] < 50 < 80 < means["xid"]
    other = {"unseen": classes["seen"], "seen": classes["unseen"]}
    swapped = few_shot.draws(target, other, [100], range(3, 4))
    rows = few_shot.few_shot_rows(sources, target, swapped, config, work)
    assert set(rows["data"]).isdisjoint(table["data"])  # other halves are other test data
