"""Progress of a subprocess: it prints structured lines, its launcher draws the bar."""

import json
import math
import os
import stat
import time
from collections.abc import Callable

MARK = "\x1e"  # the ASCII record separator begins a progress line; no log line does
EVERY_SECONDS = 0.3  # into a pipe, which its launcher empties
FILE_EVERY_SECONDS = 3.0  # into a file, which grows, perhaps for days and on a shared disk


def silent(done: float, note: str) -> None:
    """For processes that do not report."""


def announce(text: str) -> None:
    """Say something that whoever watches the bar must see."""
    os.write(1, (MARK + json.dumps({"said": text}) + "\n").encode())


def reporter(total: float) -> Callable[[float, str], None]:
    """A function that says how many of `total` clips are done, at most a few times a second."""
    last = 0.0
    every = FILE_EVERY_SECONDS if stat.S_ISREG(os.fstat(1).st_mode) else EVERY_SECONDS

    def report(done: float, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= every or done >= total:
            last = now
            line = MARK + json.dumps({"done": done, "total": total, "note": note}) + "\n"
            os.write(1, line.encode())  # at once: other processes write to the same pipe

    return report


class StepTimer:
    """Seconds a step takes; the first quarter of `total` steps is not counted.

    `settle` waits until what was begun is done, as a GPU's work may not be when a step returns.
    """

    def __init__(self, total: int, raise_on_failure: Callable[[], object]):
        self.begin, self.total, self.raise_on_failure = total // 4, total, raise_on_failure
        self.started, self.step_seconds = time.monotonic(), math.nan

    def __call__(self, steps: int) -> None:
        """Called after each step with the number of steps done."""
        if steps in (self.begin, self.total):
            self.raise_on_failure()
        if steps == self.begin:
            self.started = time.monotonic()
        elif steps == self.total:
            self.step_seconds = (time.monotonic() - self.started) / (self.total - self.begin)
