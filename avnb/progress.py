"""Progress of a subprocess: it prints structured lines, its launcher draws the bar."""

import json
import math
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from avnb.files import write_text

MARK = "\x1e"  # the ASCII record separator begins a progress line; no log line does
EVERY_SECONDS = 0.3  # into a pipe, which its launcher empties
FILE_EVERY_SECONDS = 3.0  # into a file, which grows, perhaps for days and on a shared disk
PROGRESS = "progress.json"  # in the folder of a run: where it is, for whoever looks from elsewhere


def announce(text: str) -> None:
    """A message that whoever watches the bar must see."""
    os.write(1, (MARK + json.dumps({"said": text}) + "\n").encode())


class ProgressReporter:
    """Reports how many of `total` clips are done, at most a few times a second.

    Args:
        total: clips of the whole job.
        title: what is being done.
        silent: whether this process does not report.
        folder: of the run; the last report is kept there as well.
    """

    def __init__(
        self, total: int, title: str = "", *, silent: bool = False, folder: Path | None = None
    ):
        self.total, self.title, self.silent, self.last, self.done = total, title, silent, 0.0, 0
        self.folder, self.kept = folder, 0.0
        self.job = folder.name if folder else title
        to_file = stat.S_ISREG(os.fstat(1).st_mode)
        self.every = FILE_EVERY_SECONDS if to_file else EVERY_SECONDS

    def report(self, done: int, note: str) -> None:
        """Say that so many clips are done, with a word on how it goes."""
        self.done, now = done, time.monotonic()
        if self.silent or (now - self.last < self.every and done < self.total):
            return
        self.last = now
        news = {"job": self.job, "done": done, "total": self.total}
        line = json.dumps({**news, "note": f"{self.title}, {note}"})
        os.write(1, f"{MARK}{line}\n".encode())  # at once: other processes write to this pipe
        if now - self.kept >= FILE_EVERY_SECONDS:
            self.kept = now
            self.keep()

    def keep(self, *, finished: bool = False) -> None:
        """Write down where the run is."""
        if self.folder and not self.silent:
            state = {"done": self.done, "total": self.total, "time": time.time()}
            write_text(self.folder / PROGRESS, json.dumps({**state, "finished": finished}))

    def note(self, note: str) -> None:
        """A sign of life without further clips."""
        self.report(self.done, note)


class StepTimer:
    """Seconds per step; the first quarter of `total` steps is not counted.

    `synchronise` waits until everything that was started is done, as a GPU's work may not be when
    a step returns.
    """

    def __init__(self, total: int, synchronise: Callable[[], object]):
        self.begin, self.total, self.synchronise = total // 4, total, synchronise
        self.started, self.step_seconds = time.monotonic(), math.nan

    def count(self, steps: int) -> None:
        """Called after each step with the number of steps done."""
        if steps in (self.begin, self.total):
            self.synchronise()
        if steps == self.begin:
            self.started = time.monotonic()
        elif steps == self.total:
            self.step_seconds = (time.monotonic() - self.started) / (self.total - self.begin)
