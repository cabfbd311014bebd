"""Properties of the methods that hold for any data."""

import dataclasses

import pytest
import torch

from avnb.data.batch import Batch
from avnb.models.methods import METHODS, build_method, parse_methods
from tests.conftest import with_values


def a_batch(run, size=8, second_view=True) -> Batch:
    rng = torch.Generator().manual_seed(0)
    frames = torch.randn(2, size, 3, 8, 16, 16, generator=rng)
    return Batch(
        frames=frames[0], second_view=frames[1] if second_view else None,
        audio=torch.randn(size, 1, 16, 31, generator=rng),
        video_index=torch.arange(size), label=torch.arange(size) % 3,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", sorted(name for name, method in METHODS.items() if method.is_trained)
)
def test_a_step_along_the_gradient_lowers_the_loss(tiny, name):
    run = with_values(tiny, method=name, q_first=0.1, q_last=0.1)
    method, batch = build_method(run, 20, 3).train(), a_batch(run)
    before = method(batch, 0.0)["loss"]
    before.backward()
    trained = [p for p in method.parameters() if p.grad is not None]
    steepness = sum(p.grad.square().sum() for p in trained)  # BatchNorm over 8 clips: up to 1e9
    with torch.no_grad():
        for p in trained:
            p -= 0.01 * before.abs() / steepness * p.grad  # the loss falls by 1 %, to first order
    assert method(batch, 0.0)["loss"] < before


def test_all_methods_start_from_the_same_encoders(tiny):
    weights = [build_method(with_values(tiny, method=name), 20, 3).state_dict() for name in METHODS]
    for other in weights[1:]:
        for key in (k for k in weights[0] if k.split(".")[0] in ("video_encoder", "audio_encoder")):
            assert torch.equal(other[key], weights[0][key])


def test_negatives_do_not_depend_on_the_division_of_the_batch(tiny):
    method, batch = build_method(tiny, 20, 3), a_batch(tiny)
    whole = method.negatives(batch)
    parts = [method.negatives(part) for part in batch.split(2)]
    assert torch.equal(torch.cat(parts), whole)
    assert (whole != batch.video_index[:, None]).all()
    later = method.negatives(dataclasses.replace(batch, step=1))
    assert not torch.equal(later, whole)


def test_banks_are_updated_after_the_step_and_not_before(tiny):
    method, batch = build_method(tiny, 20, 3).train(), a_batch(tiny)
    before = method.video_bank.rows.clone()
    method(batch, 0.0)
    assert torch.equal(method.video_bank.rows, before)
    method.after_step()
    moved = (method.video_bank.rows != before).any(dim=1)
    assert moved[:8].all() and not moved[8:].any()
    method.eval()(batch, 0.0)
    assert not method.pending  # evaluation does not update the banks


def test_xid_can_use_info_nce(tiny):
    batch = a_batch(tiny)
    rince, nce = (
        build_method(with_values(tiny, xid_loss=loss), 20, 3).train()(batch, 0.0)["loss"]
        for loss in ("rince", "info_nce")
    )
    assert nce > 0 and rince != nce


def test_huber_reduces_the_weight_of_outlying_pairs(tiny):
    batch = a_batch(tiny)
    square, huber = (
        build_method(with_values(tiny, method="vicreg_av", huber_delta=d), 20, 3).train()(
            batch, 0.0
        )
        for d in (0.0, 0.1)
    )
    assert huber["invariance"] < square["invariance"]
    assert huber["variance"] == square["variance"]


def test_a_missing_second_clip_and_missing_validation_are_clear_errors(tiny):
    batch = a_batch(tiny, second_view=False)
    with pytest.raises(ValueError, match="needs batches with a second clip"):
        build_method(with_values(tiny, method="vicreg_v"), 20, 3)(batch, 0.0)
    with pytest.raises(NotImplementedError, match="CrossModalDiscrimination is not validated"):
        build_method(tiny, 20, 3).validate(batch)


def test_method_names_are_parsed_and_checked():
    assert parse_methods(" random, xid") == ("random", "xid")
    for text in ("xid, xid", "", " , "):
        with pytest.raises(ValueError, match="name each once"):
            parse_methods(text)
    with pytest.raises(ValueError, match="did you mean 'xid'"):
        parse_methods("random,xidd")
