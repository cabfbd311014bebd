"""Linear probe: one linear layer on frozen, cached features (thesis 4.2.1)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avnb.batches import Sampling
from avnb.config import Clip, Evaluation, Pretrain
from avnb.features import Features, extract
from avnb.pretrain import Pretrained
from avnb.results import Row, percent_row
from avnb.videos import Manifest

Classify = Callable[[Tensor], Tensor]  # features [..., F] -> logits [..., classes]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A trained linear layer: features [..., F] -> logits [..., classes]."""

    weight: Tensor  # [classes, F]
    bias: Tensor  # [classes]

    def __call__(self, features: Tensor) -> Tensor:
        """Logits of features."""
        return F.linear(features, self.weight, self.bias)


def fit(
    features: Tensor, label: Tensor, classes: int, how: Evaluation
) -> tuple[Probe, list[float]]:
    """Train on features [V, D, F] of D random clips of each of V videos, labels [V].

    Each epoch sees every video once, through one of its D clips; no clip is seen again before
    all others of its video were. With D as many as epochs, each is seen once, as when fresh
    crops are encoded in every epoch.

    Returns:
        The probe and the mean loss of each epoch.
    """
    rng = torch.Generator().manual_seed(how.seed)
    videos, draws, width = features.shape
    layer = nn.Linear(width, classes)
    bound = width**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=rng)
        layer.bias.zero_()
    adam, losses = torch.optim.Adam(layer.parameters()), []
    for epoch in range(how.probe_epochs):
        adam.param_groups[0]["lr"] = how.probe_lr_at(epoch)
        if epoch % draws == 0:
            turn = torch.rand(videos, draws, generator=rng).argsort(dim=1)  # [V, D]
        which = turn[:, epoch % draws]
        order, total = torch.randperm(videos, generator=rng), 0.0
        for rows in order.split(how.probe_batch):
            loss = F.cross_entropy(layer(features[rows, which[rows]]), label[rows])
            adam.zero_grad()
            loss.backward()
            adam.step()
            total += loss.item() * len(rows)
        losses.append(total / videos)
    return Probe(weight=layer.weight.detach(), bias=layer.bias.detach()), losses


def top_k(scores: Tensor, label: Tensor, k: int) -> Tensor:
    """Whether the true class is among the k best; scores [..., classes], label [...] -> bool."""
    k = min(k, scores.shape[-1])
    return (scores.topk(k, dim=-1).indices == label[..., None]).any(dim=-1)


def clip_level(probe: Classify, features: Tensor, label: Tensor, k: int) -> Tensor:
    """[V] share of each video's C clips that are classified right; features [V, C, F]."""
    right = top_k(probe(features), label[:, None].expand(features.shape[:2]), k)
    return right.double().mean(dim=1)


def video_level(probe: Classify, features: Tensor, label: Tensor, k: int) -> Tensor:
    """[V] 1 or 0: the softmax is averaged over a video's C clips, then the video is classified."""
    return top_k(probe(features).softmax(dim=-1).mean(dim=1), label, k).double()


@dataclass(frozen=True, kw_only=True)
class ProbeFeatures:
    """What a probe is trained and tested on."""

    train: Features  # random clips, random crops
    clip: Features  # random clips of test videos, centre crops
    video: Features  # uniformly spaced clips of test videos, centre crops


def downstream_clip(run: Pretrain, how: Evaluation, *, sound_seconds: float = 1.0) -> Clip:
    """Half a second of picture, and sound that starts with it."""
    return Clip(
        picture_seconds=how.picture_seconds, picture_fps=how.picture_fps,
        frame_px=run.clip.frame_px, sound_seconds=sound_seconds, sound_hz=run.clip.sound_hz,
        max_offset_seconds=0.0,
    )  # fmt: skip


def extract_all(
    source: Pretrained, manifest: Manifest, how: Evaluation, cache: Path, *, workers: int = 2
) -> ProbeFeatures:
    """Features for training and both ways of testing, cached."""
    clip = downstream_clip(source.run, how)
    common: dict[str, Any] = {"clip": clip, "resize_px": how.resize_px, "sound": False}
    asked = {
        "train": Sampling(count=how.train_draws, place="random", random_crop=True, **common),
        "clip": Sampling(count=how.clip_level_clips, place="random", **common),
        "video": Sampling(count=how.video_level_clips, place="uniform", **common),
    }
    return ProbeFeatures(**{
        name: extract(
            source.checkpoint, manifest.split("train" if name == "train" else "test"), sampling,
            cache, seed=how.seed, workers=workers,
            title=f"{source.run.method} on {manifest.name}, {name}",
        )
        for name, sampling in asked.items()
    })  # fmt: skip


def measure(
    features: ProbeFeatures, classes: int, how: Evaluation, **about: str
) -> tuple[Probe, list[float], list[Row]]:
    """Train and test one probe: the layer, its losses, and rows of both levels and metrics."""
    probe, losses = fit(features.train.video, features.train.label, classes, how)
    rows = []
    for level, test, scores in (
        ("clip", features.clip, clip_level), ("video", features.video, video_level),
    ):  # fmt: skip
        for k in (1, 5):
            each = scores(probe, test.video, test.label, k).numpy()
            rows.append(percent_row(
                each, resamples=how.resamples, seed=how.seed, task="probe", metric=f"top{k}",
                level=level, chance=100 * min(k, classes) / classes, **about,
            ))  # fmt: skip
    return probe, losses, rows
