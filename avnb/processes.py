"""Run a command that cannot outlive its parent: `python processes.py PARENT_PID COMMAND ...`.

Linux sends this process SIGKILL when its parent dies, and keeps that over exec. Imports nothing
heavy: until the request is made, a parent's death would go unnoticed.
"""

import ctypes
import os
import signal
import sys


def die_with_parent(parent: int = 0) -> None:
    """Ask Linux to kill this process when its parent dies: no orphans, whatever ends the parent.

    A parent may have died before that: then another process has become ours, and this one ends.
    `parent` is its id, as this process was told; 0 takes the present one.
    """
    if sys.platform == "linux":
        parent = parent or os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - a list, no shell
