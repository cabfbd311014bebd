"""Staging: what of an executed notebook becomes a page."""

import sys

import nbformat
import pytest

from avnb.book import build


@pytest.fixture
def page():
    cell = nbformat.v4.new_code_cell
    figure = {"name": "fig-a", "caption": "Loss $L$ by *epoch* {cite:p}`a`."}
    return nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# Title"),
            cell('profile: str = "smoke"  # a size', metadata={"tags": ["parameters"]}),
            cell('# Parameters\nprofile = "demo"', metadata={"tags": ["injected-parameters"]}),
            cell("draw()", metadata={"mystnb": {"figure": figure}}),
            cell("step()", metadata={"tags": ["teaches"]}),
            cell("check()", metadata={"tags": ["hide-input"]}),
        ]
    )


def test_a_page_has_a_note_the_code_that_matters_and_described_figures(page):
    title, note, _, *code = build.staged(page, "04_rince.ipynb").cells
    assert title.source == "# Title" and "demo** size" in note.source
    assert "avnb run notebooks/04_rince.ipynb out.ipynb -p profile demo" in note.source
    assert "{download}`notebook <04_rince.ipynb>`" in note.source
    shown = [cell.metadata["tags"][-1] for cell in code]
    assert shown == ["remove-input", "remove-input", "teaches", "hide-input"]
    figure = code[1]
    assert figure.metadata["mystnb"]["image"]["alt"] == "Loss L by epoch ."
    assert figure.metadata["mystnb"]["figure"]["name"] == "fig-a"


def test_pages_are_made_again_when_a_file_changes(tmp_path):
    source, out, made = tmp_path / "a.py", tmp_path / "out", []

    def make():
        made.append(out.write_text("page"))

    for text in ("a = 1", "a = 1", "a = 2"):
        source.write_text(text)
        build.unless_current(out, [source, tmp_path], make)
    assert len(made) == 2


@pytest.mark.slow
def test_a_notebook_is_run_by_this_python_in_the_folder_of_the_call(tmp_path, monkeypatch, capsys):
    (spec := tmp_path / "kernels/python3/kernel.json").parent.mkdir(parents=True)
    spec.write_text('{"argv": ["false"], "display_name": "another", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    cell = nbformat.v4.new_code_cell("import os, sys; print(sys.executable, os.getcwd())")
    kernel = {"name": "python3", "display_name": "", "language": "python"}
    book = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel})
    nbformat.write(book, tmp_path / "a.ipynb")
    build.run_notebook("a.ipynb", "out.ipynb", {})
    assert f"{sys.executable} {tmp_path}" in capsys.readouterr().out
