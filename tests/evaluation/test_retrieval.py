"""Retrieval against hand cases, all orders of small galleries, and scikit-learn."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from avnb.config import Evaluation
from avnb.evaluation import retrieval
from avnb.evaluation.features import Features
from avnb.evaluation.retrieval import (
    CENTRED,
    COSINE,
    MAPPED,
    THESIS,
    chances,
    measure,
    nearest,
    rank,
    recall,
)
from tests.data.test_subsets import a_manifest

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


def test_videos_without_audio_are_searched_where_a_split_has_no_others(tmp_path):
    manifest = a_manifest(tmp_path, a=3)
    for heard, found in ({"a0", "tested"}, 2), ({"a0", "a1"}, 4):
        some = manifest.only(replace(v, audio=v.id in heard) for v in manifest.videos)
        assert len(retrieval.searched(some)) == found


def test_recall_counts_a_query_once_however_many_answers_fit():
    query_label, gallery_label = torch.tensor([1, 2]), torch.tensor([0, 1, 0, 2])
    assert recall(QUERY, GALLERY, query_label, gallery_label, (1, 2, 3, 4)) == {
        1: 0.0, 2: 0.5, 3: 0.5, 4: 1.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"\[1, 4\]"):
        recall(QUERY, GALLERY, query_label, gallery_label, [5])


def test_a_ranking_by_eye():
    query, gallery_label = torch.cat([QUERY, QUERY[1:]]), torch.tensor([0, 1, 2, 1])
    first, precision = rank(query, GALLERY, torch.tensor([1, 7, 2]), gallery_label)
    assert first.tolist() == [2, 5, 1]  # class 7 is not in the gallery
    assert precision.tolist() == [(1 / 2 + 2 / 4) / 2, 0, 1]


def test_distance_is_euclidean_not_cosine_but_in_the_space_of_cosines():
    query, gallery = torch.tensor([[1.0, 0.0]]), torch.tensor([[50.0, 0.0], [0.6, 0.6]])
    assert nearest(query, gallery, 1).tolist() == [[1]]
    both = [paired(x, x, torch.zeros(len(x))) for x in (query, gallery)]
    assert nearest(*retrieval.compared(*both, "v->v", retrieval.COSINE), 1).tolist() == [[0]]


def test_near_duplicates_far_from_the_origin_are_told_apart():
    gallery = torch.tensor([[1e4, 0.0], [1e4 + 0.01, 0.0], [1e4 + 0.02, 0.0]])
    assert nearest(gallery[1:2], gallery, 1).tolist() == [[1]]


def test_ranks_and_precision_are_those_of_scikit_learn_in_blocks_of_any_size(monkeypatch):
    q, g, ql, gl = drawn()
    ql[0] = 99  # of no class in the gallery
    distance = torch.cdist(q.double(), g.double())
    right = gl[distance.argsort(dim=1)] == ql[:, None]
    for block in (7, 256):
        monkeypatch.setattr(retrieval, "BLOCK", block)
        first, precision = rank(q, g, ql, gl)
        assert first[0] == len(g) + 1 and precision[0] == 0
        assert torch.equal(first[1:], right.int().argmax(dim=1)[1:] + 1)
        for i in range(1, len(q)):
            theirs = average_precision_score((gl == ql[i]).numpy(), -distance[i].numpy())
            assert precision[i] == pytest.approx(theirs, abs=1e-9)
        assert torch.equal(nearest(q, g, 9), distance.argsort(dim=1)[:, :9])


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        nearest(QUERY, GALLERY.log() - torch.inf, 1)


@pytest.mark.parametrize(
    "gallery", [[1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0], [1], [1, 1], [0, 0]]
)
def test_chance_is_the_mean_over_all_orders_of_the_gallery(gallery, monkeypatch):
    monkeypatch.setattr(retrieval, "RECALLS", range(1, 9))
    found = chances(torch.tensor([1]), torch.tensor(gallery))
    orders = np.array(list(itertools.permutations(gallery))) == 1
    curve = [orders[:, :k].any(axis=1).mean() for k in range(1, len(gallery) + 1)]
    ranks = np.arange(1, len(gallery) + 1)
    precision = (orders.cumsum(axis=1) / ranks * orders).sum(axis=1) / max(gallery.count(1), 1)
    enough = [k for k, share in enumerate(curve, 1) if share >= 0.5 - 1e-12]
    assert found == pytest.approx(
        {f"R@{k}": 100 * share for k, share in enumerate(curve, 1)}
        | {"mAP": 100 * precision.mean(), "median rank": [*enough, len(gallery) + 1][0]}
    )


def test_chance_is_the_mean_over_queries_and_needs_no_table_of_queries_by_gallery():
    found = chances(torch.tensor([7, 2, 1]), torch.tensor([0, 2]))
    assert found == pytest.approx({"R@1": 50 / 3, "mAP": 75 / 3, "median rank": 3})
    query, gallery = torch.arange(100_000) % 300, torch.arange(300_000) % 300
    assert chances(query, gallery)["R@5"] == pytest.approx(100 - 100 * (1 - 1 / 300) ** 5, rel=1e-3)


def test_points_are_means_of_clips_and_both_modalities_together():
    clips = torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])  # one video of two clips
    features = Features(video=clips, audio=2 * clips.flip(-1), label=torch.zeros(1))
    assert retrieval.embedded(features, "video", THESIS).tolist() == [[1.5, 0.5]]
    half = torch.full((1, 2), 0.5**0.5).double()
    assert torch.allclose(retrieval.embedded(features, "video", retrieval.COSINE), half)
    v, a = (torch.nn.functional.normalize(torch.tensor(x), dim=0) for x in ([1.5, 0.5], [0.5, 1.5]))
    assert torch.allclose(retrieval.embedded(features, "fused", THESIS), (v + a)[None].double() / 2)
    head = torch.nn.Linear(2, 3)
    after = retrieval.projected(features, {"video": head})
    assert torch.equal(after.video[0], head(clips[0])) and after.audio.shape == (1, 2, 0)


def test_an_encoder_without_audio_is_measured_among_videos_only():
    points, label = torch.randn(6, 2, 3), torch.tensor([0, 0, 1, 1, 2, 2])
    features = Features(video=points, audio=points[..., :0], label=label)
    rows = measure(features, features, Evaluation(bootstrap_resamples=10), **NAMES)
    assert {row.level for row in rows} == {"v->v"} and rows[0].value == 100
    assert retrieval.find_neighbours(features, features, [4, 1], "v->v", 1).tolist() == [[4], [1]]
    assert retrieval.find_neighbours(features, features, [0], "v->v", 9).shape == (1, 6)
    with pytest.raises(ValueError, match="no features for 'v->a'"):
        retrieval.find_neighbours(features, features, [0], "v->a")


def test_every_direction_is_measured_and_both_together_use_either():
    label = torch.arange(4).repeat(3)
    corner, noise = torch.eye(4)[label], torch.randn(12, 4) * 1e-3
    blind = torch.ones(12, 4) + noise  # the video says nothing, the audio all
    features, config = paired(blind, corner + noise, label), Evaluation(bootstrap_resamples=50)
    rows = measure(features, features, config, **NAMES)
    found = {(r.level, r.metric): r for r in rows}
    assert {r.level for r in rows} == set(retrieval.DIRECTIONS)
    assert {level for level, metric in found if metric == "p of R@5"} == {"v->a", "a->v"}
    assert found["va->va", "mAP"].value == pytest.approx(100)
    assert found["v->a", "mAP"].value < 70 and found["a->a", "median rank"].value == 1
    scores = [row for row in rows if row.metric not in ("p of R@5", "distinct answers")]
    assert all(row.low <= row.value <= row.high and row.n == 12 for row in scores)
    by_chance = {m: r.chance for (level, m), r in found.items() if level == "v->v"}
    assert by_chance == chances(label, label)
    assert by_chance["R@5"] == pytest.approx(100 - 100 * 126 / 792)  # (9 choose 5) / (12 choose 5)


def test_the_median_rank_has_the_interval_of_resampled_queries():
    ranks, config = np.arange(50) ** 2, Evaluation(bootstrap_resamples=401)
    row = retrieval.median_row(ranks, config, task="retrieval", chance=4, **NAMES)
    draws = np.random.default_rng(config.seed).integers(0, 50, (401, 50))
    medians = sorted(np.median(ranks[draws], axis=1))
    assert (row.value, row.n, row.chance) == ((24**2 + 25**2) / 2, 50, 4)
    assert (row.low, row.high) == (medians[10], medians[390])  # 2.5 % and 97.5 % of 400 steps


def test_p_is_the_share_of_shuffles_that_do_as_well_the_order_as_found_among_them():
    labels, rng = np.arange(40), np.random.default_rng(0)
    wrong = (labels[:, None] + np.arange(1, 6)) % 40
    right = np.concatenate([wrong[:, :4], labels[:, None]], axis=1)
    assert retrieval.p_value(right, labels, rng) == pytest.approx(1 / 1001)  # none does as well
    assert retrieval.p_value(wrong, labels, rng) == 1  # all do


def test_the_test_asks_for_five_answers_in_either_direction():
    q, i, j = (
        100.0 * torch.arange(40)[:, None],
        *torch.cartesian_prod(torch.arange(40), torch.arange(1, 7)).T,
    )  # six answers to each query
    query, g = paired(q, q, torch.arange(40)), (100.0 * i + j)[:, None]
    for right, p in ((5, 1 / 1001), (6, 1)):  # which of them is right: in time, or too late
        gallery = paired(g, g, torch.where(j == right, i, (i + 1 + j) % 40))
        rows = measure(query, gallery, Evaluation(bootstrap_resamples=10), **NAMES)
        found = [row for row in rows if row.metric == "p of R@5"]
        assert [row.value for row in found] == pytest.approx([p, p]) and found[0].n == 40


def test_one_video_answers_every_query_until_features_are_centred():
    label, corners = torch.arange(4), torch.eye(4)
    video = corners + torch.tensor([9.0, 0, 0, 0])  # far from the audio, nearest to the first
    audio, spaces = corners.clone(), {}
    both, config = paired(video, audio, label), Evaluation(bootstrap_resamples=10)
    for space, pair in {COSINE: (both, both), CENTRED: retrieval.centred(both, both)}.items():
        rows = measure(*pair, config, space, **NAMES)
        spaces[space] = {r.metric: r for r in rows if r.level == "v->a"}
    counts = {space: rows["distinct answers"].value for space, rows in spaces.items()}
    assert counts == {COSINE: 1, CENTRED: 4} and spaces[COSINE]["R@1"].value == 25
    answers = spaces[CENTRED]["distinct answers"]
    assert (answers.n, answers.chance) == (4, pytest.approx(4 * (1 - 0.75**4)))


def test_a_linear_map_recovers_a_rotation_from_pairs_without_labels():
    g = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=g))[0]
    video, own, config = torch.randn(60, 8, generator=g), torch.arange(60), Evaluation()
    both = paired(video, video @ turn + 5, own)
    shares = {}
    for space, pair in {
        CENTRED: (both, both),
        MAPPED: retrieval.linearly_mapped(both, both),
    }.items():
        rows = measure(*pair, config, space, **NAMES)
        shares[space] = {r.level: r.value for r in rows if r.metric == "R@1"}
    assert shares[MAPPED] == {"v->a": 100, "a->v": 100} and shares[CENTRED]["v->a"] < 20
