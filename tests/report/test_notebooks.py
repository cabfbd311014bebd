"""Anatomy: what every notebook of the book must look like, and that its parameters are safe."""

import ast
import subprocess
import sys

import nbformat
import papermill
import pytest

from avnb.report import book, notebook_parameters
from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda p: p.stem)
def path(request):
    return request.param


@pytest.fixture
def cells(path):
    return nbformat.read(path, as_version=4).cells


def code(cells):
    return [c for c in cells if c.cell_type == "code"]


def test_it_is_stored_without_outputs(cells):
    assert all(not c.outputs and c.execution_count is None for c in code(cells))


def test_it_opens_with_a_title_a_question_and_an_answer(cells):
    text = cells[0].source
    assert text.startswith("# ") and "**Question.**" in text and "**Answer.**" in text
    assert any(c.source.startswith("## Reading") for c in cells)


def test_it_has_one_parameters_cell_of_plain_values_that_papermill_reads_whole(path, cells):
    (cell,) = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    for line, node in zip(cell.source.splitlines(), ast.parse(cell.source).body, strict=True):
        assert isinstance(node, ast.AnnAssign), f"{line}: write `name: type = value`"
        ast.literal_eval(node.value)
        assert line.count("=") == 1, f"{line}: papermill cannot read a line with two '='"
    seen = papermill.inspect_notebook(str(path))
    assert set(seen) == set(notebook_parameters.declared(cell.source))


def test_its_first_code_checks_the_parameters(cells):
    first = code(cells)[1]
    assert "notebook_parameters.check()" in first.source


def test_its_cells_are_short_and_hold_no_library_code(cells):
    for cell in code(cells):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        most = 20 if "parameters" in cell.metadata.get("tags", ()) else 15
        assert len(lines) <= most, (
            f"{lines[0]!r} starts a cell of {len(lines)} lines; move it to avnb"
        )
        assert not any(line.startswith(("class ", "def ", "!", "%")) for line in lines)


def test_it_is_in_the_book(path):
    assert f"chapters/{path.stem}" in (ROOT / "book/_toc.yml").read_text()


def press(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "avnb", "run", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_a_misspelt_parameter_is_an_error_before_anything_runs(tmp_path):
    out = tmp_path / "out.ipynb"
    done = press("notebooks/02_rince.ipynb", str(out), "-p", "negative", "4")
    assert done.returncode == 1 and not out.exists()
    assert "'negative' is unknown; did you mean 'negatives'?" in done.stderr
    assert "Traceback" not in done.stderr
    done = press("notebooks/02_rince.ipynb", str(out), "-p", "negatives", "many")
    assert done.returncode == 1 and "must be int, got 'many'" in done.stderr
    done = press("notebooks/02_rinse.ipynb", str(out))
    assert done.returncode == 1 and "02_rince.ipynb" in done.stderr


def test_plain_papermill_stops_at_a_misspelt_parameter(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="did you mean 'negatives'"):
        papermill.execute_notebook(
            str(ROOT / "notebooks/02_rince.ipynb"), str(tmp_path / "out.ipynb"),
            parameters={"negative": 4}, cwd=str(ROOT), progress_bar=False,
        )  # fmt: skip


def test_jupyter_from_the_notebooks_folder_finds_package_and_data(tmp_path):
    """As in JupyterLab: the kernel's folder is the notebook's own."""
    papermill.execute_notebook(
        str(ROOT / "notebooks/02_rince.ipynb"), str(tmp_path / "out.ipynb"),
        cwd=str(ROOT / "notebooks"), progress_bar=False,
    )  # fmt: skip


def test_staging_shows_the_values_that_were_used():
    source = 'profile: str = "smoke"  # a size\nq: float = 0.4  # in (0, 1]'
    assert book.merged(source, {"profile": "demo"}) == (
        "profile: str = 'demo'  # a size\nq: float = 0.4  # in (0, 1]"
    )
