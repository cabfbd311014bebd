"""The stage of the loader: how many clips a second reach the training process."""

import time
from collections.abc import Iterator
from statistics import median

from avnb.bench.rows import Row
from avnb.bench.videos import Kind
from avnb.bench.workload import Workload
from avnb.config import Pretrain
from avnb.data.clips import VideoClips
from avnb.data.loader import training_epochs
from avnb.files import tqdm
from avnb.profiles import cores

WARM_UP_STEPS, ROUNDS = 2, 3
REPEATS = 64  # of each video in the epoch: few files stand for many


def loader_clips_per_second(
    clips: VideoClips, run: Pretrain, workers: int, steps: int
) -> tuple[float, float]:
    """Clips a second that arrive, and the parent's processor milliseconds for each of them."""
    epochs = training_epochs(clips, run, 0, rank=0, processes=1, workers=workers)
    batches = (batch for _, part in epochs for batch in part)
    for _ in range(WARM_UP_STEPS):  # the workers start
        next(batches)
    start, start_cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        next(batches)
    spent, spent_cpu = time.perf_counter() - start, time.process_time() - start_cpu
    batches.close()
    count = steps * run.optim.batch
    return count / spent, 1e3 * spent_cpu / count


def repeated(work: Workload, kind: Kind) -> VideoClips:
    """Clips of a manifest in which few files stand for many."""
    few = work.clips(kind)
    many = few.manifest.only(few.manifest.videos * REPEATS)
    return VideoClips(many, few.sampling, seed=0)


def worker_counts() -> list[int]:
    """None, one, and doubled up to all cores."""
    most, counts = cores(), [0, 1]
    while counts[-1] < most:
        counts.append(min(2 * counts[-1], most))
    return counts


def loader_stage(work: Workload) -> Iterator[Row]:
    """Clips a second with more and more workers, one clip a reading, and how well that scales."""
    run = work.config(batch=4 if work.quick else 16, shards=1, read_ahead_gb=0.0)
    kind, steps = work.kinds[0], 2 if work.quick else 5
    clips, counts = repeated(work, kind), worker_counts()
    found: dict[int, list[tuple[float, float]]] = {workers: [] for workers in counts}
    rounds = min(work.rounds, ROUNDS)
    for _ in tqdm(range(rounds), desc="loader", unit="round"):
        for workers in counts:
            found[workers].append(loader_clips_per_second(clips, run, workers, steps))
    for workers in counts:
        pairs = zip(found[workers], found[1], strict=True)
        scaling = median(n[0] / (max(workers, 1) * one[0]) for n, one in pairs)
        rate, parent_ms = (median(x) for x in zip(*found[workers], strict=True))
        values = {
            "way": f"{workers} workers",
            "workers": workers,
            "clips_per_second": rate,
            "scaling": scaling,
            "parent_ms_per_clip": parent_ms,
            "rounds": rounds,
        }
        yield Row(stage="loader", what=str(kind), values=values)
