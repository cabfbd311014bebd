"""The output of a running job: progress lines move a bar, everything else is logged."""

import collections
import json
import time
from types import TracebackType
from typing import IO, Any, Self

from avnb.files import tqdm
from avnb.progress import MARK

TAIL_LINES = 40


class LaunchError(RuntimeError):
    """A job failed; the message ends with the failing process's traceback or its last lines."""


class JobOutput:
    """Follows a job's output, wherever it comes from, chunk by chunk.

    Args:
        title: of the bar.
        log: file for all lines that are not progress; None where the job writes its own.
    """

    def __init__(self, title: str, log: IO[str] | None = None):
        self.title, self.log = title, log
        self.tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self.bar = tqdm(desc=title, total=0, unit="clip")
        self.rest, self.heard = b"", time.monotonic()
        self.done: dict[str, int] = {}  # clips, by run

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()

    def feed(self, chunk: bytes) -> None:
        """Take what the job has written since the last call."""
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        for line in lines:
            self.heard = time.monotonic()
            text, mark, progress = line.decode(errors="replace").partition(MARK)
            if text or not mark:
                self.tail.append(text)
                if self.log:
                    self.log.write(text + "\n")
                    self.log.flush()
            if mark:
                self.advance(json.loads(progress))

    def advance(self, news: dict[str, Any]) -> None:
        """Move the bar to where a progress line says that the job is."""
        bar = self.bar
        if "said" in news:
            bar.write(news["said"])
            return
        run, done = news.get("job", ""), news["done"]
        if run not in self.done:  # the job begins, or resumes, another of its runs
            self.done[run] = done
            bar.total += news["total"]
            bar.initial += done  # the rate counts from here
            bar.n += done
        bar.set_postfix_str(news["note"], refresh=False)
        bar.update(done - self.done[run])
        self.done[run] = done

    def stalled(self, seconds: float) -> bool:
        """Whether nothing has been heard for so long."""
        return time.monotonic() - self.heard > seconds
