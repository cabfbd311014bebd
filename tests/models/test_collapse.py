"""Spread and rank of embeddings for which both are known."""

import math

import pytest
import torch

from avnb.models import collapse


def test_directions_spread_evenly_have_a_spread_of_one_and_full_rank():
    z = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    assert collapse.spread(z).item() == pytest.approx(1, abs=0.02)
    assert collapse.effective_rank(z).item() == pytest.approx(8, rel=0.01)


def test_identical_embeddings_have_no_spread_and_a_rank_of_one():
    z = torch.ones(16, 8)
    assert collapse.spread(z).item() == pytest.approx(0, abs=1e-6)
    assert collapse.effective_rank(z).item() == pytest.approx(1)


def test_a_line_has_a_rank_of_one_and_a_plane_of_two():
    t = torch.linspace(0, 2 * math.pi, 65)[:-1]
    line = torch.stack([t, 2 * t, -t], dim=1)
    circle = torch.stack([t.cos(), t.sin(), 0 * t], dim=1)
    assert collapse.effective_rank(line).item() == pytest.approx(1, abs=1e-3)
    assert collapse.effective_rank(circle).item() == pytest.approx(2, abs=1e-3)


def test_fewer_than_three_clips_are_not_measured():
    z = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    assert collapse.measure({"video": z[:2]}) == {} and collapse.measure({"video": z})


def test_the_rank_of_embeddings_that_are_not_finite_is_nan():
    assert collapse.effective_rank(torch.full((4, 4), torch.nan)).isnan()
