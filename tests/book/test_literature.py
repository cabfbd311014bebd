"""What others have done: the families that are drawn, and the accuracies they are placed by."""

import itertools
import re

import matplotlib.pyplot as plt
import nbformat
import pytest

from avnb import book as report
from avnb.book.approaches import APPROACHES, PARTS
from avnb.book.literature import short_name
from avnb.evaluation import results
from avnb.models.methods import METHODS
from tests.conftest import ROOT


@pytest.fixture
def works():
    return report.all_works(results.literature(), results.published())


@pytest.fixture(params=["approaches", "literature"])
def fig(request, works):
    report.set_style()
    drawn = {"approaches": (report.plot_approaches,), "literature": (report.plot_literature, works)}
    plot, *arguments = drawn[request.param]
    yield plot(*arguments)
    plt.close("all")


def written(fig):
    """Every text inside the panels, and of their legends."""
    fig.draw_without_rendering()
    legends = [text for ax in fig.axes if ax.get_legend() for text in ax.get_legend().get_texts()]
    return [text for ax in fig.axes for text in ax.texts if text.get_text()] + legends


def test_no_text_covers_another_or_leaves_the_figure_or_is_small(fig):
    found = written(fig)
    boxes = [t.get_window_extent() for t in found]
    for (one, a), (other, b) in itertools.combinations(zip(found, boxes, strict=True), 2):
        assert not a.overlaps(b), f"{one.get_text()!r} and {other.get_text()!r}"
    for text, box in zip(found, boxes, strict=True):
        assert text.get_fontsize() >= 10, text.get_text()
        assert box.x0 >= 0 and box.x1 <= fig.bbox.x1, text.get_text()
        assert box.y0 >= 0 and box.y1 <= fig.bbox.y1, text.get_text()


def test_every_family_is_drawn_whole():
    fig = report.plot_approaches()
    for ax, approach in zip(fig.axes, APPROACHES, strict=True):
        said = [t.get_text() for t in ax.texts]
        assert {approach.title, approach.works, approach.loss} <= {*said}
        for part in PARTS:
            assert said.count(part) == (*approach.upper, *approach.lower).count(part)
        assert any(approach.guard in text for text in said)
        assert any(approach.weights in text for text in said)
    plt.close(fig)


def test_families_name_methods_that_are_here_and_works_that_are_cited():
    drawn = {method for approach in APPROACHES for method in approach.here}
    assert drawn == METHODS.keys() - {"random", "supervised"}
    entries = (ROOT / "book/refs.bib").read_text()
    cells = nbformat.read(ROOT / "notebooks/00_introduction.ipynb", as_version=4).cells
    cited = re.findall(r"\{cite:p\}`([^`]+)`", "\n".join(cell.source for cell in cells))
    cited = {key for keys in cited for key in keys.split(",")}
    named = {key for approach in APPROACHES for key in approach.keys}
    assert named | {*results.literature()["reference"]} <= cited
    assert all(f"{{{key},\n" in entries for key in cited)


def test_the_literature_stands_above_the_thesiss_own_fine_tuned_encoders(works):
    table = report.literature_table(works)
    assert len(table) == 11 + 5 and table.loc["VideoMAE", "UCF-101"] == "96.1"
    assert table.loc["AVID", "HMDB-51"].tolist() == ["60.8", "64.7"]
    assert table.loc["xID, thesis", ["UCF-101", "HMDB-51"]].tolist() == ["73.2", "42.9"]
    assert table.loc["Random, thesis", "pre-trained on"] == "–"
    assert table.loc["XDC", "year"] == "2020" and table.loc["VICReg-V, thesis", "modality"] == "V"


def test_a_sortable_table_has_one_line_of_headers_and_escapes_its_cells(works):
    table = report.literature_table(works).head(2).assign(note="<b>")
    text = report.SortableTable(table)._repr_html_()
    assert 'class="dataframe sortable"' in text and "&lt;b&gt;" in text
    assert text.count("<tr") == 3 and re.search(r"<th>method</th>\s*<th>backbone</th>", text)


def test_every_work_is_a_point_with_its_name(works):
    (ax,) = report.plot_literature(works).axes
    drawn = sorted(tuple(xy) for points in ax.collections for xy in points.get_offsets().tolist())
    assert drawn == sorted(zip(works["ucf101"], works["hmdb51"], strict=True))
    names = [short_name(work) for work in works.to_dict("records")]
    assert sorted(t.get_text() for t in ax.texts) == sorted(names) and len({*names}) == len(names)
    plt.close("all")


def test_the_reading_places_a_method_of_the_thesis_among_the_others(works):
    said = report.describe_literature(works, "xid").replace("\N{NO-BREAK SPACE}", " ")
    assert "highest of 10 self-supervised results are VideoMAE (96.1 %) among" in said
    assert "AVID (AudioSet, 91.5 %) among those from video and audio" in said
    assert "xID (73.2 %) is 5.5 points below the lowest of them, VideoMoCo (78.7 %)" in said
    higher = works.assign(ucf101=works["ucf101"].where(works["method"] != "xid", 80))
    assert "xID (80.0 %) is 1.3 points above" in report.describe_literature(higher).replace(
        "\N{NO-BREAK SPACE}", " "
    )
    with pytest.raises(ValueError, match="did you mean 'xid'"):
        report.describe_literature(works, "xidd")


def test_the_works_are_those_of_the_thesiss_table():
    thesis = ROOT.parent / "shared" / "thesis.txt"
    if not thesis.is_file():
        pytest.skip(f"{thesis} is not here")
    text = thesis.read_text()
    table = text[text.index("\nMethod\tBackbone") : text.index("\nTable 2.1:")].split("\n")
    rows = [line.split("\t") for line in table if line.count("\t") == 5][1:]
    for row, ours in zip(rows, results.literature().to_dict("records"), strict=True):
        assert row[4:] == [str(ours["ucf101"]), str(ours["hmdb51"])]
        assert row[1:3] == [ours["backbone"], ours["modality"]]
        assert row[3] == ours["frames"] or (row[3], ours["frames"]) == ("(*)", "selected")
        name = re.sub(r" ?\[\d+\]", "", row[0]).replace(" ", "").lower()
        assert ours["method"].replace("R-xID", "RxID").lower() == name or name == "(audioset)"
        assert ("AudioSet" in row[0]) == (ours["pretraining"] == "AudioSet")
