"""Linear probes: linear layers on frozen features (thesis 4.2.1), many of them trained together.

With `probe_clips` = fresh, as in the released code, new clips are encoded in every epoch; with
`probe_batch_norm` = train the encoder's statistics move meanwhile.

Shapes: V videos, C clips of each test video, F features, B clips of a batch.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from avnb.config import PROTOCOLS, Clip, Evaluation, Pretrain
from avnb.data.clips import Sampling, VideoClips
from avnb.data.loader import AUTO, load
from avnb.data.manifest import Manifest
from avnb.evaluation.features import (
    EncoderSource,
    Features,
    FrozenEncoders,
    Sources,
    device,
    downstream_clip,
    encode_all,
    extract_parts,
    row_metadata,
)
from avnb.evaluation.linear import BatchedProbes, Fitted, Probe, fit, initial_weight
from avnb.evaluation.results import Row, percent_row, record
from avnb.files import tqdm
from avnb.profiles import Workspace

Classify = Callable[[Tensor], Tensor]  # features [..., F] -> logits [..., classes]


# ---- clips and features -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ProbeFeatures:
    """Features that a probe is trained and tested on."""

    train: Features | None  # random clips, random crops; None where fresh ones are encoded
    clip: Features  # random clips of test videos, centre crops
    video: Features  # uniformly spaced clips of test videos, centre crops


def testing(clip: Clip, config: Evaluation) -> dict[str, Sampling]:
    """How clips of test videos are sampled, by level."""
    common: dict[str, Any] = {"clip": clip, "resize_px": config.resized_px(clip), "audio": False}
    common["interpolation"] = config.interpolation
    return {
        "clip": Sampling(count=config.clip_level_clips, place="random", **common),
        "video": Sampling(count=config.video_level_clips, place="uniform", **common),
    }


def samplings(run: Pretrain, config: Evaluation) -> dict[str, Sampling]:
    """How clips are sampled for training and for both levels of testing."""
    test = testing(downstream_clip(run, config), config)
    options: dict[str, Any] = {"count": config.train_clips, "flip_prob": config.flip_prob}
    return {"train": replace(test["clip"], random_crop=True, **options), **test}


def extract_each(
    sources: Sources, manifest: Manifest, config: Evaluation, cache: Path, *, workers: int = AUTO
) -> dict[str, ProbeFeatures]:
    """Features for training and both levels of testing by method, cached."""
    parts = {"train": manifest.split("train"), "clip": manifest.split("test")}
    parts["video"] = parts["clip"]
    if config.probe_clips == "fresh":
        del parts["train"]
    sampling_of = functools.partial(samplings, config=config)
    features = extract_parts(sources, parts, sampling_of, config, cache, workers)
    return {m: ProbeFeatures(**{"train": None, **found}) for m, found in features.items()}


# ---- training -----------------------------------------------------------------------------------


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

    `classes` are the labels of the data set that the layer tells apart, ascending; all by default.
    """
    labels = torch.arange(len(train.classes)) if classes is None else classes
    rng, curve = torch.Generator().manual_seed(config.seed), [0.0] * config.probe_epochs
    layer = BatchedProbes([initial_weight(len(labels), frozen.video_encoder.features, rng)])
    frozen.train(config.probe_batch_norm == "train")
    for epoch, x, label in fresh_batches(frozen, train, config, rng, workers):
        label = torch.searchsorted(labels, label)
        loss = layer.step(x[None], label[None], config.probe_lr_at(epoch))
        curve[epoch] += loss.item() / len(train)
    frozen.eval()
    return layer.probes[0], curve


def fresh_batches(
    frozen: FrozenEncoders, train: Manifest, config: Evaluation, rng: torch.Generator, workers: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Of each batch its epoch, features [B, F] and labels [B]; every clip is a new one."""
    sampling = replace(samplings(frozen.source.config, config)["train"], count=1)
    clips, size = VideoClips(train, sampling, seed=config.seed), config.probe_batch
    orders = [torch.randperm(len(train), generator=rng) for _ in range(config.probe_epochs)]
    plan = [
        [(e, v, 0) for v in part.tolist()] for e, o in enumerate(orders) for part in o.split(size)
    ]
    title = f"{frozen.source.method} on {train.name}, {len(orders)} epochs"
    loaded = tqdm(load(clips, plan, workers=workers), title, len(plan), unit="batch")
    # Batch statistics are those of the whole batch.
    at_once = size if frozen.training else config.clips_per_forward
    for places, batch in zip(plan, loaded, strict=True):
        encoded = frozen.encode(batch, audio=False, at_once=at_once)
        # Cloned: a tensor made in inference mode cannot take part in a gradient.
        yield places[0][0], encoded["video"].clone(), batch.label


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
        assert train is not None
        return fit(train.video, train.label, len(manifest.classes), config), features
    frozen = FrozenEncoders(source).to(device())
    fitted = fit_fresh(frozen, manifest.split("train"), config, workers=workers)
    if config.probe_batch_norm == "train":
        moved = tested_by(frozen, manifest.split("test"), config, workers=workers)
        features = replace(features, **moved)
    return fitted, features


# ---- accuracy -----------------------------------------------------------------------------------


def top_k(scores: Tensor, label: Tensor, k: int) -> Tensor:
    """Whether the true class is among the k best; scores [..., classes], label [...] -> bool."""
    k = min(k, scores.shape[-1])
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
    """Rows of top-1 and top-5 of `classes` at each level; `metadata` gives their other fields.

    `clips` are features [V, C, F] of the test videos by level, `label` [V] their classes.
    """
    rows = []
    for (level, features), k in itertools.product(clips.items(), (1, 5)):
        scores = LEVELS[level](classify, features, label, k).cpu().numpy()
        metadata |= {"level": level, "metric": f"top{k}"}
        metadata["chance"] = 100 * min(k, classes) / classes
        rows.append(percent_row(scores, config, **metadata))
    return rows


def scored(probe: Probe, features: ProbeFeatures, config: Evaluation, **metadata: Any) -> list[Row]:
    """Rows of one probe: both levels and metrics."""
    clips, label = {"clip": features.clip.video, "video": features.video.video}, features.clip.label
    metadata = {"task": "probe", "classes": len(probe.bias), **metadata}
    return accuracies(probe, clips, label, config, **metadata)


# ---- chapters -----------------------------------------------------------------------------------


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
        first.setdefault(method, tested)
        metadata = row_metadata(source, manifest, work, config)
        rows += scored(trained[0], tested, seeded, split=split, **metadata)
    return record(work.results, rows), fitted, first


# Each choice that the released code makes otherwise than the thesis, alone and all together.
CHOICES: dict[str, dict[str, Any]] = {
    "thesis": {},
    "fresh clips": {"probe_clips": "fresh"},
    "moving BatchNorm": {"probe_clips": "fresh", "probe_batch_norm": "train"},
    "mirrored clips": {"flip_prob": 0.5},
    "nearest neighbour": {"interpolation": "nearest"},
    "author": {"protocol": "author", **PROTOCOLS["author"]},
}


def choice_rows(
    sources: Sources, manifest: Manifest, config: Evaluation, work: Workspace, *, split: str
) -> pd.DataFrame:
    """Probes of several encoders under each of `CHOICES`; their rows, appended as well.

    `seconds` are those of training a layer, the encoding of its training clips included.
    """
    rows, train = list[Row](), manifest.split("train")
    for changes in CHOICES.values():
        changed = config.changed(**changes)
        features = extract_each(sources, manifest, changed, work.features)
        for method, source in sources.items():
            begin = time.monotonic()
            if changed.probe_clips == "cached":  # its clips may have been there already
                sampling, frozen = (
                    samplings(source.config, changed)["train"],
                    FrozenEncoders(source),
                )
                encode_all(frozen.to(device()), train, sampling, seed=changed.seed)
            trained, tested = fit_probe(source, manifest, features[method], changed)
            seconds = time.monotonic() - begin
            metadata = {"split": split, **row_metadata(source, manifest, work, changed)}
            metadata["task"] = "protocol"  # shorter than the probe's
            rows += scored(trained[0], tested, changed, **metadata)
            rows.append(Row(metric="seconds", value=seconds, seed=config.seed, **metadata))
    return record(work.results, rows)
