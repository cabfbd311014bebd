"""Linear probes: what they learn, in what order, on which clips, and how they are scored."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from avnb.config import PROTOCOLS, Evaluation
from avnb.data.clips import VideoClips
from avnb.data.manifest import Manifest
from avnb.evaluation import features, linear, probe, results
from avnb.evaluation.features import EncoderSource, Features, FrozenEncoders, untrained_source
from avnb.evaluation.linear import Probe, Training
from avnb.evaluation.probe import ProbeFeatures, clip_level, probabilities, top_k, video_level
from avnb.profiles import PROFILES, Workspace
from tests.conftest import with_values

IDENTITY = Probe(weight=torch.eye(3), bias=torch.zeros(3))
QUICK = Evaluation(probe_epochs=7, probe_lr=1e-2, probe_batch=8)


# ---- scores -------------------------------------------------------------------------------------


def test_top_k_on_a_matrix_to_check_by_eye():
    scores = torch.tensor([[3.0, 2, 1], [1, 3, 2], [1, 2, 3]])
    label = torch.tensor([0, 2, 0])
    assert top_k(scores, label, 1).tolist() == [True, False, False]
    assert top_k(scores, label, 2).tolist() == [True, True, False]
    assert top_k(scores, label, 5).all()  # fewer classes than k


def test_clip_level_counts_clips_and_video_level_averages_softmax():
    # one video of class 0: two clips barely right, one certainly wrong
    clips = torch.tensor([[[1.0, 0.9, 0], [1.0, 0.9, 0], [0, 9.0, 0]]])
    label = torch.tensor([0])
    assert clip_level(IDENTITY, clips, label, 1).item() == pytest.approx(2 / 3)
    assert video_level(IDENTITY, clips, label, 1).item() == 0
    assert video_level(IDENTITY, clips[:, :2], label, 1).item() == 1
    # the mean of probabilities, not the softmax of mean logits
    found = probabilities(IDENTITY, torch.tensor([[[math.log(3.0), 0, 0], [0, 0, 0]]]))
    assert found[0].tolist() == pytest.approx([(0.6 + 1 / 3) / 2, (0.2 + 1 / 3) / 2, 4 / 15])


def test_a_confusion_matrix_to_check_by_eye():
    label, taken = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 2, 1, 2])
    assert probe.confusion(taken, label, 3).tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]


def test_rows_have_both_levels_and_metrics_with_the_chance_of_guessing():
    clips = {"clip": torch.eye(8)[:, None], "video": torch.eye(8)[:, None].roll(1, 0)}
    rows = probe.accuracies(
        torch.nn.Identity(), clips, torch.arange(8), Evaluation(seed=3), classes=8, task="probe",
        method="xid", dataset="ucf101",
    )  # fmt: skip
    found = {(row.level, row.metric): row for row in rows}
    assert {key: row.chance for key, row in found.items()} == {
        ("clip", "top1"): 12.5, ("clip", "top5"): 62.5,
        ("video", "top1"): 12.5, ("video", "top5"): 62.5,
    }  # fmt: skip
    assert (found["clip", "top1"].value, found["video", "top1"].value) == (100, 0)
    assert {(row.n, row.seed) for row in rows} == {(8, 3)}
    three = torch.eye(3)[:, None]
    rows = probe.accuracies(
        torch.nn.Identity(), {"clip": three}, torch.arange(3), QUICK, classes=3,
        task="probe", method="xid", dataset="ucf101",
    )  # fmt: skip
    assert [row.chance for row in rows] == pytest.approx([100 / 3, 100])


# ---- training -----------------------------------------------------------------------------------


def blobs(seed=0, videos=90, clips=4, classes=3, width=6):
    """Clips around a centre of their class."""
    g = torch.Generator().manual_seed(seed)
    label = torch.arange(videos) % classes
    centre = 4 * F.one_hot(label, width).float()
    return centre[:, None] + torch.randn(videos, clips, width, generator=g), label


def by_hand(one: Training, config: Evaluation):
    """A layer and its losses, with a loop over epochs and batches as a person would write it."""
    rng = torch.Generator().manual_seed(one.seed)
    width, bound = one.features.shape[2], one.features.shape[2] ** -0.5
    weight = torch.empty(one.classes, width).uniform_(-bound, bound, generator=rng)
    bias = torch.zeros(one.classes)
    adam = torch.optim.Adam([weight.requires_grad_(), bias.requires_grad_()])
    videos, clips, losses = len(one.videos), one.features.shape[1], []
    for epoch in range(config.probe_epochs):
        if epoch % clips == 0:
            turn = torch.rand(videos, clips, generator=rng).argsort(dim=1)
        order, total = torch.randperm(videos, generator=rng), 0.0
        passed = sum(epoch / config.probe_epochs >= share for share in (0.4, 0.6, 0.8))
        adam.param_groups[0]["lr"] = config.probe_lr * 0.3**passed
        for rows in order.split(config.probe_batch):
            x = one.features[one.videos[rows], turn[rows, epoch % clips]]
            loss = F.cross_entropy(x @ weight.T + bias, one.label[rows])
            adam.zero_grad()
            loss.backward()
            adam.step()
            total += loss.item() * len(rows)
        losses.append(total / videos)
    return weight.detach(), bias.detach(), losses


@pytest.fixture(scope="module")
def some_trainings():
    """Layers of other lengths, classes, seeds, widths and clips; batches that are not full."""
    made = []
    for i, (videos, clips, classes, width) in enumerate(
        [(40, 3, 4, 6), (3, 3, 2, 6), (17, 10, 5, 6), (40, 3, 2, 6), (16, 7, 3, 9), (1, 2, 1, 6)]
    ):
        x, label = blobs(i, 60, clips, classes, width)
        rows = torch.randperm(60, generator=torch.Generator().manual_seed(i))[:videos]
        made.append(Training(features=x, videos=rows, label=label[rows], classes=classes, seed=i))
    return made


@pytest.mark.parametrize("together", [1, 4, 20])
def test_every_layer_of_a_batch_is_what_it_is_alone_and_by_hand(some_trainings, together):
    fitted = linear.fit_together(some_trainings, QUICK, together=together)
    for one, (layer, losses) in zip(some_trainings, fitted, strict=True):
        weight, bias, curve = by_hand(one, QUICK)
        torch.testing.assert_close(layer.weight, weight, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(layer.bias, bias, atol=2e-5, rtol=1e-4)
        assert losses == pytest.approx(curve, rel=1e-4, abs=1e-6)
    one = some_trainings[0]
    alone, _ = linear.fit_together([one], QUICK)[0]
    torch.testing.assert_close(fitted[0][0].weight, alone.weight, atol=2e-5, rtol=1e-4)


def test_a_batch_has_layers_of_one_width_and_one_number_of_steps(some_trainings, monkeypatch):
    stacks, fit = [], linear.fit_stack
    monkeypatch.setattr(
        linear, "fit_stack", lambda ones, config: stacks.append(len(ones)) or fit(ones, config)
    )
    linear.fit_together(some_trainings * 2, QUICK, together=3)
    assert sorted(stacks) == [1, 1, 2, 2, 3, 3]


def test_a_probe_learns_what_is_linearly_separable_and_nothing_from_noise():
    x, label = blobs()
    config = Evaluation(probe_lr=1e-2)
    layer, losses = probe.fit(x, label, 3, config)
    assert losses[-1] < 0.2 < losses[0] and len(losses) == 50
    test, test_label = blobs(1)
    assert clip_level(layer, test, test_label, 1).mean() > 0.97
    noise = torch.randn(90, 4, 6, generator=torch.Generator().manual_seed(5))
    layer, _ = probe.fit(noise, label, 3, config)
    assert clip_level(layer, noise.flip(0), label, 1).mean() < 0.5


def test_the_same_seed_gives_the_same_probe():
    x, label = blobs()
    layers = [probe.fit(x, label, 3, replace(QUICK, seed=s))[0] for s in (1, 1, 2)]
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert not torch.equal(layers[0].weight, layers[2].weight)


def test_every_clip_is_shown_once_before_any_is_shown_again():
    rng = torch.Generator().manual_seed(0)
    shown = torch.full((8, 5), -1)
    for epoch, (order, clip) in enumerate(linear.epoch_orders(5, 4, 8, rng)):
        assert sorted(order.tolist()) == list(range(5))
        shown[epoch, order] = clip
    for half in (shown[:4], shown[4:]):
        assert half.sort(dim=0).values.T.tolist() == 5 * [[0, 1, 2, 3]]


# ---- both protocols -----------------------------------------------------------------------------


@pytest.fixture
def few(manifests):
    """Ten training and three test videos of UCF-101."""
    whole = Manifest.load(manifests / "ucf101")
    return whole.only((*whole.split("train").videos[:10], *whole.split("test").videos[:3]))


@pytest.fixture
def config():
    values = PROFILES["smoke"]["evaluation"]
    return Evaluation.from_flat(**{**values, "probe_epochs": 3, "resize_px": 20})


@pytest.fixture
def several(tiny, tmp_path):
    """Two encoders that see the same clips, and one that sees larger frames."""
    runs = [tiny, with_values(tiny, seed=1), with_values(tiny, frame_px=24)]
    return {name: untrained_source(r, tmp_path) for name, r in zip("abc", runs, strict=True)}


def test_a_fresh_clip_of_every_video_is_read_in_every_epoch(several, few, config, monkeypatch):
    load, plans = probe.load, []
    monkeypatch.setattr(
        probe, "load", lambda clips, plan, **kw: plans.append(plan) or load(clips, plan, **kw)
    )
    frozen, train = FrozenEncoders(several["a"]), few.split("train")
    config = replace(config, probe_batch=4)
    layer, losses = probe.fit_fresh(frozen, train, config, workers=0)
    assert [len(places) for places in plans[0]] == 3 * [4, 4, 2]
    read = [place for places in plans[0] for place in places]
    assert sorted(read) == [(epoch, row, 0) for epoch in range(3) for row in range(10)]
    assert [row for _, row, _ in read[:10]] != [row for _, row, _ in read[10:20]]  # shuffled
    assert len(losses) == 3 and layer.weight.shape == (len(few.classes), 32)
    again, _ = probe.fit_fresh(frozen, train, config, workers=0)
    assert torch.equal(layer.weight, again.weight)
    # The same clips as cached features, shown in the same order, give the same layer.
    sampling = replace(probe.samplings(several["a"].config, config)["train"], count=1)
    clips = [VideoClips(train, sampling, seed=config.seed).whole(v, e) for v in range(10)
             for e in range(3)]  # fmt: skip
    rows = [frozen.encode(one, audio=False, at_once=1)["video"] for one in clips]
    monkeypatch.setattr(
        linear, "epoch_orders",
        lambda v, c, epochs, rng: [
            (torch.randperm(v, generator=rng), torch.full((v,), e)) for e in range(epochs)
        ],
    )  # fmt: skip
    cached = torch.cat(rows).unflatten(0, (10, 3))
    same, curve = probe.fit(cached, torch.tensor(train.labels), len(few.classes), config)
    torch.testing.assert_close(layer.weight, same.weight, atol=1e-4, rtol=1e-3)
    assert losses == pytest.approx(curve, rel=1e-3)


def test_videos_are_read_once_for_all_that_see_the_same(
    several, few, config, monkeypatch, tmp_path
):
    read, loader = [], features.video_batches
    monkeypatch.setattr(
        features, "video_batches", lambda c, *a, **kw: read.append(len(c)) or loader(c, *a, **kw)
    )
    found = probe.extract_each(several, few, config, tmp_path / "together", workers=0)
    assert sorted(read) == [3, 3, 3, 3, 10, 10]
    alone = probe.extract_each({"b": several["b"]}, few, config, tmp_path / "alone", workers=0)
    for part in ("train", "clip", "video"):
        one, other = getattr(found["b"], part), getattr(alone["b"], part)
        assert torch.equal(one.video, other.video) and torch.equal(one.label, other.label)
    assert found["b"].train.video.shape == (10, 2, 32)
    assert not torch.equal(found["a"].train.video, found["b"].train.video)
    read.clear()
    fresh = replace(config, probe_clips="fresh")
    found = probe.extract_each(several, few, fresh, tmp_path / "together", workers=0)
    assert not read and found["a"].train is None


def statistics(frozen):
    return {k: v.clone() for k, v in frozen.state_dict().items() if "running" in k}


def test_frozen_statistics_stay_and_moving_ones_become_those_of_the_target(several, few, config):
    frozen, train = FrozenEncoders(several["a"]), few.split("train")
    before, weights = statistics(frozen), [p.clone() for p in frozen.parameters()]
    fresh = replace(config, probe_clips="fresh")
    still, _ = probe.fit_fresh(frozen, train, fresh, workers=0)
    assert all(torch.equal(statistics(frozen)[k], before[k]) for k in before)
    moving = replace(fresh, probe_batch_norm="train")
    moved, _ = probe.fit_fresh(frozen, train, moving, workers=0)
    after = statistics(frozen)
    video = [k for k in before if k.startswith("video_encoder")]
    assert video and not any(torch.equal(after[k], before[k]) for k in video)
    assert all(torch.equal(after[k], before[k]) for k in before.keys() - {*video})
    assert not frozen.training and not torch.equal(still.weight, moved.weight)
    for p, w in zip(frozen.parameters(), weights, strict=True):
        assert torch.equal(p, w)
    # The statistics of the first layer, by hand: three epochs of one batch of ten clips.
    first = FrozenEncoders(several["a"])
    sampling = replace(probe.samplings(first.source.config, config)["train"], count=1)
    clips, wanted = VideoClips(train, sampling, seed=config.seed), torch.zeros(4)
    for epoch in range(3):
        frames = torch.cat([clips.whole(row, epoch).frames for row in range(10)])
        with torch.no_grad():
            x = first.video_encoder.stem[0](first.transform.video(frames))
        wanted = 0.9 * wanted + 0.1 * x.mean(dim=(0, 2, 3, 4))
    torch.testing.assert_close(
        after["video_encoder.stem.1.running_mean"], wanted, rtol=1e-4, atol=1e-5
    )


def test_what_is_tested_under_moved_statistics_is_encoded_with_them(several, few, config, tmp_path):
    work = Workspace("smoke", tmp_path, {})
    author = config.changed(protocol="author", **PROTOCOLS["author"])
    rows, _, tested = probe.probe_rows({"a": several["a"]}, few, author, work)
    usual, _, found = probe.probe_rows({"a": several["a"]}, few, config, work)
    assert set(rows["protocol"]) == {"author"} and set(usual["protocol"]) == {"thesis"}
    assert len(results.read(work.results)) == len(rows) + len(usual)
    for part in ("clip", "video"):
        one, other = getattr(tested["a"], part), getattr(found["a"], part)
        assert one.video.shape == other.video.shape and torch.equal(one.label, other.label)
        assert not torch.allclose(one.video, other.video, atol=1e-3)


def test_a_protocol_sets_what_is_not_given_and_rows_say_what_differs():
    author = Evaluation.from_flat(protocol="author")
    assert {name: getattr(author, name) for name in PROTOCOLS["author"]} == PROTOCOLS["author"]
    assert author.protocol_title == "author" and Evaluation().protocol_title == "thesis"
    given = Evaluation.from_flat(protocol="author", flip_prob=0.0)
    assert given.protocol_title == "author, flip_prob 0.0" and given.interpolation == "nearest"
    assert Evaluation.from_flat(**given.flat()) == given
    with pytest.raises(ValueError, match="set probe_clips to 'fresh'"):
        Evaluation.from_flat(probe_batch_norm="train")


def test_every_choice_is_measured_with_its_time(several, few, config, tmp_path):
    work = Workspace("smoke", tmp_path, {})
    both = {name: replace(several[key], method=name) for name, key in (("xid", "a"), ("own", "b"))}
    usual, _, _ = probe.probe_rows(both, few, config, work, split="test2")
    rows = probe.choice_rows(both, few, config.changed(probe_epochs=2), work, split="test2")
    kept = results.select(results.read(work.results), task="probe")  # still the last of these
    assert kept["value"].tolist() == usual["value"].tolist()
    titles = [config.changed(**c).protocol_title for c in probe.CHOICES.values()]
    assert rows["protocol"].unique().tolist() == titles and len(set(titles)) == 6
    assert set(rows["split"]) == {"test2"} and set(rows["task"]) == {"protocol"}
    timed = rows["metric"] == "seconds"
    assert (rows[timed]["value"] > 0).all() and timed.sum() == 12
    assert set(rows[~timed]["n"]) == {3} and rows[~timed].eval("low <= value <= high").all()


def test_clips_are_sampled_as_the_values_say(tiny, config, few):
    plain = probe.samplings(tiny, config)
    assert [plain[part].count for part in ("train", "clip", "video")] == [2, 2, 3]
    assert [plain[part].place for part in ("train", "clip", "video")] == 2 * ["random"] + [
        "uniform"
    ]
    assert [plain[part].random_crop for part in ("train", "clip", "video")] == [True, False, False]
    assert not any(s.audio or s.flip_prob for s in plain.values())
    author = probe.samplings(tiny, config.changed(flip_prob=0.5, interpolation="nearest"))
    assert [author[part].flip_prob for part in ("train", "clip")] == [0.5, 0]
    assert {s.interpolation for s in author.values()} == {"nearest"}
    assert config.resized_px(tiny.clip) == 20
    assert config.resized_px(with_values(tiny, frame_px=224).clip) == 256
    seen, mirrored = (
        VideoClips(few, replace(plain["video"], flip_prob=share), seed=0).whole(0).frames
        for share in (0, 1)
    )
    assert torch.equal(seen.flip(-1), mirrored) and not torch.equal(seen, mirrored)


def test_every_seed_has_its_probe_and_its_rows(manifests, tiny, tmp_path, monkeypatch):
    manifest = Manifest.load(manifests / "ucf101")
    x, label = blobs()
    part = Features(video=x, audio=x[..., :0], label=label)
    known = {"xid": ProbeFeatures(train=part, clip=part, video=part)}
    monkeypatch.setattr(probe, "extract_each", lambda *_: known)
    source = EncoderSource(method="xid", name="xid-1", checkpoint=Path("nowhere"), config=tiny)
    config = Evaluation(seed=4, probe_lr=1e-2, probe_epochs=5)
    work = Workspace("smoke", tmp_path, {})
    rows, fitted, found = probe.probe_rows({"xid": source}, manifest, config, work, seeds=3)
    assert found == known and len(results.read(work.results)) == len(rows)
    assert rows["seed"].tolist() == 4 * [4] + 4 * [5] + 4 * [6]
    same = rows[["method", "run", "n", "protocol", "profile"]].drop_duplicates()
    assert same.values.tolist() == [["xid", "xid-1", 90, "thesis", "smoke"]]
    classes = len(manifest.classes)
    assert rows["chance"].iloc[:2].tolist() == pytest.approx([100 / classes, 500 / classes])
    probes = [layer for layer, _ in fitted["xid"]]
    assert not torch.equal(probes[0].weight, probes[1].weight)
    with pytest.raises(ValueError, match="seeds = 0"):
        probe.probe_rows({"xid": source}, manifest, config, work, seeds=0)
