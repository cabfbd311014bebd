"""Anatomy: what every notebook of the book must look like, and that its parameters are safe."""

import ast
import re
import subprocess
import sys

import nbformat
import papermill
import pytest

from avnb.__main__ import main
from avnb.book import parameters
from avnb.profiles import project_root
from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REFERENCE = re.compile(r"(Figure|Table) \{numref}`([a-z0-9-]+)`")
LABEL = re.compile(r"^:name: (\S+)", re.MULTILINE)  # of a figure in prose


@pytest.fixture(params=NOTEBOOKS, ids=lambda p: p.stem, scope="module")
def path(request):
    return request.param


@pytest.fixture(scope="module")
def cells(path):
    return nbformat.read(path, as_version=4).cells


def code(cells):
    return [c for c in cells if c.cell_type == "code"]


def prose(cells):
    return "\n".join(c.source for c in cells if c.cell_type == "markdown")


def figures(cells):
    """The captions of figures and tables, by their label."""
    found = [c.metadata["mystnb"]["figure"] for c in code(cells) if "mystnb" in c.metadata]
    labels = LABEL.findall(prose(cells))
    return {one["name"]: one for one in found} | {label: {"caption": "."} for label in labels}


def test_it_is_stored_without_outputs(cells):
    assert all(not c.outputs and c.execution_count is None for c in code(cells))


def test_it_opens_with_a_title_a_question_and_an_answer(cells):
    text = cells[0].source
    found = "**What was found.**" in text and "**How.**" in text
    assert text.startswith("# ") and "**Question.**" in text and (found or "**Answer.**" in text)


def test_every_command_of_the_book_names_notebooks_and_parameters_that_exist():
    known = {p.name: papermill.inspect_notebook(str(p)) for p in NOTEBOOKS}
    texts = [path.read_text() for path in [ROOT / "README.md", *(ROOT / "book").glob("*.md")]]
    texts += [prose(nbformat.read(path, as_version=4).cells) for path in NOTEBOOKS]
    commands = 0
    for text in texts:
        for command in re.findall(r"avnb run notebooks/\S+(?:[^`\n]|\\\n)*", text):
            commands += 1
            name, given = command.split("/")[1].split()[0], re.findall(r" -p (\w+)", command)
            assert "$" in name or {*given} <= known[name].keys(), command
    assert commands > 10


def test_headings_and_labels_of_figures_are_unique_in_the_book():
    books = [nbformat.read(path, as_version=4).cells for path in NOTEBOOKS]
    lines = [line for cells in books for line in prose(cells).splitlines()]
    headings = [line.lstrip("# ") for line in lines if line.startswith("#")]
    assert sorted(set(headings)) == sorted(headings)
    labels = [label for cells in books for label in figures(cells)]
    assert sorted(set(labels)) == sorted(labels)


def test_it_has_one_parameters_cell_of_described_values_that_papermill_reads_whole(path, cells):
    (cell,) = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    lines = cell.source.splitlines()
    for line, node in zip(lines, ast.parse(cell.source).body, strict=True):
        assert isinstance(node, ast.AnnAssign), f"{line}: write `name: type = value`"
        ast.literal_eval(node.value)
        assert line.count("=") == 1, f"{line}: papermill cannot read a line with two '='"
    assert len(lines) <= 14 and all("  # " in line for line in lines)
    seen = papermill.inspect_notebook(str(path))
    assert set(seen) == set(parameters.declared_parameters(cell.source))


def test_its_first_code_checks_the_parameters(cells):
    assert "parameters.check()" in code(cells)[1].source


def test_its_cells_are_short_and_its_prose_is_not(cells):
    written = code(cells)
    for cell in written:
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= 15, f"{lines[0]!r} starts a cell of {len(lines)} lines"
        assert not any(line.startswith(("class ", "!", "%")) for line in lines)
    words = " ".join(c.source for c in written if "parameters" not in c.metadata.get("tags", ()))
    assert len(prose(cells).split()) >= len(words.split())


def test_every_figure_and_table_has_a_caption_and_is_referred_to_by_its_kind(cells):
    known, text = figures(cells), prose(cells)
    referred = {label: kind for kind, label in REFERENCE.findall(text)}
    assert referred.keys() >= known.keys()
    for label, figure in known.items():
        kind = {"fig": "Figure", "tab": "Table"}[label[:3]]
        assert referred[label] == kind and figure["caption"].strip().endswith(".")
        assert figure.get("caption_before", False) == (kind == "Table")


def test_it_is_in_the_book(path):
    assert f"chapters/{path.stem}" in (ROOT / "book/_toc.yml").read_text()


def test_what_is_misspelt_is_told_before_anything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    out = tmp_path / "out.ipynb"
    run = ["run", "notebooks/04_rince.ipynb", str(out), "-p"]
    assert main([*run, "negative", "4"]) == 1
    assert "'negative' is unknown; did you mean 'negatives'?" in capsys.readouterr().err
    assert main([*run, "negatives", "many"]) == 1
    assert "must be int, got 'many'" in capsys.readouterr().err
    assert main(["run", "notebooks/04_rinse.ipynb", str(out)]) == 1
    assert "04_rince.ipynb" in capsys.readouterr().err
    (tmp_path / "a.ipynb").write_text("{}")
    assert main(["run", str(tmp_path / "a.ipynb"), str(out)]) == 1
    assert "a.ipynb is not a notebook" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
def test_plain_papermill_stops_at_a_misspelt_parameter(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="did you mean 'negatives'"):
        papermill.execute_notebook(
            str(ROOT / "notebooks/04_rince.ipynb"), str(tmp_path / "out.ipynb"),
            parameters={"negative": 4}, cwd=str(ROOT), progress_bar=False,
        )  # fmt: skip


def test_a_misspelt_parameter_is_told_without_importing_what_runs_notebooks(tmp_path):
    code = """
import sys
from avnb.__main__ import main
assert main(["run", "notebooks/04_rince.ipynb", sys.argv[1], "-p", "negative", "4"]) == 1
print(*{"torch", "papermill", "nbformat", "matplotlib"} & sys.modules.keys())
"""
    command = [sys.executable, "-c", code, str(tmp_path / "out.ipynb")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "did you mean 'negatives'?" in done.stderr
    assert done.stdout.strip() == ""


def test_a_notebook_finds_the_checkout_from_its_own_folder(monkeypatch):
    monkeypatch.chdir(ROOT / "notebooks")  # as in JupyterLab
    assert project_root() == ROOT
