"""The accuracies of other works are the thesis's, and what is cited has an entry."""

import re

import nbformat
import pytest

from avnb.evaluation import results
from tests.conftest import ROOT


def test_what_the_introduction_cites_has_an_entry_and_every_work_is_cited():
    entries = (ROOT / "book/refs.bib").read_text()
    cells = nbformat.read(ROOT / "notebooks/00_introduction.ipynb", as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    cited = {key for keys in re.findall(r"\{cite:\w\}`([^`]+)`", prose) for key in keys.split(",")}
    assert {*results.literature()["reference"]} <= cited
    assert all(f"{{{key},\n" in entries for key in cited)


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
