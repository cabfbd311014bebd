"""Losses by their closed forms and limits; collapse metrics of known embeddings."""

import math

import pytest
import torch

from avnb.models.losses import (
    MAX_HINGE,
    MIN_RANK,
    MIN_SPREAD,
    collapse_warning,
    effective_rank,
    info_nce,
    rince,
    spread,
    vicreg_terms,
)

torch.manual_seed(0)
POS = torch.randn(6) * 5
NEG = torch.randn(6, 40) * 5


def test_info_nce_is_cross_entropy_with_the_positive_first():
    scores = torch.cat([POS[:, None], NEG], dim=1)
    expected = torch.nn.functional.cross_entropy(scores, torch.zeros(6, dtype=torch.long))
    torch.testing.assert_close(info_nce(POS, NEG), expected)


@pytest.mark.parametrize("lam", [0.01, 0.5, 1.0])
def test_rince_tends_to_info_nce_as_q_vanishes(lam):
    pos, neg = POS.double(), NEG.double()
    torch.testing.assert_close(
        rince(pos, neg, q=1e-7, lam=lam) - math.log(lam), info_nce(pos, neg), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("q", [0.001, 0.1, 0.4, 1.0])
@pytest.mark.parametrize("lam", [0.01, 0.5])
def test_rince_is_the_printed_formula(q, lam):
    pos, neg = POS.double(), NEG.double()
    total = pos.exp() + neg.exp().sum(dim=1)
    printed = (-(q * pos).exp() / q + (lam * total) ** q / q).mean()
    torch.testing.assert_close(rince(pos, neg, q=q, lam=lam), printed, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loses_only_the_rounding_of_the_inputs(dtype):
    # the plain formula gives NaN (fp16) and 16.0 instead of 13.9 (bf16) at q = 0.001
    pos, neg = torch.full((4,), -1 / 0.07), torch.full((4, 1024), 1 / 0.07)
    exact = rince(pos.to(dtype).double(), neg.to(dtype).double(), q=0.001, lam=0.01)
    torch.testing.assert_close(
        rince(pos.to(dtype), neg.to(dtype), q=0.001, lam=0.01).double(), exact, rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("q, lam", [(0, 0.5), (1.1, 0.5), (0.5, 0), (0.5, 1.1)])
def test_q_and_lam_out_of_range_are_refused(q, lam):
    with pytest.raises(ValueError, match=r"in \(0, 1\]"):
        rince(POS, NEG, q=q, lam=lam)
    rince(POS, NEG, q=1, lam=1)


@pytest.mark.parametrize("pos, neg", [(POS[:, None], NEG), (POS, NEG[:3]), (POS, NEG[:, 0])])
def test_mismatched_shapes_are_refused(pos, neg):
    with pytest.raises(ValueError, match=r"pos must be \[B\]"):
        info_nce(pos, neg)


def plain_covariance(z):
    """The term of one view, through the covariance matrix."""
    c = z.T.cov()
    return (c.square().sum() - c.diagonal().square().sum()) / len(c)


def test_vicreg_terms_equal_their_definition():
    rng = torch.Generator().manual_seed(0)
    x, y = (torch.randn(5, 4, generator=rng, dtype=torch.double) * 0.7 for _ in range(2))
    hinges = [(1 - (z.var(dim=0) + 1e-4).sqrt()).clamp_min(0).mean() for z in (x, y)]
    assert min(hinges) > 0
    expected = {
        "invariance": (x - y).square().mean(),
        "variance": sum(hinges) / 2,
        "covariance": plain_covariance(x) + plain_covariance(y),
    }
    torch.testing.assert_close(vicreg_terms(x, y), expected)


@pytest.mark.parametrize("clips, dims", [(6, 40), (39, 40), (40, 40), (41, 40)])
@pytest.mark.parametrize("heavy", [1, 300])  # 300: nearly all of C is one entry
def test_the_covariance_term_and_its_gradient_do_not_depend_on_the_way_to_them(clips, dims, heavy):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(clips, dims, generator=rng, dtype=torch.double)
    x[:, 3] *= heavy
    variance = x.var(dim=0).square().sum()
    assert heavy == 1 or variance > 1000 * plain_covariance(x) * dims
    expected, *gradient = value_and_gradient(plain_covariance, x)
    for dtype, tolerance in ((torch.double, 1e-10), (torch.float, 2e-5)):
        other = torch.zeros(clips, dims, dtype=dtype)
        found = value_and_gradient(lambda z: vicreg_terms(z, other)["covariance"], x.to(dtype))  # noqa: B023
        for a, b in zip(found, (expected, *gradient), strict=True):
            assert a.dtype == dtype
            torch.testing.assert_close(
                a.double(), b, rtol=tolerance, atol=tolerance * b.abs().max().item()
            )


def value_and_gradient(function, x):
    x = x.clone().requires_grad_()
    value = function(x)
    return value.detach(), *torch.autograd.grad(value, x)


def test_collapsed_embeddings_are_invariant_but_penalised_by_the_variance_term():
    x = torch.ones(8, 4)
    terms = vicreg_terms(x, x)
    assert terms["invariance"] == 0 and terms["covariance"] == 0
    assert terms["variance"].item() == pytest.approx(1 - 0.01)  # sqrt(eps) remains


def test_huber_is_quadratic_for_small_differences_and_linear_for_large_ones():
    x = torch.zeros(2, 1)
    for gap, expected in ((0.5, 0.25), (3.0, 2 * 3 - 1)):
        term = vicreg_terms(x, x + gap, huber_delta=1.0)["invariance"]
        assert term.item() == pytest.approx(expected)


@pytest.mark.parametrize("shapes", [((4, 2), (4, 3)), ((4,), (4,)), ((1, 2), (1, 2))])
def test_vicreg_refuses_mismatched_shapes(shapes):
    with pytest.raises(ValueError, match="must both be"):
        vicreg_terms(*(torch.zeros(s) for s in shapes))
    vicreg_terms(torch.zeros(2, 3), torch.zeros(2, 3))


def test_evenly_spread_directions_have_a_spread_of_one_and_full_rank():
    z = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    assert spread(z).item() == pytest.approx(1, abs=0.02)
    assert spread(torch.eye(2).repeat(2, 1)).item() == pytest.approx((2 / 3) ** 0.5)
    assert effective_rank(z).item() == pytest.approx(8, rel=0.01)


def test_a_line_has_a_rank_of_one_and_a_plane_of_two():
    t = torch.linspace(0, 2 * math.pi, 65)[:-1]
    line = torch.stack([t, 2 * t, -t], dim=1)
    circle = torch.stack([t.cos(), t.sin(), 0 * t], dim=1)
    assert effective_rank(line).item() == pytest.approx(1, abs=1e-3)
    assert effective_rank(circle).item() == pytest.approx(2, abs=1e-3)
    assert effective_rank(torch.full((4, 4), torch.nan)).isnan()


def test_warnings_name_what_has_collapsed():
    row = {"epoch": 2, "audio_spread": MIN_SPREAD, "audio_rank": MIN_RANK, "variance": MAX_HINGE}
    row |= {"video_spread": 1.0, "video_rank": 9.0}
    assert not collapse_warning(row) and not collapse_warning({"epoch": 0})
    for change in ({"audio_spread": MIN_SPREAD - 0.01}, {"audio_rank": MIN_RANK - 0.1}):
        text = collapse_warning(row | change)
        assert text.startswith("collapse after epoch 3: audio embeddings") and "video" not in text
    assert "embeddings have shrunk" in collapse_warning(row | {"variance": MAX_HINGE + 0.01})
