"""Pages show diagrams and cite works that exist, and every one of them."""

import re
from dataclasses import fields
from xml.etree import ElementTree

import nbformat
import pandas as pd
import pytest

from avnb.data.synthetic.scenes import Nuisances
from tests.conftest import ROOT

ASSETS = ROOT / "book" / "assets"
SVG = "{http://www.w3.org/2000/svg}"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def prose(path):
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path", sorted((ASSETS / "diagrams").glob("*.svg")), ids=lambda p: p.stem)
def test_a_diagram_is_small_and_has_a_title_a_description_and_text(path):
    root = ElementTree.parse(path).getroot()
    assert len(root.findtext(f"{SVG}title")) > 10 and len(root.findtext(f"{SVG}desc")) > 40
    assert root.findall(f".//{SVG}text") and "<metadata" not in path.read_text()
    assert path.stat().st_size < 60_000


def test_every_diagram_is_shown_and_every_one_shown_exists():
    shown = re.findall(r"assets/diagrams/([\w.]+)", "".join(p.read_text() for p in NOTEBOOKS))
    assert {*shown} == {p.name for p in ASSETS.glob("diagrams/*")}


def test_the_worlds_page_explains_every_nuisance_and_plays_files_that_exist():
    page = (ROOT / "book" / "world.md").read_text()
    assert all(f"`{field.name}`" in page for field in fields(Nuisances))
    files = re.findall(r"(?:assets|_static)/(nuisances/[\w.]+)", page)
    assert sorted(files) == sorted(f"nuisances/{p.name}" for p in ASSETS.glob("nuisances/*"))


def test_what_the_introduction_cites_has_an_entry_and_every_work_is_cited():
    entries = (ROOT / "book/refs.bib").read_text()
    keys = re.findall(r"\{cite:\w\}`([^`]+)`", prose(ROOT / "notebooks/00_introduction.ipynb"))
    cited = {key for listed in keys for key in listed.split(",")}
    works = pd.read_csv(ROOT / "avnb" / "evaluation" / "literature.csv")
    assert {*works["reference"]} <= cited
    assert all(f"{{{key},\n" in entries for key in cited)
