"""What is said about numbers is what their intervals allow."""

import re

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from avnb import figures, results, tables
from avnb.config import Pretrain
from avnb.videos import Manifest


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
        [
            {
                "epoch": e, "lr": 1e-3, "loss": 1.0, "cosine_own": 0.99, "cosine_other": 0.98,
                "video_spread": 0.01, "video_std": 0.001, "video_rank": 1.2,
            }
            for e in (0, 1)
        ]
    )  # fmt: skip
    assert "collapse after epoch 2" in tables.reading_pretraining(log, Pretrain())


def test_the_landscape_has_the_closed_forms_of_its_ends():
    scores = torch.linspace(-2, 2, 9, dtype=torch.double)
    _, pull = figures.landscape(1e-7, 0.5, scores)  # InfoNCE: 1 - softmax
    share = torch.sigmoid(scores[:, None] - scores[None]).numpy()
    assert abs(pull - share).max() < 1e-5
    _, pull = figures.landscape(1.0, 0.5, scores)  # linear in the exponential
    assert abs(pull - 0.5 * scores.exp().numpy()).max() < 1e-9


def test_a_data_set_is_described_by_what_its_tables_hold(manifests):
    manifest = Manifest.load(manifests / "vggsound")
    rows = pd.read_csv(manifests / "vggsound" / "manifest.csv", dtype={"id": str})
    rows.loc[0, "seconds"] = 0.5
    lost = pd.DataFrame({"path": ["a.mp4", "b.mp4"], "what": "listed, but not there"})
    ledger = pd.read_csv(manifests / "vggsound" / "ledger.csv", dtype=str)
    said = tables.reading_data(manifest, rows, lost, ledger)
    assert f"name {manifest.listed} videos; {len(manifest)} can be used. 2 are missing, " in said
    assert f"{len(ledger)} cannot be read" in said and len(ledger) > 0
    assert f"`{rows['id'][0]}`, has 0.50 s" in said
    silent = 100 * (1 - len(manifest.with_sound()) / len(manifest))
    assert f"{100 - silent:.1f} % have an audio stream" in said and silent > 0
    table = tables.extents(rows)
    assert table.loc["all", "videos"] == len(manifest)
    assert table.loc["all", "shortest, s"] == 0.5


def test_figures_of_a_data_set_count_every_video_once(manifests):
    rows = pd.read_csv(manifests / "vggsound" / "manifest.csv")
    classes = Manifest.load(manifests / "vggsound").classes
    length, size, rate = figures.extents(rows).axes
    assert sum(p.get_height() for p in length.patches) == len(rows)
    for ax in (size, rate):
        assert sum(p.get_width() for p in ax.patches) == len(rows)
    (ax,) = figures.contents(rows, classes).axes
    assert sum(p.get_height() for p in ax.patches) == len(rows)
    many = [*classes, *(f"empty {i}" for i in range(90))]
    assert figures.contents(rows, many).axes[0].get_xlabel() == "class, by its label"
    varied = rows.assign(width=range(len(rows)))
    assert "other" in [t.get_text() for t in figures.extents(varied).axes[1].get_yticklabels()]
    plt.close("all")
