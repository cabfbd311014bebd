"""Anatomy: what every notebook of the book must look like, and that its parameters are safe."""

import ast
import re
import subprocess
import sys
import threading

import nbformat
import papermill
import pytest
from jupyter_client.manager import start_new_kernel

from avnb.__main__ import main
from avnb.book import book, glossary, notebook_parameters, numbering, parts
from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
UNANSWERED = {"00_introduction", "18_reproduce"}  # they stand in no part that sums up


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


NAMED = {
    name
    for page in (ROOT / "book").glob("part_*.md")
    for line in parts.ANSWERS.findall(page.read_text())
    for name in line.split()
}


def test_a_chapter_of_a_part_answers_its_question_in_one_cell(path, cells):
    answers = [c for c in code(cells) if "answer" in c.metadata.get("tags", ())]
    assert len(answers) == (path.stem in NAMED) and {p.stem for p in NOTEBOOKS} >= NAMED
    assert not answers or "Markdown(" in answers[0].source
    assert path.stem in NAMED or not path.stem[:2].isdigit() or path.stem in UNANSWERED


def test_its_headings_say_what_is_below_them_and_differ():
    found = [
        line.lstrip("# ")
        for path in NOTEBOOKS
        for cell in nbformat.read(path, as_version=4).cells
        for line in cell.source.splitlines()
        if cell.cell_type == "markdown" and line.startswith("#")
    ]
    assert sorted(set(found)) == sorted(found)
    assert not [line for line in found if re.match("Reading|Load|Table|Figure", line)]


def test_it_has_one_parameters_cell_of_plain_values_that_papermill_reads_whole(path, cells):
    (cell,) = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    for line, node in zip(cell.source.splitlines(), ast.parse(cell.source).body, strict=True):
        assert isinstance(node, ast.AnnAssign), f"{line}: write `name: type = value`"
        ast.literal_eval(node.value)
        assert line.count("=") == 1, f"{line}: papermill cannot read a line with two '='"
    seen = papermill.inspect_notebook(str(path))
    assert set(seen) == set(notebook_parameters.declared_parameters(cell.source))


def test_it_has_at_most_twelve_parameters_and_each_is_described(cells):
    (cell,) = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    lines = cell.source.splitlines()
    assert len(lines) <= 12 and all("  # " in line for line in lines)


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


def test_every_figure_and_table_has_a_caption_and_is_referred_to(path, cells):
    captions = [caption for _, caption in numbering.captions(cells, numbering.chapter_of(path))]
    assert len({caption.label for caption in captions}) == len(captions)
    prose = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    assert set(numbering.REFERENCE.findall(prose)) == {caption.label for caption in captions}
    for cell in code(cells):
        last = cell.source.strip().splitlines()[-1]
        if last.startswith(("report.plot_", "plt.show")) or "_table(" in last:
            assert numbering.CAPTION.match(cell.source), f"no caption: {last}"


def test_a_reference_to_nothing_is_an_error():
    cell = nbformat.v4.new_code_cell("# Figure one: A line,\n#   and another.\nplot()")
    ((_, caption),) = numbering.captions([cell], "3")
    assert caption.title == "Figure 3.1" and caption.text == "A line, and another."
    assert caption.file == "figure-3.1-one"
    numbers = {caption.label: caption}
    assert numbering.with_references("see @fig-one.", numbers) == "see [Figure 3.1](fig-one)."
    with pytest.raises(ValueError, match="@fig-two is referred to; there are fig-one"):
        numbering.with_references("see @fig-two", numbers)


def test_it_is_in_the_book(path):
    assert f"chapters/{path.stem}" in (ROOT / "book/_toc.yml").read_text()


@pytest.mark.slow
def test_a_misspelt_parameter_is_an_error_before_anything_runs(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.ipynb"
    arguments = ["run", "notebooks/04_rince.ipynb", str(out), "-p"]
    command = [sys.executable, "-m", "avnb", *arguments, "negative", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and not out.exists()
    assert "'negative' is unknown; did you mean 'negatives'?" in done.stderr
    assert "Traceback" not in done.stderr
    monkeypatch.chdir(ROOT)
    assert main([*arguments, "negatives", "many"]) == 1
    assert "must be int, got 'many'" in capsys.readouterr().err
    assert main(["run", "notebooks/04_rinse.ipynb", str(out)]) == 1
    assert "04_rince.ipynb" in capsys.readouterr().err and not out.exists()


@pytest.mark.slow
def test_plain_papermill_stops_at_a_misspelt_parameter(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="did you mean 'negatives'"):
        papermill.execute_notebook(
            str(ROOT / "notebooks/04_rince.ipynb"), str(tmp_path / "out.ipynb"),
            parameters={"negative": 4}, cwd=str(ROOT), progress_bar=False,
        )  # fmt: skip


@pytest.mark.slow
def test_jupyter_from_the_notebooks_folder_finds_package_and_data(tmp_path):
    """As in JupyterLab: the kernel's folder is the notebook's own."""
    papermill.execute_notebook(
        str(ROOT / "notebooks/04_rince.ipynb"), str(tmp_path / "out.ipynb"),
        cwd=str(ROOT / "notebooks"), progress_bar=False,
    )  # fmt: skip


def test_staging_shows_the_values_that_were_used():
    source = 'profile: str = "smoke"  # a size\nq: float = 0.4  # in (0, 1]'
    assert book.with_values(source, {"profile": "demo"}) == (
        "profile: str = 'demo'  # a size\nq: float = 0.4  # in (0, 1]"
    )


def test_staging_folds_code_and_leaves_only_what_a_reader_needs():
    cell = nbformat.v4.new_code_cell
    shown = nbformat.v4.new_output("stream", name="stdout", text="done")
    bar = nbformat.v4.new_output("stream", name="stderr", text="50 %")
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# Title"),
            cell('profile: str = "smoke"', metadata={"tags": ["parameters"]}),
            cell('# Parameters\nprofile = "demo"', metadata={"tags": ["injected-parameters"]}),
            cell("open()", metadata={"papermill": {}}, outputs=[bar, shown]),
            cell("step()", metadata={"tags": ["teaches"]}),
        ]
    )
    page = book.staged(notebook, "demo")
    assert ["demo" in c.source for c in page.cells] == [False, True, True, False, False]
    _, _, parameters, plumbing, step = page.cells
    assert parameters.source == "profile: str = 'demo'"
    assert plumbing.metadata["tags"] == ["hide-input"] and plumbing.outputs == [shown]
    assert step.metadata["tags"] == ["teaches"]


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


def test_what_is_not_a_notebook_is_named(tmp_path):
    (tmp_path / "a.ipynb").write_text("{}")
    with pytest.raises(ValueError, match=r"a.ipynb is not a notebook"):
        notebook_parameters.notebook_parameters(str(tmp_path / "a.ipynb"))


def test_an_interrupted_cell_says_so_in_one_line():
    manager, client = start_new_kernel()
    said = []
    try:
        client.execute_interactive(
            "import time\nfrom avnb.book import notebook_parameters\nnotebook_parameters.check()",
            timeout=60,
        )
        threading.Timer(1.0, manager.interrupt_kernel).start()
        reply = client.execute_interactive("time.sleep(30)", timeout=20, output_hook=said.append)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    texts = [m["content"]["text"] for m in said if m["msg_type"] == "stream"]
    assert reply["content"]["status"] == "error" and "error" not in {m["msg_type"] for m in said}
    assert texts == ["interrupted; run the cell again: what was finished is kept\n"]


def test_the_first_mention_of_a_term_leads_to_the_glossary():
    known = glossary.terms((ROOT / "book/glossary.md").read_text())
    assert known["whole videos"] == "single clips, whole videos" and known["vicreg"] == "VICReg"
    text = (
        "# Clips\n\nA `clip`, $clip$ and [clips](02_clips.ipynb): clips of VICReg-AV, by VICReg.\n"
    )
    seen = set()
    linked = "# Clips\n\nA `clip`, $clip$ and [clips](02_clips.ipynb): {term}`clips <clip>` of "
    linked += "VICReg-AV, by {term}`VICReg <VICReg>`.\n"
    assert glossary.with_terms(text, known, seen) == linked
    assert seen == {"clip", "VICReg"} and glossary.with_terms(text, known, seen) == text
