"""Linear probes: what they learn, in what order, on which clips, and how they are scored."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from avnb.config import PROTOCOLS, Evaluation, Pretrain
from avnb.data.clips import VideoClips
from avnb.data.manifest import Manifest
from avnb.evaluation import probe
from avnb.evaluation.features import Features, FrozenEncoders, untrained_source
from avnb.evaluation.probe import clip_level, probabilities, top_k, video_level
from avnb.profiles import PROFILES
from tests.conftest import with_values

IDENTITY = torch.nn.Identity()
QUICK = Evaluation(probe_epochs=7, probe_lr=1e-2, probe_batch=8)


def test_top_k_on_a_matrix_to_check_by_eye():
    scores = torch.tensor([[3.0, 2, 1], [1, 3, 2], [1, 2, 3]])
    label = torch.tensor([0, 2, 0])
    assert top_k(scores, label, 1).tolist() == [True, False, False]
    assert top_k(scores, label, 2).tolist() == [True, True, False]


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


def parts(*clips, label):
    both = zip(("clip", "video"), clips, strict=True)
    return {part: Features(video=x, audio=x[..., :0], label=label) for part, x in both}


def test_rows_have_both_levels_and_metrics_with_the_chance_of_guessing():
    eye, about = torch.eye(8)[:, None], {"task": "probe", "method": "xid", "dataset": "ucf101"}
    given = parts(eye, eye.roll(1, 0), label=torch.arange(8))
    rows = probe.scored(IDENTITY, given, Evaluation(seed=3), torch.arange(8), **about)
    assert [(row.level, row.metric, row.chance) for row in rows] == [
        ("clip", "top1", 12.5), ("clip", "top5", 62.5),
        ("video", "top1", 12.5), ("video", "top5", 62.5),
    ]  # fmt: skip
    assert (rows[0].value, rows[2].value) == (100, 0)
    assert {(row.n, row.seed) for row in rows} == {(8, 3)}
    # Of some classes alone: their test videos, labels counted among them.
    some, layer = torch.tensor([2, 5, 6]), lambda x: x[..., [2, 5, 6]]
    rows = probe.scored(layer, given, QUICK, some, **about)
    assert [row.metric for row in rows] == ["top1", "top1"]  # of five classes or fewer
    assert rows[0].value == 100 and {row.n for row in rows} == {3}
    # Always answering the largest class, or the five largest, is right so often.
    given = parts(eye, eye, label=torch.tensor([0, 0, 0, 1, 1, 2, 6, 7]))
    rows = probe.scored(IDENTITY, given, QUICK, torch.arange(8), **about)
    assert [row.chance for row in rows[:2]] == [37.5, 100]


def blobs(seed=0, videos=90, clips=4, classes=3, width=6):
    """Clips around a centre of their class."""
    g = torch.Generator().manual_seed(seed)
    label = torch.arange(videos) % classes
    centre = 4 * F.one_hot(label, width).float()
    return centre[:, None] + torch.randn(videos, clips, width, generator=g), label


def by_hand(x, label, classes, config, videos, seed):
    """A layer and its losses, with a loop over epochs and batches as a person would write it."""
    rng, (_, clips, width) = torch.Generator().manual_seed(seed), x.shape
    bound = width**-0.5
    weight = torch.empty(classes, width).uniform_(-bound, bound, generator=rng)
    bias = torch.zeros(classes)
    adam = torch.optim.Adam([weight.requires_grad_(), bias.requires_grad_()])
    count, losses = len(videos), []
    for epoch in range(config.probe_epochs):
        if epoch % clips == 0:
            turn = torch.rand(count, clips, generator=rng).argsort(dim=1)
        order, total = torch.randperm(count, generator=rng), 0.0
        passed = sum(epoch / config.probe_epochs >= share for share in (0.4, 0.6, 0.8))
        adam.param_groups[0]["lr"] = config.probe_lr * 0.3**passed
        for rows in order.split(config.probe_batch):
            shown = videos[rows]
            loss = F.cross_entropy(
                x[shown, turn[rows, epoch % clips]] @ weight.T + bias, label[shown]
            )
            adam.zero_grad()
            loss.backward()
            adam.step()
            total += loss.item() * len(rows)
        losses.append(total / count)
    return weight.detach(), bias.detach(), losses


def tensors(layer):
    return layer.keywords["weight"], layer.keywords["bias"]


close = partial(torch.testing.assert_close, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("count, clips, classes", [(40, 3, 4), (17, 10, 5), (1, 2, 1), (16, 7, 3)])
def test_every_layer_of_a_batch_is_what_it_is_alone_and_by_hand(count, clips, classes):
    """Of other videos and seeds; last batches that are full and that are not."""
    x, label = blobs(0, 60, clips, classes)
    seeds = [3, 4, 11]
    videos = torch.stack([torch.randperm(60)[:count] for _ in seeds])
    train = partial(probe.fit_together, x, label, classes, QUICK)
    fitted = train(videos=videos, seeds=seeds)
    for row, (layer, losses) in enumerate(fitted):
        *expected, curve = by_hand(x, label, classes, QUICK, videos[row], seeds[row])
        ((alone, _),) = train(videos=videos[[row]], seeds=[seeds[row]])
        for found, hand, one in zip(tensors(layer), expected, tensors(alone), strict=True):
            close(found, hand)
            close(found, one)
        assert losses == pytest.approx(curve, rel=1e-4, abs=1e-6)


def test_every_clip_is_shown_once_before_any_is_shown_again():
    rng = torch.Generator().manual_seed(0)
    shown = torch.full((8, 5), -1)
    for epoch, (order, clip) in enumerate(probe.epoch_orders(5, 4, 8, rng)):
        assert sorted(order.tolist()) == list(range(5))
        shown[epoch, order] = clip
    for half in (shown[:4], shown[4:]):
        assert half.sort(dim=0).values.T.tolist() == 5 * [[0, 1, 2, 3]]


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
def source(tiny, tmp_path):
    return untrained_source(tiny, tmp_path)


def run_sampling(source, config):
    return replace(probe.run_samplings(source.config, config)["train"], count=1)


def test_a_fresh_clip_of_every_video_is_read_in_every_epoch(source, few, config, monkeypatch):
    load, plans = probe.load, []
    monkeypatch.setattr(probe, "load", lambda clips, plan: plans.append(plan) or load(clips, plan))
    frozen, train = FrozenEncoders(source), few.split("train")
    config, classes = replace(config, probe_batch=4), torch.arange(len(few.classes))
    layer, losses = probe.fit_fresh(frozen, train, config, classes)
    assert [len(places) for places in plans[0]] == 3 * [4, 4, 2]
    read = [place for places in plans[0] for place in places]
    assert sorted(read) == [(epoch, row, 0) for epoch in range(3) for row in range(10)]
    assert [row for _, row, _ in read[:10]] != [row for _, row, _ in read[10:20]]  # shuffled
    # The same clips as cached features, shown in the same order, give the same layer.
    clips = VideoClips(train, run_sampling(source, config), seed=config.seed)
    rows = [frozen.encode(clips.whole(v, e))[0] for v in range(10) for e in range(3)]
    monkeypatch.setattr(
        probe, "epoch_orders",
        lambda v, c, epochs, rng: [
            (torch.randperm(v, generator=rng), torch.full((v,), e)) for e in range(epochs)
        ],
    )  # fmt: skip
    cached, label = torch.cat(rows).unflatten(0, (10, 3)), torch.tensor(train.labels)
    same, curve = probe.fit(cached, label, len(classes), config)
    torch.testing.assert_close(tensors(layer)[0], tensors(same)[0], atol=1e-4, rtol=1e-3)
    assert losses == pytest.approx(curve, rel=1e-3)


def test_training_clips_are_encoded_once_or_in_every_epoch(source, few, config, tmp_path):
    found = probe.probe_features(source, few, config, tmp_path)
    shapes = {part: tuple(x.video.shape) for part, x in found.items()}
    assert shapes == {"train": (10, 2, 32), "clip": (3, 2, 32), "video": (3, 3, 32)}
    fresh = probe.probe_features(source, few, replace(config, probe_clips="fresh"), tmp_path)
    assert fresh.keys() == {"clip", "video"}


def statistics(frozen):
    return {k: v.clone() for k, v in frozen.state_dict().items() if "running" in k}


def test_frozen_statistics_stay_and_moving_ones_become_those_of_the_target(source, few, config):
    frozen, train = FrozenEncoders(source), few.split("train")
    before, weights = statistics(frozen), [p.clone() for p in frozen.parameters()]
    fresh, classes = replace(config, probe_clips="fresh"), torch.arange(len(few.classes))
    still, _ = probe.fit_fresh(frozen, train, fresh, classes)
    assert all(torch.equal(statistics(frozen)[k], before[k]) for k in before)
    moving = replace(fresh, probe_batch_norm="train")
    moved, _ = probe.fit_fresh(frozen, train, moving, classes)
    after = statistics(frozen)
    video = [k for k in before if k.startswith("video_encoder")]
    assert video and not any(torch.equal(after[k], before[k]) for k in video)
    assert all(torch.equal(after[k], before[k]) for k in before.keys() - {*video})
    assert not frozen.training and not torch.equal(tensors(still)[0], tensors(moved)[0])
    for p, w in zip(frozen.parameters(), weights, strict=True):
        assert torch.equal(p, w)
    # The statistics of the first layer, by hand: three epochs of one batch of ten clips.
    first = FrozenEncoders(source)
    clips = VideoClips(train, run_sampling(first.source, config), seed=config.seed)
    wanted = torch.zeros(4)
    for epoch in range(3):
        frames = torch.cat([clips.whole(row, epoch).frames for row in range(10)])
        with torch.no_grad():
            x = first.video_encoder.stem[0](first.transform.video(frames))
        wanted = 0.9 * wanted + 0.1 * x.mean(dim=(0, 2, 3, 4))
    torch.testing.assert_close(
        after["video_encoder.stem.1.running_mean"], wanted, rtol=1e-4, atol=1e-5
    )


def test_the_protocol_decides_on_what_probes_are_trained_and_tested(
    source, few, config, tmp_path, monkeypatch
):
    """Of two seeds, and where videos and classes are given, of these."""
    author = config.changed(protocol="author", **PROTOCOLS["author"])
    known = {}
    for one in (config, author):
        known = probe.probe_features(source, few, one, tmp_path)
        probes = list(probe.fit_probes(source, few, known, one, [0, 1]))
        weights = [tensors(layer)[0] for (layer, _), _ in probes]
        assert not torch.equal(*weights)
        for _, tested in probes:
            for part in ("clip", "video"):
                same = torch.allclose(tested[part].video, known[part].video, atol=1e-3)
                assert same == (one is config)
                assert torch.equal(tested[part].label, known[part].label)
    asked, fit_fresh = [], probe.fit_fresh

    def watched(frozen, train, config, classes):
        asked.append(([v.id for v in train.videos], config.seed, classes.tolist()))
        return fit_fresh(frozen, train, config, classes)

    monkeypatch.setattr(probe, "fit_fresh", watched)
    train, videos = few.split("train").videos, torch.tensor([[1, 3], [2, 5]])
    own = {"videos": videos, "classes": torch.arange(len(few.classes))}
    list(probe.fit_probes(source, few, known, author, [7, 8], **own))
    assert [ids for ids, *_ in asked] == [[train[i].id for i in r] for r in videos.tolist()]
    assert [rest for _, *rest in asked] == [[s, own["classes"].tolist()] for s in (7, 8)]


def test_a_protocol_sets_what_is_not_given_and_rows_say_what_differs():
    author = Evaluation.from_flat(protocol="author")
    assert {name: getattr(author, name) for name in PROTOCOLS["author"]} == PROTOCOLS["author"]
    assert author.protocol_title == "author" and Evaluation().protocol_title == "thesis"
    given = Evaluation.from_flat(protocol="author", flip_prob=0.0)
    assert given.protocol_title == "author, flip_prob 0.0" and given.interpolation == "nearest"
    assert Evaluation.from_flat(**given.flat()) == given
    with pytest.raises(ValueError, match="set probe_clips to 'fresh'"):
        Evaluation.from_flat(probe_batch_norm="train")


def test_clips_are_sampled_as_the_values_say(tiny, config, few):
    plain = probe.run_samplings(tiny, config)
    assert [plain[part].count for part in ("train", "clip", "video")] == [2, 2, 3]
    assert [plain[part].place for part in ("train", "clip", "video")] == 2 * ["random"] + [
        "uniform"
    ]
    assert [plain[part].random_crop for part in ("train", "clip", "video")] == [True, False, False]
    assert not any(s.audio or s.flip_prob for s in plain.values())
    author = probe.run_samplings(tiny, config.changed(flip_prob=0.5, interpolation="nearest"))
    assert [author[part].flip_prob for part in ("train", "clip")] == [0.5, 0]
    assert {s.interpolation for s in author.values()} == {"nearest"}
    assert config.resized_px(tiny.clip) == 20
    assert config.resized_px(with_values(tiny, frame_px=224).clip) == 256
    seen, mirrored = (
        VideoClips(few, replace(plain["video"], flip_prob=share), seed=0).whole(0).frames
        for share in (0, 1)
    )
    assert torch.equal(seen.flip(-1), mirrored) and not torch.equal(seen, mirrored)


def test_neighbours_vote_by_their_cosine():
    train = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 2.0], [0, 1.0], [0.1, 1.0]])[:, None]
    label = torch.tensor([0, 0, 1, 1, 1])
    near = probe.nearest_neighbours(train, label, 3, k=3)
    found = near(torch.tensor([[[5.0, 0.1]], [[0.1, 5.0]]])).softmax(dim=-1)
    assert found.argmax(dim=-1).tolist() == [[0], [1]] and found[0, 0, 2] == 0
    cosine = F.normalize(torch.tensor([5.0, 0.1]), dim=0) @ F.normalize(train[:, 0], dim=1).T
    best = cosine.topk(3)
    votes = torch.zeros(3).index_add(0, label[best.indices], (best.values / 0.07).exp())
    assert torch.allclose(found[0, 0], votes / votes.sum())


def test_crops_are_those_of_whole_videos_alone():
    config = Evaluation(video_level_clips=10, video_level_crops=3)
    counts = {k: (s.count, s.crops) for k, s in probe.samplings(Pretrain().clip, config).items()}
    assert counts == {"train": (50, 1), "clip": (25, 1), "video": (30, 3)}
