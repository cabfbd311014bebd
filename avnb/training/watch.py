"""A run in progress, seen from elsewhere: another terminal, another notebook, another machine."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avnb.files import json_lines, read_json
from avnb.profiles import build_folder
from avnb.progress import PROGRESS

QUIET_SECONDS = 120.0  # without news, after which a run counts as stopped


@dataclass(frozen=True, kw_only=True)
class RunState:
    """How far a run is, as its folder says."""

    folder: Path
    done: int  # clips
    total: int  # at most: a method may stop earlier
    is_finished: bool
    age: float  # seconds since the last sign of life
    log: list[dict[str, float]]  # a row per epoch
    speed: list[dict[str, float]]  # likewise

    @property
    def seconds_left(self) -> float | None:
        """At the speed of the last epoch; None before the first one has ended."""
        if not self.speed:
            return None
        return (self.total - self.done) / self.speed[-1]["clips_per_second"]

    @property
    def summary(self) -> str:
        """One line: clips, speed, time left, loss."""
        share = 100 * self.done / max(self.total, 1)
        parts = [f"{self.done} of {self.total} clips ({share:.0f} %)"]
        if self.is_finished:
            parts = [f"finished after {self.done} clips"]
        if self.speed:
            last = self.speed[-1]
            parts.append(f"{last['clips_per_second']:.0f} clips/s")
            parts.append(f"{100 * last['matmul_share']:.0f} % of the device's arithmetic")
            parts.append(f"{100 * last['waiting_share']:.0f} % waiting for clips")
        if not self.is_finished and self.seconds_left is not None:
            parts.append(f"{duration(self.seconds_left)} left")
        if self.log:
            parts.append(f"loss {self.log[-1]['loss']:.3f} after {len(self.log)} epochs")
        if not self.is_finished and self.age > QUIET_SECONDS:
            parts.append(f"no news for {duration(self.age)}: it has stopped, or waits")
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """`3 d 4 h`, `2 h 5 min`, `3 min 20 s` or `12 s`."""
    whole = round(seconds)
    for name, size, below, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // part} {below}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def find_run(text: str) -> Path:
    """The folder of a run, given as a path, as its id, or as the beginning of one.

    Raises:
        FileNotFoundError: when there is none; it names those there are, the latest first.
        ValueError: when several begin like that.
    """
    path = Path(text).expanduser()
    if (path / "job.json").is_file():
        return path
    runs = [job.parent for job in build_folder().glob("*/runs/*/job.json")]
    if exact := [run for run in runs if run.name == text]:
        return max(exact, key=touched)
    found = [run for run in runs if run.name.startswith(text)]
    if len(found) == 1:
        return found[0]
    latest = sorted(found or runs, key=touched, reverse=True)[:8]
    names = ", ".join(f"{run.parents[1].name}/runs/{run.name}" for run in latest) or "none"
    if found:
        raise ValueError(f"{len(found)} runs begin with {text!r}: {names}")
    raise FileNotFoundError(
        f"no run {text!r}: neither a folder with job.json, nor an id below {build_folder()}; "
        f"the latest there are: {names}"
    )


def touched(folder: Path) -> float:
    """When the folder of a run last changed."""
    return folder.stat().st_mtime


def read_state(folder: Path) -> RunState:
    """How far a run is; a run that has not reported yet has done nothing.

    Raises:
        FileNotFoundError: when the folder is not that of a run.
        ValueError: when one of its files is damaged.
    """
    job = folder / "job.json"
    if not job.exists():
        raise FileNotFoundError(f"{folder} is not the folder of a run: it has no job.json")
    file = folder / PROGRESS
    progress: dict[str, Any] = {"done": 0, "total": 0, "finished": False}
    progress["time"] = job.stat().st_mtime
    if file.exists():
        progress |= read_json(file, "the progress of a run")
    return RunState(
        folder=folder,
        done=progress["done"],
        total=progress["total"],
        is_finished=progress["finished"],
        age=max(0.0, time.time() - progress["time"]),
        log=list(json_lines(folder / "log.jsonl")),
        speed=list(json_lines(folder / "speed.jsonl")),
    )


def follow(folder: Path, every: float) -> Iterator[RunState]:
    """States of a run until it is finished, one now and one whenever it has changed."""
    last = None
    while True:
        state = read_state(folder)
        now = state.done, len(state.log), state.age > QUIET_SECONDS, state.is_finished
        if now != last:
            yield state
        if state.is_finished:
            return
        last = now
        time.sleep(every)
