"""Tables and figures hold what was measured, whatever it is called."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from markdown_it import MarkdownIt

from avnb import book as report
from avnb.book.wording import literal
from avnb.data.manifest import Manifest
from avnb.evaluation import results


def row(method, value, low, high, **more):
    base = {"task": "probe", "metric": "top1", "level": "clip", "dataset": "ucf101", "n": 40,
            "chance": 8.3, "profile": "demo", "run": f"{method}-0a1b2c3d", "seed": 0}  # fmt: skip
    return results.Row(method=method, value=value, low=low, high=high, **{**base, **more})


def frame(*rows):
    return results.frame(vars(r) for r in rows)


def test_published_numbers_stand_beside_ours_and_a_missing_one_is_a_dash():
    ours = frame(
        row("xid", 60, 55, 65, metric="top5", level="video"), row("random", 30, 25, 35),
        row("xid", 31, 25, 35), row("xid", 9, 8, 10, level="other"),
    )  # fmt: skip
    table = report.published_table(ours, results.published(), "probe", "ucf101")
    one = table.loc[("single clips", "top-1 accuracy", "Random")]
    assert one["thesis"] == "4.76" and "difference" not in table
    assert one["here"] == "•\xa030.0\xa0[25.0,\xa035.0]"  # spaces where no line breaks
    assert (one["n"], one["chance"]) == ("40", "8.3")
    assert table.loc[("other", "top-1 accuracy", "xID"), "thesis"] == "–"
    assert table.xs("single clips").index.tolist() == [
        ("top-1 accuracy", "Random"), ("top-1 accuracy", "xID"),
    ]  # fmt: skip


def test_a_dot_marks_the_best_and_what_cannot_be_told_from_it():
    ours = frame(row("random", 10, 5, 15), row("vicreg_v", 30, 24, 36), row("xid", 33, 28, 38))
    here = report.published_table(ours, results.published(), "probe", "ucf101")["here"]
    assert [text.startswith("•\xa0") for text in here] == [False, True, True]
    alone = report.published_table(ours.head(1), results.published(), "probe", "ucf101")["here"]
    assert not alone.iloc[0].startswith("•")


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
    (ax,) = report.plot_bars(rows, panels).axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["Random", "mine"]
    report.plot_tuning(logs, warmup_epochs=1)
    report.plot_losses({"mine": [[2.0, 1.0], [2.1, 1.1]]})
    assert report.pair_title({"level": "vggsound", "dataset": "holidays"}) == "VGGSound → holidays"
    log = pd.DataFrame({"epoch": [0, 1], "lr": 1e-3, "loss": [2.0, 1.0], "surprise": [3.0, 4.0]})
    titles = [ax.get_title() for ax in report.plot_curves(log).axes]
    assert titles == ["loss", "other terms"]
    table = report.learnt_table({"mine": log})
    assert table.loc[("mine", "loss")].tolist() == ["2.00", "1.00", ""]
    plt.close("all")


def test_missing_videos_are_counted_aloud(manifests):
    manifest = Manifest.load(manifests / "ucf101")
    assert f"All {len(manifest)} listed videos" in report.describe_completeness(manifest)
    part = manifest.only(manifest.videos[:7])
    assert f"**7 of the {manifest.listed} listed videos" in report.describe_completeness(part)


def test_select_says_what_was_asked_for_when_nothing_is_left():
    with pytest.raises(ValueError, match=r"no result row has .*hmdb51"):
        results.select(frame(row("xid", 1, 0, 2)), dataset="hmdb51")


def test_the_landscape_has_the_closed_forms_of_its_ends():
    scores = torch.linspace(-2, 2, 9, dtype=torch.double)
    _, pull = report.landscape(1e-7, 0.5, scores)  # InfoNCE: 1 - softmax
    share = torch.sigmoid(scores[:, None] - scores[None]).numpy()
    assert abs(pull - share).max() < 1e-5
    _, pull = report.landscape(1.0, 0.5, scores)  # linear in the exponential
    assert abs(pull - 0.5 * scores.exp().numpy()).max() < 1e-9


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
    said = report.describe_confusion(9 * counts.flip(0), HOSTILE, "xid")
    assert f"{literal('$x^2$')} for {literal('[link](there)')}" in said
    plt.close("all")
