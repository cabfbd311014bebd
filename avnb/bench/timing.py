"""Two or more ways to do the same, timed in turn: what counts is the ratio within a round."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any, TypeVar

from avnb.files import tqdm

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Milliseconds an item, one number a round for each way."""

    cpu_ms: Mapping[str, list[float]]  # processor time of all threads of this process
    wall_ms: Mapping[str, list[float]]

    def ratios(self, way: str, against: str) -> list[float]:
        """How many times less processor time `way` takes than `against`, a round each."""
        pairs = zip(self.cpu_ms[against], self.cpu_ms[way], strict=True)
        return [slow / fast for slow, fast in pairs]

    def row(self, way: str, against: str) -> dict[str, Any]:
        """One comparison: medians of both, and median and quartiles of the ratio."""
        ratios = self.ratios(way, against)
        low, middle, high = (
            quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else 3 * ratios
        )
        return {
            "way": way,
            "against": against,
            "ms": median(self.cpu_ms[way]),
            "against_ms": median(self.cpu_ms[against]),
            "wall_ms": median(self.wall_ms[way]),
            "ratio": middle,
            "ratio_low": low,
            "ratio_high": high,
            "rounds": len(ratios),
        }


def compare(
    ways: Mapping[str, Callable[[Item], object]],
    items: Callable[[int], Iterable[Item]],
    *,
    rounds: int,
    title: str,
    per: int = 1,
) -> Timings:
    """Time every way on the items of each round, in turn; a first round warms up and is dropped.

    A ratio within a round compares the same items at nearly the same moment, so that neither
    their content nor another process on the machine is mistaken for a difference.

    Args:
        ways: by name.
        items: of a round, from 0, which is the one that is dropped.
        rounds: measured ones, at least 1.
        title: of the progress bar.
        per: what is counted in each item, such as its clips.

    Raises:
        ValueError: when there is no round to measure.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    for number in tqdm(range(rounds + 1), desc=title, unit="round"):
        spent, count = {name: [0.0, 0.0] for name in ways}, 0
        for item in items(number):
            count += per
            for name, way in ways.items():
                start, start_cpu = time.perf_counter(), time.process_time()
                way(item)
                spent[name][0] += time.process_time() - start_cpu
                spent[name][1] += time.perf_counter() - start
        for name in ways if number else ():
            cpu[name].append(1e3 * spent[name][0] / count)
            wall[name].append(1e3 * spent[name][1] / count)
    return Timings(cpu_ms=cpu, wall_ms=wall)
