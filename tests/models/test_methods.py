"""Losses of the methods from their embeddings; properties that hold for any data."""

import dataclasses
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from avnb.data.clips import Batch
from avnb.models.losses import info_nce, rince, vicreg_terms
from avnb.models.methods import METHODS, build_method, derive_seed, parse_methods
from avnb.models.methods.xid import MemoryBank
from tests.conftest import with_values

PARTS = ("video_encoder", "audio_encoder", "video_expander", "audio_expander")  # of vicreg_av


def a_batch(size=8, second_view=True) -> Batch:
    rng = torch.Generator().manual_seed(0)
    frames = torch.randn(2, size, 3, 8, 16, 16, generator=rng)
    return Batch(
        frames=frames[0], second_view=frames[1] if second_view else None,
        audio=torch.randn(size, 1, 16, 31, generator=rng),
        video_index=torch.arange(size), label=torch.arange(size) % 3,
    )  # fmt: skip


def built(run, name="xid", **changes):
    """The method of a run on 20 videos of 3 classes."""
    return build_method(with_values(run, method=name, **changes), 20, 3)


def test_all_methods_start_from_the_same_encoders(tiny):
    weights = [built(tiny, name).state_dict() for name in METHODS]
    for other in weights[1:]:
        for key in (k for k in weights[0] if k.split(".")[0] in ("video_encoder", "audio_encoder")):
            assert torch.equal(other[key], weights[0][key])


@pytest.mark.parametrize("he, deviation", [(True, 2**0.5), (False, 3**-0.5)])
def test_heads_are_initialised_after_he_or_by_default(tiny, he, deviation):
    for name, head in (("xid", "video_projector"), ("vicreg_v", "video_expander")):
        config = with_values(tiny, method=name, he_heads=he, width=16)
        weight = getattr(build_method(config, 9, 3), head)[0].weight
        assert weight.std().item() * weight.shape[1] ** 0.5 == pytest.approx(deviation, rel=0.1)


def test_a_method_is_initialised_from_its_seed_alone_and_its_residuals_are_scaled(tiny):
    state = torch.get_rng_state()
    one, same, other = (built(tiny, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    key = "video_encoder.stages.0.0.second.3.weight"
    assert torch.equal(one[key], same[key]) and not torch.equal(one[key], other[key])
    full = built(tiny, residual_scale=1.0).state_dict()
    torch.testing.assert_close(one[key], tiny.residual_scale * full[key])


@pytest.mark.parametrize("loss", ["rince", "info_nce"])
def test_xid_compares_each_embedding_with_the_bank_of_the_other_modality(tiny, loss):
    values = {"temperature": 0.3, "q_first": 0.1, "q_last": 0.5, "lam": 0.2, "xid_loss": loss}
    method, batch = built(tiny, **values).eval(), a_batch()
    v = F.normalize(method.video_projector(method.video_encoder(batch.frames)), dim=1)
    a = F.normalize(method.audio_projector(method.audio_encoder(batch.audio)), dim=1)
    neg, function = method.negatives(batch), info_nce
    if loss == "rince":
        function = partial(rince, q=0.3, lam=0.2)  # half way between the first and the last q
    terms, expected, cosines = method(batch, 0.5), [], []
    for z, bank in ((v, method.audio_bank), (a, method.video_bank)):
        pos = (z * bank.rows[batch.video_index]).sum(1)
        others = torch.einsum("bd,bkd->bk", z, bank.rows[neg])
        expected.append(function(pos / 0.3, others / 0.3))
        cosines.append((pos.mean(), others.mean()))
    own, other = (sum(pair) / 2 for pair in zip(*cosines, strict=True))
    for name, value in (
        ("video_to_audio", expected[0]), ("audio_to_video", expected[1]),
        ("loss", sum(expected) / 2), ("cosine_own", own), ("cosine_other", other),
    ):  # fmt: skip
        torch.testing.assert_close(terms[name], value)


def test_negatives_are_all_other_videos_equally_often_however_the_batch_is_divided(tiny):
    method, batch = built(tiny, negatives=4000), a_batch()
    whole = method.negatives(batch)
    for row, own in zip(whole, batch.video_index, strict=True):
        counts = torch.bincount(row, minlength=20).double()
        assert counts[own] == 0 and len(counts) == 20
        others = counts[torch.arange(20) != own]
        torch.testing.assert_close(
            others / 4000, torch.full((19,), 1 / 19).double(), atol=0.02, rtol=0
        )
    parts = [method.negatives(part) for part in batch.split(2)]
    assert torch.equal(torch.cat(parts), whole)
    later = method.negatives(dataclasses.replace(batch, step=1))
    assert not torch.equal(later, whole)


def test_banks_are_updated_after_the_step_with_the_embeddings_of_their_modality(tiny):
    method, batch = built(tiny, bank_momentum=0.75).train(), a_batch()
    banks = [
        MemoryBank(20, tiny.xid.embedding_dim, momentum=0.75, seed=derive_seed(tiny.seed, k))
        for k in (1, 2)
    ]
    own = method.video_bank, method.audio_bank
    method(batch, 0.0)
    assert all(torch.equal(a.rows, b.rows) for a, b in zip(own, banks, strict=True))
    method.after_step()
    for name, bank, expected in zip(("video", "audio"), own, banks, strict=True):
        expected.update(batch.video_index, method.embeddings[name][0])
        torch.testing.assert_close(bank.rows, expected.rows)
    method.eval()(batch, 0.0)
    assert not method.pending  # evaluation does not update the banks
    with pytest.raises(ValueError, match="two videos to tell apart, got 1"):
        build_method(tiny, 1, 1)


def test_vicreg_is_the_weighted_sum_of_its_terms(tiny):
    weights = {"invariance_weight": 3.0, "variance_weight": 5.0, "covariance_weight": 0.5}
    method, batch = built(tiny, "vicreg_av", huber_delta=0.1, **weights).eval(), a_batch()
    terms = method(batch, 0.0)
    v = method.video_expander(method.video_encoder(batch.frames))
    a = method.audio_expander(method.audio_encoder(batch.audio))
    expected = vicreg_terms(v, a, huber_delta=0.1)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)
    whole = 3 * expected["invariance"] + 5 * expected["variance"] + 0.5 * expected["covariance"]
    torch.testing.assert_close(terms["loss"], whole)


def test_vicreg_v_compares_two_clips_of_a_video_without_audio(tiny):
    method, batch = built(tiny, "vicreg_v").train(), a_batch()
    terms = method(batch, 0.0)
    views = torch.cat([batch.frames, batch.second_view])  # BatchNorm's statistics are those of both
    z = method.video_expander(method.video_encoder(views)).chunk(2)
    torch.testing.assert_close(terms["invariance"], vicreg_terms(*z)["invariance"])
    terms["loss"].backward()
    assert all(p.grad is None for p in method.audio_encoder.parameters())


@pytest.mark.parametrize("prob", [0.0, 0.25, 1.0])
def test_the_audio_path_rests_in_the_given_share_of_steps(tiny, prob):
    method, rests = built(tiny, "vicreg_av", audio_rest_prob=prob), 0
    first = [next(getattr(method, part).parameters()) for part in PARTS]
    for step in range(200):
        for p in first:
            p.grad = torch.zeros(p.shape)
        method.before_step(step)
        seen, heard = (p.grad is None for p in first[::2]), [p.grad is None for p in first[1::2]]
        assert not any(seen) and heard[0] == heard[1]
        rests += heard[0]
    assert rests / 200 == pytest.approx(prob, abs=0.08)


def test_supervised_classifies_the_features_of_both_modalities(tiny):
    method, batch = built(tiny, "supervised").eval(), a_batch()
    both = [method.video_encoder(batch.frames), method.audio_encoder(batch.audio)]
    logits = method.classifier(torch.cat(both, dim=1))
    correct = (logits.argmax(1) == batch.label).float()
    losses = F.cross_entropy(logits, batch.label, reduction="none")
    terms, metrics = method(batch, 0.0), method.validate(batch)
    torch.testing.assert_close(terms, {"loss": losses.mean(), "accuracy": correct.mean()})
    torch.testing.assert_close(metrics, {"validation_loss": losses, "validation_accuracy": correct})
    assert tuple(metrics) == method.validation_metrics


def test_supervised_is_finished_after_its_last_epoch_or_when_accuracy_stagnates(tiny):
    config = with_values(tiny, method="supervised", epochs=6, patience_epochs=2)
    for accuracies, finished in (
        ([], False), ([0.1, 0.3, 0.2], False), ([0.1, 0.3, 0.2, 0.3], True),
        ([0.3, 0.2, 0.4, 0.1], False), ([0.1, 0.2, 0.3, 0.4, 0.5], False),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], True),
    ):  # fmt: skip
        log = [{"validation_accuracy": x} for x in accuracies]
        assert METHODS["supervised"].is_finished(config, log) is finished
        assert METHODS["xid"].is_finished(config, log) is (len(log) == 6)
    assert METHODS["random"].is_finished(config, [])


def test_a_missing_second_clip_and_missing_validation_are_clear_errors(tiny):
    batch = a_batch(second_view=False)
    with pytest.raises(ValueError, match="needs batches with a second clip"):
        built(tiny, "vicreg_v")(batch, 0.0)
    with pytest.raises(NotImplementedError, match="CrossModalDiscrimination is not validated"):
        built(tiny).validate(batch)


def test_method_names_are_parsed_and_checked():
    assert parse_methods(" random, xid") == ("random", "xid")
    for text in ("xid, xid", "", " , "):
        with pytest.raises(ValueError, match="name each once"):
            parse_methods(text)
    with pytest.raises(ValueError, match="did you mean 'xid'"):
        parse_methods("random,xidd")
