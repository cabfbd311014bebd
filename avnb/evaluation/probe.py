"""Linear probe: one linear layer on frozen, cached features (thesis 4.2.1)."""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from avnb.config import Clip, Pretrain
from avnb.data.clips import Sampling, VideoClips
from avnb.data.loader import ClipLoader, grouped, worth_starting
from avnb.data.manifest import Manifest
from avnb.evaluation.encoder_source import Source
from avnb.evaluation.features import Features, Frozen, device, extract
from avnb.evaluation.results import Row, percent_row
from avnb.protocols import Evaluation

Classify = Callable[[Tensor], Tensor]  # features [..., F] -> logits [..., classes]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A trained linear layer: features [..., F] -> logits [..., classes]."""

    weight: Tensor  # [classes, F]
    bias: Tensor  # [classes]

    def __call__(self, features: Tensor) -> Tensor:
        """Logits of features."""
        return F.linear(features, self.weight, self.bias)


Part = tuple[Tensor, Tensor]  # features [B, F] of a batch, labels [B]


def fit(
    features: Tensor, label: Tensor, classes: int, config: Evaluation
) -> tuple[Probe, list[float]]:
    """Train on features [V, D, F] of D random clips of each of V videos, labels [V].

    Each epoch sees every video once, through one of its D clips; no clip is seen again before
    all others of its video were. With D as many as epochs, each is seen once, as when fresh
    crops are encoded in every epoch. The features may be mapped from a disk: a batch is read at
    a time.

    Returns:
        The probe and the mean loss of each epoch.

    Raises:
        ValueError: when no clip is there.
    """
    videos, params, width = features.shape
    if not videos or not params:
        raise ValueError(
            f"features of {videos} videos with {params} clips each cannot train a probe; with "
            "protocol = 'released' none are kept, and `fit_fresh` encodes them"
        )
    rng = torch.Generator().manual_seed(config.seed)
    return descend(cached_epochs(features, label, config, rng), width, classes, config, rng)


def fit_fresh(
    source: Source, manifest: Manifest, config: Evaluation, *, workers: int = 2
) -> tuple[Probe, list[float]]:
    """As `fit`, encoding a clip that was never seen of each training video in every epoch.

    This is the released code's way, but for its encoder, whose batch statistics went on moving.
    """
    train = manifest.split("train")
    sampling = replace(samplings(source.run, config)["train"], count=1)
    frozen = Frozen(source.checkpoint).to(device())
    rng = torch.Generator().manual_seed(config.seed)
    epochs = fresh_epochs(
        frozen, VideoClips(train, sampling, seed=config.seed), config, rng, workers
    )
    return descend(epochs, frozen.video_encoder.features, len(manifest.classes), config, rng)


def cached_epochs(
    features: Tensor, label: Tensor, config: Evaluation, rng: torch.Generator
) -> Iterator[Iterator[Part]]:
    """The batches of each epoch out of features [V, D, F]."""
    videos, params, _ = features.shape
    for epoch in range(config.probe_epochs):
        if epoch % params == 0:
            turn = torch.rand(videos, params, generator=rng).argsort(dim=1)  # [V, D]
        which = turn[:, epoch % params]
        order = torch.randperm(videos, generator=rng).split(config.probe_batch)
        yield ((features[rows, which[rows]], label[rows]) for rows in order)


def fresh_epochs(
    frozen: Frozen, dataset: VideoClips, config: Evaluation, rng: torch.Generator, workers: int
) -> Iterator[Iterator[Part]]:
    """The batches of each epoch out of the videos, whose clips are other ones every time."""
    videos = len(dataset)
    orders = [torch.randperm(videos, generator=rng) for _ in range(config.probe_epochs)]
    items = ((epoch, int(row), (0,)) for epoch, order in enumerate(orders) for row in order)
    workers = worth_starting(workers, videos * len(orders) // 4)  # of one clip each
    clips = ClipLoader(dataset, items, workers=workers)
    title = f"{frozen.run.method} on {dataset.manifest.name}, {len(orders)} epochs"
    arriving = iter(tqdm(clips, total=videos * len(orders), desc=title, unit="video"))
    for _ in orders:
        epoch = itertools.islice(arriving, videos)
        yield (
            # Cloned: what was made in inference mode cannot take part in a gradient.
            (
                frozen.encode(batch, audio=False, at_once=config.clips_per_forward)[
                    "video"
                ].clone(),
                batch.label,
            )
            for batch in grouped(epoch, config.probe_batch)
        )


def descend(
    epochs: Iterable[Iterable[Part]],
    width: int,
    classes: int,
    config: Evaluation,
    rng: torch.Generator,
) -> tuple[Probe, list[float]]:
    """Train one layer from `width` features to `classes` on the batches of each epoch."""
    layer = nn.Linear(width, classes)
    bound = width**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=rng)
        layer.bias.zero_()
    adam, losses = torch.optim.Adam(layer.parameters()), []
    for number, epoch in enumerate(epochs):
        adam.param_groups[0]["lr"] = config.probe_lr_at(number)
        total, seen = 0.0, 0
        for features, label in epoch:
            loss = F.cross_entropy(layer(features), label)
            adam.zero_grad()
            loss.backward()
            adam.step()
            total, seen = total + loss.item() * len(label), seen + len(label)
        losses.append(total / seen)
    return Probe(weight=layer.weight.detach(), bias=layer.bias.detach()), losses


def top_k(scores: Tensor, label: Tensor, k: int) -> Tensor:
    """Whether the true class is among the k best; scores [..., classes], label [...] -> bool."""
    k = min(k, scores.shape[-1])
    return (scores.topk(k, dim=-1).indices == label[..., None]).any(dim=-1)


def by_block(
    work: Callable[[Tensor, Tensor], Tensor], features: Tensor, label: Tensor, videos: int = 1024
) -> Tensor:
    """`work` on so many videos at a time: logits of all clips need not fit in memory."""
    parts = zip(features.split(videos), label.split(videos), strict=True)
    return torch.cat([work(some, theirs) for some, theirs in parts])


def clip_level(probe: Classify, features: Tensor, label: Tensor, k: int) -> Tensor:
    """[V] share of each video's C clips that are classified right; features [V, C, F]."""

    def shares(some: Tensor, theirs: Tensor) -> Tensor:
        right = top_k(probe(some), theirs[:, None].expand(some.shape[:2]), k)
        return right.double().mean(dim=1)

    return by_block(shares, features, label)


def probabilities(probe: Classify, features: Tensor) -> Tensor:
    """[V, classes] softmax of each clip, averaged over a video's C clips; features [V, C, F]."""
    parts = [probe(some).softmax(dim=-1).mean(dim=1) for some in features.split(1024)]
    return torch.cat(parts)


def video_level(probe: Classify, features: Tensor, label: Tensor, k: int) -> Tensor:
    """[V] 1 or 0: the softmax is averaged over a video's C clips, then the video is classified."""
    return top_k(probabilities(probe, features), label, k).double()


LEVELS = {"clip": clip_level, "video": video_level}


def confusion(predicted: Tensor, label: Tensor, classes: int) -> Tensor:
    """[classes, classes] how many videos of each class (row) are taken for which (column)."""
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
    """Rows of top-1 and top-5 at each level.

    Args:
        classify: gives logits of what is in `clips`.
        clips: by level, [V, C, F] of the C clips of each test video.
        label: [V].
        how: the bootstrap and its seed.
        classes: how many there are to choose from.
        about: the other fields of the rows.
    """
    rows = []
    for level, some in clips.items():
        for k in (1, 5):
            rows.append(
                percent_row(
                    LEVELS[level](classify, some, label, k).cpu().numpy(),
                    bootstrap_resamples=config.bootstrap_resamples,
                    seed=config.seed,
                    metric=f"top{k}",
                    level=level,
                    chance=100 * min(k, classes) / classes,
                    **metadata,
                )
            )
    return rows


@dataclass(frozen=True, kw_only=True)
class ProbeFeatures:
    """What a probe is trained and tested on."""

    train: Features  # random clips, random crops; [V, 0, F] under the protocol `released`
    clip: Features  # random clips of test videos, centre crops
    video: Features  # uniformly spaced clips of test videos, centre crops


def downstream_clip(run: Pretrain, config: Evaluation, *, audio_seconds: float = 1.0) -> Clip:
    """Half a second of picture, and sound that starts with it."""
    return Clip(
        video_seconds=config.video_seconds,
        video_fps=config.video_fps,
        frame_px=run.clip.frame_px,
        audio_seconds=audio_seconds,
        audio_hz=run.clip.audio_hz,
        max_offset_seconds=0.0,
    )


def testing(clip: Clip, config: Evaluation) -> dict[str, Sampling]:
    """Which clips are taken for both ways of testing."""
    common: dict[str, Any] = {"clip": clip, "resize_px": config.resized_px(clip), "audio": False}
    return {
        "clip": Sampling(count=config.clip_level_clips, place="random", **common),
        "video": Sampling(count=config.video_level_clips, place="uniform", **common),
    }


def samplings(run: Pretrain, config: Evaluation) -> dict[str, Sampling]:
    """Which clips are taken for training and for both ways of testing."""
    clip = downstream_clip(run, config)
    train = Sampling(
        clip=clip,
        count=config.train_clips,
        place="random",
        resize_px=config.resized_px(clip),
        random_crop=True,
        flip_prob=config.flip_prob,
        audio=False,
    )
    return {"train": train, **testing(clip, config)}


def extract_all(
    source: Source, manifest: Manifest, config: Evaluation, cache: Path, *, workers: int = 2
) -> ProbeFeatures:
    """Features for training and both ways of testing, cached."""
    return extract_each({"one": source}, manifest, config, cache, workers=workers)["one"]


def extract_each(
    sources: Mapping[str, Source],
    manifest: Manifest,
    config: Evaluation,
    cache: Path,
    *,
    workers: int = 2,
) -> dict[str, ProbeFeatures]:
    """`extract_all` for several encoders, reading each video once for all that see the same."""
    parts: dict[str, dict[str, Features]] = {name: {} for name in sources}
    for part in ("train", "clip", "video"):
        some = manifest.split("train" if part == "train" else "test")
        if part == "train" and config.protocol == "released":
            for name, source in sources.items():
                parts[name][part] = nothing(some, 8 * source.run.width)
            continue
        asked = {name: samplings(source.run, config)[part] for name, source in sources.items()}
        for sampling in dict.fromkeys(asked.values()):
            names = [name for name in sources if asked[name] == sampling]
            found = extract(
                [sources[name].checkpoint for name in names],
                some,
                sampling,
                cache,
                seed=config.seed,
                workers=workers,
                at_once=config.clips_per_forward,
                title=f"{manifest.name}, {part}",
            )
            for name, features in zip(names, found, strict=True):
                parts[name][part] = features
    return {name: ProbeFeatures(**found) for name, found in parts.items()}


def nothing(manifest: Manifest, width: int) -> Features:
    """No clip of each video."""
    none = torch.empty(len(manifest), 0, width)
    return Features(video=none, audio=none[..., :0], label=torch.tensor(manifest.labels))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The probes of one encoder, one a seed, and all that was measured of them."""

    probes: list[Probe]
    losses: list[list[float]]  # of each probe, a mean an epoch
    rows: list[Row]


def measure(
    source: Source,
    manifest: Manifest,
    features: ProbeFeatures,
    config: Evaluation,
    *,
    seeds: int = 1,
    workers: int = 2,
    **metadata: str,
) -> Measured:
    """Train and test `seeds` probes of one encoder: both levels, top-1 and top-5.

    Probe i is seeded with `how.seed` + i; the clips are those of `how.seed`.
    """
    if seeds < 1:
        raise ValueError(f"seeds = {seeds}: one probe at least is trained")
    classes, probes, losses, rows = len(manifest.classes), [], [], []
    metadata |= {"dataset": manifest.name, "data": manifest.origin, "protocol": config.protocol}
    metadata |= {"method": source.run.method, "run": source.name}
    for own in (replace(config, seed=config.seed + i) for i in range(seeds)):
        if config.protocol == "released":
            layer, curve = fit_fresh(source, manifest, own, workers=workers)
        else:
            layer, curve = fit(features.train.video, features.train.label, classes, own)
        probes.append(layer)
        losses.append(curve)
        rows += scored(layer, features, own, **metadata)
    return Measured(probes=probes, losses=losses, rows=rows)


def scored(probe: Probe, features: ProbeFeatures, config: Evaluation, **metadata: str) -> list[Row]:
    """Rows of both levels and metrics of one probe."""
    clips = {"clip": features.clip.video, "video": features.video.video}
    return accuracies(
        probe, clips, features.clip.label, config, classes=len(probe.bias), task="probe", **metadata
    )


def compare(
    source: Source,
    manifest: Manifest,
    config: Evaluation,
    cache: Path,
    *,
    workers: int = 2,
    **metadata: Any,
) -> list[Row]:
    """Both protocols for one encoder: rows of accuracy, and of the seconds that training took.

    The training clips of `cached` are encoded anew as well: its seconds hold all of its work.
    """
    found = extract_all(
        source, manifest, replace(config, protocol="released"), cache, workers=workers
    )
    metadata |= {"dataset": manifest.name, "data": manifest.origin}
    metadata |= {"method": source.run.method, "run": source.name}
    rows = []
    for protocol in ("cached", "released"):
        begin = time.monotonic()
        if protocol == "cached":
            layer, _ = fit_anew(source, manifest, config, workers=workers)
        else:
            layer, _ = fit_fresh(source, manifest, config, workers=workers)
        seconds = time.monotonic() - begin
        metadata["protocol"] = protocol
        rows += scored(layer, found, config, **metadata)
        rows.append(
            Row(task="protocol", metric="seconds", value=seconds, seed=config.seed, **metadata)
        )
    return rows


def fit_anew(
    source: Source, manifest: Manifest, config: Evaluation, *, workers: int = 2
) -> tuple[Probe, list[float]]:
    """`fit` on features that are extracted for it, whatever the cache holds."""
    sampling, train = samplings(source.run, config)["train"], manifest.split("train")
    with tempfile.TemporaryDirectory() as empty:
        (found,) = extract(
            [source.checkpoint],
            train,
            sampling,
            Path(empty),
            seed=config.seed,
            workers=workers,
            at_once=config.clips_per_forward,
            title=f"{source.run.method} on {manifest.name}, cached",
        )
        return fit(found.video, found.label, len(manifest.classes), config)
