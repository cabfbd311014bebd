"""Few-shot probes on seen and unseen classes (thesis 4.3): many linear layers in one batch.

Shapes: R layers trained together, V training videos, D clips cached of each, F features, N videos
drawn, C classes of a part, S steps, B videos a step.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from scipy.special import stdtrit
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.optim.adam import adam
from tqdm import tqdm

from avnb import splits
from avnb.concepts import THRESHOLDS, Matched, Pair, outliers
from avnb.config import Evaluation, digest, unknown_name
from avnb.features import Features
from avnb.names import TITLES, ClassList, class_list
from avnb.probe import Probe, ProbeFeatures, accuracies
from avnb.results import Row
from avnb.videos import Manifest

PARTS = ("unseen", "seen")
TOGETHER = 20  # layers in one batch: with more, their weights leave a processor's cache
# Names of the synthetic world are a thing and a motion: three of its names are near any other,
# and only the nearest one can be the same.
OFFICIAL_TOP, SYNTHETIC_TOP, SYNTHETIC_THRESHOLD = 3, 1, 0.7


# ---- many layers at once ----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one linear layer is trained on."""

    features: Tensor  # [V, D, F] of all training videos; shared by many layers, never copied
    videos: Tensor  # [N] rows of `features` that were drawn
    label: Tensor  # [N] in [0, classes)
    classes: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Timetable:
    """All that is random in the training of one layer, drawn as `probe.fit` draws it."""

    weight: Tensor  # [C, F] at the beginning
    clip: Tensor  # [S, B] rows of the features as [V * D, F]; what fills the last batch up is 0
    label: Tensor  # [S, B]
    present: Tensor  # [S, B] 1, or 0 where nothing stands
    rate: list[float]  # of each step

    @classmethod
    def of(cls, training: Training, how: Evaluation) -> "Timetable":
        """The timetable of one layer, all epochs one after another."""
        rng = torch.Generator().manual_seed(training.seed)
        videos, (_, draws, width) = len(training.videos), training.features.shape
        bound = width**-0.5
        weight = torch.empty(training.classes, width).uniform_(-bound, bound, generator=rng)
        clips, labels = [], []
        for epoch in range(how.probe_epochs):
            if epoch % draws == 0:
                turn = torch.rand(videos, draws, generator=rng).argsort(dim=1)  # [N, D]
            order = torch.randperm(videos, generator=rng)
            clips.append(training.videos[order] * draws + turn[order, epoch % draws])
            labels.append(training.label[order])
        steps = -(-videos // how.probe_batch)  # of an epoch

        def in_batches(rows: Tensor) -> Tensor:  # [epochs, N] -> [S, B]
            short = steps * how.probe_batch - videos
            return torch.nn.functional.pad(rows, (0, short)).view(-1, how.probe_batch)

        return cls(
            weight=weight, clip=in_batches(torch.stack(clips)),
            label=in_batches(torch.stack(labels)),
            present=in_batches(torch.ones(how.probe_epochs, videos)),
            rate=[how.probe_lr_at(e) for e in range(how.probe_epochs) for _ in range(steps)],
        )  # fmt: skip


class Stack:
    """Linear layers that take their steps together, each with data and a rate of its own.

    Layers of fewer classes are filled up with classes whose bias is minus infinity: their
    probability is zero and so is every gradient, so they stay as they are.
    """

    def __init__(self, weights: Sequence[Tensor], device: torch.device):
        most = max(len(w) for w in weights)
        self.weight = torch.zeros(len(weights), most, weights[0].shape[1], device=device)
        self.bias = torch.full((len(weights), most), -torch.inf, device=device)
        for row, weight in enumerate(weights):
            self.weight[row, : len(weight)] = weight
            self.bias[row, : len(weight)] = 0
        both = self.weight, self.bias
        self.means = [torch.zeros_like(p) for p in both]
        self.squares = [torch.zeros_like(p) for p in both]
        self.steps = 0

    def step(self, x: Tensor, label: Tensor, present: Tensor, rates: Sequence[float]) -> Tensor:
        """Adam on the cross-entropy of the first A layers; their summed losses before it [A].

        Args:
            x: [A, B, F].
            label: [A, B].
            present: [A, B] 1 where there is a clip.
            rates: learning rate of each.
        """
        count = len(x)
        logits = torch.baddbmm(self.bias[:count, None], x, self.weight[:count].mT)  # [A, B, C]
        log_p = logits.log_softmax(dim=-1)
        lost = -(log_p.gather(2, label[..., None])[..., 0] * present).sum(dim=1)
        share = present / present.sum(dim=1, keepdim=True)
        # The gradient of the logits is the probabilities less one at the true class.
        slope = log_p.exp().scatter_add(2, label[..., None], -torch.ones_like(present)[..., None])
        slope = slope * share[..., None]
        self.descend([torch.bmm(slope.mT, x), slope.sum(dim=1)], rates)
        return lost

    def descend(self, gradients: Sequence[Tensor], rates: Sequence[float]) -> None:
        """One step of Adam, neighbours of the same rate in one call."""
        for rate, group in itertools.groupby(range(len(rates)), key=rates.__getitem__):
            at = [*group]
            part = slice(at[0], at[-1] + 1)
            adam(
                [self.weight[part], self.bias[part]], [g[part] for g in gradients],
                [m[part] for m in self.means], [s[part] for s in self.squares], [],
                [torch.tensor(float(self.steps), device=self.weight.device) for _ in gradients],
                fused=True, amsgrad=False, maximize=False, beta1=0.9, beta2=0.999, lr=rate,
                weight_decay=0.0, eps=1e-8,
            )  # fmt: skip
        self.steps += 1


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """A step is too short to be shared: where other programs run, threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def fit_stack(trainings: Sequence[Training], how: Evaluation) -> list[tuple[Probe, list[float]]]:
    """As `fit_together`, of layers that come with the most videos first."""
    tables = [Timetable.of(training, how) for training in trainings]
    flat = [training.features.flatten(0, 1) for training in trainings]  # [V * D, F] each
    device = flat[0].device
    stack = Stack([table.weight for table in tables], device)
    clip, label, present = (
        pad_sequence([getattr(table, name) for table in tables]).to(device)  # [S, R, B]
        for name in ("clip", "label", "present")
    )
    x = torch.empty(*clip.shape[1:], flat[0].shape[1], device=device)  # [R, B, F]
    lost = torch.zeros(clip.shape[:2], device=device)  # [S, R]
    ends = [len(table.rate) for table in tables]
    for step in range(len(clip)):
        active = sum(end > step for end in ends)  # the first ones: they have the most steps
        for row in range(active):
            x[row] = flat[row][clip[step, row]]
        rates = [table.rate[step] for table in tables[:active]]
        now = x[:active], label[step, :active], present[step, :active]
        lost[step, :active] = stack.step(*now, rates)
    fitted = []
    for row, training in enumerate(trainings):
        c = training.classes
        layer = Probe(weight=stack.weight[row, :c].clone(), bias=stack.bias[row, :c].clone())
        epochs = lost[: ends[row], row].view(how.probe_epochs, -1).sum(dim=1)
        fitted.append((layer, (epochs / len(training.videos)).tolist()))
    return fitted


def fit_together(
    trainings: Sequence[Training], how: Evaluation, *, together: int = TOGETHER
) -> list[tuple[Probe, list[float]]]:
    """Train many layers as one batched problem; each comes out as `probe.fit` would make it alone.

    Layers of like length are trained together, and one that has no step left makes room. The
    same seed draws the same numbers as in `probe.fit`; sums are taken in another order.

    Args:
        trainings: with features of one width, on one device.
        how: the probe's values; its seed does not matter here.
        together: layers at once.

    Returns:
        The layer and the mean loss of each epoch, in the order of `trainings`.

    Raises:
        ValueError: for a layer without videos or classes, or a label out of range.
    """
    for training in trainings:
        label, videos = training.label, len(training.videos)
        if (
            not videos
            or videos != len(label)
            or not 0 <= label.min() <= label.max() < (training.classes)
        ):
            raise ValueError(
                f"a layer of {training.classes} classes needs videos and a label in "
                f"[0, {training.classes}) for each; got {videos} videos and {len(label)} labels"
            )
    order = sorted(range(len(trainings)), key=lambda i: -len(trainings[i].videos))
    fitted: dict[int, tuple[Probe, list[float]]] = {}
    with one_thread(), tqdm(total=len(order), desc="linear layers", unit="layer") as bar:
        for first in range(0, len(order), together):
            at = order[first : first + together]
            made = fit_stack([trainings[i] for i in at], how)
            fitted |= dict(zip(at, made, strict=True))
            bar.update(len(at))
    return [fitted[i] for i in range(len(trainings))]


# ---- what is drawn, trained and measured ------------------------------------------------------


def known_by_name(
    pretraining: Manifest, target: Manifest, *, threshold: float = 0.0, top: int = 0
) -> tuple[Pair, int]:
    """The classes of two data sets as a pair to be matched, and the top-k to match it with.

    Names of the official lists, all or some, get the thesis's setting and its outliers; other
    names, those of the synthetic world, get their own setting and none struck. A threshold or top
    other than 0 takes the place of either default.
    """
    both = pretraining, target
    official = all(set(m.classes) <= set(class_list(m.name).names) for m in both)
    queries, targets = (
        ClassList(m.name, TITLES[m.name] + ("" if official else ", own names"), m.classes)
        for m in both
    )
    struck = [
        row["target"] for row in outliers()
        if official and (row["queries"], row["targets"]) == (queries.key, targets.key)
    ]  # fmt: skip
    pair = Pair(
        queries=queries, targets=targets,
        threshold=threshold or (THRESHOLDS[target.name] if official else SYNTHETIC_THRESHOLD),
        outliers=tuple(name for name in struck if name in targets.plain),
    )  # fmt: skip
    return pair, top or (OFFICIAL_TOP if official else SYNTHETIC_TOP)


def parts(folder: Path, matched: Matched) -> dict[str, list[str]]:
    """The unseen and the seen classes, from the files that `splits.write_classes` makes.

    Raises:
        ValueError: when either side is empty; it says what to change.
    """
    made = splits.write_classes(folder, matched)
    found = {part: splits.read_classes(made[part]) for part in PARTS}
    advice = {
        "seen": "lower the threshold or raise top, so that more names match",
        "unseen": "raise the threshold or lower top, so that fewer names match",
    }
    for part, classes in found.items():
        if not classes:
            raise ValueError(
                f"{matched.pair.title}: no class is {part} at threshold "
                f"{matched.pair.threshold:g}, top {matched.top}; {advice[part]}"
            )
    return found


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Training videos of some classes; which ones, how many of them, and from which seed."""

    part: str  # seen or unseen
    percent: float  # of the training videos of each class
    seed: int  # of the draw, and of the layer that is trained on it
    classes: Tensor  # [C] labels of the data set, ascending: a layer's outputs
    videos: Tensor  # [N] rows of the training videos

    @property
    def split(self) -> str:
        """As result rows name it: `seen, 5 %`."""
        return f"{self.part}, {self.percent:g} %"


def read_split(split: str) -> tuple[str, float]:
    """The part and the percentage that `Draw.split` wrote."""
    part, _, percent = split.removesuffix(" %").partition(", ")
    return part, float(percent)


def percentages(text: str) -> tuple[float, ...]:
    """`5,10,20` as numbers in ascending order; ValueError for what is no percentage."""
    try:
        found = sorted({float(word) for word in text.split(",")})
    except ValueError:
        found = []
    if not found or not all(0 < percent <= 100 for percent in found):
        raise ValueError(f"write percentages in (0, 100] with commas, '5,10,20'; got {text!r}")
    return tuple(found)


def draws(
    manifest: Manifest, classes: Mapping[str, Sequence[str]], folder: Path, *,
    percents: Sequence[float] = splits.PERCENTS, seeds: Sequence[int] = (0,),
) -> list[Draw]:  # fmt: skip
    """Draws of every part, seed and percentage, from files that are made once in `folder`.

    Args:
        manifest: the data set, training videos and others.
        classes: of each part, by the data set's own names.
        percents: of the training videos of each class, in (0, 100].

    Raises:
        ValueError: for a class that the data set lacks, and a part without training videos.
    """
    train = manifest.split("train")
    row = {video.id: i for i, video in enumerate(train.videos)}
    names, found = [video.label for video in train.videos], []
    for seed in seeds:
        made = splits.write_draws(folder, [*row], names, seed=seed, percents=percents)
        for percent, file in made.items():
            drawn = [row[video] for video in splits.read_draw(file)]
            for part, some in classes.items():
                labels = numbered(manifest, some, part)
                kept = [i for i in drawn if names[i] in set(some)]
                if not kept:
                    raise ValueError(f"no {part} class of {manifest.name} has a training video")
                found.append(Draw(
                    part=part, percent=percent, seed=seed, classes=labels,
                    videos=torch.tensor(kept),
                ))  # fmt: skip
    return found


def numbered(manifest: Manifest, names: Sequence[str], part: str) -> Tensor:
    """Labels of some classes in ascending order [C]; ValueError for none or an unknown one."""
    if not names:
        raise ValueError(f"the {part} part of {manifest.name} holds no class")
    for name in names:
        if name not in manifest.classes:
            raise ValueError(unknown_name(f"class of {manifest.name}", name, manifest.classes))
    return torch.tensor(sorted(manifest.classes.index(name) for name in names))


def training(train: Features, draw: Draw) -> Training:
    """What the layer of a draw is trained on; its labels count within the draw's classes."""
    label = torch.searchsorted(draw.classes, train.label[draw.videos])
    return Training(
        features=train.video, videos=draw.videos, label=label, classes=len(draw.classes),
        seed=draw.seed,
    )  # fmt: skip


def of_classes(test: Features, classes: Tensor) -> tuple[Tensor, Tensor]:
    """All videos of some classes: features [V, D, F], and labels within the classes [V].

    Raises:
        ValueError: when no video is left.
    """
    kept = torch.isin(test.label, classes)
    if not kept.any():
        raise ValueError(f"no test video belongs to the classes {classes.tolist()}")
    return test.video[kept], torch.searchsorted(classes, test.label[kept])


def measure(
    features: Mapping[str, ProbeFeatures], drawn: Sequence[Draw], how: Evaluation, *,
    runs: Mapping[str, str], data: str, **about: str,
) -> Iterator[Row]:  # fmt: skip
    """Train a layer on every draw under every method, all together; result rows.

    Every layer is tested on all test videos of its classes.

    Args:
        features: by method.
        drawn: as `draws` gives them.
        runs: id of the run of each method.
        data: the videos; rows name the classes of both parts beside it.
        about: the other fields of the rows (`dataset`, `profile`).
    """
    jobs = [(method, draw) for method in features for draw in drawn]
    jobs.sort(key=lambda job: (job[0], job[1].part))
    fitted = fit_together([training(features[m].train, draw) for m, draw in jobs], how)
    halves = digest({draw.part: draw.classes.tolist() for draw in drawn})
    layers = zip(jobs, (layer for layer, _ in fitted), strict=True)
    for (method, _), some in itertools.groupby(layers, key=lambda j: (j[0][0], j[0][1].part)):
        here = [(draw, layer) for (_, draw), layer in some]
        known = {"method": method, "run": runs[method], "data": f"{data}, classes {halves}"}
        yield from test(features[method], here, how, **known, **about)


def test(
    features: ProbeFeatures, layers: Sequence[tuple[Draw, Probe]], how: Evaluation, **about: str
) -> Iterator[Row]:
    """Rows of both levels and metrics for layers of the same classes."""
    classes = layers[0][0].classes
    one, label = of_classes(features.clip, classes)
    clips = {"clip": one, "video": of_classes(features.video, classes)[0]}
    for draw, layer in layers:
        yield from accuracies(
            layer, clips, label, replace(how, seed=draw.seed), classes=len(classes),
            task="few-shot", split=draw.split, **about,
        )  # fmt: skip


# ---- over seeds -------------------------------------------------------------------------------

SETTING = ["dataset", "level", "metric", "method", "part", "percent"]


def student(values: pd.Series) -> float:
    """Half the width of Student's 95 % interval for the mean; 0 for a single value."""
    n = len(values)
    if n < 2:
        return 0.0
    return float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / math.sqrt(n))


def with_parts(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the part and the percentage of their split as columns."""
    read = [read_split(split) for split in rows["split"]]
    return rows.assign(part=[part for part, _ in read], percent=[percent for _, percent in read])


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, one row a setting, with an interval and the number of `seeds`.

    Draws and starts vary with the seed (Student's t over seeds); test videos do not (the rows'
    bootstrap intervals). The wider of the two is given. Published rows have no interval.
    """
    lines = []
    for setting, some in with_parts(rows).groupby(SETTING, sort=False):
        value = some["value"].mean()
        half, low, high = student(some["value"]), some["low"].mean(), some["high"].mean()
        first = some.iloc[0]
        lines.append(dict(zip(SETTING, setting, strict=True)) | {
            "value": value, "low": max(0.0, min(value - half, low)) if low == low else low,
            "high": min(100.0, max(value + half, high)) if low == low else high,
            "n": first["n"], "chance": first["chance"], "seeds": len(some),
            "split": first["split"],
        })  # fmt: skip
    return pd.DataFrame(lines)


def gaps(rows: pd.DataFrame, base: str = "supervised") -> pd.DataFrame:
    """Differences to the method `base`, in points, one row a setting; intervals as `over_seeds`.

    Differences are taken seed by seed, on the same draws. For the choice of test videos the
    intervals of both methods are added in quadrature, as if their errors had nothing to do with
    each other; they mostly go together, so this is rather too wide.

    Raises:
        ValueError: when `base` was not measured.
    """
    if base not in set(rows["method"]):
        raise ValueError(f"differences are to {base!r}, which was not measured: add it to methods")
    table = with_parts(rows).assign(half=(rows["high"] - rows["low"]) / 2)
    key = ["dataset", "level", "metric", "part", "percent", "seed"]
    theirs = table.loc[table["method"] == base, [*key, "value", "half"]]
    both = table[table["method"] != base].merge(theirs, on=key, suffixes=("", "_base"))
    both = both.assign(gap=both["value"] - both["value_base"])
    lines = []
    for setting, some in both.groupby(SETTING, sort=False):
        value = some["gap"].mean()
        videos = ((some["half"] ** 2 + some["half_base"] ** 2) ** 0.5).mean()
        half = max(student(some["gap"]), videos)
        lines.append(dict(zip(SETTING, setting, strict=True)) | {
            "value": value, "low": value - half, "high": value + half, "seeds": len(some),
        })  # fmt: skip
    columns = [*SETTING, "value", "low", "high", "seeds"]
    return pd.DataFrame(lines, columns=columns)
