"""A job for the launcher's tests: sleeps or fails."""

import os
import sys
import time
from pathlib import Path

from avnb.processes import die_with_parent

die_with_parent()

from torch.distributed.elastic.multiprocessing.errors import record  # noqa: E402


@record
def main(what: str, folder: Path) -> None:
    rank = os.environ.get("RANK", "0")
    (folder / f"ready{rank}").write_text(str(os.getpid()))
    if what == "fail":
        print("told before failing", flush=True)
        if rank == os.environ.get("LAST", "0"):
            print(1 / 0)
    time.sleep(600)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
