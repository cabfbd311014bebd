"""The book: notebooks are run by papermill, staged as they came out, and built by Jupyter Book."""

import ast
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from tqdm import tqdm
from traitlets import Unicode

from avnb.files import write_aside
from avnb.profiles import SIZES, profile
from avnb.report import notebook_parameters
from avnb.values import digest
from avnb.workspace import Workspace, project_root


class BookError(RuntimeError):
    """A notebook or the build failed; the message says where to look."""


class LocalKernels(AsyncKernelManager):
    """Kernels that are spoken to through files of this user, not through an open port.

    What cells print comes through those files; a kernel's own chatter, as when it is ended in
    the middle of a cell, is kept from the terminal.
    """

    transport = Unicode("ipc")

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.folder = tempfile.TemporaryDirectory(prefix="avnb-kernel-")
        self.ip = str(Path(self.folder.name) / "socket")

    async def _async_launch_kernel(self, kernel_cmd: list[str], **options: Any) -> None:
        with (Path(self.folder.name) / "chatter.txt").open("ab") as file:
            await super()._async_launch_kernel(kernel_cmd, **{**options, "stderr": file})


def tagged(notebook: Any, tag: str) -> Any:
    """The first cell with a tag, or None."""
    cells = (c for c in notebook.cells if tag in c.metadata.get("tags", []))
    return next(cells, None)


def declared(path: Path) -> dict[str, tuple[str, Any]]:
    """Parameters that the notebook at `path` declares."""
    cell = tagged(nbformat.read(path, as_version=4), "parameters")
    return notebook_parameters.declared(cell.source) if cell else {}


def existing(path: Path) -> Path:
    """The path; FileNotFoundError that names the folder's notebooks when nothing is there."""
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in path.parent.glob("*.ipynb"))) or "no notebook"
        raise FileNotFoundError(f"{path} does not exist; {path.parent} holds {there}")
    return path


def run_notebook(path: Path, out: Path, given: Mapping[str, Any]) -> Path:
    """Run one notebook strictly and keep the executed copy at `out`.

    What cells print and draw as progress appears here as well. The copy appears when the
    notebook has come to its end; a failed one is kept beside it for inspection.

    Raises:
        FileNotFoundError: when there is no such notebook.
        TypeError: for a parameter that it does not declare, or of another type.
        BookError: when a cell fails.
    """
    notebook_parameters.check_values(declared(existing(path)), given)
    out.parent.mkdir(parents=True, exist_ok=True)
    running, failed = out.with_suffix(".running.ipynb"), out.with_suffix(".failed.ipynb")
    try:
        papermill.execute_notebook(
            path,
            running,
            parameters=dict(given),
            cwd=project_root(),
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            coalesce_streams=True,
            kernel_manager_class="avnb.report.book.LocalKernels",
        )
    except (papermill.PapermillExecutionError, DeadKernelError) as error:
        running.replace(failed)
        raise BookError(f"{path.name} failed; look at {failed}\n{error}") from error
    except KeyboardInterrupt:
        # The cell that was running dies with its kernel. asyncio reports that whenever the
        # forgotten task is collected, in the middle of what is said to whoever interrupted.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise
    failed.unlink(missing_ok=True)
    running.replace(out)
    return out


# ---- all notebooks ----------------------------------------------------------------------------


def package_digest() -> str:
    """Stands for the package's code and data: what was executed with other code is run again."""
    sha = hashlib.sha256()
    folder = Path(__file__).parents[1]
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".py", ".jsonl", ".txt", ".csv"):
            sha.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return sha.hexdigest()[:16]


def run_all(work: Workspace) -> list[Path]:
    """Run every notebook with the workspace's profile, in order; what is up to date is kept."""
    made, code = [], package_digest()
    notebooks = sorted((project_root() / "notebooks").glob("*.ipynb"))
    bar = tqdm(notebooks, desc="notebooks", unit="notebook")
    for path in bar:
        bar.set_postfix_str(path.stem)
        out = work.folder / "executed" / path.name
        given = {"profile": work.name} if "profile" in declared(path) else {}
        key = digest([hashlib.sha256(path.read_bytes()).hexdigest(), code, given])
        stamp = out.with_suffix(".key")
        if not (out.exists() and stamp.exists() and stamp.read_text() == key):
            tqdm.write(f"running {path.name}")
            run_notebook(path, out, given)
            write_aside(stamp, key)
        made.append(out)
    return made


# ---- staging and building ---------------------------------------------------------------------


def merged(source: str, given: Mapping[str, Any]) -> str:
    """The parameters cell with the values that were really used."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        name = ast.unparse(node.target) if isinstance(node, ast.AnnAssign) else ""
        if isinstance(node, ast.AnnAssign) and node.value is not None and name in given:
            row, value = node.value.lineno - 1, node.value
            line = lines[row]
            lines[row] = line[: value.col_offset] + repr(given[name]) + line[value.end_col_offset :]
    return "\n".join(lines)


def staged(notebook: Any, size: str) -> Any:
    """An executed notebook as a page: its size, one parameters cell, no traces of papermill's."""
    cell = tagged(notebook, "parameters")
    sized = cell is not None and "profile" in notebook_parameters.declared(cell.source)
    if sized and size in SIZES:
        note = f":::{{note}}\n{SIZES[size]}\n:::"
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(note, id="made-at-size"))
    injected = tagged(notebook, "injected-parameters")
    declared_cell = tagged(notebook, "parameters")
    if injected is not None and declared_cell is not None:
        declared_cell.source = merged(
            declared_cell.source, notebook_parameters.injected(injected.source)
        )
        notebook.cells.remove(injected)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata = {"tags": cell.metadata.get("tags", [])}
            cell.outputs = list(without_progress(cell.outputs))
    return notebook


def without_progress(outputs: list[Any]) -> Iterator[Any]:
    """Outputs without progress bars: they were for whoever waited."""
    for output in outputs:
        if not (output.output_type == "stream" and output.name == "stderr"):
            yield output


def stage(work: Workspace, executed: list[Path]) -> Path:
    """Lay out the book's source: prose, executed notebooks, style, MathJax."""
    import mathjax

    root, source = project_root(), work.folder / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root / "book", source)
    script = Path(mathjax.__file__).parent / "static/mathjax/es5/tex-svg.js"
    (source / "assets/mathjax").mkdir(parents=True)
    shutil.copy(script, source / "assets/mathjax")
    (source / "chapters").mkdir()
    for path in executed:
        notebook = staged(nbformat.read(path, as_version=4), work.name)
        nbformat.write(notebook, source / "chapters" / path.name)
    return source


def build(work: Workspace, source: Path) -> Path:
    """Build the pages; a warning is an error. Returns the first page.

    Raises:
        BookError: with what Jupyter Book said.
    """
    out = work.folder / "book"
    command = [
        str(Path(sys.executable).with_name("jupyter-book")),
        "build",
        str(source),
        "--path-output",
        str(out),
        "--config",
        str(project_root() / "_config.yml"),
        "--toc",
        str(source / "_toc.yml"),
        "-W",
        "-n",
        "--keep-going",
        "-q",
    ]
    log = work.folder / "build.txt"
    with log.open("w") as file:
        code = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode
    said = log.read_text()
    if code:
        wrong = [line for line in said.splitlines() if "WARNING" in line or "ERROR" in line]
        raise BookError(f"the book did not build; see {log}\n" + "\n".join(wrong or [said[-3000:]]))
    return out / "_build" / "html" / "index.html"


def make(name: str) -> Path:
    """Everything, from nothing to the first page of the book of a profile."""
    profile(name)
    work = Workspace.open(name)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # ipykernel's debugger warns otherwise
    executed = run_all(work)
    print("building the pages", flush=True)
    return build(work, stage(work, executed))
