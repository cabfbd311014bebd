"""Losses of the methods beside the thesis's, from their papers' formulae, one clip at a time."""

import math

import pytest
import torch
import torch.nn.functional as F

from avnb.training.runs import training_sampling
from tests.models.test_methods import a_batch, built


def embedded(method, batch):
    """Unit embeddings of frames and audio, [B, D] each."""
    v = method.video_projector(method.video_encoder(batch.frames))
    a = method.audio_projector(method.audio_encoder(batch.audio))
    return F.normalize(v, dim=1), F.normalize(a, dim=1)


def nce(own, others, tau):
    """-log of the share that a pair has among itself and others."""
    total = math.exp(own / tau) + sum(math.exp(other / tau) for other in others)
    return -math.log(math.exp(own / tau) / total)


def test_in_batch_contrast_is_among_the_other_videos_of_the_batch(tiny):
    method, batch = built(tiny, "in_batch", temperature=0.3).eval(), a_batch(6)
    batch.video_index[5] = batch.video_index[1]  # two clips of one video
    v, a = embedded(method, batch)
    cosine, index = (v @ a.T).tolist(), batch.video_index.tolist()
    sums = [0.0, 0.0]
    for i in range(6):
        strangers = [j for j in range(6) if index[j] != index[i]]
        sums[0] += nce(cosine[i][i], [cosine[i][j] for j in strangers], 0.3)
        sums[1] += nce(cosine[i][i], [cosine[j][i] for j in strangers], 0.3)
    terms = method(batch, 0.0)
    assert terms["video_to_audio"].item() == pytest.approx(sums[0] / 6, rel=1e-5)
    assert terms["audio_to_video"].item() == pytest.approx(sums[1] / 6, rel=1e-5)
    assert terms["loss"].item() == pytest.approx(sum(sums) / 12, rel=1e-5)


def test_pairs_whose_rows_agree_less_count_less_in_r_xid(tiny):
    values = {"temperature": 0.3, "least_trust": 0.2, "trust_delta": -0.4, "trust_kappa": 0.6}
    method, batch = built(tiny, "r_xid", **values).eval(), a_batch()
    v, a = embedded(method, batch)
    rows = [bank.rows.tolist() for bank in (method.video_bank, method.audio_bank)]
    dot = lambda x, y: sum(p * q for p, q in zip(x, y, strict=True))  # noqa: E731
    scores = torch.tensor([dot(x, y) for x, y in zip(*rows, strict=True)])
    mean, std = scores.mean().item(), scores.std().item()
    neg, losses, weights = method.negatives(batch).tolist(), [], []
    for i, (x, y) in enumerate(zip(v.tolist(), a.tolist(), strict=True)):
        z = (scores[i].item() - mean + 0.4 * std) / (math.sqrt(0.6) * std)
        weights.append(0.2 + 0.8 * (1 + math.erf(z / math.sqrt(2))) / 2)
        one = nce(dot(x, rows[1][i]), [dot(x, rows[1][j]) for j in neg[i]], 0.3)
        losses.append(
            (one + nce(dot(y, rows[0][i]), [dot(y, rows[0][j]) for j in neg[i]], 0.3)) / 2
        )
    expected = dot(weights, losses) / sum(weights)
    assert method(batch, 0.5)["loss"].item() == pytest.approx(expected, rel=1e-5)
    assert method(batch, 0.5)["trust"].item() == pytest.approx(sum(weights) / 8, rel=1e-5)
    plain = method(batch, 0.0)  # the banks are random then
    assert plain["loss"].item() == pytest.approx(sum(losses) / 8, rel=1e-5)
    assert plain["trust"] == 1


def test_positives_of_avid_cma_are_alike_in_both_banks(tiny):
    method, batch = (
        built(tiny, "avid_cma", positives=3, temperature=0.3, agreement_weight=0.7),
        a_batch(),
    )
    first = method.train()(batch, 0.25)
    assert first["agreement"] == 0 and method.found_at == -1
    method(batch, 0.5)
    banks = [bank.rows for bank in (method.video_bank, method.audio_bank)]
    for i in range(20):
        alike = [min((bank[i] @ bank[j]).item() for bank in banks) for j in range(20)]
        best = sorted((j for j in range(20) if j != i), key=lambda j: -alike[j])[:3]
        assert method.positives[i].tolist() == best
    terms, neg = method.eval()(batch, 0.5), method.negatives(batch)
    sums = 0.0
    for z, bank in zip(embedded(method, batch), banks, strict=True):
        cosine = (z @ bank.T).tolist()
        for i in range(8):
            kin = method.positives[i].tolist()
            others = [cosine[i][j] for j in neg[i].tolist() if j not in kin]
            sums += sum(nce(cosine[i][j], others, 0.3) for j in kin) / 3
    assert terms["agreement"].item() == pytest.approx(sums / 16, rel=1e-5)
    across = (terms["video_to_audio"] + terms["audio_to_video"]) / 2
    torch.testing.assert_close(terms["loss"], across + 0.7 * terms["agreement"])
    before = method.positives.clone()
    method.video_bank.rows.copy_(method.video_bank.rows.flip(0))
    method.train()(batch, 0.5)  # the same epoch: what was found stays
    assert torch.equal(method.positives, before)
    method(batch, 0.75)
    assert not torch.equal(method.positives, before)


def test_avts_compares_frames_with_the_sound_of_their_moment_of_others_and_of_later(tiny):
    method, batch = built(tiny, "avts", margin=1.3, hard_share=0.4).eval(), a_batch(5)
    batch.video_index[4] = batch.video_index[0]
    both = torch.cat([batch.frames, batch.second_view])
    frames = F.normalize(method.video_projector(method.video_encoder(both)), dim=1)
    _, a = embedded(method, batch)
    index, short = batch.video_index.tolist(), lambda x, y: max(0, 1.3 - math.dist(x, y)) ** 2
    v, late, a = frames[:5].tolist(), frames[5:].tolist(), a.tolist()
    own = sum(math.dist(x, y) ** 2 for x, y in zip(v, a, strict=True)) / 5
    pairs = [(i, j) for i in range(5) for j in range(5) if index[i] != index[j]]
    easy = sum(short(v[i], a[j]) for i, j in pairs) / len(pairs)
    hard = sum(short(x, y) for x, y in zip(late, a, strict=True)) / 5
    assert method(batch, 0.2)["loss"].item() == pytest.approx((own + easy) / 2, rel=1e-4)
    later = (own + 0.6 * easy + 0.4 * hard) / 2
    assert method(batch, 0.5)["loss"].item() == pytest.approx(later, rel=1e-4)
    with pytest.raises(ValueError, match="second clip"):
        method(a_batch(second_view=False), 0.0)
    clip = training_sampling(method.config).clip
    assert clip.max_offset_seconds == 0  # and no hard pair overlaps: its audio is over by then
    assert clip.audio_seconds == clip.video_seconds <= method.config.vicreg.second_view_min_seconds


def test_xdc_predicts_the_clusters_of_the_other_modality_once_it_has_features(tiny):
    method, batch = built(tiny, "xdc", clusters=3, bank_momentum=0.0).train(), a_batch()
    terms = method(batch, 0.0)
    terms["loss"].backward()
    method.before_step(0)
    assert all(p.grad is None for p in method.parameters())  # the first epoch collects
    method.after_step()
    with torch.no_grad():
        features = method.video_encoder(batch.frames), method.audio_encoder(batch.audio)
    for bank, x in zip((method.video_bank, method.audio_bank), features, strict=True):
        torch.testing.assert_close(bank.rows[:8], F.normalize(x, dim=1))
    method(batch, 0.5)
    for bank, found in (
        (method.video_bank, method.video_clusters),
        (method.audio_bank, method.audio_clusters),
    ):
        middles = torch.stack([bank.rows[found == k].mean(0) for k in range(3)])
        assert torch.equal(torch.cdist(bank.rows, middles).argmin(1), found)
    before = method.video_clusters.clone()
    method.video_bank.rows.copy_(method.video_bank.rows.flip(0))
    for layer in (method.video_classifier, method.audio_classifier):
        layer.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    terms = method(batch, 0.5)
    assert torch.equal(method.video_clusters, before)  # until the next epoch
    logits = method.video_classifier(method.video_encoder(batch.frames)).tolist()
    labels = method.audio_clusters[batch.video_index].tolist()
    expected = sum(
        nce(x[k], [*x[:k], *x[k + 1 :]], 1.0) for x, k in zip(logits, labels, strict=True)
    )
    assert terms["video"].item() == pytest.approx(expected / 8, rel=1e-4)
    torch.testing.assert_close(terms["loss"], (terms["video"] + terms["audio"]) / 2)
    method(batch, 1.0)
    assert not torch.equal(method.video_clusters, before) and not method.video_classifier.bias.any()
    with pytest.raises(ValueError, match="at least 2 epochs"):
        built(tiny, "xdc", epochs=1)
