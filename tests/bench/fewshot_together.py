"""How much faster linear layers train together than one by one (run this file).

The two are timed in turn, on the same draws; the answer is the quartiles of their ratio.
"""

from statistics import quantiles
from time import perf_counter

import torch

from avnb.config import Evaluation
from avnb.evaluation import batched_probes, probe
from avnb.evaluation.batched_probes import Training


def trainings(videos: int, classes: int, width: int, methods: int, seeds: int) -> list[Training]:
    """Every method, five shares and several seeds of one part of a data set."""
    rng = torch.Generator().manual_seed(0)
    label = torch.arange(videos) % classes
    made = []
    for _ in range(methods):
        features = torch.rand(videos, 10, width, generator=rng)
        for seed in range(seeds):
            order = torch.randperm(videos, generator=rng)
            for percent in (5, 10, 20, 50, 100):
                rows = order[: videos * percent // 100]
                made.append(Training(
                    features=features, videos=rows, label=label[rows], classes=classes, seed=seed,
                ))  # fmt: skip
    return made


def one_by_one(some: list[Training], epochs: int) -> list[probe.Probe]:
    made = []
    for one in some:
        config = Evaluation(seed=one.seed, probe_epochs=epochs)
        made.append(probe.fit(one.features[one.videos], one.label, one.classes, config)[0])
    return made


def together(some: list[Training], epochs: int) -> list[probe.Probe]:
    return [
        layer for layer, _ in batched_probes.fit_together(some, Evaluation(probe_epochs=epochs))
    ]


def seconds(train, *arguments) -> float:
    start = perf_counter()
    train(*arguments)
    return perf_counter() - start


def main(rounds: int = 5) -> None:
    torch.set_num_threads(1)
    for name, size, epochs in (
        ("demo size", (96, 6, 128, 5, 5), 10),
        ("a tenth of UCF-101's videos", (510, 54, 512, 5, 3), 4),
    ):
        some = trainings(*size)
        for a, b in zip(one_by_one(some, epochs), together(some, epochs), strict=True):
            torch.testing.assert_close(a.weight, b.weight, atol=1e-4, rtol=1e-3)
        times = [
            (seconds(one_by_one, some, epochs), seconds(together, some, epochs))
            for _ in range(rounds)
        ]
        low, middle, high = quantiles([slow / fast for slow, fast in times], n=4)
        print(
            f"{name}, {len(some)} layers of {size[2]} x {size[1]}: {middle:.1f}x "
            f"(quartiles {low:.1f} to {high:.1f}); together {min(t for _, t in times):.2f} s"
        )


if __name__ == "__main__":
    main()
