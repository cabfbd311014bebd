"""Toy pairs are drawn as documented, and show what the chapter on methods claims."""

from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from avnb import book as report
from avnb.config import VICReg
from avnb.models import toys
from avnb.models.losses import info_nce, rince


def test_the_given_share_of_pairs_is_mismatched_and_no_view_is_lost():
    pairs = toys.draw(10, [0, 1])
    wrong = pairs.mismatched(0.4)
    assert (wrong.second != pairs.second).any(dim=2).sum(dim=1).tolist() == [4, 4]
    assert torch.equal(wrong.second.sort(dim=1).values, pairs.second.sort(dim=1).values)
    assert torch.equal(pairs.mismatched(0).second, pairs.second)
    for share in (0.1, 1.2):
        with pytest.raises(ValueError, match=f"share of {share} of 10 pairs"):
            pairs.mismatched(share)


def test_a_repetition_does_not_depend_on_the_others():
    alone, beside = toys.draw(6, [3]), toys.draw(6, [2, 3])
    assert torch.equal(alone.first[0], beside.first[1])
    one, two = (
        toys.ViewNetworks(seeds)(pairs) for seeds, pairs in (([3], alone), ([2, 3], beside))
    )
    torch.testing.assert_close(one[:, 0], two[:, 1])


def test_views_of_a_pair_share_their_causes_and_nothing_else():
    pairs = toys.draw(4000, [0], noise=0.0)
    both = torch.cat([pairs.first[0], pairs.second[0]], dim=1)
    both = both[(both.abs() < 0.999).all(dim=1)].atanh()
    assert len(both) > 50
    assert torch.linalg.matrix_rank(both, rtol=1e-2) == toys.CAUSES


def test_told_apart_counts_all_comparisons():
    class Given(torch.nn.Module):
        def forward(self, pairs):
            return torch.stack([pairs.first, pairs.second])

    angle = torch.tensor([[0.1, 0.5], [0.3, 0.9]])  # of right pairs, of wrong pairs
    one = torch.tensor([1.0, 0.0]).expand(1, 2, 2)
    right, wrong = (toys.Pairs(one, torch.stack([a.cos(), a.sin()], dim=1)[None]) for a in angle)
    assert toys.told_apart(Given(), right, wrong).item() == 3 / 4
    assert toys.told_apart(Given(), right, wrong[:0]).isnan().all()


def test_without_variance_embeddings_shrink_and_without_covariance_their_rank_falls():
    pairs = toys.draw(256, [0])
    weights = {
        "all": {},
        "without variance": {"variance_weight": 0.0},
        "without covariance": {"covariance_weight": 0.0},
    }
    runs = {
        name: toys.learn_vicreg(pairs, VICReg(**changes), steps=150, seed=0)
        for name, changes in weights.items()
    }
    logs = {k: log for k, (log, _) in runs.items()}
    last = pd.DataFrame({k: log.iloc[-1] for k, log in logs.items()})
    assert last.loc["first_std"].idxmin() == "without variance" == last.loc["invariance"].idxmin()
    assert last.loc["first_std", ["all", "without covariance"]].between(0.9, 1.1).all()
    assert last.loc["first_rank", "without covariance"] < last.loc["first_rank", "all"] - 1
    said = report.describe_toys(logs)
    assert "Without variance, the views agree" in said and "hardly anything varies" in said
    assert "Without covariance, the embeddings use" in said and "where all give" in said
    assert report.terms_table(logs, toys.DIM).index.tolist() == list(weights)
    report.plot_side_by_side(logs, {"first_std": "size", "first_rank": "rank"})
    report.plot_correlations({k: z for k, (_, z) in runs.items()})
    plt.close("all")


def test_rince_finds_more_than_info_nce_where_two_pairs_of_five_are_wrong():
    contrasts = {"InfoNCE": info_nce, "RINCE": partial(rince, q=0.4, lam=0.01)}
    rows = toys.under_noise(contrasts, [0.0, 0.4], steps=100, seeds=[0, 1, 2])
    assert len(rows) == 12 and rows.loc[rows["share"] == 0, "told_apart"].isna().all()
    noisy = rows[rows["share"] == 0.4].pivot(index="seed", columns="loss", values="retrieved")
    assert (noisy["RINCE"] > noisy["InfoNCE"]).all()
    assert (noisy > 2 * 100 / 200).all(axis=None)  # twice the chance level
    report.plot_under_noise(rows, {"retrieved": "found", "told_apart": "told apart"})
    plt.close("all")


def test_a_loss_leads_only_where_every_seed_agrees():
    values = {0.0: [("A", 1, 2), ("B", 2, 3)], 0.2: [("A", 1, 2), ("B", 0, 1)]}
    values[0.4] = [("A", 1, 2), ("B", 0, 3)]
    rows = pd.DataFrame(
        (
            {"loss": loss, "share": share, "seed": seed, "retrieved": value}
            for share, losses in values.items()
            for loss, *by_seed in losses
            for seed, value in enumerate(by_seed)
        )
    )
    text = report.describe_noise(rows, "A")
    assert text.replace("\xa0", " ") == (
        "Where 0 % of the pairs are wrong, B finds more right partners than A in every seed. Where "
        "20 % of the pairs are wrong, B finds fewer right partners than A in every seed. Otherwise "
        "the seeds disagree on what beats A."
    )


def test_the_invariance_pulls_twice_the_distance_and_with_huber_at_most_twice_delta():
    d = torch.tensor([0.0, 0.25, 1.0, 6.0])
    assert toys.invariance_pull(d).tolist() == pytest.approx([0, 0.5, 2, 12])
    assert toys.invariance_pull(d, 0.5).tolist() == pytest.approx([0, 0.5, 1, 1])
