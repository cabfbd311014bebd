import pytest
import torch
from sklearn.metrics import average_precision_score

from avnb.config import Evaluation
from avnb.evaluation import search
from avnb.evaluation.alignment import alignment, alignment_rows, modality_gap, uniformity
from avnb.evaluation.features import Features
from avnb.evaluation.retrieval import (
    COSINE,
    DIRECTIONS,
    by_class,
    chance,
    chance_median,
    chance_precision,
    embedded,
    measure,
    permutation_rows,
    recall,
)
from avnb.evaluation.search import distances, nearest, rank, unit

# a line of points: queries at 0 and 10, gallery at 1, 2, 9, 20
QUERY = torch.tensor([[0.0], [10.0]])
GALLERY = torch.tensor([[1.0], [2.0], [9.0], [20.0]])


def test_the_nearest_come_first():
    assert nearest(QUERY, GALLERY, 3).tolist() == [[0, 1, 2], [2, 1, 0]]


def test_recall_counts_a_query_once_however_many_answers_fit():
    query_label, gallery_label = torch.tensor([1, 2]), torch.tensor([0, 1, 0, 2])
    assert recall(QUERY, GALLERY, query_label, gallery_label, (1, 2, 3, 4)) == {
        1: 0.0, 2: 0.5, 3: 0.5, 4: 1.0,
    }  # fmt: skip
    assert recall(QUERY, GALLERY, torch.tensor([0, 0]), torch.zeros(4).long(), [1]) == {1: 1.0}


def test_distance_is_euclidean_not_cosine():
    query, gallery = torch.tensor([[1.0, 0.0]]), torch.tensor([[50.0, 0.0], [0.6, 0.6]])
    assert nearest(query, gallery, 1).tolist() == [[1]]


def test_ties_go_to_the_smaller_row_and_blocks_change_nothing():
    torch.manual_seed(0)
    query, gallery = torch.randn(50, 4), torch.randn(30, 4).repeat(2, 1)
    whole = nearest(query, gallery, 9)
    assert torch.equal(whole, nearest(query, gallery, 9, rows=7))
    assert (whole[:, 0] < 30).all()


def test_near_duplicates_far_from_the_origin_are_told_apart():
    gallery = torch.tensor([[1e4, 0.0], [1e4 + 0.01, 0.0], [1e4 + 0.02, 0.0]])
    assert nearest(gallery[1:2], gallery, 1).tolist() == [[1]]


def cases():
    """Queries and galleries that a matrix product ranks well, badly, or not at all."""
    rng = torch.Generator().manual_seed(0)
    query, gallery = torch.randn(70, 24, generator=rng), torch.randn(300, 24, generator=rng)
    yield "random", query, gallery
    yield "doubles", query.double(), gallery.double()
    yield "every row thirty times", query, gallery[:10].repeat(30, 1)
    yield "on a grid, so that many distances are equal", query.round(), gallery.round()
    yield "all equal", query, gallery[:1].expand(300, -1)
    yield "far from the origin", query + 1e4, gallery + 1e4
    yield "the modalities far apart", query + 1e4, gallery
    yield "a query far away", query * 10 ** torch.linspace(0, 18, 70)[:, None], gallery
    yield "larger than squares fit in float32", query * 1e30, gallery * 1e30
    yield "smaller than squares fit in float32", query * 1e-25, gallery * 1e-25
    yield "not finite", query.index_fill(0, torch.tensor([3]), torch.nan), gallery
    yield "a gallery not finite", query, gallery.index_fill(0, torch.tensor([3]), torch.inf)
    yield "fewer than a few", query, gallery[:7]


@pytest.mark.parametrize("name, query, gallery", [pytest.param(*c, id=c[0]) for c in cases()])
@pytest.mark.parametrize("k", [1, 5])
def test_the_nearest_are_exactly_those_of_a_stable_sort_of_all_distances(name, query, gallery, k):
    order = distances(query, gallery).argsort(dim=1, stable=True)
    assert torch.equal(nearest(query, gallery, k, rows=32), order[:, :k]), name


def test_hardly_any_query_needs_all_distances(monkeypatch):
    rng, asked = torch.Generator().manual_seed(0), []

    def counted(query, gallery):
        asked.extend([gallery.shape[-2]] * len(query))
        return distances(query, gallery)

    monkeypatch.setattr(search, "distances", counted)
    nearest(torch.randn(500, 64, generator=rng), torch.randn(2000, 64, generator=rng), 5)
    assert asked.count(5 + search.SPARE) == 500 and asked.count(2000) <= 5


@pytest.mark.parametrize("k", [1, 2, 5])
def test_chance_is_what_a_shuffled_gallery_gives(k):
    g = torch.Generator().manual_seed(0)
    query_label, gallery_label = torch.randint(4, (2000,), generator=g), torch.arange(20) % 4
    ranking = rank(
        torch.randn(2000, 8, generator=g), torch.randn(20, 8, generator=g),
        query_label, gallery_label,
    )  # fmt: skip
    found = ranking.within(k)
    assert chance(query_label, gallery_label, k) == pytest.approx(
        found.double().mean().item(), abs=0.05
    )
    assert chance(torch.tensor([0]), torch.tensor([0, 1, 1, 1]), 4) == pytest.approx(1)
    assert chance(torch.tensor([7, 2, -1]), torch.tensor([0, 2]), 1) == pytest.approx(0.5 / 3)


def test_chance_needs_no_table_of_queries_by_gallery():
    query, gallery = torch.arange(200_000) % 300, torch.arange(1_000_000) % 300
    assert chance(query, gallery, 5) == pytest.approx(1 - (1 - 1 / 300) ** 5, rel=1e-3)


@pytest.mark.parametrize("k", [0, 5])
def test_a_k_outside_the_gallery_is_refused(k):
    with pytest.raises(ValueError, match=r"\[1, 4\]"):
        recall(QUERY, GALLERY, torch.zeros(2), torch.zeros(4), [k, 2])


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\[Q, F\]"):
        nearest(QUERY, torch.zeros(4, 2), 1)


def test_an_encoder_without_audio_is_measured_among_videos_only():
    points, label = torch.randn(6, 2, 3), torch.tensor([0, 0, 1, 1, 2, 2])
    features = Features(video=points, audio=points[..., :0], label=label)
    config = Evaluation(bootstrap_resamples=10)
    rows = measure(features, features, config, method="own", dataset="ucf101")
    assert {row.level for row in rows} == {"v->v"} and rows[0].value == 100


def drawn(queries=60, gallery=200, classes=5, width=8):
    g = torch.Generator().manual_seed(1)
    return (
        torch.randn(queries, width, generator=g), torch.randn(gallery, width, generator=g),
        torch.randint(classes, (queries,), generator=g),
        torch.randint(classes, (gallery,), generator=g),
    )  # fmt: skip


@pytest.mark.parametrize("rows", [7, 64])
def test_ranks_and_precision_are_those_of_a_full_sort_and_of_scikit_learn(rows):
    q, g, ql, gl = drawn()
    ql[0] = 99  # of no class in the gallery
    ranking = rank(q, g, ql, gl, rows=rows)
    distance = torch.cdist(q.double(), g.double())
    right = gl[distance.argsort(dim=1)] == ql[:, None]
    first = right.int().argmax(dim=1) + 1
    assert ranking.first[0] == len(g) + 1 and ranking.average_precision[0] == 0
    assert torch.equal(ranking.first[1:], first[1:])
    for i in range(1, len(q)):
        theirs = average_precision_score((gl == ql[i]).numpy(), -distance[i].numpy())
        assert ranking.average_precision[i] == pytest.approx(theirs, abs=1e-6)


def test_equal_distances_are_ranked_by_row():
    gallery = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).repeat(4, 1)
    label = torch.tensor([0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 0, 0])
    ranking = rank(gallery[:1], gallery, torch.tensor([1]), label)
    assert ranking.first.item() == 2  # rows 0, 3, 6, 9 are equally near
    assert rank(gallery[:1], gallery, torch.tensor([2]), label).first.item() == 3


def test_features_that_are_not_finite_are_refused():
    q, g, ql, gl = drawn(4, 6)
    with pytest.raises(ValueError, match="not finite"):
        rank(q, g.index_fill(0, torch.tensor([2]), torch.nan), ql, gl)


def test_chance_of_precision_and_median_rank_are_those_of_random_orders():
    _, _, ql, gl = drawn(400, 40)
    g = torch.Generator().manual_seed(2)
    orders = [
        rank(torch.randn(400, 1, generator=g), torch.randn(40, 1, generator=g), ql, gl)
        for _ in range(20)
    ]
    precision = torch.cat([o.average_precision for o in orders]).mean().item()
    assert chance_precision(ql, gl) == pytest.approx(precision, rel=0.05)
    assert chance_median(ql, gl) == torch.cat([o.first for o in orders]).median()


def paired(video, audio, label):
    return Features(video=video[:, None], audio=audio[:, None], label=label)


def test_every_direction_is_measured_and_both_together_use_either():
    label = torch.arange(4).repeat(3)
    corner, noise = torch.eye(4)[label], torch.randn(12, 4) * 1e-3
    blind = torch.ones(12, 4) + noise  # the video says nothing, the audio all
    features, config = paired(blind, corner + noise, label), Evaluation(bootstrap_resamples=50)
    rows = measure(features, features, config, method="own", dataset="ucf101")
    found = {(r.level, r.metric): r for r in rows}
    assert {r.level for r in rows} == set(DIRECTIONS)
    assert {r.metric for r in rows} == {"R@1", "R@5", "R@10", "mAP", "median rank"}
    assert found["va->va", "mAP"].value == pytest.approx(100)
    assert found["v->a", "mAP"].value < 70 and found["a->a", "median rank"].value == 1
    for row in rows:
        assert row.low <= row.value <= row.high and row.chance > 0
    table = by_class(features, features, ["a", "b", "c", "d"])
    assert table.loc["a", "a->a"] == 100 and table["n"].tolist() == [3] * 4


def test_cosine_is_not_euclid():
    query = paired(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2), torch.tensor([0]))
    near, along = [0.6, 0.6], [50.0, 0.0]
    gallery = paired(torch.tensor([near, along]), torch.zeros(2, 2), torch.tensor([1, 0]))
    points = [embedded(f, "video", COSINE) for f in (query, gallery)]
    assert nearest(*points, 1).item() == 1
    assert torch.equal(unit(unit(points[1])), unit(points[1]))


def test_a_shared_space_is_told_from_an_unrelated_one():
    g = torch.Generator().manual_seed(0)
    label = torch.arange(6).repeat(10)
    centre = torch.randn(6, 16, generator=g)
    video = centre[label] + 0.3 * torch.randn(60, 16, generator=g)
    aligned = paired(video, video + 0.05 * torch.randn(60, 16, generator=g), label)
    turned = paired(video, torch.randn(60, 16, generator=g).abs(), label)
    config = Evaluation(bootstrap_resamples=50)
    for features, low in ((aligned, True), (turned, False)):
        rows = permutation_rows(features, features, config, COSINE, method="m", dataset="d")
        assert [r.level for r in rows] == ["v->a", "a->v"]
        assert all((r.value < 0.01) == low for r in rows)
        metrics = {
            r.metric: r.value for r in alignment_rows(features, {}, config, method="m", dataset="d")
        }
        assert (metrics["own video R@1"] > 90) == low
        assert (metrics["alignment"] < 0.1) == low and (metrics["modality gap"] < 0.1) == low


def test_measures_of_the_sphere_have_their_known_values():
    v = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    assert alignment(v, -v) == pytest.approx(4) and alignment(v, 5 * v) == pytest.approx(0)
    assert modality_gap(v, -v) == pytest.approx(2**0.5)
    assert uniformity(v) == pytest.approx(-4)  # two points sqrt 2 apart
    circle = torch.linspace(0, 6.28, 400)
    round_, arc = (torch.stack([t.cos(), t.sin()], 1) for t in (circle, circle / 10))
    assert uniformity(round_) < uniformity(arc) < 0
