"""Linear layers on features, many of them trained together as one batched problem.

Shapes: R layers trained together, V videos, D clips of each, F features, N videos that a layer is
trained on, S steps, B clips of a step, C classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from avnb.config import Evaluation
from avnb.distributed import one_thread
from avnb.files import tqdm

TOGETHER = 20  # layers in one batch: with more, their weights leave a processor's cache
PADDING = -100  # label of what fills up the last batch of an epoch


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A trained linear layer: features [..., F] -> logits [..., classes]."""

    weight: Tensor  # [classes, F]
    bias: Tensor  # [classes]

    def __call__(self, features: Tensor) -> Tensor:
        """Logits of features."""
        return F.linear(features, self.weight, self.bias)


Fitted = tuple[Probe, list[float]]  # a probe and its mean loss in each epoch


@dataclass(frozen=True, kw_only=True)
class Training:
    """Training data and seed of one linear layer."""

    features: Tensor  # [V, D, F] of all training videos; shared by many layers, never copied
    videos: Tensor  # [N] rows of `features` that it is trained on
    label: Tensor  # [N] in [0, classes)
    classes: int
    seed: int


class BatchedProbes:
    """Linear layers that take their steps together, each on its own clips: R x Adam in one.

    Layers with fewer classes are padded with classes whose bias is minus infinity: probability
    and gradient of these are zero, so they never change.
    """

    def __init__(self, weights: Sequence[Tensor]):
        self.classes = [len(weight) for weight in weights]
        shape = len(weights), max(self.classes)
        self.weight, self.bias = torch.zeros(*shape, weights[0].shape[1]), torch.zeros(shape)
        for row, weight in enumerate(weights):
            self.weight[row, : len(weight)] = weight
            self.bias[row, len(weight) :] = -torch.inf
        parameters = [self.weight.requires_grad_(), self.bias.requires_grad_()]
        self.adam = torch.optim.Adam(parameters, fused=True)

    def step(self, x: Tensor, label: Tensor, lr: float) -> Tensor:
        """A step on clips [R, B, F] with labels [R, B]; the summed loss of each layer before it.

        Clips whose label is `PADDING` do not count; a layer's loss is the mean over the others.
        """
        logits = torch.baddbmm(self.bias[:, None], x, self.weight.mT)  # [R, B, C]
        loss = F.cross_entropy(logits.mT, label, ignore_index=PADDING, reduction="none")
        count = (label != PADDING).sum(dim=1)
        self.adam.zero_grad()
        (loss.sum(dim=1) / count).sum().backward()
        self.adam.param_groups[0]["lr"] = lr
        self.adam.step()
        return loss.detach().sum(dim=1)

    @property
    def probes(self) -> list[Probe]:
        """The layers as they are now."""
        layers = zip(self.classes, self.weight.detach(), self.bias.detach(), strict=True)
        return [Probe(weight=w[:c].clone(), bias=b[:c].clone()) for c, w, b in layers]


def initial_weight(classes: int, width: int, rng: torch.Generator) -> Tensor:
    """[classes, F] weights of an untrained layer, uniform within 1 / sqrt(F)."""
    bound = width**-0.5
    return torch.empty(classes, width).uniform_(-bound, bound, generator=rng)


def epoch_orders(
    videos: int, clips: int, epochs: int, rng: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each epoch the shuffled videos [V] and which of its clips each shows [V].

    No clip is shown again before all others of its video were.
    """
    for epoch in range(epochs):
        if epoch % clips == 0:
            turn = torch.rand(videos, clips, generator=rng).argsort(dim=1)  # [V, D]
        order = torch.randperm(videos, generator=rng)
        yield order, turn[order, epoch % clips]


def schedule(training: Training, config: Evaluation) -> tuple[Tensor, Tensor, Tensor]:
    """The first weight [classes, F], and the clips [S, B] and labels [S, B] of all steps.

    Clips are rows of the features as [V * D, F].
    """
    rng = torch.Generator().manual_seed(training.seed)
    videos, (_, clips, width) = len(training.videos), training.features.shape
    weight = initial_weight(training.classes, width, rng)
    orders = list(epoch_orders(videos, clips, config.probe_epochs, rng))
    rows = torch.stack([training.videos[order] * clips + clip for order, clip in orders])
    label = torch.stack([training.label[order] for order, _ in orders])
    padding, size = (0, -videos % config.probe_batch), config.probe_batch
    label = F.pad(label, padding, value=PADDING)
    return weight, F.pad(rows, padding).view(-1, size), label.view(-1, size)


def fit_stack(trainings: Sequence[Training], config: Evaluation) -> list[Fitted]:
    """Layers of one width, with the same number of steps, trained at once."""
    weights, rows, labels = zip(*(schedule(one, config) for one in trainings), strict=True)
    flat = [one.features.flatten(0, 1) for one in trainings]  # [V * D, F] each
    layers, label, losses = BatchedProbes(weights), torch.stack(labels), list[Tensor]()
    steps = len(rows[0]) // config.probe_epochs  # of an epoch
    for step in range(len(rows[0])):
        x = torch.stack([clips[row[step]] for clips, row in zip(flat, rows, strict=True)])
        losses.append(layers.step(x, label[:, step], config.probe_lr_at(step // steps)))
    curves = torch.stack(losses, dim=1).unflatten(1, (-1, steps)).sum(dim=2)  # [R, epochs]
    means = [curve / len(one.videos) for curve, one in zip(curves, trainings, strict=True)]
    return list(zip(layers.probes, [mean.tolist() for mean in means], strict=True))


def fit_together(
    trainings: Sequence[Training], config: Evaluation, *, together: int = TOGETHER
) -> list[Fitted]:
    """Train many layers; what is trained beside a layer changes nothing but its rounding.

    Those of one width and one number of steps are trained at once, `together` of them at most.
    The seed of `config` is not used.
    """
    groups = dict[tuple[int, int], list[int]]()
    for i, one in enumerate(trainings):
        steps = -(-len(one.videos) // config.probe_batch)
        groups.setdefault((one.features.shape[2], steps), []).append(i)
    fitted = dict[int, Fitted]()
    options = {"desc": "linear layers", "unit": "layer", "disable": len(trainings) == 1}
    with one_thread(), tqdm(total=len(trainings), **options) as bar:
        for group in groups.values():
            for first in range(0, len(group), together):
                block = group[first : first + together]
                fitted |= zip(block, fit_stack([trainings[i] for i in block], config), strict=True)
                bar.update(len(block))
    return [fitted[i] for i in range(len(trainings))]


def fit(features: Tensor, label: Tensor, classes: int, config: Evaluation) -> Fitted:
    """Train on features [V, D, F] of D random clips of each of V videos, labels [V].

    Each epoch shows every video once, through one of its D clips. With D equal to the number of
    epochs each clip is shown once, as when fresh clips are encoded in every epoch.
    """
    videos, seed = torch.arange(len(features)), config.seed
    one = Training(features=features, videos=videos, label=label, classes=classes, seed=seed)
    return fit_together([one], config)[0]
