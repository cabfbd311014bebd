import numpy as np
import pytest
import torch

from avnb import probe, results
from avnb.config import Evaluation
from avnb.probe import Probe, clip_level, top_k, video_level

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
    how = Evaluation.from_flat(probe_lr=1e-2)
    layer, losses = probe.fit(features, label, 3, how)
    assert losses[-1] < 0.2 < losses[0]
    test, test_label = blobs(1)
    assert clip_level(layer, test, test_label, 1).mean() > 0.97
    noise = torch.randn(90, 4, 6, generator=torch.Generator().manual_seed(5))
    layer, _ = probe.fit(noise, label, 3, how)
    assert clip_level(layer, noise.flip(0), label, 1).mean() < 0.5


def test_the_same_seed_gives_the_same_probe():
    features, label = blobs()
    layers = [probe.fit(features, label, 3, Evaluation(seed=s))[0] for s in (1, 1, 2)]
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert not torch.equal(layers[0].weight, layers[2].weight)


def test_the_bootstrap_interval_covers_the_truth_about_95_times_in_100():
    rng, covered = np.random.default_rng(0), 0
    for i in range(300):
        scores = rng.random(120) < 0.6
        _, low, high = results.interval(scores, resamples=400, seed=i)
        covered += low <= 0.6 <= high
    assert 0.90 < covered / 300 < 0.98


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
    one = rows[
        (rows["method"] == "xid") & (rows["dataset"] == "ucf101") & (rows["level"] == "video")
    ]
    assert dict(zip(one["metric"], one["value"], strict=True)) == {"top1": 51.2, "top5": 80.91}
