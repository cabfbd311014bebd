"""Processes of a job, and waiting for what they do."""

import contextlib
import os
import time

import psutil


def wait_for(condition, seconds=120.0, pause=0.1):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(pause)


def processes(folder, word=""):
    """Those whose environment names a folder, by a word of their command, but for this one."""
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # of zombies, and of those that have just ended
            named = any(str(folder) in value for value in one.environ().values())
            if named and one.pid != os.getpid() and word in " ".join(one.cmdline()):
                found.append(one)
    return found
