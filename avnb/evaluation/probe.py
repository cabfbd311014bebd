"""Linear probe: one linear layer on frozen, cached features (thesis 4.2.1).

Shapes: V videos, D clips of each training video, C clips of each test video, F features, B clips
of a batch.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from avnb.config import Evaluation
from avnb.data.clips import VideoClips
from avnb.data.loader import AUTO, ClipLoader, video_blocks
from avnb.data.manifest import Manifest
from avnb.evaluation.encoder_source import EncoderSource
from avnb.evaluation.features import Features, FrozenEncoders, device, encode_all
from avnb.evaluation.probe_features import (
    ProbeFeatures,
    Sources,
    downstream_clip,
    extract_each,
    row_metadata,
    samplings,
    testing,
)
from avnb.evaluation.results import Row, percent_row, record
from avnb.files import tqdm
from avnb.profiles import Workspace

Classify = Callable[[Tensor], Tensor]  # features [..., F] -> logits [..., classes]
Examples = tuple[Tensor, Tensor]  # features [B, F] of a batch, labels [B]
BLOCK = 1024  # videos classified at a time: the logits of all clips need not fit in memory


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A trained linear layer: features [..., F] -> logits [..., classes]."""

    weight: Tensor  # [classes, F]
    bias: Tensor  # [classes]

    def __call__(self, features: Tensor) -> Tensor:
        """Logits of features."""
        return F.linear(features, self.weight, self.bias)


Fitted = tuple[Probe, list[float]]  # a probe and its mean loss in each epoch


# ---- training ---------------------------------------------------------------------------------


def fit(features: Tensor, label: Tensor, classes: int, config: Evaluation) -> Fitted:
    """Train on features [V, D, F] of D random clips of each of V videos, labels [V].

    Each epoch shows every video once, through one of its D clips; no clip is shown again before
    all others of its video were. With D equal to the number of epochs each clip is shown once, as
    when fresh clips are encoded in every epoch. Memory-mapped features are read batch by batch.
    ValueError when there is no clip.
    """
    videos, clips, width = features.shape
    if not videos or not clips:
        raise ValueError(
            f"features of {videos} videos with {clips} clips each cannot train a probe; with "
            "probe_clips = 'fresh' none are kept, and `fit_fresh` encodes them"
        )
    rng = torch.Generator().manual_seed(config.seed)
    return descend(cached_epochs(features, label, config, rng), width, classes, config, rng)


def fit_fresh(
    frozen: FrozenEncoders,
    train: Manifest,
    config: Evaluation,
    *,
    classes: Tensor | None = None,
    workers: int = AUTO,
) -> Fitted:
    """As `fit`, but a new clip of each training video is cut and encoded in every epoch.

    With `probe_batch_norm` = train the encoder normalises with the statistics of each batch, and
    its running ones move with them, as in the released code; `frozen` keeps what they become.

    Args:
        frozen: the encoders.
        train: the training videos.
        config: values of the probe.
        classes: labels of the data set that the layer tells apart, ascending; all by default.
        workers: decoding processes.
    """
    sampling = replace(samplings(frozen.source.config, config)["train"], count=1)
    rng = torch.Generator().manual_seed(config.seed)
    clips = VideoClips(train, sampling, seed=config.seed)
    labels = torch.arange(len(train.classes)) if classes is None else classes
    epochs = fresh_epochs(frozen, clips, labels, config, rng, workers)
    frozen.train(config.probe_batch_norm == "train")
    fitted = descend(epochs, frozen.video_encoder.features, len(labels), config, rng)
    frozen.eval()
    return fitted


def tested_by(
    frozen: FrozenEncoders, test: Manifest, config: Evaluation, *, workers: int = AUTO
) -> dict[str, Features]:
    """Features of test videos under encoders whose statistics have moved, by level."""
    options: dict[str, Any] = {"seed": config.seed, "at_once": config.clips_per_forward}
    options |= {"workers": workers, "title": f"{test.name}, {frozen.source.method}"}
    tested = testing(downstream_clip(frozen.source.config, config), config)
    return {level: encode_all(frozen, test, s, **options) for level, s in tested.items()}


def fit_probe(
    source: EncoderSource,
    manifest: Manifest,
    features: ProbeFeatures,
    config: Evaluation,
    *,
    workers: int = AUTO,
) -> tuple[Fitted, ProbeFeatures]:
    """A probe trained as the protocol says, and the features that it is tested on.

    `features` are those of `extract_each`; where the encoder's statistics move, the test videos
    are encoded again with what they have become.
    """
    if config.probe_clips == "cached":
        train = features.train
        return fit(train.video, train.label, len(manifest.classes), config), features
    frozen = FrozenEncoders(source).to(device())
    fitted = fit_fresh(frozen, manifest.split("train"), config, workers=workers)
    if config.probe_batch_norm == "train":
        moved = tested_by(frozen, manifest.split("test"), config, workers=workers)
        features = replace(features, **moved)
    return fitted, features


def epoch_orders(
    videos: int, clips: int, epochs: int, rng: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each epoch the shuffled videos [V] and which of its clips each shows [V]."""
    for epoch in range(epochs):
        if epoch % clips == 0:
            turn = torch.rand(videos, clips, generator=rng).argsort(dim=1)  # [V, D]
        order = torch.randperm(videos, generator=rng)
        yield order, turn[order, epoch % clips]


def cached_epochs(
    features: Tensor, label: Tensor, config: Evaluation, rng: torch.Generator
) -> Iterator[Iterator[Examples]]:
    """The batches of each epoch, taken from features [V, D, F]."""
    size = config.probe_batch
    videos, clips, _ = features.shape
    for order, clip in epoch_orders(videos, clips, config.probe_epochs, rng):
        batches = zip(order.split(size), clip.split(size), strict=True)
        yield ((features[rows, shown], label[rows]) for rows, shown in batches)


def fresh_epochs(
    frozen: FrozenEncoders,
    dataset: VideoClips,
    classes: Tensor,
    config: Evaluation,
    rng: torch.Generator,
    workers: int,
) -> Iterator[Iterator[Examples]]:
    """The batches of each epoch, decoded from the videos: other clips every time.

    Labels are counted within `classes`, ascending labels of the data set.
    """
    videos, size = len(dataset), config.probe_batch
    orders = [torch.randperm(videos, generator=rng) for _ in range(config.probe_epochs)]
    plans = [(epoch, video_blocks(order.tolist(), 1, size)) for epoch, order in enumerate(orders)]
    clips = ClipLoader(dataset, plans, size=size, workers=workers)
    title = f"{frozen.source.method} on {dataset.manifest.name}, {len(orders)} epochs"
    steps = sum(len(plan) for _, plan in plans)
    loaded = iter(tqdm(clips, total=steps, desc=title, unit="batch"))
    for _, plan in plans:
        # Batch statistics are those of the whole batch.
        at_once = size if frozen.training else config.clips_per_forward
        encoded = (
            (frozen.encode(batch, audio=False, at_once=at_once), batch.label)
            for batch in itertools.islice(loaded, len(plan))
        )
        # Cloned: a tensor made in inference mode cannot take part in a gradient.
        yield (
            (features["video"].clone(), torch.searchsorted(classes, label))
            for features, label in encoded
        )


def initial_weight(classes: int, width: int, rng: torch.Generator) -> Tensor:
    """[classes, F] weights of an untrained layer, uniform within 1 / sqrt(F)."""
    bound = width**-0.5
    return torch.empty(classes, width).uniform_(-bound, bound, generator=rng)


def descend(
    epochs: Iterable[Iterable[Examples]],
    width: int,
    classes: int,
    config: Evaluation,
    rng: torch.Generator,
) -> Fitted:
    """Train a layer from `width` features to `classes` with Adam on the batches of each epoch."""
    weight = initial_weight(classes, width, rng).requires_grad_()
    bias = torch.zeros(classes, requires_grad=True)
    adam, losses = torch.optim.Adam([weight, bias]), []
    for number, epoch in enumerate(epochs):
        adam.param_groups[0]["lr"] = config.probe_lr_at(number)
        total, count = 0.0, 0
        for features, label in epoch:
            loss = F.cross_entropy(F.linear(features, weight, bias), label)
            adam.zero_grad()
            loss.backward()
            adam.step()
            total, count = total + loss.item() * len(label), count + len(label)
        losses.append(total / count)
    return Probe(weight=weight.detach(), bias=bias.detach()), losses


# ---- accuracy ---------------------------------------------------------------------------------


def top_k(scores: Tensor, label: Tensor, k: int) -> Tensor:
    """Whether the true class is among the k best; scores [..., classes], label [...] -> bool."""
    k = min(k, scores.shape[-1])
    return (scores.topk(k, dim=-1).indices == label[..., None]).any(dim=-1)


def clip_level(probe: Classify, features: Tensor, label: Tensor, k: int) -> Tensor:
    """[V] share of each video's C clips that are classified correctly; features [V, C, F]."""
    blocks = zip(features.split(BLOCK), label.split(BLOCK), strict=True)
    return torch.cat([top_k(probe(x), y[:, None], k).double().mean(dim=1) for x, y in blocks])


def probabilities(probe: Classify, features: Tensor) -> Tensor:
    """[V, classes] softmax of each clip, averaged over a video's C clips; features [V, C, F]."""
    return torch.cat([probe(x).softmax(dim=-1).mean(dim=1) for x in features.split(BLOCK)])


def video_level(probe: Classify, features: Tensor, label: Tensor, k: int) -> Tensor:
    """[V] 1 or 0: the softmax is averaged over a video's C clips, then the video is classified."""
    return top_k(probabilities(probe, features), label, k).double()


LEVELS = {"clip": clip_level, "video": video_level}


def confusion(predicted: Tensor, label: Tensor, classes: int) -> Tensor:
    """[classes, classes] number of videos by true class (row) and predicted class (column)."""
    return torch.bincount(label * classes + predicted, minlength=classes**2).view(classes, -1)


def accuracies(
    classify: Classify,
    clips: Mapping[str, Tensor],
    label: Tensor,
    config: Evaluation,
    *,
    classes: int,
    **metadata: Any,
) -> list[Row]:
    """Rows of top-1 and top-5 at each level; `metadata` gives their other fields.

    Args:
        classify: turns features into logits.
        clips: by level, [V, C, F] of the C clips of each test video.
        label: [V].
        config: number of bootstrap resamples, and their seed.
        classes: number of classes to choose from.
    """
    rows = []
    for (level, features), k in itertools.product(clips.items(), (1, 5)):
        scores = LEVELS[level](classify, features, label, k).cpu().numpy()
        metadata |= {"level": level, "metric": f"top{k}"}
        metadata["chance"] = 100 * min(k, classes) / classes
        rows.append(percent_row(scores, config, **metadata))
    return rows


# ---- rows -------------------------------------------------------------------------------------


def scored(probe: Probe, features: ProbeFeatures, config: Evaluation, **metadata: Any) -> list[Row]:
    """Rows of one probe: both levels and metrics."""
    clips, label = {"clip": features.clip.video, "video": features.video.video}, features.clip.label
    metadata |= {"task": "probe", "classes": len(probe.bias)}
    return accuracies(probe, clips, label, config, **metadata)


def probe_rows(
    sources: Sources,
    manifest: Manifest,
    config: Evaluation,
    work: Workspace,
    *,
    seeds: int = 1,
    split: str = "test",
) -> tuple[pd.DataFrame, dict[str, list[Fitted]], dict[str, ProbeFeatures]]:
    """Linear probes of several encoders, measured and appended to the workspace's results.

    Each encoder gets `seeds` probes, seeded with `config.seed`, `config.seed` + 1, ...; the clips
    are those of `config.seed`. Returns their rows, and fitted probes and features by method, those
    of the first seed where the encoder's statistics move.
    """
    if seeds < 1:
        raise ValueError(f"seeds = {seeds}: at least one probe must be trained")
    features = extract_each(sources, manifest, config, work.features)
    fitted: dict[str, list[Fitted]] = {method: [] for method in sources}
    rows, first = [], dict[str, ProbeFeatures]()
    for (method, source), i in itertools.product(sources.items(), range(seeds)):
        seeded = replace(config, seed=config.seed + i)
        trained, tested = fit_probe(source, manifest, features[method], seeded)
        fitted[method].append(trained)
        metadata = row_metadata(source, manifest, work, config)
        rows += scored(trained[0], tested, seeded, split=split, **metadata)
        first[method] = tested if i == 0 else first[method]
    return record(work.results, rows), fitted, first


# SHIM of the redesign: until this module holds them itself, names come from where they stand now.
_SHIM = ["avnb.evaluation.batched_probes", "avnb.evaluation.probe_choices"]


def __getattr__(name: str) -> object:
    import importlib

    for module in _SHIM:
        found = importlib.import_module(module)
        if hasattr(found, name):
            return getattr(found, name)
    raise AttributeError(name)
