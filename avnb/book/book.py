"""The book: notebooks are run, staged as executed, and built by Jupyter Book.

nbformat takes a second to import, and only where a notebook is staged.
"""

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avnb.book import execution, glossary, numbering, reference
from avnb.book import notebook_parameters as parameters
from avnb.book.glossary import with_terms
from avnb.book.numbering import Caption
from avnb.book.parts import BookError, with_answers
from avnb.config import digest
from avnb.files import locked, write_text
from avnb.profiles import SIZES, Workspace, profile, project_root

NOTEBOOK_LINK = re.compile(r'href="([\w-]+)\.ipynb"')
IMAGE = re.compile(r"<img (?!loading)")  # fetched when it comes into view
NUMBER = re.compile(r"<td>(?=[-+±•\N{MINUS SIGN}\d])")  # a cell that begins with one
MEDIA = re.compile(r'(src|poster)="[^"]*?media/([0-9a-f]+\.(?:mp4|jpg))"')
MEDIA_BYTES = 15e6  # of a page's videos, at most


def with_values(source: str, given: Mapping[str, Any]) -> str:
    """The parameters cell with the values that were used in place of its defaults."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        name = ast.unparse(node.target) if isinstance(node, ast.AnnAssign) else ""
        if isinstance(node, ast.AnnAssign) and node.value is not None and name in given:
            row, value = node.value.lineno - 1, node.value
            line = lines[row]
            lines[row] = line[: value.col_offset] + repr(given[name]) + line[value.end_col_offset :]
    return "\n".join(lines)


def size_note(size: str) -> str:
    """What results of a profile say, as a box; '' for the thesis's sizes."""
    return f":::{{note}}\n{SIZES[size]}\n:::" if size in SIZES else ""


def how_to_run(name: str, cell: Any, injected: Any) -> str:
    """A folded box with the commands that make this page again, and where to change it."""
    given = parameters.injected_parameters(injected.source) if injected else {}
    options = "".join(f" -p {key} {str(value).lower()}" for key, value in given.items())
    return (
        ":::{admonition} Run this chapter\n:class: tip dropdown\n"
        f"In the repository, `avnb run notebooks/{name} out.ipynb{options}` makes what this page "
        f"shows; `papermill` takes the same parameters. To explore, `make lab` and open "
        f"`notebooks/{name}`. The parameters below are those of this page.\n:::"
    )


def staged(notebook: Any, size: str, name: str = "") -> Any:
    """An executed notebook as a page: its size, one parameters cell, code folded unless it teaches.

    Progress bars and the traces of papermill are removed.
    """
    import nbformat

    tagged = {tag: cell for cell in notebook.cells for tag in cell.metadata.get("tags", ())}
    cell, injected = tagged.get("parameters"), tagged.get("injected-parameters")
    if cell and size in SIZES and "profile" in parameters.declared_parameters(cell.source):
        note = nbformat.v4.new_markdown_cell(size_note(size), id="made-at-size")
        notebook.cells.insert(1, note)
    if cell and name:
        box = nbformat.v4.new_markdown_cell(how_to_run(name, cell, injected), id="how-to-run")
        notebook.cells.insert(notebook.cells.index(cell), box)
    if cell and injected:
        cell.source = with_values(cell.source, parameters.injected_parameters(injected.source))
        notebook.cells.remove(injected)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            tags = cell.metadata.get("tags", [])
            cell.metadata = {"tags": tags if "teaches" in tags else [*tags, "hide-input"]}
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            looks = "pictures" if "pictures" in tags else "plot"  # how they appear in the dark
            cell.metadata["mystnb"] = {
                "image": {"alt": "drawn by the code above", "classes": looks}
            }
            for output in cell.outputs:  # a link to a notebook is one to its page
                if text := output.get("data", {}).get("text/html"):
                    text = NOTEBOOK_LINK.sub(r'href="\1.html"', text)
                    output.data["text/html"] = NUMBER.sub('<td class="number">', text)
    return notebook


def with_captions(page: Any, chapter: str) -> dict[str, Caption]:
    """Put numbered captions under figures and over tables; returns them by label."""
    import nbformat

    found = list(numbering.captions(page.cells, chapter))
    for i, caption in reversed(found):
        cell, text = page.cells[i], numbering.caption_markdown(caption)
        cell.source = numbering.CAPTION.sub("", cell.source)
        cell.metadata["mystnb"]["image"]["alt"] = caption.plain
        block = nbformat.v4.new_markdown_cell(text, id=caption.label)
        page.cells.insert(i + (caption.kind == "Figure"), block)
    return {caption.label: caption for _, caption in found}


def with_media(page: Any, media: Path, assets: Path) -> None:
    """Copy the small videos that a page plays into the book's assets, and point the page there.

    Raises:
        BookError: when they are too large for a page.
    """
    copied: set[str] = set()
    for cell in page.cells:
        for output in cell.get("outputs", ()):
            if names := MEDIA.findall(text := output.get("data", {}).get("text/html", "")):
                output.data["text/html"] = MEDIA.sub(r'\1="../_static/media/\2"', text)
                copied.update(name for _, name in names)
    files = [media / name for name in sorted(copied)]
    if (size := sum(file.stat().st_size for file in files)) > MEDIA_BYTES:
        raise BookError(f"{size / 1e6:.1f} MB of videos on one page are too many: show fewer")
    assets.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(file, assets)


def fixed_parts(source: Path) -> None:
    """Prose, style and MathJax: what is the same in every book."""
    import mathjax

    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(project_root() / "book", source)
    script = Path(mathjax.__file__).parent / "static/mathjax/es5/tex-svg.js"
    (source / "assets/mathjax").mkdir(parents=True)
    shutil.copy(script, source / "assets/mathjax")
    (source / "chapters").mkdir()


def stage(work: Workspace, executed: list[Path]) -> Path:
    """Lay out the source: prose, executed notebooks, reference, style, MathJax, cover, videos."""
    import nbformat

    from avnb.book import cover, nuisances

    source = work.folder / "source"
    fixed_parts(source)
    drawn = {
        "@cover": cover.draw(work.results, work.name, source / "assets"),
        "@nuisances": nuisances.draw(source / "assets/nuisances"),
    }
    pages, numbers = {}, dict[str, Caption]()
    for path in executed:
        pages[path.name] = page = staged(nbformat.read(path, as_version=4), work.name, path.name)
        numbers |= with_captions(page, numbering.chapter_of(path))
        with_media(page, work.media, source / "assets/media")
    known = glossary.terms((source / "glossary.md").read_text())
    for path in source.glob("*.md"):
        text = with_answers(path.read_text(), pages, size_note(work.name))
        text = numbering.with_references(text, numbers)
        for place, shown in drawn.items():
            text = text.replace(f"{place}\n", f"{shown}\n")
        path.write_text(text if path.stem == "glossary" else with_terms(text, known, set()))
    for name, page in pages.items():
        seen = set[str]()
        for cell in page.cells:
            if cell.cell_type == "markdown":
                text = numbering.with_references(cell.source, numbers)
                cell.source = with_terms(text, known, seen)
        nbformat.write(page, source / "chapters" / name)
    reference.write_reference(source / "reference")
    return source


def build(work: Workspace, source: Path) -> Path:
    """Build the pages, where a warning is an error. Returns the first page.

    Raises:
        BookError: with the warnings and errors of Jupyter Book.
    """
    program, out = Path(sys.executable).with_name("jupyter-book"), work.folder / "book"
    command = [str(program), "build", str(source), "--path-output", str(out)]
    command += ["--config", str(project_root() / "_config.yml"), "--toc", f"{source}/_toc.yml"]
    command += ["-W", "-n", "--keep-going", "-q"]
    log = work.folder / "build.txt"
    with log.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        text = log.read_text()
        wrong = [line for line in text.splitlines() if "WARNING" in line or "ERROR" in line]
        raise BookError(f"the book did not build; see {log}\n" + "\n".join(wrong or [text[-3000:]]))
    for page in index_of(work).parent.rglob("*.html"):
        write_text(page, IMAGE.sub('<img loading="lazy" ', page.read_text()))
    return index_of(work)


def index_of(work: Workspace) -> Path:
    """The first page of a workspace's book."""
    return work.folder / "book" / "_build" / "html" / "index.html"


def made_from(work: Workspace, executed: list[Path]) -> str:
    """Digest of all that the pages are made from: they are built again when it changes."""
    root = project_root()
    prose = [path for path in sorted((root / "book").rglob("*")) if path.is_file()]
    files = [*executed, root / "_config.yml", *prose, *filter(Path.exists, [work.results])]
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return digest([execution.package_digest(), *map(str, files), *hashes])


def make(name: str) -> Path:
    """Make the whole book of a profile; what is up to date is kept. Returns the first page."""
    profile(name)
    work = Workspace.open(name)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # ipykernel's debugger warns otherwise
    waiting = f"another process is making this book in {work.folder}; waiting for it"
    with locked(work.folder, lock=".book.lock", waiting=waiting):
        executed = execution.run_all(work)
        key, stamp, index = made_from(work, executed), work.folder / "book.key", index_of(work)
        if not (index.exists() and stamp.exists() and stamp.read_text() == key):
            print("building the pages", flush=True)
            build(work, stage(work, executed))
            write_text(stamp, key)
        return index
