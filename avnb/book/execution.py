"""Running notebooks: one by papermill, or all of them for the book.

papermill takes seconds to import, and only where a notebook is run.
"""

import hashlib
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyter_client import AsyncKernelManager
from traitlets import Unicode

from avnb.book import notebook_parameters as parameters
from avnb.book.parts import BookError
from avnb.config import digest
from avnb.files import tqdm, write_text
from avnb.profiles import Workspace, project_root


class LocalKernels(AsyncKernelManager):
    """Kernels that communicate through files of this user, not through an open port.

    Output of cells comes through those files; a kernel's own messages, as when it is stopped in
    the middle of a cell, are kept from the terminal.
    """

    transport = Unicode("ipc")

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.folder = tempfile.TemporaryDirectory(prefix="avnb-kernel-")
        self.ip = str(Path(self.folder.name) / "socket")

    async def _async_launch_kernel(self, kernel_cmd: list[str], **options: Any) -> None:
        with (Path(self.folder.name) / "stderr.txt").open("ab") as file:
            await super()._async_launch_kernel(kernel_cmd, **{**options, "stderr": file})


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
    # Of this process alone: where two run at once, the last whole copy stays.
    running = out.with_suffix(f".running-{os.getpid()}.ipynb")
    failed = out.with_suffix(".failed.ipynb")
    streams = {"stdout_file": sys.stdout, "stderr_file": sys.stderr, "coalesce_streams": True}
    try:
        papermill.execute_notebook(
            path,
            running,
            parameters=dict(given),
            cwd=project_root(),
            progress_bar=False,
            kernel_manager_class="avnb.book.execution.LocalKernels",
            **streams,
        )
    except (papermill.PapermillExecutionError, DeadKernelError) as error:
        running.replace(failed)
        raise BookError(f"{path.name} failed; look at {failed}\n{error}") from error
    except KeyboardInterrupt:
        # The running cell dies with its kernel. asyncio reports that when the abandoned task is
        # collected, in the middle of the message about the interruption.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        running.unlink(missing_ok=True)
        raise
    failed.unlink(missing_ok=True)
    running.replace(out)
    return out


def package_digest() -> str:
    """Digest of the package's code and data: notebooks are executed again when it changes."""
    sha = hashlib.sha256()
    folder = Path(__file__).parents[1]
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".py", ".jsonl", ".txt", ".csv"):
            sha.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return sha.hexdigest()[:16]


def run_all(work: Workspace) -> list[Path]:
    """Run every notebook with the workspace's profile, in order; up-to-date copies are kept."""
    executed, code = [], package_digest()
    bar = tqdm(sorted((project_root() / "notebooks").glob("*.ipynb")), "notebooks", unit="notebook")
    for path in bar:
        bar.set_postfix_str(path.stem)
        out = work.folder / "executed" / path.name
        wanted = {"profile": work.name, "interactive": False}
        declared = parameters.notebook_parameters(path)
        given = {name: value for name, value in wanted.items() if name in declared}
        key = digest([hashlib.sha256(path.read_bytes()).hexdigest(), code, given])
        stamp = out.with_suffix(".key")
        if not (out.exists() and stamp.exists() and stamp.read_text() == key):
            tqdm.write(f"running {path.name}")
            run_notebook(path, out, given)
            write_text(stamp, key)
        executed.append(out)
    return executed
