"""Many linear probes trained together as one batched problem."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.optim.adam import adam
from tqdm import tqdm

from avnb.evaluation.probe import Probe
from avnb.protocols import Evaluation

TOGETHER = 20  # layers in one batch: with more, their weights leave a processor's cache


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one linear layer is trained on."""

    features: Tensor  # [V, D, F] of all training videos; shared by many layers, never copied
    videos: Tensor  # [N] rows of `features` that were drawn
    label: Tensor  # [N] in [0, classes)
    classes: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class ProbeSchedule:
    """All that is random in the training of one layer, drawn as `probe.fit` draws it."""

    weight: Tensor  # [C, F] at the beginning
    clip: Tensor  # [S, B] rows of the features as [V * D, F]; what fills the last batch up is 0
    label: Tensor  # [S, B]
    present: Tensor  # [S, B] 1, or 0 where nothing stands
    rate: list[float]  # of each step

    @classmethod
    def of(cls, training: Training, config: Evaluation) -> "ProbeSchedule":
        """The timetable of one layer, all epochs one after another."""
        rng = torch.Generator().manual_seed(training.seed)
        videos, (_, params, width) = len(training.videos), training.features.shape
        bound = width**-0.5
        weight = torch.empty(training.classes, width).uniform_(-bound, bound, generator=rng)
        clips, labels = [], []
        for epoch in range(config.probe_epochs):
            if epoch % params == 0:
                turn = torch.rand(videos, params, generator=rng).argsort(dim=1)  # [N, D]
            order = torch.randperm(videos, generator=rng)
            clips.append(training.videos[order] * params + turn[order, epoch % params])
            labels.append(training.label[order])
        steps = -(-videos // config.probe_batch)  # of an epoch

        def in_batches(rows: Tensor) -> Tensor:  # [epochs, N] -> [S, B]
            short = steps * config.probe_batch - videos
            return torch.nn.functional.pad(rows, (0, short)).view(-1, config.probe_batch)

        return cls(
            weight=weight,
            clip=in_batches(torch.stack(clips)),
            label=in_batches(torch.stack(labels)),
            present=in_batches(torch.ones(config.probe_epochs, videos)),
            rate=[config.probe_lr_at(e) for e in range(config.probe_epochs) for _ in range(steps)],
        )


class BatchedProbes:
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
                [self.weight[part], self.bias[part]],
                [g[part] for g in gradients],
                [m[part] for m in self.means],
                [s[part] for s in self.squares],
                [],
                [torch.tensor(float(self.steps), device=self.weight.device) for _ in gradients],
                fused=True,
                amsgrad=False,
                maximize=False,
                beta1=0.9,
                beta2=0.999,
                lr=rate,
                weight_decay=0.0,
                eps=1e-8,
            )
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


def fit_stack(trainings: Sequence[Training], config: Evaluation) -> list[tuple[Probe, list[float]]]:
    """As `fit_together`, of layers that come with the most videos first."""
    tables = [ProbeSchedule.of(training, config) for training in trainings]
    flat = [training.features.flatten(0, 1) for training in trainings]  # [V * D, F] each
    device = flat[0].device
    stack = BatchedProbes([table.weight for table in tables], device)
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
        epochs = lost[: ends[row], row].view(config.probe_epochs, -1).sum(dim=1)
        fitted.append((layer, (epochs / len(training.videos)).tolist()))
    return fitted


def fit_together(
    trainings: Sequence[Training], config: Evaluation, *, together: int = TOGETHER
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
            made = fit_stack([trainings[i] for i in at], config)
            fitted |= dict(zip(at, made, strict=True))
            bar.update(len(at))
    return [fitted[i] for i in range(len(trainings))]
