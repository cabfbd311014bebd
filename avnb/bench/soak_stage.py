"""A soak: whether the loader's memory stays flat over many clips."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from avnb.bench.loader_stage import repeated
from avnb.bench.rows import Row
from avnb.bench.workload import Workload
from avnb.data.loader import ClipLoader, video_blocks
from avnb.files import tqdm
from avnb.profiles import cores

CLIPS, POINTS = 20_000, 20


def resident_mb(process: int) -> float:
    """Memory of a process that lies in RAM and is its own, not shared, in MB."""
    fields = Path(f"/proc/{process}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE") / 1e6


def soak_stage(work: Workload) -> Iterator[Row]:
    """Memory of the parent and of its largest worker, after more and more clips."""
    total = CLIPS // 50 if work.quick else CLIPS
    clips, size = repeated(work, work.kinds[0]), 32
    plan = video_blocks(range(len(clips)), 1, size)
    epochs = itertools.count()
    plans = ((epoch, plan) for epoch in epochs)
    loader = ClipLoader(clips, plans, size=size, workers=cores())
    done, due = 0, total // POINTS
    bar = tqdm(total=total, desc="soak", unit="clip")
    for batch in loader:
        done += len(batch)
        bar.update(len(batch))
        if done >= due:
            workers = [resident_mb(r.process.pid or 0) for r in loader.readers.readers]
            values = {"way": f"after {due} clips", "clips": done}
            values |= {"parent_mb": resident_mb(os.getpid())}
            values |= {"worker_mb": max(workers), "workers": len(workers)}
            yield Row(stage="soak", what=str(work.kinds[0]), values=values)
            due += total // POINTS
        if done >= total:
            break
    bar.close()
    loader.readers.close()
