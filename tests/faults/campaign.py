"""The whole campaign, `make faults`: counts by kind, written for the book's page on reliability.

Each kind runs in a process of its own; a case that takes over 10 s, or 2 GB of its own, is unclear.
"""

import contextlib
import csv
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import ROOT
from tests.faults import cases

COUNTS = {"damaged videos": 600, "checkpoints": 12, "cut files": 40, "killed at the start": 24}
MOST_SECONDS, MOST_GB = 10.0, 2.0
TABLE = ROOT / "book" / "faults.csv"


def attempt(kind: str, count: int, folder: Path) -> list[tuple[str, str]]:
    """Every case of a kind, with what is wrong with it, '' when nothing is."""
    found = []
    for case in cases.KINDS[kind](folder, count):
        before, begin = peak(reset=True), time.monotonic()
        wrong = cases.is_clear(case)
        seconds, gigabytes = time.monotonic() - begin, peak() - before
        if seconds > MOST_SECONDS:
            wrong = f"took {seconds:.0f} s"
        elif gigabytes > MOST_GB:
            wrong = f"took {gigabytes:.1f} GB"
        found.append((case.name, wrong))
    return found


def peak(reset: bool = False) -> float:
    """The most memory that this process has held, in GB; after a reset, from now on.

    Not `ru_maxrss`, which remembers what the process did before, and even its parent.
    """
    if reset:
        # Where the kernel cannot do that, only what exceeds an earlier peak counts.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            Path("/proc/self/clear_refs").write_text("5")
    status = dict(i.split(":\t", 1) for i in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1e6


def worker(kind: str, count: int, folder: Path, pipe) -> None:
    """In a process of its own."""
    pipe.send(attempt(kind, count, folder))


def run(kind: str, count: int) -> list[tuple[str, str]]:
    """As `attempt`; where the process dies, that is one more case."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=worker, args=(kind, count, Path(folder), theirs))
        process.start()
        theirs.close()
        try:
            found = ours.recv()
        except EOFError:
            process.join()
            found = [("the process", f"died with {process.exitcode}")]
        process.join()
    return found


def main() -> int:
    """Run all kinds and write the table."""
    rows, unclear = [], 0
    for kind in cases.KINDS:
        begin, found = time.monotonic(), run(kind, COUNTS.get(kind, 10))
        wrong = [(name, why) for name, why in found if why]
        unclear += len(wrong)
        rows.append([kind, len(found), len(found) - len(wrong), len(wrong)])
        print(f"{kind}: {len(found)} tried, {len(wrong)} unclear, {time.monotonic() - begin:.0f} s")
        for name, why in wrong:
            print(f"  {name}: {why[:300]}")
    with TABLE.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["kind", "tried", "clear", "unclear"])
        table.writerows(rows)
    print(f"the counts are in {TABLE}")
    return 1 if unclear else 0


if __name__ == "__main__":
    sys.exit(main())
