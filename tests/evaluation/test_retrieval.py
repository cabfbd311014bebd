import pytest
import torch

from avnb.evaluation import retrieval
from avnb.evaluation.features import Features
from avnb.evaluation.retrieval import chance, distances, hits, measure, nearest, recall
from avnb.protocols import Evaluation

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

    monkeypatch.setattr(retrieval, "distances", counted)
    nearest(torch.randn(500, 64, generator=rng), torch.randn(2000, 64, generator=rng), 5)
    assert asked.count(5 + retrieval.SPARE) == 500 and asked.count(2000) <= 5


@pytest.mark.parametrize("k", [1, 2, 5])
def test_chance_is_what_a_shuffled_gallery_gives(k):
    g = torch.Generator().manual_seed(0)
    query_label, gallery_label = torch.randint(4, (2000,), generator=g), torch.arange(20) % 4
    found = hits(
        torch.randn(2000, 8, generator=g), torch.randn(20, 8, generator=g),
        query_label, gallery_label, [k],
    )[k]  # fmt: skip
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
