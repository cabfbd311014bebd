"""What is said about numbers is what their intervals allow."""

import re

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from avnb import figures, results, tables
from avnb.config import Pretrain


def row(method, value, low, high, **more):
    base = {"task": "probe", "metric": "top1", "level": "clip", "dataset": "ucf101", "n": 40,
            "chance": 8.3, "profile": "demo", "run": method, "seed": 0}  # fmt: skip
    return results.Row(method=method, value=value, low=low, high=high, **{**base, **more})


def frame(*rows):
    return results.frame(vars(r) for r in rows)


@pytest.mark.parametrize(
    "xid, said",
    [
        ((60, 55, 65), "xID leads Random by 30.0 points"),
        ((32, 27, 37), "cannot be told apart"),
        ((10, 5, 15), r"xID \*trails\* Random by 20.0 points"),
    ],
)
def test_a_claim_is_made_only_where_the_intervals_are_apart(xid, said):
    rows = frame(row("random", 30, 25, 35), row("xid", *xid))
    text = tables.reading(rows, [("clip", "top1")], "demo")
    assert re.search(said, text)
    assert "demo" in text and "n = 40" in text


def test_published_numbers_stand_beside_ours_and_a_missing_one_is_a_dash():
    ours = frame(row("random", 30, 25, 35), row("xid", 60, 55, 65, metric="top5", level="video"))
    table = tables.beside_published(ours, results.published(), "probe", "ucf101")
    assert table.loc[("clip", "top1"), "Random, here"] == "30.0 [25.0, 35.0]"
    assert table.loc[("clip", "top1"), "Random, thesis"] == "4.76"
    assert table.loc[("video", "top5"), "xID, thesis"] == "80.91"
    assert table.loc[("video", "top5"), "Random, here"] == "–"


def test_select_says_what_was_asked_for_when_nothing_is_left():
    with pytest.raises(ValueError, match=r"no result row has .*hmdb51"):
        results.select(frame(row("xid", 1, 0, 2)), dataset="hmdb51")


def test_an_untrained_method_has_no_curves_and_says_so():
    run = Pretrain.from_flat(method="random")
    assert "is not trained" in tables.reading_pretraining(pd.DataFrame([]), run)
    figures.curves(pd.DataFrame([]), {"loss": ["loss"]})
    plt.close("all")


def test_a_collapse_is_said_aloud():
    log = pd.DataFrame(
        [{"epoch": e, "lr": 1e-3, "cosine_own": 0.99, "cosine_other": 0.98} for e in (0, 1)]
    )
    assert "collapsed" in tables.reading_pretraining(log, Pretrain())


def test_the_landscape_has_the_closed_forms_of_its_ends():
    scores = torch.linspace(-2, 2, 9, dtype=torch.double)
    _, pull = figures.landscape(1e-7, 0.5, scores)  # InfoNCE: 1 - softmax
    share = torch.sigmoid(scores[:, None] - scores[None]).numpy()
    assert abs(pull - share).max() < 1e-5
    _, pull = figures.landscape(1.0, 0.5, scores)  # linear in the exponential
    assert abs(pull - 0.5 * scores.exp().numpy()).max() < 1e-9
