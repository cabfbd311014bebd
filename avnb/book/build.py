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
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec

import avnb
from avnb.book import parameters
from avnb.files import locked, tqdm, write_text
from avnb.profiles import Workspace, project_root

PACKAGE = Path(avnb.__file__).parent
COVER = "findings-cover.svg"  # drawn from rows by the chapter on findings
IMAGE = r'<img [^>]*?src="([^"]*_images/[^"]+)"'  # of a built page
SIZES = {  # what a page says of the profile that it was made with
    "smoke": "This was made at **smoke** size, to see that all works: its numbers mean nothing.",
    "demo": "This was made at **demo** size, on two processor cores and small data: its numbers "
    "show whether the method learns, and say nothing about real videos at full scale.",
}
STORED = "Its rows are stored: small runs of **study** size, in several synthetic worlds."
MEDIA = re.compile(r'src="[^"]*?media/([^"/]+)"')


class BookError(RuntimeError):
    """A notebook or the build failed; the message says where to look."""


class OwnKernels(AsyncKernelManager):
    """Kernels of this Python, whatever Jupyter calls `python3`; silent, as on an interruption."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """The one that ipykernel would install."""
        return KernelSpec(**get_kernel_dict())

    async def _async_launch_kernel(self, kernel_cmd: list[str], **options: Any) -> None:
        await super()._async_launch_kernel(kernel_cmd, **options, stderr=subprocess.DEVNULL)


def run_notebook(path: Path | str, out: Path | str, given: Mapping[str, Any]) -> Path:
    """Run one notebook strictly and keep the executed copy at `out`, as far as it came.

    Output and progress of cells appear in the terminal as well.

    Raises:
        FileNotFoundError: when there is no such notebook.
        TypeError: for a parameter that it does not declare, or of another type.
        BookError: when a cell fails.
    """
    path, out = Path(path), Path(out)
    parameters.check_parameters(parameters.notebook_parameters(path), given)
    import papermill
    from nbclient.exceptions import DeadKernelError

    print(f"running {path.name}", flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"progress_bar": False, "coalesce_streams": True}
    options |= {"stdout_file": sys.stdout, "stderr_file": sys.stderr}
    options |= {"kernel_manager_class": f"{__name__}.OwnKernels"}
    try:
        papermill.execute_notebook(path, out, parameters=dict(given), **options)
    except (papermill.PapermillExecutionError, DeadKernelError) as error:
        raise BookError(f"{path.name} failed; look at {out}\n{error}") from error
    return out


def unless_current(out: Path, sources: Iterable[Path], make: Callable[[], Any]) -> None:
    """Make `out`, unless it is there and made from these sources and this package."""
    sha, stamp = hashlib.sha256(), out.with_suffix(".key")
    for file in sorted([*sources, *PACKAGE.rglob("*")]):
        if file.is_file() and file.suffix != ".pyc":
            sha.update(f"{file.name}\0".encode() + file.read_bytes())
    if not (out.exists() and stamp.exists() and stamp.read_text() == sha.hexdigest()):
        stamp.unlink(missing_ok=True)
        make()
        write_text(stamp, sha.hexdigest())


def run_all(work: Workspace) -> list[Path]:
    """Run every notebook with the workspace's profile, in order; up-to-date copies are kept."""
    executed = []
    bar = tqdm(sorted((project_root() / "notebooks").glob("*.ipynb")), "notebooks", unit="notebook")
    for path in bar:
        bar.set_postfix_str(path.stem)
        declared = parameters.notebook_parameters(path)
        wanted = {"profile": work.name, "interactive": False}
        given = {name: value for name, value in wanted.items() if name in declared}
        executed.append(work.folder / "executed" / path.name)
        unless_current(executed[-1], [path], partial(run_notebook, path, executed[-1], given))
    return executed


def staged(page: Any, name: str) -> Any:
    """An executed notebook as a page: a note on how it was made, and the code that matters.

    That is the code of cells with the tag `teaches`, and, folded, of those with `hide-input`. The
    alternative text of a figure is its caption.
    """
    import nbformat

    given, declared = dict[str, Any](), dict[str, Any]()
    for cell in page.cells:
        tags = cell.metadata.setdefault("tags", [])
        if "injected-parameters" in tags:
            given = parameters.injected_parameters(cell.source)
        elif "parameters" in tags:
            declared = parameters.declared_parameters(cell.source)
        if cell.cell_type == "code":
            tags += [] if {"teaches", "hide-input"} & set(tags) else ["remove-input"]
            shown = cell.metadata.setdefault("mystnb", {})
            caption = shown.get("figure", {}).get("caption", "drawn by the code above")
            plain = re.sub(r"\{[a-z:]+\}`[^`]*`|[*_`$\\]", "", caption)
            shown["image"] = {"alt": plain.strip()}
    options = "".join(f" -p {key} {str(value).lower()}" for key, value in given.items())
    command = f"avnb run notebooks/{name} out.ipynb{options}"
    took = f"{page.metadata.get('papermill', {}).get('duration') or 0:.0f} s"
    size = STORED if "rows" in declared else SIZES.get(given.get("profile", ""), "")
    source = f"its code is in the {{download}}`notebook <{name}>`"
    note = f"{size} This page took {took} to make; {source}.\n\n```sh\n{command}\n```"
    note = f":::{{note}}\n{note}\n:::"
    page.cells.insert(1, nbformat.v4.new_markdown_cell(note))
    return page


def with_media(page: Any, media: Path, assets: Path) -> None:
    """Copy the videos that a page plays into the book's assets, and point the page there."""
    for cell in page.cells:
        for output in cell.get("outputs", ()):
            text = output.get("data", {}).get("text/html", "")
            for name in MEDIA.findall(text):
                shutil.copy(media / name, assets / name)
            if text:
                output.data["text/html"] = MEDIA.sub(r'src="../_static/media/\1"', text)


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
    shutil.copytree(project_root() / "book", source, copy_function=shutil.copyfile)
    for folder in (source, *source.rglob("*/")):
        folder.chmod(0o755)  # a checkout may be read-only
    for name in ("chapters", "reference", "assets/media", "assets/mathjax"):
        (source / name).mkdir()
    shutil.copyfile(work.folder / "figures/book" / COVER, source / "assets/cover.svg")
    script = Path(mathjax.__file__).parent / "static/mathjax/es5/tex-svg.js"
    shutil.copyfile(script, source / "assets/mathjax" / script.name)
    write_reference(source / "reference")
    for path in executed:
        page = staged(nbformat.read(path, as_version=4), path.name)
        with_media(page, work.media, source / "assets/media")
        nbformat.write(page, source / "chapters" / path.name)
    return source


def with_size(folder: Path, image: re.Match[str]) -> str:
    """An image of a page in a folder with its width and height: no page grows as it loads."""
    import imagesize  # of Sphinx

    width, height = imagesize.get(folder / image[1])
    return f'{image[0]} width="{width}" height="{height}"'


def build(work: Workspace, executed: list[Path]) -> None:
    """Build the pages of executed notebooks, where a warning is an error.

    Raises:
        BookError: with the warnings and errors of Jupyter Book.
    """
    print("building the pages", flush=True)
    program, source = Path(sys.executable).with_name("jupyter-book"), stage(work, executed)
    command = [str(program), "build", str(source), "--path-output", str(work.folder / "book")]
    command += ["--config", str(project_root() / "_config.yml"), "--toc", f"{source}/_toc.yml"]
    command += ["-W", "-n", "--keep-going", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()
        wrong = [line for line in lines if "WARNING" in line or "ERROR" in line]
        raise BookError("\n".join(["the book did not build", *(wrong or lines[-40:])]))
    for page in (work.folder / "book/_build/html").rglob("*.html"):
        sized = re.sub(IMAGE, partial(with_size, page.parent), page.read_text())
        page.write_text(sized)


def make(profile: str) -> Path:
    """Make the whole book of a profile; what is up to date is kept. Returns the first page."""
    work, root = Workspace.open(profile), project_root()
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # ipykernel's debugger warns otherwise
    index = work.folder / "book/_build/html/index.html"
    with locked(work.folder / "book"):
        executed = run_all(work)
        sources = [*executed, root / "_config.yml", *(root / "book").rglob("*")]
        unless_current(index, sources, partial(build, work, executed))
    return index
