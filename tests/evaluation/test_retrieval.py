"""Retrieval against hand cases, all orders of small galleries, and scikit-learn."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from avnb.config import Evaluation
from avnb.evaluation import retrieval
from avnb.evaluation.features import Features
from avnb.evaluation.retrieval import (
    COSINE,
    DIRECTIONS,
    PROJECTED,
    THESIS,
    alignment_rows,
    by_class,
    chance_curve,
    chance_median,
    chance_precision,
    draw_queries,
    embedded,
    measure,
    nearest,
    permutation_rows,
    rank,
    recall,
    uniformity,
    unit,
)

# a line of points: queries at 0 and 10, gallery at 1, 2, 9, 20
QUERY = torch.tensor([[0.0], [10.0]])
GALLERY = torch.tensor([[1.0], [2.0], [9.0], [20.0]])
NAMES = {"method": "own", "dataset": "ucf101"}


def drawn(queries=60, gallery=200, classes=5, width=8):
    g = torch.Generator().manual_seed(1)
    return (
        torch.randn(queries, width, generator=g), torch.randn(gallery, width, generator=g),
        torch.randint(classes, (queries,), generator=g),
        torch.randint(classes, (gallery,), generator=g),
    )  # fmt: skip


def paired(video, audio, label):
    return Features(video=video[:, None], audio=audio[:, None], label=label)


# ---- neighbours ---------------------------------------------------------------------------------


def test_the_nearest_come_first():
    assert nearest(QUERY, GALLERY, 3).tolist() == [[0, 1, 2], [2, 1, 0]]


def test_recall_counts_a_query_once_however_many_answers_fit():
    query_label, gallery_label = torch.tensor([1, 2]), torch.tensor([0, 1, 0, 2])
    assert recall(QUERY, GALLERY, query_label, gallery_label, (1, 2, 3, 4)) == {
        1: 0.0, 2: 0.5, 3: 0.5, 4: 1.0,
    }  # fmt: skip
    assert recall(QUERY, GALLERY, torch.tensor([0, 0]), torch.zeros(4).long(), [1]) == {1: 1.0}


def test_a_ranking_by_eye():
    query, gallery_label = torch.cat([QUERY, QUERY[1:]]), torch.tensor([0, 1, 2, 1])
    ranking = rank(query, GALLERY, torch.tensor([1, 7, 2]), gallery_label)
    assert ranking.first.tolist() == [2, 5, 1]  # class 7 is not in the gallery
    assert ranking.average_precision.tolist() == [(1 / 2 + 2 / 4) / 2, 0, 1]
    assert ranking.within(1).tolist() == [False, False, True]
    assert ranking.within(2).tolist() == [True, False, True]


def test_distance_is_euclidean_not_cosine_but_in_the_space_of_cosines():
    query, gallery = torch.tensor([[1.0, 0.0]]), torch.tensor([[50.0, 0.0], [0.6, 0.6]])
    assert nearest(query, gallery, 1).tolist() == [[1]]
    points = [
        embedded(paired(x, x, torch.zeros(len(x))), "video", COSINE) for x in (query, gallery)
    ]
    assert nearest(*points, 1).tolist() == [[0]]


def test_near_duplicates_far_from_the_origin_are_told_apart():
    gallery = torch.tensor([[1e4, 0.0], [1e4 + 0.01, 0.0], [1e4 + 0.02, 0.0]])
    assert nearest(gallery[1:2], gallery, 1).tolist() == [[1]]


def test_blocks_change_nothing(monkeypatch):
    q, g, ql, gl = drawn()
    whole, neighbours = rank(q, g, ql, gl), nearest(q, g, 9)
    monkeypatch.setattr(retrieval, "BLOCK", 7)
    blocks = rank(q, g, ql, gl)
    assert torch.equal(blocks.first, whole.first)
    assert torch.allclose(blocks.average_precision, whole.average_precision)
    assert torch.equal(nearest(q, g, 9), neighbours)


def test_ranks_and_precision_are_those_of_scikit_learn():
    q, g, ql, gl = drawn()
    ql[0] = 99  # of no class in the gallery
    ranking, distance = rank(q, g, ql, gl), torch.cdist(q.double(), g.double())
    assert ranking.first[0] == len(g) + 1 and ranking.average_precision[0] == 0
    right = gl[distance.argsort(dim=1)] == ql[:, None]
    assert torch.equal(ranking.first[1:], right.int().argmax(dim=1)[1:] + 1)
    for i in range(1, len(q)):
        theirs = average_precision_score((gl == ql[i]).numpy(), -distance[i].numpy())
        assert ranking.average_precision[i] == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("k", [0, 5])
def test_what_does_not_fit_is_refused(k):
    with pytest.raises(ValueError, match=r"\[1, 4\]"):
        recall(QUERY, GALLERY, torch.zeros(2), torch.zeros(4), [k, 2])
    with pytest.raises(ValueError, match=r"\[Q, F\]"):
        nearest(QUERY, torch.zeros(4, 2), 1)
    with pytest.raises(ValueError, match="not finite"):
        nearest(QUERY, GALLERY.log() - torch.inf, 1)


# ---- chance -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gallery", [[1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0], [1], [1, 1], [0, 0]]
)
def test_chance_is_the_mean_over_all_orders_of_the_gallery(gallery):
    query, labels = torch.tensor([1]), torch.tensor(gallery)
    orders = np.array(list(itertools.permutations(gallery))) == 1
    curve = [orders[:, :k].any(axis=1).mean() for k in range(1, len(gallery) + 1)]
    assert chance_curve(query, labels).tolist() == pytest.approx(curve)
    ranks = np.arange(1, len(gallery) + 1)
    precision = (orders.cumsum(axis=1) / ranks * orders).sum(axis=1) / max(gallery.count(1), 1)
    assert chance_precision(query, labels) == pytest.approx(precision.mean())
    enough = [k for k, share in enumerate(curve, 1) if share >= 0.5 - 1e-12]
    assert chance_median(query, labels) == (enough[0] if enough else len(gallery) + 1)


def test_chance_is_the_mean_over_queries_and_needs_no_table_of_queries_by_gallery():
    labels = torch.tensor([0, 2])
    assert chance_curve(torch.tensor([7, 2, -1]), labels).tolist() == pytest.approx(
        [0.5 / 3, 1 / 3]
    )
    assert chance_precision(torch.tensor([7, 2, -1]), labels) == pytest.approx(0.75 / 3)
    query, gallery = torch.arange(100_000) % 300, torch.arange(300_000) % 300
    assert chance_curve(query, gallery)[4] == pytest.approx(1 - (1 - 1 / 300) ** 5, rel=1e-3)


# ---- rows ---------------------------------------------------------------------------------------


def test_points_are_means_of_clips_and_both_modalities_together():
    clips = torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])  # one video of two clips
    features = Features(video=clips, audio=2 * clips.flip(-1), label=torch.zeros(1))
    assert embedded(features, "video", THESIS).tolist() == [[1.5, 0.5]]
    assert torch.allclose(
        embedded(features, "video", COSINE), torch.full((1, 2), 0.5**0.5).double()
    )
    fused = (unit(torch.tensor([[1.5, 0.5]])) + unit(torch.tensor([[0.5, 1.5]]))) / 2
    assert torch.allclose(embedded(features, "fused", THESIS), fused)


def test_an_encoder_without_audio_is_measured_among_videos_only():
    points, label = torch.randn(6, 2, 3), torch.tensor([0, 0, 1, 1, 2, 2])
    features = Features(video=points, audio=points[..., :0], label=label)
    config = Evaluation(bootstrap_resamples=10)
    rows = measure(features, features, config, **NAMES)
    assert {row.level for row in rows} == {"v->v"} and rows[0].value == 100
    assert permutation_rows(features, features, config, THESIS, **NAMES) == []
    assert alignment_rows(features, {}, config, **NAMES) == []


def test_every_direction_is_measured_and_both_together_use_either():
    label = torch.arange(4).repeat(3)
    corner, noise = torch.eye(4)[label], torch.randn(12, 4) * 1e-3
    blind = torch.ones(12, 4) + noise  # the video says nothing, the audio all
    features, config = paired(blind, corner + noise, label), Evaluation(bootstrap_resamples=50)
    rows = measure(features, features, config, **NAMES)
    found = {(r.level, r.metric): r for r in rows}
    assert {r.level for r in rows} == set(DIRECTIONS)
    assert {r.metric for r in rows} == {"R@1", "R@5", "R@10", "mAP", "median rank"}
    assert found["va->va", "mAP"].value == pytest.approx(100)
    assert found["v->a", "mAP"].value < 70 and found["a->a", "median rank"].value == 1
    assert all(row.low <= row.value <= row.high and row.n == 12 for row in rows)
    chances = {metric: found["v->v", metric].chance for _, metric in found}
    assert chances["R@1"] == pytest.approx(25)
    assert chances["R@5"] == pytest.approx(100 - 100 * 126 / 792)  # (9 choose 5) / (12 choose 5)
    assert chances["median rank"] == chance_median(label, label) == 3
    assert chances["mAP"] == pytest.approx(100 * chance_precision(label, label))
    table = by_class(features, features, ["a", "b", "c", "d"])
    assert table.loc["a", "a->a"] == 100 and table["n"].tolist() == [3] * 4


def test_the_median_rank_has_the_interval_of_resampled_queries():
    ranks, config = np.arange(50) ** 2, Evaluation(bootstrap_resamples=401)
    row = retrieval.median_row(ranks, config, task="retrieval", chance=4, **NAMES)
    draws = np.random.default_rng(config.seed).integers(0, 50, (401, 50))
    medians = sorted(np.median(ranks[draws], axis=1))
    assert (row.value, row.n, row.chance) == ((24**2 + 25**2) / 2, 50, 4)
    assert (row.low, row.high) == (medians[10], medians[390])  # 2.5 % and 97.5 % of 400 steps


def test_p_is_the_share_of_shuffles_that_do_as_well_the_order_as_found_among_them():
    config = Evaluation()
    alike = paired(torch.randn(8, 3), torch.randn(8, 3), torch.zeros(8, dtype=torch.long))
    rows = permutation_rows(alike, alike, config, THESIS, **NAMES)
    assert [(r.level, r.value) for r in rows] == [("v->a", 1), ("a->v", 1)]  # all do as well
    q = 100.0 * torch.arange(40)[:, None]
    query = paired(q, q, torch.arange(40))
    i, j = torch.cartesian_prod(torch.arange(40), torch.arange(1, 7)).T  # six answers to each query
    g = (100.0 * i + j)[:, None]
    for right, p in ((5, 1 / 1001), (6, 1)):  # which of them is right: in time, or too late
        gallery = paired(g, g, torch.where(j == right, i, (i + 1 + j) % 40))
        (row, _) = permutation_rows(query, gallery, config, THESIS, **NAMES)
        assert row.value == pytest.approx(p) and row.n == 40


def test_a_shared_space_is_told_from_an_unrelated_one():
    g = torch.Generator().manual_seed(0)
    label = torch.arange(6).repeat(10)
    centre = torch.randn(6, 16, generator=g)
    video = centre[label] + 0.3 * torch.randn(60, 16, generator=g)
    aligned = paired(video, video + 0.05 * torch.randn(60, 16, generator=g), label)
    unrelated = paired(video, torch.randn(60, 16, generator=g).abs(), label)
    config = Evaluation(bootstrap_resamples=50)
    for features, low in ((aligned, True), (unrelated, False)):
        rows = permutation_rows(features, features, config, COSINE, **NAMES)
        assert all((r.value < 0.01) == low for r in rows)
        found = {r.metric: r for r in alignment_rows(features, {}, config, **NAMES)}
        assert (found["own video R@1"].value > 90) == low
        assert found["own video R@1"].chance == pytest.approx(100 / 60)


def test_measures_of_the_sphere_have_their_known_values():
    v = torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
    config, label = Evaluation(bootstrap_resamples=10), torch.arange(3)
    heads = {"video": torch.nn.Identity(), "audio": torch.nn.Identity()}
    rows = alignment_rows(paired(v, -v, label), heads, config, **NAMES)
    for space in (COSINE, PROJECTED):
        found = {r.metric: r.value for r in rows if r.space == space}
        assert found["alignment"] == pytest.approx(4)  # opposite points
        assert found["modality gap"] == pytest.approx(2 * 5**0.5 / 3)
        assert found["uniformity of video"] == found["uniformity of audio"] == uniformity(unit(v))
    assert uniformity(unit(v[:2])) == pytest.approx(-4)  # two points sqrt 2 apart
    assert alignment_rows(paired(v[:2], v[:2], label[:2]), {}, config, **NAMES) == []


def test_queries_are_drawn_once_in_order_and_never_more_than_there_are():
    rows = draw_queries(range(50), 10, 3)
    assert len(set(rows)) == 10 and rows.tolist() == sorted(rows)
    assert rows.tolist() == draw_queries(range(50), 10, 3).tolist()
    assert draw_queries(range(4), 10, 0).tolist() == [0, 1, 2, 3]
