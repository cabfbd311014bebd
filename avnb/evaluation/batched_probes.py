"""Many linear probes trained together as one batched problem.

Shapes: R layers trained together, V videos, D clips of each, F features, N videos drawn for a
layer, C classes, S steps, B videos per step, A layers that still have steps to take.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.optim.adam import adam

from avnb.config import Evaluation
from avnb.distributed import one_thread
from avnb.evaluation.probe import Fitted, Probe, epoch_orders, initial_weight
from avnb.files import tqdm

TOGETHER = 20  # layers in one batch: with more, their weights leave a processor's cache


@dataclass(frozen=True, kw_only=True)
class Training:
    """Training data and seed of one linear layer."""

    features: Tensor  # [V, D, F] of all training videos; shared by many layers, never copied
    videos: Tensor  # [N] rows of `features` that were drawn
    label: Tensor  # [N] in [0, classes)
    classes: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class ProbeSchedule:
    """All that is random in the training of one layer, drawn as in `probe.fit`."""

    weight: Tensor  # [C, F] before training
    clip: Tensor  # [S, B] rows of the features as [V * D, F]; padding is 0
    label: Tensor  # [S, B]
    present: Tensor  # [S, B] 1 for a clip, 0 for padding
    rate: list[float]  # of each step

    @classmethod
    def draw(cls, training: Training, config: Evaluation) -> "ProbeSchedule":
        """The schedule of one layer, all epochs one after another."""
        rng = torch.Generator().manual_seed(training.seed)
        videos, (_, clips, width) = len(training.videos), training.features.shape
        weight = initial_weight(training.classes, width, rng)
        epochs = [*epoch_orders(videos, clips, config.probe_epochs, rng)]
        rows = [training.videos[order] * clips + clip for order, clip in epochs]
        steps = -(-videos // config.probe_batch)  # per epoch

        def in_batches(x: Tensor) -> Tensor:  # [epochs, N] -> [S, B]
            padding = steps * config.probe_batch - videos
            return F.pad(x, (0, padding)).view(-1, config.probe_batch)

        return cls(
            weight=weight,
            clip=in_batches(torch.stack(rows)),
            label=in_batches(torch.stack([training.label[order] for order, _ in epochs])),
            present=in_batches(torch.ones(len(epochs), videos)),
            rate=[config.probe_lr_at(e) for e in range(len(epochs)) for _ in range(steps)],
        )


class BatchedProbes:
    """Linear layers that take their steps together, each with its own data and learning rate.

    Layers with fewer classes are padded with classes whose bias is minus infinity: probability
    and gradient of these are zero, so they never change.
    """

    def __init__(self, weights: Sequence[Tensor], device: torch.device):
        classes = max(len(weight) for weight in weights)
        self.weight = torch.zeros(len(weights), classes, weights[0].shape[1], device=device)
        self.bias = torch.full((len(weights), classes), -torch.inf, device=device)
        for row, weight in enumerate(weights):
            self.weight[row, : len(weight)] = weight
            self.bias[row, : len(weight)] = 0
        self.parameters = [self.weight, self.bias]
        self.means = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]
        self.steps = 0

    def step(self, x: Tensor, label: Tensor, present: Tensor, rates: Sequence[float]) -> Tensor:
        """Adam on the cross-entropy of the first A layers; their summed losses before it [A].

        x is [A, B, F], label [A, B], present [A, B] 1 for a clip and 0 for padding, rates [A].
        """
        count = len(x)
        logits = torch.baddbmm(self.bias[:count, None], x, self.weight[:count].mT)  # [A, B, C]
        log_p = logits.log_softmax(dim=-1)
        loss = -(log_p.gather(2, label[..., None])[..., 0] * present).sum(dim=1)
        share = present / present.sum(dim=1, keepdim=True)
        # The gradient of the logits is the probabilities less one at the true class.
        slope = log_p.exp().scatter_add(2, label[..., None], -torch.ones_like(present)[..., None])
        slope = slope * share[..., None]
        self.descend([torch.bmm(slope.mT, x), slope.sum(dim=1)], rates)
        return loss

    def descend(self, gradients: Sequence[Tensor], rates: Sequence[float]) -> None:
        """One step of Adam, neighbouring layers with the same rate in one call."""
        options: dict[str, Any] = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
        options |= {"fused": True, "amsgrad": False, "maximize": False}
        first = 0
        for rate, group in itertools.groupby(rates):
            part = slice(first, first := first + len([*group]))
            tensors = self.parameters, gradients, self.means, self.squares
            values, slopes, means, squares = ([t[part] for t in group] for group in tensors)
            steps = [torch.tensor(float(self.steps), device=self.weight.device) for _ in gradients]
            adam(values, slopes, means, squares, [], steps, lr=rate, **options)
        self.steps += 1


def fit_stack(trainings: Sequence[Training], config: Evaluation) -> list[Fitted]:
    """`fit_together` for layers that are trained at once, those with the most videos first."""
    schedules = [ProbeSchedule.draw(training, config) for training in trainings]
    flat = [training.features.flatten(0, 1) for training in trainings]  # [V * D, F] each
    device = flat[0].device
    stack = BatchedProbes([schedule.weight for schedule in schedules], device)
    clip, label, present = (
        pad_sequence([getattr(schedule, name) for schedule in schedules]).to(device)  # [S, R, B]
        for name in ("clip", "label", "present")
    )
    x = torch.empty(*clip.shape[1:], flat[0].shape[1], device=device)  # [R, B, F]
    losses = torch.zeros(clip.shape[:2], device=device)  # [S, R]
    ends = [len(schedule.rate) for schedule in schedules]
    for step in range(len(clip)):
        active = sum(end > step for end in ends)  # the first ones: they have the most steps
        for row in range(active):
            x[row] = flat[row][clip[step, row]]
        rates = [schedule.rate[step] for schedule in schedules[:active]]
        batch = x[:active], label[step, :active], present[step, :active]
        losses[step, :active] = stack.step(*batch, rates)
    fitted = []
    for row, training in enumerate(trainings):
        c = training.classes
        probe = Probe(weight=stack.weight[row, :c].clone(), bias=stack.bias[row, :c].clone())
        epochs = losses[: ends[row], row].view(config.probe_epochs, -1).sum(dim=1)
        fitted.append((probe, (epochs / len(training.videos)).tolist()))
    return fitted


def fit_together(
    trainings: Sequence[Training], config: Evaluation, *, together: int = TOGETHER
) -> list[Fitted]:
    """Train many layers as one batched problem; each equals what `probe.fit` makes of it alone.

    Layers of similar length are trained together, and one whose epochs are over leaves the batch.
    The same seed draws the same numbers as in `probe.fit`; sums are taken in another order.

    Args:
        trainings: with features on one device; those of one width are trained together.
        config: values of the probe; its seed is not used.
        together: layers trained at once.

    Raises:
        ValueError: for a layer without videos or classes, or a label out of range.
    """
    for training in trainings:
        label, videos, classes = training.label, len(training.videos), training.classes
        if not videos == len(label) > 0 or not 0 <= label.min() <= label.max() < classes:
            raise ValueError(
                f"a layer of {classes} classes needs videos and a label in [0, {classes}) for "
                f"each; got {videos} videos and {len(label)} labels"
            )
    width = [training.features.shape[2] for training in trainings]
    order = sorted(range(len(width)), key=lambda i: (width[i], -len(trainings[i].videos)))
    fitted: dict[int, Fitted] = {}
    with one_thread(), tqdm(total=len(order), desc="linear layers", unit="layer") as bar:
        for _, rows in itertools.groupby(order, key=width.__getitem__):
            same_width = list(rows)
            for first in range(0, len(same_width), together):
                block = same_width[first : first + together]
                fitted |= zip(block, fit_stack([trainings[i] for i in block], config), strict=True)
                bar.update(len(block))
    return [fitted[i] for i in range(len(trainings))]
