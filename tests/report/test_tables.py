"""What is said about numbers is what their intervals allow."""

import re

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from markdown_it import MarkdownIt

from avnb import report
from avnb.config import Pretrain
from avnb.data.manifest import Manifest
from avnb.evaluation import results
from avnb.evaluation.probe_choices import CHOICES
from avnb.protocols import Evaluation
from avnb.report.wording import literal


def row(method, value, low, high, **more):
    base = {"task": "probe", "metric": "top1", "level": "clip", "dataset": "ucf101", "n": 40,
            "chance": 8.3, "profile": "demo", "run": f"{method}-0a1b2c3d", "seed": 0}  # fmt: skip
    return results.Row(method=method, value=value, low=low, high=high, **{**base, **more})


def frame(*rows):
    return results.frame(vars(r) for r in rows)


@pytest.mark.parametrize(
    "xid, said",
    [
        ((60, 55, 65), r"Above Random .*: xID .* by 30.0 points"),
        ((32, 27, 37), r"Not told apart from Random .*: xID"),
        ((10, 5, 15), r"Below Random .*: xID .* by 20.0 points"),
    ],
)
def test_a_claim_is_made_only_where_the_intervals_are_apart(xid, said):
    rows = frame(row("random", 30, 25, 35), row("xid", *xid))
    text = report.describe_accuracy(rows, [("clip", "top1")], "demo")
    assert re.search(said, text)
    assert "demo" in text and "n = 40" in text


def test_published_numbers_stand_beside_ours_and_a_missing_one_is_a_dash():
    ours = frame(
        row("xid", 60, 55, 65, metric="top5", level="video"), row("random", 30, 25, 35),
        row("xid", 31, 25, 35), row("xid", 9, 8, 10, level="other"),
    )  # fmt: skip
    table = report.published_table(ours, results.published(), "probe", "ucf101")
    one = table.loc[("single clips", "top-1 accuracy", "Random")]
    assert one["thesis"] == "4.76" and "difference" not in table
    assert one["here"] == "30.0\xa0[25.0,\xa035.0]"  # spaces where no line breaks
    assert (one["n"], one["chance"]) == ("40", "8.3")
    assert table.loc[("other", "top-1 accuracy", "xID"), "thesis"] == "–"
    assert table.xs("single clips").index.tolist() == [
        ("top-1 accuracy", "Random"), ("top-1 accuracy", "xID"),
    ]  # fmt: skip


def test_a_difference_is_taken_between_numbers_that_can_be_compared():
    ours = frame(row("xid", 60, 55, 65, metric="top5", level="video"))
    for profile, data in (("demo", "real 1234"), ("thesis", "synthetic 1234")):
        other = ours.assign(profile=profile, data=data)
        assert "difference" not in report.published_table(
            other, results.published(), "probe", "ucf101"
        )
    same = ours.assign(profile="thesis", data="real 1234")
    table = report.published_table(same, results.published(), "probe", "ucf101")
    assert table.loc[("whole videos", "top-5 accuracy", "xID"), "difference"] == "-20.9"


def test_several_seeds_are_shown_as_mean_and_deviation():
    ours = frame(*(row("xid", v, v - 5, v + 5, seed=s) for s, v in enumerate((30, 32))))
    now = results.over_seeds(ours)
    table = report.published_table(now, results.published(), "probe", "ucf101")
    assert table.loc[("single clips", "top-1 accuracy", "xID"), "here"] == "31.0 ± 1.4 (2 seeds)"
    assert "means over 2 seeds" in report.describe_accuracy(now, [("clip", "top1")], "demo")


def test_xid_is_held_against_every_other_trained_method():
    rows = frame(
        row("random", 10, 5, 15), row("supervised", 70, 65, 75), row("vicreg_av", 40, 35, 45),
        row("vicreg_v", 52, 45, 58), row("xid", 55, 50, 60),
    )  # fmt: skip
    text = report.describe_accuracy(rows, [("clip", "top1")], "smoke")
    assert (
        "Among the trained methods, xID leads VICReg-AV by 15.0; *trails* Supervised by 15.0; "
        "cannot be told apart from VICReg-V." in text
    )
    assert text.count("Above Random") == 1 and text.count("by 60.0 points") == 1
    alone = report.describe_accuracy(frame(row("random", 10, 5, 15)), [("clip", "top1")], "smoke")
    assert "Random 10.0\xa0[5.0,\xa015.0] %" in alone


CLASSES = ("Jump", "Run", "Swim")


def test_classes_that_gain_and_lose_are_named_with_their_numbers():
    label = torch.tensor([0, 0, 1, 1, 2, 2])
    one, other = torch.tensor([0, 0, 1, 2, 1, 1]), torch.tensor([1, 1, 1, 2, 2, 1])
    table = report.gains_table(one, other, label, [*CLASSES, "empty"])
    assert table["gain"].to_dict() == {"Jump": 100, "Run": 0, "Swim": -50}
    said = report.describe_gains(table, "xid", most=1)
    assert "1 of 3 classes" in said and "1 less often" in said and "50.0 points of a class" in said
    assert "`Jump` (+100.0); the smallest: `Swim` (-50.0)" in said
    ax = report.plot_gains(table, "t", most=1).axes[0]
    assert [p.get_width() for p in ax.patches] == [100, -50]
    plt.close("all")


def test_a_confusion_matrix_is_read_from_its_largest_mistake_on():
    counts = torch.tensor([[2, 0, 0], [0, 1, 3], [1, 0, 2]])
    said = report.describe_confusion(counts, CLASSES, "xid")
    assert "5 of 9 test videos correctly (55.6 %), and every video of 1 of 3 classes" in said
    assert said.index("`Run` is classified as `Swim` in 3 of 4") < said.index("`Swim` is class")
    assert said.count("is classified as") == 2
    mesh = report.plot_confusion(counts, CLASSES).axes[0].collections[0]
    assert mesh.get_array().reshape(3, 3)[1].tolist() == [0, 25, 75]
    plt.close("all")


def test_choices_are_compared_by_intervals_and_times():
    titles = [Evaluation().changed(**c).protocol_title for c in CHOICES.values()]
    values = zip((30, 34, 41, 31, 29, 45), titles, strict=True)
    both = [row("xid", v, v - 3, v + 3, protocol=p, level="video") for v, p in values]
    times = [
        results.Row(task="protocol", metric="seconds", value=v, method="xid",
                    dataset="ucf101", protocol=p)
        for v, p in ((2.0, titles[0]), (9.0, titles[1]))
    ]  # fmt: skip
    said = report.describe_choices(frame(*both, *times))
    assert re.search(r"; only moving BatchNorm 41.0\s.* % and author 45.0\s.* lie apart", said)
    assert "9.0 s, 4.5 times as long" in said


def test_a_method_and_a_data_set_of_ones_own_stand_in_every_table_and_figure():
    """`mine` is in no registry: titled by its name, always of one colour, and placed last."""
    assert report.in_method_order(["xid", "mine", "random", "mine"]) == ["random", "xid", "mine"]
    assert report.method_title("mine") == "mine" and report.method_title("xid") == "xID"
    assert report.method_colour("mine") == report.method_colour("mine") != report.method_colour("a")
    mine = {"dataset": "holidays"}
    rows = frame(row("mine", 60, 55, 65, **mine), row("random", 30, 25, 35, **mine))
    table = report.published_table(rows, results.published(), "probe", "holidays")
    assert table.index.get_level_values("method").tolist() == ["Random", "mine"]
    assert set(table["thesis"]) == {"–"}
    panels, logs = [("clip", "top1")], {"mine": [{"loss": 2.0, "accuracy": 0.1}] * 2}
    for said in (
        report.describe_accuracy(rows, panels, "demo"),
        report.describe_finetuning(rows, panels, logs, "demo"),
    ):
        assert "Above Random" in said and "mine (" in said and "by 30.0 points" in said
    (ax,) = report.plot_bars(rows, panels).axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["Random", "mine"]
    report.plot_tuning(logs, warmup_epochs=1)
    report.plot_losses({"mine": [[2.0, 1.0], [2.1, 1.1]]})
    assert report.pair_title({"level": "vggsound", "dataset": "holidays"}) == "VGGSound → holidays"
    log = pd.DataFrame({"epoch": [0, 1], "lr": 1e-3, "loss": [2.0, 1.0], "surprise": [3.0, 4.0]})
    titles = [ax.get_title() for ax in report.plot_curves(log).axes]
    assert titles == ["loss", "other terms"]
    assert "loss 2.000 → 1.000" in report.describe_pretraining(log, Pretrain())
    plt.close("all")


def test_missing_videos_are_counted_aloud(manifests):
    manifest = Manifest.load(manifests / "ucf101")
    assert f"All {len(manifest)} listed videos" in report.describe_completeness(manifest)
    part = manifest.only(manifest.videos[:7])
    assert f"**7 of the {manifest.listed} listed videos" in report.describe_completeness(part)


def test_select_says_what_was_asked_for_when_nothing_is_left():
    with pytest.raises(ValueError, match=r"no result row has .*hmdb51"):
        results.select(frame(row("xid", 1, 0, 2)), dataset="hmdb51")


def test_an_untrained_method_has_no_curves_and_says_so():
    run = Pretrain.from_flat(method="random")
    assert "is not trained" in report.describe_pretraining(pd.DataFrame([]), run)
    fig = report.plot_curves(pd.DataFrame([]))
    assert fig.axes[0].get_title() == "not trained: no curves"
    plt.close("all")


def test_what_became_of_vicregs_terms_is_read_from_the_log():
    def said(covariance, invariance=(0.3, 0.2, 0.1, 0.05)):
        terms = zip(covariance, invariance, (0.8, 0.7, 0.6, 0.5), strict=True)
        names = ["covariance", "invariance", "variance"]
        return report.describe_covariance(pd.DataFrame(terms, columns=names))

    assert "after epoch 2 of 4 and rose while both other terms fell, as in" in said((3, 1, 2, 3))
    assert "unlike in the thesis" in said((3, 1, 2, 3), (0.3, 0.1, 0.2, 0.3))
    assert "the last one; in the thesis it rose" in said((3, 2, 1, 0))
    assert "after the first epoch and rose" in said((0, 1, 2, 3))


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
    assert "collapse after epoch 2" in report.describe_pretraining(log, Pretrain())


def test_the_landscape_has_the_closed_forms_of_its_ends():
    scores = torch.linspace(-2, 2, 9, dtype=torch.double)
    _, pull = report.landscape(1e-7, 0.5, scores)  # InfoNCE: 1 - softmax
    share = torch.sigmoid(scores[:, None] - scores[None]).numpy()
    assert abs(pull - share).max() < 1e-5
    _, pull = report.landscape(1.0, 0.5, scores)  # linear in the exponential
    assert abs(pull - 0.5 * scores.exp().numpy()).max() < 1e-9


def test_a_data_set_is_described_by_what_its_tables_hold(manifests):
    manifest = Manifest.load(manifests / "vggsound")
    rows = pd.read_csv(manifests / "vggsound" / "manifest.csv", dtype={"id": str})
    rows.loc[0, "seconds"] = 0.5
    lost = pd.DataFrame({"path": ["a.mp4", "b.mp4"], "what": "listed, but not there"})
    ledger = pd.read_csv(manifests / "vggsound" / "ledger.csv", dtype=str)
    said = report.describe_data(manifest, rows, lost, ledger)
    assert f"name {manifest.listed} videos; {len(manifest)} are usable. 2 are missing, " in said
    assert f"{len(ledger)} cannot be decoded" in said and len(ledger) > 0
    assert f"the shortest, `{rows['id'][0]}`, 0.50 s" in said
    silent = 100 * (1 - len(manifest.with_audio()) / len(manifest))
    assert f"{100 - silent:.1f} % have an audio stream" in said and silent > 0
    table = report.extents_table(rows)
    assert table.loc["all", "videos"] == len(manifest)
    assert table.loc["all", "shortest, s"] == 0.5


def test_figures_of_a_data_set_count_every_video_once(manifests):
    rows = pd.read_csv(manifests / "vggsound" / "manifest.csv")
    classes = Manifest.load(manifests / "vggsound").classes
    length, size, rate = report.plot_extents(rows).axes
    assert sum(p.get_height() for p in length.patches) == len(rows)
    for ax in (size, rate):
        assert sum(p.get_width() for p in ax.patches) == len(rows)
    (ax,) = report.plot_contents(rows, classes).axes
    assert sum(p.get_height() for p in ax.patches) == len(rows)
    many = [*classes, *(f"empty {i}" for i in range(90))]
    assert report.plot_contents(rows, many).axes[0].get_xlabel() == "class, by its label"
    varied = rows.assign(width=range(len(rows)))
    assert "other" in [t.get_text() for t in report.plot_extents(varied).axes[1].get_yticklabels()]
    plt.close("all")


HOSTILE = ("$x^2$", "a|b", "<b>bold</b>", "`code`", "``", "*stars* _bars_", "[link](there)")


def test_names_are_data_and_stand_as_they_are(tmp_path):
    """Rendered as the book renders Markdown: as text, in code, which MathJax leaves alone."""
    text = "\n".join(f"- {literal(name)}" for name in HOSTILE)
    (item,) = (t for t in MarkdownIt().parse(text) if t.type == "bullet_list_open")
    spans = [c.content for t in MarkdownIt().parse(text) for c in t.children or ()]
    assert spans == list(HOSTILE) and item.level == 0
    counts = torch.eye(len(HOSTILE)).long()
    figure = report.plot_confusion(counts, HOSTILE)
    ticks = figure.axes[0].get_xticklabels()
    figure.canvas.draw()  # a formula would be parsed here
    assert [t.get_text().replace("\\$", "$") for t in ticks] == list(HOSTILE)
    said = report.describe_confusion(counts.flip(0), HOSTILE, "xid")
    assert literal("$x^2$") in said
    plt.close("all")
