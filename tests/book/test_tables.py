"""Tables hold what was measured, beside the thesis's numbers."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from avnb.book import plots, tables
from avnb.evaluation import results
from avnb.models.methods import METHODS
from tests.conftest import ROOT

NOTEBOOKS = ROOT / "notebooks"


def row(method, value, spread=5, **more):
    base = {"task": "probe", "metric": "top1", "level": "clip", "dataset": "ucf101", "n": 40,
            "chance": 8.3, "profile": "demo", "run": f"{method}-0a1b2c3d", "seed": 0}  # fmt: skip
    base |= {"low": value - spread, "high": value + spread}
    return results.Row(method=method, value=value, **{**base, **more})


def frame(*rows):
    return results.frame(vars(r) for r in rows)


def table(ours):
    return tables.published_table(ours, results.published())


def line(found, name):
    """A line of a table with one level and metric."""
    return found.xs(name, level=2).iloc[0].tolist()


def test_published_numbers_stand_beside_ours_and_a_missing_one_is_a_dash():
    ours = frame(
        row("xid", 60, metric="top5", level="video"),
        row("xid", 31),
        row("random", 30),
        row("xid", 9, level="other"),
    )
    found = table(ours)
    one = found["Random"]["single clips, n = 40", "top-1 accuracy, chance 8.3"]
    assert dict(one) == {"here": "30.0 [25.0, 35.0]", "thesis": "4.76"}
    assert found["xID"]["other, n = 40"].index.unique(1).tolist() == ["here"]
    assert found.columns.tolist() == ["Random", "xID"]


def test_the_verdict_is_on_the_same_videos_as_the_untrained_encoder():
    ours = frame(row("random", 0, outcomes="00" * 5), row("xid", 100, outcomes="ff" * 5))
    assert line(table(ours), "verdict") == ["–", "above"]
    for none in (ours.assign(outcomes=""), ours.iloc[1:]):
        assert "verdict" not in table(none).index.get_level_values(2)
    own = table(ours.assign(dataset="my-videos"))  # of which the thesis has no numbers
    assert line(own, "verdict") == ["–", "above"] and "thesis" not in own.index.levels[2]


def test_other_values_by_method_get_a_line():
    found = tables.published_table(frame(row("xid", 31)), results.published(), epochs={"xid": 16})
    assert line(found, "epochs") == [16]


def test_a_difference_is_taken_between_numbers_that_can_be_compared():
    ours = frame(row("xid", 60, metric="top5", level="video"))
    for profile, data in (("demo", "real:1234"), ("thesis", "synthetic:1234")):
        assert "difference" not in table(ours.assign(profile=profile, data=data)).index.levels[2]
    assert line(table(ours.assign(profile="thesis", data="real:1234")), "difference") == ["-20.9"]


def test_methods_become_columns():
    wide = tables.by_columns(frame(row("xid", 31), row("random", 8.25)))
    assert wide.columns.tolist() == ["Random", "xID"]
    assert wide.loc[("single clips", "top-1 accuracy"), "Random"] == "8.2 [3.2, 13.2]"


def test_a_method_of_ones_own_stands_last_under_its_name_in_a_colour_of_its_own():
    assert plots.in_method_order(["xid", "mine", "random", "mine"]) == ["random", "xid", "mine"]
    assert plots.method_title("mine") == "mine" and plots.method_title("xid") == "xID"
    own = [f"own.py:Method{i}" for i in range(20)]
    every = [*map(plots.method_colour, [*METHODS, *own]), *plots.LINES]
    every += [plots.BLUE, plots.ORANGE, plots.GREY, plots.RED]
    assert len({*every}) == len(every)
    rows = frame(row("mine", 60), row("random", 30))
    assert table(rows).columns.tolist() == ["Random", "mine"]


def test_a_shared_axis_begins_at_zero_and_holds_the_blocks_of_all_panels():
    fig, axes = plt.subplots(1, 2, sharey=True)
    for ax, value in zip(axes, (30, 70), strict=True):
        worlds = (row("xid", value + seed, seed=seed, data="a") for seed in (6, 7))
        plots.blocks(ax, frame(*worlds))
    bottom, top = axes[0].get_ylim()
    assert bottom == 0 and 71 < top < 100
    plt.close(fig)


@pytest.mark.filterwarnings("error:Glyph")  # all that figures write has one in the paper's font
def test_figures_and_tables_are_written_at_the_size_of_the_style(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "OUTPUT", plots.Output())
    monkeypatch.setattr(tables, "OUTPUT", plots.OUTPUT)
    with pytest.raises(RuntimeError, match="set_style"):
        tables.save(pd.DataFrame({"a": [1]}), "early")
    with pytest.raises(ValueError, match="did you mean 'paper'"):
        plots.set_style("papr", tmp_path, "07_probe")
    with plt.rc_context():
        monkeypatch.setattr(plots, "CJK_FONTS", "Nowhere;STIXGeneral")
        plots.set_style("paper", tmp_path / "paper", "07_probe")
        assert plt.rcParams["font.family"] == ["serif", "STIXGeneral"]  # both are asked
        fig, ax = plt.subplots(figsize=(9, 3))
        size = ax.set_title("–1 → ρ").get_fontsize()
        plots.save("probe")
        assert fig.get_size_inches().tolist() == [6.5, pytest.approx(6.5 / 3)]
        assert ax.title.get_fontsize() == pytest.approx(size * 6.5 / 9 * 1.1)
    named = pd.DataFrame({"share, %": ["50 %"]}, index=["xID"])
    assert tables.save(named.style, "shares").data is named
    shown = tables.save(named.rename_axis("method"), "named").to_html()
    assert shown.count("<tr") == 1 + len(named) and "method" in shown
    assert tables.save(pd.DataFrame({"a": [1]}), "plain").equals(pd.DataFrame({"a": [1]}))
    files = {path.name for path in (tmp_path / "paper").iterdir()}
    names = ["probe.pdf", "shares.csv", "shares.tex"]
    assert files >= {f"07_probe-{name}" for name in names}
    assert r"50 \%" in (tmp_path / "paper/07_probe-shares.tex").read_text()
    assert (tmp_path / "paper/07_probe-shares.csv").read_text() == ',"share, %"\nxID,50 %\n'
    assert (tmp_path / "paper/07_probe-plain.csv").read_text() == "a\n1\n"
    plt.close("all")


def test_claims_have_both_sides_in_the_thesis_and_in_the_worlds_of_the_studies(tmp_path):
    plain = {"level": "video", "space": "{}", "profile": "study"}
    made = [
        row(method, value + gain, seed=6 + block, data=f"world {block}", **plain)
        for method, value in (("random", 10), ("xid", 50))
        for block, gain in enumerate((-1, 0.5, 0, 0.5, 1, -1))
    ]
    made += [row("xid", 99, seed=100, **plain), row("xid", 99, **{**plain, "space": '{"lr": 1}'})]
    results.record(tmp_path / "rows.jsonl", made)
    found = tables.claims("07_probe", tmp_path / "rows.jsonl")
    one, two = (found.loc[claim].tolist() for claim in (1, 2))
    assert one[:2] == ["xID above Random", "51.20 against 7.08, chance 1.0"]
    assert one[2:] == [
        "50.0 against 10.0, chance 8.3",
        "undecided",
    ]  # differences that are all equal
    assert two[2:] == ["50.0, chance 8.3", "undecided"] and found.index.tolist() == [1, 2, 3, 4]
    made[0] = row("random", 8, seed=6, data="world 0", **plain)
    results.record(tmp_path / "rows.jsonl", made)
    assert tables.claims("07_probe", tmp_path / "rows.jsonl").loc[1, "verdict"] == "supported"


def test_the_chapters_of_the_claims_show_them():
    for chapter in tables.asked_claims()["chapter"].unique():
        assert f'tables.claims(\\"{chapter}\\")' in (NOTEBOOKS / f"{chapter}.ipynb").read_text()
