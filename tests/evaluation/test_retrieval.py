import pytest
import torch

from avnb.evaluation.features import Features
from avnb.evaluation.retrieval import chance, hits, measure, nearest, recall
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


@pytest.mark.parametrize("k", [1, 2, 5])
def test_chance_is_what_a_shuffled_gallery_gives(k):
    g = torch.Generator().manual_seed(0)
    query_label, gallery_label = torch.randint(4, (2000,), generator=g), torch.arange(20) % 4
    found = hits(
        torch.randn(2000, 8, generator=g), torch.randn(20, 8, generator=g),
        query_label, gallery_label, k,
    )  # fmt: skip
    assert chance(query_label, gallery_label, k) == pytest.approx(
        found.double().mean().item(), abs=0.05
    )
    assert chance(torch.tensor([0]), torch.tensor([0, 1, 1, 1]), 4) == pytest.approx(1)


@pytest.mark.parametrize("k", [0, 5])
def test_a_k_outside_the_gallery_is_refused(k):
    with pytest.raises(ValueError, match=r"\[1, 4\]"):
        recall(QUERY, GALLERY, torch.zeros(2), torch.zeros(4), [k])


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\[Q, F\]"):
        nearest(QUERY, torch.zeros(4, 2), 1)


def test_an_encoder_without_audio_is_measured_among_videos_only():
    points, label = torch.randn(6, 2, 3), torch.tensor([0, 0, 1, 1, 2, 2])
    features = Features(video=points, audio=points[..., :0], label=label)
    config = Evaluation(bootstrap_resamples=10)
    rows = measure(features, features, config, method="own", dataset="ucf101")
    assert {row.level for row in rows} == {"v->v"} and rows[0].value == 100
