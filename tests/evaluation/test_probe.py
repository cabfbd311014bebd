from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avnb import book as report
from avnb.book.wording import with_interval
from avnb.config import PROTOCOLS, Evaluation
from avnb.data.clips import VideoClips
from avnb.data.manifest import Manifest
from avnb.evaluation import features, probe, probe_choices, results
from avnb.evaluation.encoder_source import EncoderSource, untrained_source
from avnb.evaluation.features import Features, FrozenEncoders
from avnb.evaluation.probe import Probe, clip_level, top_k, video_level
from avnb.evaluation.probe_features import ProbeFeatures
from avnb.models.methods import parse_methods
from avnb.profiles import PROFILES, Workspace
from tests.conftest import with_values

IDENTITY = Probe(weight=torch.eye(3), bias=torch.zeros(3))


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


def blobs(seed=0):
    """Three classes in six dimensions, 30 videos of 4 clips each."""
    g = torch.Generator().manual_seed(seed)
    label = torch.arange(90) % 3
    centre = 4 * torch.nn.functional.one_hot(label, 6).float()
    return centre[:, None] + torch.randn(90, 4, 6, generator=g), label


def test_a_probe_learns_what_is_linearly_separable_and_nothing_from_noise():
    features, label = blobs()
    config = Evaluation.from_flat(probe_lr=1e-2)
    layer, losses = probe.fit(features, label, 3, config)
    assert losses[-1] < 0.2 < losses[0]
    test, test_label = blobs(1)
    assert clip_level(layer, test, test_label, 1).mean() > 0.97
    noise = torch.randn(90, 4, 6, generator=torch.Generator().manual_seed(5))
    layer, _ = probe.fit(noise, label, 3, config)
    assert clip_level(layer, noise.flip(0), label, 1).mean() < 0.5


def test_the_same_seed_gives_the_same_probe():
    features, label = blobs()
    layers = [probe.fit(features, label, 3, Evaluation(seed=s))[0] for s in (1, 1, 2)]
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert not torch.equal(layers[0].weight, layers[2].weight)


def test_rows_survive_the_file_and_a_second_measurement_replaces_the_first(tmp_path):
    row = {"task": "probe", "metric": "top1", "method": "xid", "dataset": "ucf101", "run": "a"}
    file = tmp_path / "rows.jsonl"
    results.append(
        file, [results.Row(value=1.0, **row), results.Row(value=5.0, **{**row, "run": "b"})]
    )
    results.append(file, [results.Row(value=2.0, **row)])
    assert sorted(results.read(file)["value"]) == [2.0, 5.0]
    file.write_text(file.read_text() + "{not a row\n")
    with pytest.raises(ValueError, match="line 4 is not a result row"):
        results.read(file)


def test_the_published_rows_hold_tables_4_3_and_a_1():
    rows = results.published()
    sizes = rows.groupby("task").size().to_dict()
    assert sizes["probe"] == 2 * 5 * 4 and sizes["retrieval"] == 8
    assert set(rows["source"]) == {"thesis"}
    one = results.select(rows, task="probe", method="xid", dataset="ucf101", level="video")
    assert dict(zip(one["metric"], one["value"], strict=True)) == {"top1": 51.2, "top5": 80.91}


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


def watched(monkeypatch, module):
    """The items that are read from now on."""
    read = []

    class Watched(VideoClips):
        def read(self, item, *into):
            read.append(item)
            super().read(item, *into)

    monkeypatch.setattr(module, "VideoClips", Watched)
    return read


def test_a_fresh_clip_of_every_video_is_read_in_every_epoch(several, few, config, monkeypatch):
    read = watched(monkeypatch, probe)
    frozen, train = FrozenEncoders(several["a"]), few.split("train")
    layer, losses = probe.fit_fresh(frozen, train, config, workers=0)
    assert sorted(read) == [(epoch, row, (0,)) for epoch in range(3) for row in range(10)]
    assert [row for _, row, _ in read[:10]] != [row for _, row, _ in read[10:20]]  # shuffled
    assert len(losses) == 3 and layer.weight.shape == (len(few.classes), 32)
    again, _ = probe.fit_fresh(frozen, train, config, workers=0)
    assert torch.equal(layer.weight, again.weight)


def test_videos_are_read_once_for_all_that_see_the_same(
    several, few, config, monkeypatch, tmp_path
):
    read = watched(monkeypatch, features)
    found = probe.extract_each(several, few, config, tmp_path / "together", workers=0)
    both_sizes = 2 * (10 + 3 + 3)
    assert len(read) == both_sizes
    one = {"b": several["b"]}
    alone = probe.extract_each(one, few, config, tmp_path / "alone", workers=0)["b"]
    for part in ("train", "clip", "video"):
        one, other = getattr(found["b"], part), getattr(alone, part)
        assert torch.equal(one.video, other.video) and torch.equal(one.label, other.label)
    assert found["b"].train.video.shape == (10, 2, 32)
    assert not torch.equal(found["a"].train.video, found["b"].train.video)
    read.clear()
    fresh = replace(config, probe_clips="fresh")
    found = probe.extract_each(several, few, fresh, tmp_path / "together", workers=0)
    assert not read and found["a"].train.video.shape == (10, 0, 32)
    with pytest.raises(ValueError, match=r"10 videos with 0 clips each .* `fit_fresh`"):
        probe.fit(found["a"].train.video, found["a"].train.label, 12, fresh)


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
    usual, _, features = probe.probe_rows({"a": several["a"]}, few, config, work)
    assert set(rows["protocol"]) == {"author"} and set(usual["protocol"]) == {"thesis"}
    assert len(results.read(work.results)) == len(rows) + len(usual)
    for part in ("clip", "video"):
        one, other = getattr(tested["a"], part), getattr(features["a"], part)
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
    with pytest.raises(ValueError, match="'authors' is unknown; did you mean 'author'"):
        Evaluation.from_flat(protocol="authors")


def test_every_choice_is_measured_with_its_time(several, few, config, tmp_path):
    work = Workspace("smoke", tmp_path, {})
    named = {"xid": several["a"], "random": several["b"]}
    both = {name: replace(source, method=name) for name, source in named.items()}
    usual, _, _ = probe.probe_rows(both, few, config, work, split="test2")
    shorter = config.changed(probe_epochs=2)
    rows = probe_choices.choice_rows(both, few, shorter, work, split="test2")
    kept = results.select(results.read(work.results), task="probe")  # still the last of these
    assert kept["value"].tolist() == usual["value"].tolist()
    titles = [config.changed(**c).protocol_title for c in probe_choices.CHOICES.values()]
    assert rows["protocol"].unique().tolist() == titles and len(set(titles)) == 6
    assert set(rows["split"]) == {"test2"} and set(rows["task"]) == {"protocol"}
    timed = rows["metric"] == "seconds"
    assert (rows[timed]["value"] > 0).all() and set(rows[~timed]["n"]) == {3}
    assert rows[~timed].eval("low <= value <= high").all()
    table = report.choice_table(rows)
    assert table.index.get_level_values("choice").tolist() == 2 * list(probe_choices.CHOICES)
    for (title, choice), cells in table.iterrows():
        method = {"xID": "xid", "Random": "random"}[title]
        protocol = config.changed(**probe_choices.CHOICES[choice]).protocol_title
        values = {"method": method, "protocol": protocol, "level": "video", "metric": "top1"}
        (row,) = results.select(rows, **values).to_dict("records")
        assert cells["whole videos, top-1"] == with_interval(row)
    said = report.describe_choices(rows)
    assert "xID" in said and said.endswith(".")
    assert len(report.plot_choices(rows).axes) == 2


def test_mirrored_clips_are_mirrored(few, config, tiny):
    plain = probe.samplings(tiny, config)["video"]
    seen, mirrored = (
        VideoClips(few, replace(plain, flip_prob=share), seed=0).whole(0).frames for share in (0, 1)
    )
    assert torch.equal(seen.flip(-1), mirrored) and not torch.equal(seen, mirrored)
    assert probe.samplings(tiny, config)["train"].flip_prob == 0


def test_larger_frames_than_the_profiles_are_resized_as_in_the_thesis(tiny, config):
    assert config.resized_px(tiny.clip) == 20
    assert config.resized_px(with_values(tiny, frame_px=224).clip) == 256


# ---- several seeds, several methods -------------------------------------------------------------


def test_every_seed_has_its_probe_and_its_rows(manifests, tiny, tmp_path, monkeypatch):
    manifest = Manifest.load(manifests / "ucf101")
    x, label = blobs()
    part = Features(video=x, audio=x[..., :0], label=label)
    features = {"xid": ProbeFeatures(train=part, clip=part, video=part)}
    monkeypatch.setattr(probe, "extract_each", lambda *_: features)
    source = EncoderSource(method="xid", name="xid-1", checkpoint=Path("nowhere"), config=tiny)
    sources = {"xid": source}
    config = Evaluation(seed=4, probe_lr=1e-2, probe_epochs=5)
    work = Workspace("smoke", tmp_path, {})
    probe.probe_rows(sources, manifest, replace(config, seed=1), work)  # not among the next ones
    rows, fitted, found = probe.probe_rows(sources, manifest, config, work, seeds=3)
    assert found == features and len(results.read(work.results)) == len(rows) + 4
    assert rows["seed"].tolist() == 4 * [4] + 4 * [5] + 4 * [6]
    same = rows[["method", "run", "n", "protocol", "profile"]].drop_duplicates()
    assert same.values.tolist() == [["xid", "xid-1", 90, "thesis", "smoke"]]
    assert rows.eval("low < value <= high").all()
    probes = [layer for layer, _ in fitted["xid"]]
    assert not torch.equal(probes[0].weight, probes[1].weight)
    with pytest.raises(ValueError, match="seeds = 0"):
        probe.probe_rows(sources, manifest, config, work, seeds=0)


def test_a_confusion_matrix_to_check_by_eye():
    label, taken = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 2, 1, 2])
    assert probe.confusion(taken, label, 3).tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]


def test_blocks_of_videos_change_no_score():
    x, label = blobs()
    layer = Probe(weight=torch.eye(6)[:3], bias=torch.zeros(3))
    many, labels = x.repeat(20, 1, 1), label.repeat(20)  # more than one block
    for scores in (clip_level, video_level):
        assert torch.equal(scores(layer, many, labels, 1), scores(layer, x, label, 1).repeat(20))


def test_methods_are_named_once_and_rightly():
    assert parse_methods(" random,xid, ") == ("random", "xid")
    with pytest.raises(ValueError, match="'vicreg_vv' is unknown; did you mean 'vicreg_v'"):
        parse_methods("random,vicreg_vv")
    for wrong in ("", "xid,xid"):
        with pytest.raises(ValueError, match="name each once"):
            parse_methods(wrong)
