"""A job for the launcher's tests: sleeps, fails or counts."""

import os
import sys
import time
from pathlib import Path

from avnb.processes import die_with_parent

die_with_parent()

from torch.distributed.elastic.multiprocessing.errors import record  # noqa: E402

from avnb.progress import ProgressReporter, announce  # noqa: E402


@record
def main(what: str, folder: Path) -> None:
    rank = os.environ["RANK"]
    if what == "sleep":
        (folder / f"ready{rank}").write_text(str(os.getpid()))
        time.sleep(600)
    elif what == "fail":
        print("told before failing", flush=True)
        if rank == "1":
            print(1 / 0)
        time.sleep(600)
    elif what == "count":
        print("an ordinary line", flush=True)
        bar = ProgressReporter(4, "counting")
        announce("something everybody should know")
        for done in range(1, 5):
            time.sleep(0.4)
            bar.report(done, "almost there")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
