"""Retrieval: nearest gallery videos of each query, within and across modalities (thesis A.1).

Shapes: V videos, Q queries, G gallery videos, C clips of each, F features, D dimensions.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from avnb.config import Evaluation, Pretrain
from avnb.data.clips import Sampling
from avnb.data.loader import AUTO
from avnb.data.manifest import Manifest
from avnb.evaluation.encoder_source import EncoderSource
from avnb.evaluation.features import Features
from avnb.evaluation.probe_features import Sources, downstream_clip, extract_parts, row_metadata
from avnb.evaluation.results import Row, percent_row, record
from avnb.evaluation.search import Ranking, check, nearest, rank, unit
from avnb.evaluation.soundtracks import soundtrack_features
from avnb.profiles import Workspace
from avnb.training.checkpoint import read_bands

DIRECTIONS = {
    "v->v": ("video", "video"),
    "a->a": ("audio", "audio"),
    "v->a": ("video", "audio"),
    "a->v": ("audio", "video"),
    "va->va": ("fused", "fused"),
}
CROSS_MODAL = ("v->a", "a->v")
# Where videos are compared: the thesis's way first. Heads map features to what the loss compares.
THESIS, COSINE, PROJECTED = "features, Euclidean", "features, cosine", "projected, cosine"
RECALLS = (1, 5, 10)
PERMUTATIONS = 1000
QueryAndGallery = tuple[Features, Features]


def embedded(features: Features, modality: str, space: str) -> Tensor:
    """One point of each video, [V, F] float64: the mean of its clips; [V, 0] where there is none.

    `modality` is video, audio, or fused, the mean of both scaled to length 1.
    """
    if modality == "fused":
        v, a = (unit(embedded(features, one, space)) for one in ("video", "audio"))
        return (v + a) / 2 if v.shape == a.shape else v[:, :0]
    clips: Tensor = getattr(features, modality)
    if space == THESIS:
        return clips.double().mean(dim=1)
    return unit(unit(clips).mean(dim=1))


def projected(features: Features, heads: dict[str, nn.Module]) -> Features:
    """Features after the heads of pre-training, in the space of its loss; [V, C, 0] without one."""

    @torch.inference_mode()
    def through(modality: str) -> Tensor:
        clips: Tensor = getattr(features, modality)
        if modality not in heads:
            return clips[..., :0]
        return heads[modality](clips.flatten(0, 1)).unflatten(0, clips.shape[:2])

    return replace(features, video=through("video"), audio=through("audio"))


def recall(
    query: Tensor,
    gallery: Tensor,
    query_label: Tensor,
    gallery_label: Tensor,
    ks: Sequence[int] = (1, 5),
) -> dict[int, float]:
    """Recall@k: share of queries with a video of their class among the k nearest, in [0, 1].

    Args:
        query: [Q, F] features of the queries.
        gallery: [G, F] features of the gallery.
        query_label: [Q] classes of the queries.
        gallery_label: [G] classes of the gallery.
        ks: numbers of neighbours, each in [1, G].

    Raises:
        ValueError: when shapes or k do not fit.
    """
    check(query, gallery, ks)
    ranking = rank(query, gallery, query_label, gallery_label)
    return {k: ranking.within(k).double().mean().item() for k in ks}


# ---- what a random order gives ------------------------------------------------------------------


def relevant_counts(query_label: Tensor, gallery_label: Tensor) -> Tensor:
    """[Q] gallery videos of each query's class."""
    total = len(gallery_label)
    classes, class_of = torch.cat([gallery_label, query_label]).unique(return_inverse=True)
    return class_of[:total].bincount(minlength=len(classes))[class_of[total:]].double()


def chance_curve(query_label: Tensor, gallery_label: Tensor) -> Iterator[float]:
    """Recall@1, @2, ... of a gallery in random order: k of G drawn without replacement."""
    total, same = len(gallery_label), relevant_counts(query_label, gallery_label)
    miss = torch.ones_like(same)
    for i in range(total):
        miss *= ((total - same - i) / (total - i)).clamp_min(0)
        yield float((1 - miss).mean())


def chance(query_label: Tensor, gallery_label: Tensor, k: int) -> float:
    """Recall@k of a gallery in random order, in [0, 1]."""
    for i, share in enumerate(chance_curve(query_label, gallery_label), 1):
        if i == k:
            return share
    raise ValueError(f"k must lie in [1, {len(gallery_label)}], the size of the gallery; got {k}")


def chance_median(query_label: Tensor, gallery_label: Tensor) -> int:
    """Median rank of the first right answer in random order; G + 1 where most have none."""
    for k, share in enumerate(chance_curve(query_label, gallery_label), 1):
        if share >= 0.5:
            return k
    return len(gallery_label) + 1


def chance_precision(query_label: Tensor, gallery_label: Tensor) -> float:
    """Mean average precision of a gallery in random order, in [0, 1].

    The expectation for R relevant of G is ((R - 1) / (G - 1)) (1 - H / G) + H / G, where H is the
    sum of 1 / i up to G (Bestgen 2015).
    """
    total, same = len(gallery_label), relevant_counts(query_label, gallery_label)
    share = (1 / torch.arange(1, total + 1, dtype=torch.double)).sum() / total
    expected = (same - 1) / max(total - 1, 1) * (1 - share) + share
    return float(expected.where(same > 0, 0).mean())


# ---- features -----------------------------------------------------------------------------------


def with_bands(source: EncoderSource, config: Evaluation) -> EncoderSource:
    """A released checkpoint with the statistics of the mel bands in a file; any other as it is."""
    if not source.is_released:
        return source
    bands = read_bands(config.mel_statistics, source.config.spectrogram.mels)
    return replace(source, mel_statistics=bands)


def samplings(run: Pretrain, config: Evaluation) -> dict[str, Sampling]:
    """How clips are sampled for queries and gallery: uniformly spaced, with audio.

    With `whole_video_sound` the audio is not that of the clips.
    """
    clip = downstream_clip(run, config, audio_seconds=config.retrieval_audio_seconds)
    sampling = Sampling(
        clip=clip,
        count=config.video_level_clips,
        place="uniform",
        resize_px=config.resized_px(clip),
        interpolation=config.interpolation,
        audio=not config.whole_video_sound,
    )
    return {"queries": sampling, "gallery": sampling}


def extract_each(
    sources: Sources, manifest: Manifest, config: Evaluation, cache: Path, *, workers: int = AUTO
) -> dict[str, QueryAndGallery]:
    """Query (test) and gallery (training) features of the videos with audio, by method, cached."""
    videos, sampling_of = manifest.with_audio(), functools.partial(samplings, config=config)
    parts = {"queries": videos.split("test"), "gallery": videos.split("train")}
    features = extract_parts(sources, parts, sampling_of, config, cache, workers)
    if config.whole_video_sound:
        for part, part_videos in parts.items():
            heard = soundtrack_features(list(sources.values()), part_videos, cache)
            for method, audio in zip(sources, heard, strict=True):
                features[method][part] = replace(features[method][part], audio=audio)
    return {method: (both["queries"], both["gallery"]) for method, both in features.items()}


def rankings(
    query: Features, gallery: Features, space: str = THESIS
) -> Iterator[tuple[str, Ranking]]:
    """By direction, how the gallery is ranked; directions that an encoder lacks are left out."""
    for level, (asked, searched) in DIRECTIONS.items():
        q, g = embedded(query, asked, space), embedded(gallery, searched, space)
        if q.shape[1] and q.shape[1] == g.shape[1]:
            yield level, rank(q, g, query.label, gallery.label)


def measure(
    query: Features, gallery: Features, config: Evaluation, space: str = THESIS, **metadata: Any
) -> list[Row]:
    """Recall, mean average precision and median rank in all directions.

    An encoder without audio has features of width 0 there, and is measured among videos only.
    """
    rows, labels = [], (query.label, gallery.label)
    chances = list(itertools.islice(chance_curve(*labels), max(RECALLS)))
    precision, median = 100 * chance_precision(*labels), chance_median(*labels)
    for level, ranking in rankings(query, gallery, space):
        metadata |= {"task": "retrieval", "level": level, "space": space}
        for k in (k for k in RECALLS if k <= len(gallery.label)):
            right, by_chance = ranking.within(k).double().numpy(), 100 * chances[k - 1]
            rows.append(percent_row(right, config, metric=f"R@{k}", chance=by_chance, **metadata))
        scores = ranking.average_precision.numpy()
        rows.append(percent_row(scores, config, metric="mAP", chance=precision, **metadata))
        rows.append(median_row(ranking.first.numpy(), config, chance=median, **metadata))
    return rows


def median_row(ranks: np.ndarray, config: Evaluation, **metadata: Any) -> Row:
    """The median rank of the first right answer, with its bootstrap interval over queries."""
    rng, count = np.random.default_rng(config.seed), len(ranks)
    size = min(config.bootstrap_resamples, 2**24 // count), count
    low, high = np.quantile(np.median(ranks[rng.integers(0, count, size)], axis=1), [0.025, 0.975])
    metadata |= {"low": float(low), "high": float(high), "n": count, "seed": config.seed}
    return Row(metric="median rank", value=float(np.median(ranks)), **metadata)


def by_class(query: Features, gallery: Features, classes: Sequence[str]) -> pd.DataFrame:
    """Recall@1 in percent of each class's queries, one column per direction, and their number."""
    groups = [classes[i] for i in query.label.tolist()]
    right = {level: 100 * ranking.within(1).numpy() for level, ranking in rankings(query, gallery)}
    grouped = pd.DataFrame(right).groupby(groups, sort=False)
    return grouped.mean().assign(n=grouped.size()).rename_axis("class")


def permutation_rows(
    query: Features, gallery: Features, config: Evaluation, space: str, **metadata: Any
) -> list[Row]:
    """p-values of recall@5 across modalities: how often shuffled classes of queries do as well.

    One-sided, with the order as found among the shuffles, so that none is zero (Phipson & Smyth
    2010, doi:10.2202/1544-6115.1585).
    """
    rows, rng = [], np.random.default_rng(config.seed)
    for level in CROSS_MODAL:
        asked, searched = (
            embedded(features, modality, space)
            for features, modality in zip((query, gallery), DIRECTIONS[level], strict=True)
        )
        if not asked.shape[1] or asked.shape[1] != searched.shape[1]:
            continue
        answers = gallery.label[nearest(asked, searched, min(5, len(searched)))].numpy()
        orders = [query.label.numpy()]
        orders += [rng.permutation(orders[0]) for _ in range(PERMUTATIONS)]
        shares = np.array([(answers == o[:, None]).any(axis=1).mean() for o in orders])
        p = float((shares >= shares[0]).mean())
        metadata |= {"task": "retrieval", "level": level, "space": space, "n": len(asked)}
        rows.append(Row(metric="p of R@5", value=p, seed=config.seed, **metadata))
    return rows


def retrieval_rows(
    sources: Sources, manifest: Manifest, config: Evaluation, work: Workspace
) -> tuple[pd.DataFrame, dict[str, QueryAndGallery]]:
    """Retrieval with several encoders in every space, measured and appended to the results.

    Returns the rows of these encoders, and query and gallery features by method.
    """
    if config.mel_statistics:
        sources = {m: with_bands(source, config) for m, source in sources.items()}
    features, rows = extract_each(sources, manifest, config, work.features), []
    for method, source in sources.items():
        metadata = row_metadata(source, manifest.with_audio(), work, config)
        spaces = {THESIS: features[method], COSINE: features[method]}
        if heads := source.heads():
            query, gallery = features[method]
            spaces[PROJECTED] = projected(query, heads), projected(gallery, heads)
        for space, both in spaces.items():
            rows += measure(*both, config, space, **metadata)
            rows += permutation_rows(*both, config, space, **metadata)
    return record(work.results, rows), features


# SHIM of the redesign: until this module holds them itself, names come from where they stand now.
_SHIM = ["avnb.evaluation.search", "avnb.evaluation.galleries", "avnb.evaluation.alignment"]


def __getattr__(name: str) -> object:
    import importlib

    for module in _SHIM:
        found = importlib.import_module(module)
        if hasattr(found, name):
            return getattr(found, name)
    raise AttributeError(name)
