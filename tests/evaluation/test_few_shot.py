"""Few-shot probes: draws, labels within the classes of a part, rows."""

import itertools
from collections import Counter

import pytest
import torch

from avnb.config import Evaluation
from avnb.data.manifest import Manifest
from avnb.evaluation import few_shot, probe
from avnb.evaluation.features import Features

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


def test_probes_of_a_part_are_trained_on_its_draw_and_tested_on_all_its_videos(target, classes):
    centre = 3 * torch.randn(40, 6, generator=torch.Generator().manual_seed(99))
    known, rng = {}, torch.Generator().manual_seed(2)
    for name, split, clips in (("train", "train", 3), ("clip", "test", 4), ("video", "test", 2)):
        label = torch.tensor(target.split(split).labels)
        x = centre[label][:, None] + torch.randn(len(label), clips, 6, generator=rng)
        known[name] = Features(video=x, audio=x[..., :0], label=label)
    train, test, seeds = known["train"], known["video"], (3, 4)
    for labels, videos in few_shot.draws(target, classes, [40, 100], range(3, 5)).values():
        own = {"classes": labels, "videos": videos}
        fitted = probe.fit_probes(None, target, known, QUICK, seeds, **own)
        for seed, rows, ((layer, _), tested) in zip(seeds, videos, fitted, strict=True):
            found = probe.scored(layer, tested, QUICK, labels, task="", method="", dataset="")
            number = torch.searchsorted(labels, train.label[rows])
            alone, _ = probe.fit(train.video[rows], number, len(labels), QUICK.changed(seed=seed))
            shown = torch.isin(test.label, labels)
            best = labels[alone(test.video[shown]).softmax(-1).mean(1).argmax(1)]
            row = next(r for r in found if (r.level, r.metric) == ("video", "top1"))
            right = (best == test.label[shown]).double().mean().item()
            assert row.value == pytest.approx(100 * right) and row.value > 70
            assert row.n == shown.sum()
