"""Every figure and table of the book as files, drawn again in a style of one's choice.

The cells of the notebooks are run once more, on what the book has stored: nothing is pre-trained or
fine-tuned, and what is missing is an error.
"""

import ast
import contextlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from avnb.book import numbering
from avnb.book.notebook_parameters import notebook_parameters
from avnb.book.numbering import Caption
from avnb.config import unknown_name
from avnb.files import in_parallel, locked
from avnb.profiles import STORED_ONLY, Workspace, cores, project_root

FORMATS = ("pdf", "png", "svg")
# The same bytes from run to run: files hold no date, no version, and no random names.
METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}


def chosen(only: Sequence[str]) -> dict[Path, list[Caption]]:
    """The captions of each notebook of the book, or of those figures and tables that are named.

    A name is `12.3`, `figure-12.3`, a label such as `maps`, or the number of a chapter.

    Raises:
        ValueError: when a name fits nothing; it says what there is.
    """
    import nbformat

    found, known, fitting = {}, list[str](), set[str]()
    for path in sorted((project_root() / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        chapter = numbering.chapter_of(path)
        all_captions = [caption for _, caption in numbering.captions(cells, chapter)]
        known += [caption.file for caption in all_captions]
        names = {caption: names_of(caption, chapter) for caption in all_captions}
        fitting |= {name for some in names.values() for name in some & set(only)}
        if kept := [c for c in all_captions if not only or names[c] & set(only)]:
            found[path] = kept
    if wrong := [name for name in only if name not in fitting]:
        raise ValueError(f"no figure or table is called {wrong[0]!r}; there are {', '.join(known)}")
    return found


def names_of(caption: Caption, chapter: str) -> set[str]:
    """What a caption may be called on the command line."""
    kind, _, label = caption.file.partition(f"-{caption.number}-")
    return {caption.file, caption.number, f"{kind}-{caption.number}", label, caption.label, chapter}


def draw(
    work: Workspace,
    *,
    style: str = "paper",
    formats: Sequence[str] = FORMATS,
    only: Sequence[str] = (),
    out: Path | None = None,
) -> Path:
    """Write every figure in every format, every table as CSV and LaTeX; returns the folder.

    Args:
        work: whose results are drawn; its book has been made.
        style: a name of `style.STYLES`.
        formats: of figures, of FORMATS.
        only: numbers, labels or chapters; () for all.
        out: the folder; by default in the workspace, by the style's name.

    Raises:
        ValueError: for an unknown style, format or name, or where a run is not finished.
    """
    from avnb.book.style import check_style

    check_style(style)
    if wrong := [name for name in formats if name not in FORMATS]:
        raise ValueError(unknown_name("figure format", wrong[0], FORMATS))
    folder, asked = out or work.folder / "figures" / style, chosen(only)
    folder.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"work": work, "style": style, "out": folder}
    options["formats"] = tuple(formats)
    with locked(work.folder, lock=".book.lock", waiting="waiting for the book to be made"):
        jobs = sorted(asked.items(), key=lambda item: -len(item[1]))
        work_on = partial(draw_chapter, **options)
        for _ in in_parallel(work_on, jobs, workers=cores(), title="figures", unit="chapter"):
            pass
    return folder


def draw_chapter(
    job: tuple[Path, list[Caption]],
    *,
    work: Workspace,
    style: str,
    formats: Sequence[str],
    out: Path,
) -> None:
    """Draw one chapter's figures and tables."""
    import matplotlib as mpl
    import nbformat

    path, asked = job
    import torch

    torch.set_num_threads(1)  # of as many processes as there are cores
    mpl.use("agg")
    os.environ["AVNB_STYLE"] = style
    STORED_ONLY.set(True)
    notebook = nbformat.read(path, as_version=4)
    numbered = dict(numbering.captions(notebook.cells, numbering.chapter_of(path)))
    last = max(i for i, caption in numbered.items() if caption in asked)
    names: dict[str, Any] = {"__name__": "__main__"}
    given = {"profile": work.name} if "profile" in notebook_parameters(path) else {}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for i, cell in enumerate(notebook.cells[: last + 1]):
            if cell.cell_type != "code":
                continue
            try:
                value = run_cell(cell.source, names, f"{path.name}, cell {i + 1}")
            except BaseException as error:
                error.add_note(f"in {path.name}, cell {i + 1}")
                raise
            if "parameters" in cell.metadata.get("tags", ()):
                names |= given
            keep(numbered.get(i), asked, value, style, formats, out)


def run_cell(source: str, names: dict[str, Any], where: str) -> Any:
    """Run the code of a cell; the value of its last expression, None without one."""
    tree = ast.parse(source, where)
    *body, last = tree.body or [ast.Pass()]
    if not isinstance(last, ast.Expr):
        body, last = tree.body, ast.Expr(ast.Constant(None))
    first = ast.Module(body, type_ignores=[])
    exec(compile(first, where, "exec"), names)  # noqa: S102 - the book's own notebooks
    value = ast.fix_missing_locations(ast.Expression(last.value))
    return eval(compile(value, where, "eval"), names)  # noqa: S307


def keep(
    caption: Caption | None,
    asked: Sequence[Caption],
    value: Any,
    style: str,
    formats: Sequence[str],
    out: Path,
) -> None:
    """Write what a cell has drawn, or the table that it gave, where it is asked for."""
    import matplotlib.pyplot as plt

    figures = [plt.figure(number) for number in plt.get_fignums()]
    if caption in asked and caption is not None:
        if caption.kind == "Table":
            write_table(value, caption, out)
        for name, fig in zip(file_names(caption, len(figures)), figures, strict=True):
            write_figure(fig, out / name, style, formats)
    plt.close("all")


def file_names(caption: Caption, count: int) -> Iterator[str]:
    """One name for each figure of a cell: `figure-6.1-curves`, or with -1, -2 and so on."""
    for i in range(count):
        yield caption.file if count == 1 else f"{caption.file}-{i + 1}"


def write_figure(fig: Any, path: Path, style: str, formats: Sequence[str]) -> None:
    """Write a figure at the style's size in every format."""
    from avnb.book.style import fit_to_style

    fit_to_style(fig, style)
    for name in formats:
        fig.savefig(path.with_name(f"{path.name}.{name}"), metadata=METADATA[name])


def write_table(table: Any, caption: Caption, out: Path) -> None:
    """Write a data frame, or what its `Styler` formats, as CSV and as LaTeX."""
    import pandas as pd

    frame: pd.DataFrame = getattr(table, "data", table)
    (out / f"{caption.file}.csv").write_text(frame.to_csv())
    said = re.sub(r"([%&#])", r"\\\1", caption.plain)  # pandas escapes cells alone
    named: dict[str, Any] = {"caption": said, "label": f"tab:{caption.label[4:]}"}
    text = frame.reset_index().map(str).to_latex(index=False, escape=True, **named)
    (out / f"{caption.file}.tex").write_text(text)
