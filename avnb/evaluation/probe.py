"""Linear probes: linear layers on frozen features (thesis 4.2.1), many of them trained together.

Shapes: R layers trained together, V videos, C clips of each, F features, N videos that a layer
is trained on, B clips of a step.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits
from torch import Tensor

from avnb.config import Clip, Evaluation, Pretrain
from avnb.data.clips import Sampling, VideoClips
from avnb.data.loader import load
from avnb.data.manifest import Manifest
from avnb.evaluation.features import (
    EncoderSource,
    Features,
    FrozenEncoders,
    device,
    downstream_clip,
    encode_all,
    extract,
    uniform_sampling,
)
from avnb.evaluation.results import Row, percent_row
from avnb.files import tqdm

Classify = Callable[[Tensor], Tensor]  # features [..., F] -> logits [..., classes]
Fitted = tuple[Classify, list[float]]  # a trained linear layer, and its mean loss in each epoch
# Features by part: `train`, random clips and crops of training videos (none where fresh ones are
# encoded); centre crops of test videos, random clips in `clip`, uniformly spaced ones in `video`.
ProbeFeatures = dict[str, Features]


class BatchedProbes:
    """Linear layers that take their steps together, each on its own clips: R x Adam in one.

    The first weights [classes, F] of each are drawn by its generator, within +- 1 / sqrt(F).
    """

    def __init__(self, classes: int, width: int, rngs: Sequence[torch.Generator]):
        self.weight, bound = torch.empty(len(rngs), classes, width), width**-0.5
        for weight, rng in zip(self.weight, rngs, strict=True):
            weight.uniform_(-bound, bound, generator=rng)
        parameters = [self.weight, torch.zeros(len(rngs), classes)]
        self.weight, self.bias = (x.requires_grad_() for x in parameters)
        self.adam = torch.optim.Adam([self.weight, self.bias], fused=True)

    def step(self, x: Tensor, label: Tensor, lr: float) -> Tensor:
        """A step on clips [R, B, F] with labels [R, B]; the summed loss of each layer before it."""
        logits = torch.baddbmm(self.bias[:, None], x, self.weight.mT)  # [R, B, classes]
        loss = F.cross_entropy(logits.mT, label, reduction="none")
        self.adam.zero_grad()
        loss.mean(dim=1).sum().backward()
        self.adam.param_groups[0]["lr"] = lr
        self.adam.step()
        return loss.detach().sum(dim=1)

    @property
    def probes(self) -> list[Classify]:
        """The layers as they are now."""
        both = zip(self.weight.detach().clone(), self.bias.detach().clone(), strict=True)
        return [partial(F.linear, weight=weight, bias=bias) for weight, bias in both]


def epoch_orders(
    videos: int, clips: int, epochs: int, rng: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each epoch the shuffled videos [N] and which of its clips each shows [N].

    No clip is shown again before all others of its video were.
    """
    for epoch in range(epochs):
        if epoch % clips == 0:
            turn = torch.rand(videos, clips, generator=rng).argsort(dim=1)  # [N, C]
        order = torch.randperm(videos, generator=rng)
        yield order, turn[order, epoch % clips]


def fit_together(
    features: Tensor,
    label: Tensor,
    classes: int,
    config: Evaluation,
    *,
    videos: Tensor,
    seeds: Sequence[int],
) -> list[Fitted]:
    """Train R layers on `videos` [R, N] of features [V, C, F] of random clips, labels [V].

    Each epoch shows every video once, through one of its clips. With as many clips as epochs each
    is shown once, as when fresh clips are encoded in every epoch. What is trained beside a layer
    changes nothing but its rounding. The seed of `config` is not used.
    """
    flat, (_, count, width) = features.flatten(0, 1), features.shape
    rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
    layers, losses = BatchedProbes(classes, width, rngs), list[Tensor]()
    total: Any
    orders = (epoch_orders(videos.shape[1], count, config.probe_epochs, rng) for rng in rngs)
    with threadpool_limits(1):  # short steps: threads would wait for each other
        for epoch, drawn in enumerate(zip(*orders, strict=True)):
            order, clip = (torch.stack(x) for x in zip(*drawn, strict=True))  # [R, N]
            shown, lr, total = videos.gather(1, order), config.probe_lr_at(epoch), 0.0
            batches = (x.split(config.probe_batch, dim=1) for x in (shown, clip))
            for rows, clips in zip(*batches, strict=True):
                total += layers.step(flat[rows * count + clips], label[rows], lr)
            losses.append(total / videos.shape[1])
    return list(zip(layers.probes, torch.stack(losses, dim=1).tolist(), strict=True))


def fit(features: Tensor, label: Tensor, classes: int, config: Evaluation) -> Fitted:
    """One layer of `fit_together`, on all videos, from the seed of `config`."""
    every, seeds = torch.arange(len(features))[None], [config.seed]
    return fit_together(features, label, classes, config, videos=every, seeds=seeds)[0]


def samplings(clip: Clip, config: Evaluation) -> dict[str, Sampling]:
    """How clips are sampled for training and, as `clip` and `video`, both levels of testing."""
    one, crops = replace(uniform_sampling(clip, config), audio=False), config.video_level_crops
    video = replace(one, count=one.count * crops, crops=crops)
    clips = replace(one, place="random", count=config.clip_level_clips)
    train = replace(clips, count=config.train_clips, random_crop=True, flip_prob=config.flip_prob)
    return {"train": train, "clip": clips, "video": video}


def run_samplings(run: Pretrain, config: Evaluation) -> dict[str, Sampling]:
    """`samplings` of the clips on which the encoders of a run are evaluated."""
    return samplings(downstream_clip(run, config), config)


def probe_features(
    source: EncoderSource, manifest: Manifest, config: Evaluation, cache: Path
) -> ProbeFeatures:
    """Features for training and for both levels of testing, kept in `cache`."""
    how = run_samplings(source.config, config)
    parts = {"train": manifest.split("train")} if config.probe_clips == "cached" else {}
    parts |= dict.fromkeys(LEVELS, manifest.split("test"))
    return {part: extract(source, x, how[part], config, cache) for part, x in parts.items()}


def fit_fresh(
    frozen: FrozenEncoders, train: Manifest, config: Evaluation, classes: Tensor
) -> Fitted:
    """As `fit`, but with a new clip of each video in every epoch, as in the released code.

    With `probe_batch_norm` = train the encoder normalises with the statistics of each batch, and
    its running ones move with them; `frozen` keeps what they become. `classes` are the labels of
    the data set that the layer tells apart, ascending.
    """
    rng, curve = torch.Generator().manual_seed(config.seed), [0.0] * config.probe_epochs
    layer = BatchedProbes(len(classes), frozen.video_encoder.features, [rng])
    plan = [
        [(epoch, video, 0) for video in part.tolist()]
        for epoch in range(config.probe_epochs)
        for part in torch.randperm(len(train), generator=rng).split(config.probe_batch)
    ]
    sampling = replace(run_samplings(frozen.source.config, config)["train"], count=1)
    batches = load(VideoClips(train, sampling, seed=config.seed), plan)
    title = f"{frozen.source.method} on {train.name}, {config.probe_epochs} epochs"
    frozen.train(config.probe_batch_norm == "train")
    for places, batch in zip(plan, tqdm(batches, title, len(plan), unit="batch"), strict=True):
        # Cloned: a tensor made in inference mode cannot take part in a gradient.
        x, epoch = frozen.encode(batch)[0].clone(), places[0][0]
        label = torch.searchsorted(classes, batch.label)
        loss = layer.step(x[None], label[None], config.probe_lr_at(epoch))
        curve[epoch] += loss.item() / len(train)
    frozen.eval()
    return layer.probes[0], curve


def fit_probes(
    source: EncoderSource,
    manifest: Manifest,
    features: ProbeFeatures,
    config: Evaluation,
    seeds: Sequence[int] = (),
    *,
    classes: Tensor | None = None,
    videos: Tensor | None = None,
) -> Iterator[tuple[Fitted, ProbeFeatures]]:
    """Probes trained as the protocol says, and the features that each is tested on.

    `features` are those of `probe_features`; where the encoder's statistics move, test videos are
    encoded again with what they have become. The R probes differ in their seeds (that of `config`
    by default) and in their training videos, `videos` [R, N]. They tell `classes` apart, labels of
    the data set, ascending; both are all by default.
    """
    train, seeds = manifest.split("train"), seeds or [config.seed]
    classes = torch.arange(len(manifest.classes)) if classes is None else classes
    videos = torch.arange(len(train)).expand(len(seeds), -1) if videos is None else videos
    if config.probe_clips == "cached":
        x, label = features["train"].video, torch.searchsorted(classes, features["train"].label)
        for one in fit_together(x, label, len(classes), config, videos=videos, seeds=seeds):
            yield one, features
        return
    test, how = manifest.split("test"), run_samplings(source.config, config)
    for seed, rows in zip(seeds, videos.tolist(), strict=True):
        frozen, own = FrozenEncoders(source).to(device()), (train.videos[i] for i in rows)
        fitted = fit_fresh(frozen, train.only(own), replace(config, seed=seed), classes)
        if config.probe_batch_norm == "train":
            features = {x: encode_all(frozen.encode, test, how[x], config) for x in LEVELS}
        yield fitted, features


def nearest_neighbours(
    train: Tensor, label: Tensor, classes: int, *, k: int = 20, temperature: float = 0.07
) -> Classify:
    """A classifier by the k nearest training videos [V, C, F] by the cosine, instead of a probe.

    A neighbour of cosine s votes for its class with exp( s / temperature ): Wu et al. 2018,
    arXiv:1805.01978. Training videos stand for the means of their clips. Logits are logarithms of
    the shares of votes.
    """
    known, votes = F.normalize(train.mean(dim=1), dim=1), F.one_hot(label, classes).float()

    def classify(features: Tensor) -> Tensor:
        near = (F.normalize(features, dim=-1) @ known.T).topk(min(k, len(known)), dim=-1)
        share = (near.values / temperature).softmax(dim=-1)
        return (share[..., None] * votes[near.indices]).sum(dim=-2).log()

    return classify


def top_k(scores: Tensor, label: Tensor, k: int) -> Tensor:
    """Whether the true class is among the k best; scores [..., classes], label [...] -> bool."""
    return (scores.topk(k, dim=-1).indices == label[..., None]).any(dim=-1)


def clip_level(probe: Classify, features: Tensor, label: Tensor, k: int) -> Tensor:
    """[V] share of each video's C clips that are classified correctly; features [V, C, F]."""
    return top_k(probe(features), label[:, None], k).double().mean(dim=1)


def probabilities(probe: Classify, features: Tensor) -> Tensor:
    """[V, classes] softmax of each clip, averaged over a video's C clips; features [V, C, F]."""
    return probe(features).softmax(dim=-1).mean(dim=1)


def video_level(probe: Classify, features: Tensor, label: Tensor, k: int) -> Tensor:
    """[V] 1 or 0: the softmax is averaged over a video's C clips, then the video is classified."""
    return top_k(probabilities(probe, features), label, k).double()


LEVELS = {"clip": clip_level, "video": video_level}


def scored(
    layer: Classify, features: ProbeFeatures, config: Evaluation, classes: Tensor, **metadata: Any
) -> list[Row]:
    """Rows of top-1 and, of more than five classes, top-5 at each level.

    Chance is that of always answering the largest classes. Only test videos of `classes` count,
    labels of the data set in the order of the outputs. `metadata` gives the rows' other fields.
    """
    rows = []
    for level, k in itertools.product(LEVELS, (1, 5) if len(classes) > 5 else (1,)):
        kept = torch.isin(features[level].label, classes)
        clips, label = features[level].video[kept], features[level].label[kept]
        label = torch.searchsorted(classes, label)
        right = LEVELS[level](layer, clips, label, k)
        largest = label.bincount(minlength=k).topk(k).values.sum().item()
        about = {"level": level, "metric": f"top{k}", "chance": 100 * largest / max(len(label), 1)}
        row = percent_row(right.numpy(), config, **about, **metadata)
        # Of clips a video may get any share right, even if none does here.
        rows.append(replace(row, outcomes="") if level == "clip" else row)
    return rows
