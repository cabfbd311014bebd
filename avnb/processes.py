"""Run a command that cannot outlive its parent: `python guard.py PARENT_PID COMMAND ...`.

Linux sends this process SIGKILL when its parent dies, and keeps that over exec. Imports nothing
heavy: until the request is made, a parent's death would go unnoticed.
"""

import ctypes
import os
import signal
import sys


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies: no orphans, whatever ends the parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG


if __name__ == "__main__":
    die_with_parent()
    if os.getppid() != int(sys.argv[1]):  # it died before we could ask
        sys.exit(1)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - a list, no shell
