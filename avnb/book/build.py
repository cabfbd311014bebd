"""The book: notebooks are run by papermill, staged as executed, and built by Jupyter Book.

Numbers, captions, references, glossary and the reference of the package are Sphinx's. papermill,
nbformat and Sphinx take seconds to import, and only where they are used.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jupyter_client import AsyncKernelManager
from traitlets.config import Config

import avnb
from avnb.book import parameters
from avnb.config import digest
from avnb.files import locked, tqdm, write_text
from avnb.profiles import SIZES, Workspace, project_root

PACKAGE = Path(avnb.__file__).parent
COVER = "16_findings-cover.svg"  # drawn from rows by the chapter on findings
MEDIA = re.compile(r'(src|poster)="[^"]*?media/([^"/]+)"')


class BookError(RuntimeError):
    """A notebook or the build failed; the message says where to look."""


# ---- running notebooks -------------------------------------------------------------------------


class QuietKernels(AsyncKernelManager):
    """Kernels whose own messages, as on an interruption, are kept from the terminal.

    Output of cells does not come that way.
    """

    async def _async_launch_kernel(self, kernel_cmd: list[str], **options: Any) -> None:
        await super()._async_launch_kernel(kernel_cmd, **options, stderr=subprocess.DEVNULL)


def run_notebook(path: Path | str, out: Path | str, given: Mapping[str, Any]) -> Path:
    """Run one notebook strictly and keep the executed copy at `out`.

    Output and progress of cells appear in the terminal as well. The copy appears once the whole
    notebook has run; a failed one is kept beside it, as `.failed.ipynb`, for inspection.

    Raises:
        FileNotFoundError: when there is no such notebook.
        TypeError: for a parameter that it does not declare, or of another type.
        BookError: when a cell fails.
    """
    path, out = Path(path), Path(out)
    parameters.check_parameters(parameters.notebook_parameters(path), given)
    import papermill
    from nbclient.exceptions import DeadKernelError

    out.parent.mkdir(parents=True, exist_ok=True)
    running, failed = out.with_suffix(".running.ipynb"), out.with_suffix(".failed.ipynb")
    streams = {"stdout_file": sys.stdout, "stderr_file": sys.stderr, "coalesce_streams": True}
    options = {"cwd": project_root(), "progress_bar": False, **streams}
    try:
        with tempfile.TemporaryDirectory(prefix="avnb-kernel-") as folder:
            # Through files of this user, not through a port that others could listen at.
            kernel = {"transport": "ipc", "ip": f"{folder}/socket"}
            options |= {"kernel_manager_class": f"{__name__}.QuietKernels"}
            options |= {"config": Config(KernelManager=kernel)}
            papermill.execute_notebook(path, running, parameters=dict(given), **options)
    except (papermill.PapermillExecutionError, DeadKernelError) as error:
        running.replace(failed)
        raise BookError(f"{path.name} failed; look at {failed}\n{error}") from error
    except KeyboardInterrupt:
        running.unlink(missing_ok=True)
        raise
    failed.unlink(missing_ok=True)
    running.replace(out)
    return out


def files_digest(files: Iterable[Path]) -> str:
    """Digest of the contents of files; the folders among them are left out."""
    sha = hashlib.sha256()
    for file in sorted(files):
        if file.is_file():
            sha.update(f"{file.name}\0".encode() + file.read_bytes())
    return sha.hexdigest()[:16]


def package_files() -> list[Path]:
    """The package's code and data: notebooks are executed again when one changes."""
    return [file for file in PACKAGE.rglob("*") if file.suffix != ".pyc"]


def page_values(path: Path, work: Workspace) -> dict[str, Any]:
    """The parameters with which a notebook is run for a page of the book."""
    declared = parameters.notebook_parameters(path)
    wanted = {"profile": work.name, "interactive": False}
    return {name: value for name, value in wanted.items() if name in declared}


def run_all(work: Workspace) -> list[Path]:
    """Run every notebook with the workspace's profile, in order; up-to-date copies are kept."""
    executed = []
    bar = tqdm(sorted((project_root() / "notebooks").glob("*.ipynb")), "notebooks", unit="notebook")
    for path in bar:
        bar.set_postfix_str(path.stem)
        out, given = work.folder / "executed" / path.name, page_values(path, work)
        key, stamp = (
            digest([files_digest([path, *package_files()]), given]),
            out.with_suffix(".key"),
        )
        if not (out.exists() and stamp.exists() and stamp.read_text() == key):
            tqdm.write(f"running {path.name}")
            run_notebook(path, out, given)
            write_text(stamp, key)
        executed.append(out)
    return executed


# ---- pages from what they left behind ----------------------------------------------------------


def with_values(source: str, given: Mapping[str, Any]) -> str:
    """The parameters cell with the values that were used in place of its defaults."""
    for name, value in given.items():
        line = re.compile(rf"^({name}: \w+) = .*?(?=  #|$)", re.MULTILINE)
        if found := line.search(source):
            source = source.replace(found[0], f"{found[1]} = {value!r}")
    return source


def made_by(name: str, given: Mapping[str, Any]) -> str:
    """A note on how a page was made: at which size, and by which command."""
    size = SIZES.get(given.get("profile", ""), "")
    options = "".join(f" -p {key} {str(value).lower()}" for key, value in given.items())
    command = f"`avnb run notebooks/{name} out.ipynb{options}`"
    return f":::{{note}}\n{size} This page is made again, or with other values, by {command}.\n:::"


def plain(caption: str) -> str:
    """A caption without Markdown, for those who do not see the figure."""
    return re.sub(r"\{[a-z:]+\}`[^`]*`|[*_`$\\]", "", caption).strip()


def staged(page: Any, name: str) -> Any:
    """An executed notebook as a page: a note on its size, one parameters cell, folded code.

    Code of cells with the tag `teaches` is not folded. The alternative text of a figure is its
    caption.
    """
    import nbformat

    tagged = {tag: cell for cell in page.cells for tag in cell.metadata.get("tags", ())}
    given = {}
    if "injected-parameters" in tagged:
        given = parameters.injected_parameters(tagged["injected-parameters"].source)
        page.cells.remove(tagged["injected-parameters"])
        tagged["parameters"].source = with_values(tagged["parameters"].source, given)
    page.cells.insert(1, nbformat.v4.new_markdown_cell(made_by(name, given)))
    for cell in page.cells:
        if cell.cell_type == "code":
            cell.metadata.tags = tags = cell.metadata.get("tags", [])
            tags += [] if "teaches" in tags else ["hide-input"]
            shown = cell.metadata.setdefault("mystnb", {})
            caption = shown.get("figure", {}).get("caption", "drawn by the code above")
            shown["image"] = {"alt": plain(caption)}
    return page


def with_media(page: Any, media: Path, assets: Path) -> None:
    """Copy the videos that a page plays into the book's assets, and point the page there."""
    for cell in page.cells:
        for output in cell.get("outputs", ()):
            text = output.get("data", {}).get("text/html", "")
            for _, name in MEDIA.findall(text):
                shutil.copy(media / name, assets / name)
            if text:
                output.data["text/html"] = MEDIA.sub(r'\1="../_static/media/\2"', text)


def write_reference(folder: Path) -> None:
    """A page for every package, whose modules Sphinx's autodoc describes."""
    for init in PACKAGE.rglob("__init__.py"):
        package = ".".join(init.parent.relative_to(PACKAGE.parent).parts)
        modules = [f"{package}.{path.stem}" for path in sorted(init.parent.glob("[a-z]*.py"))]
        blocks = [f"{package}\n{'=' * len(package)}\n\n.. automodule:: {package}\n"]
        blocks += [f"{m}\n{'-' * len(m)}\n\n.. automodule:: {m}\n" for m in modules]
        (folder / f"{package}.rst").write_text("\n".join(blocks))


def stage(work: Workspace, executed: list[Path]) -> Path:
    """Lay out the source of the pages: prose, executed notebooks, reference, MathJax, videos."""
    import mathjax
    import nbformat

    source = work.folder / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(project_root() / "book", source)
    for name in ("chapters", "reference", "assets/media", "assets/mathjax"):
        (source / name).mkdir()
    shutil.copy(work.folder / "figures/book" / COVER, source / "assets/cover.svg")
    script = Path(mathjax.__file__).parent / "static/mathjax/es5/tex-svg.js"
    shutil.copy(script, source / "assets/mathjax")
    write_reference(source / "reference")
    for path in executed:
        page = staged(nbformat.read(path, as_version=4), path.name)
        with_media(page, work.media, source / "assets/media")
        nbformat.write(page, source / "chapters" / path.name)
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
    return out / "_build/html/index.html"


def show_as_written(_app: Any, what: str, *args: Any) -> None:
    """Docstrings of modules hold columns and drawings, which reStructuredText would join."""
    lines = args[-1]
    if what == "module":
        lines[:] = [".. code-block:: text", "", *(f"    {line}" for line in lines), ""]


def setup(app: Any) -> None:
    """Sphinx calls this: the module is one of the extensions in `_config.yml`."""
    app.connect("autodoc-process-docstring", show_as_written)


def make(profile: str) -> Path:
    """Make the whole book of a profile; what is up to date is kept. Returns the first page."""
    work, root = Workspace.open(profile), project_root()
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # ipykernel's debugger warns otherwise
    with locked(work.folder / "book"):
        executed = run_all(work)
        prose = [root / "_config.yml", *(root / "book").rglob("*")]
        key, stamp = files_digest([*executed, *prose, *package_files()]), work.folder / "book.key"
        index = work.folder / "book/_build/html/index.html"
        if not (index.exists() and stamp.exists() and stamp.read_text() == key):
            print("building the pages", flush=True)
            build(work, stage(work, executed))
            write_text(stamp, key)
        return index
