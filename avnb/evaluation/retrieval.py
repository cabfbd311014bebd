"""Retrieval: nearest gallery videos of each query, within and across modalities (thesis A.1).

Shapes: V videos, Q queries, G gallery videos, C clips of each, F features.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avnb.config import Evaluation, Pretrain
from avnb.data.clips import Sampling
from avnb.data.manifest import Manifest
from avnb.evaluation.features import (
    EncoderSource,
    Features,
    downstream_clip,
    extract,
    uniform_sampling,
)
from avnb.evaluation.results import Row, bootstrap, percent_row

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
CENTRED, MAPPED = "features, centred", "features, linear map"  # compared by the cosine
RECALLS = (1, 5, 10)
PERMUTATIONS = 1000
BLOCK = 256  # queries compared at a time: memory grows with the gallery alone
QueryAndGallery = tuple[Features, Features]


def distances(query: Tensor, gallery: Tensor) -> Iterator[Tensor]:
    """Euclidean distances [B, G] of a block of queries [Q, F] to the gallery [G, F], and the next.

    In float64, in which matrix products tell even near duplicates apart. ValueError for a feature
    that is not finite.
    """
    if not (query.isfinite().all() and gallery.isfinite().all()):
        raise ValueError("the features to rank are not finite")
    for block in query.double().split(BLOCK):
        yield torch.cdist(block, gallery.double(), compute_mode="use_mm_for_euclid_dist")


def nearest(query: Tensor, gallery: Tensor, k: int) -> Tensor:
    """[Q, k] rows of the gallery [G, F] nearest to each query [Q, F] by Euclidean distance."""
    return torch.cat([d.topk(k, largest=False).indices for d in distances(query, gallery)])


def rank(
    query: Tensor, gallery: Tensor, query_label: Tensor, gallery_label: Tensor
) -> tuple[Tensor, Tensor]:
    """How well the gallery [G, F] with labels [G] is ranked for queries [Q, F] with labels [Q].

    Returns the rank of the first row of each query's class [Q], from 1, or G + 1 where there is
    none, and the average precision [Q] in [0, 1], then 0. Rows at one distance keep their order.
    """
    first, precision = [], []
    ranks = torch.arange(1, len(gallery) + 1)
    for labels, distance in zip(query_label.split(BLOCK), distances(query, gallery), strict=True):
        order = distance.argsort(dim=1, stable=True)
        relevant = gallery_label[order] == labels[:, None]  # [B, G]
        first.append(ranks.where(relevant, len(gallery) + 1).amin(dim=1))
        found = relevant.cumsum(dim=1)  # relevant rows up to each rank
        share = (found / ranks.double() * relevant).sum(dim=1)
        precision.append(share / found[:, -1].clamp_min(1))
    return torch.cat(first), torch.cat(precision)


def recall(
    query: Tensor,
    gallery: Tensor,
    query_label: Tensor,
    gallery_label: Tensor,
    ks: Sequence[int] = (1, 5),
) -> dict[int, float]:
    """Recall@k: share of queries with a video of their class among the k nearest, in [0, 1].

    Features are [Q, F] and [G, F], labels [Q] and [G]. ValueError for a k outside [1, G], or a
    feature that is not finite.
    """
    if wrong := [k for k in ks if not 1 <= k <= len(gallery)]:
        raise ValueError(f"k must lie in [1, {len(gallery)}], the gallery's size; got {wrong[0]}")
    first, _ = rank(query, gallery, query_label, gallery_label)
    return {k: (first <= k).double().mean().item() for k in ks}


def chances(query_label: Tensor, gallery_label: Tensor) -> dict[str, float]:
    """What a gallery in random order gives, by metric; recall and precision in percent.

    Recall@k is that of k videos drawn without replacement, and the median rank the first k at
    which it is one half. The expected average precision for R relevant of G is
    ((R - 1) / (G - 1)) (1 - H / G) + H / G, where H is the sum of 1 / i up to G (Bestgen 2015).
    """
    total, classes = len(gallery_label), int(query_label.max()) + 1
    same = gallery_label.bincount(minlength=classes)[query_label].double()  # [Q] relevant videos
    drawn, (counts, queries) = torch.arange(total), same.unique(return_counts=True)
    miss = ((total - counts[:, None] - drawn) / (total - drawn)).cumprod(dim=1)
    curve = 1 - queries.double() @ miss / len(query_label)  # [G] recall@1, @2, ...
    share = (1 / (drawn + 1).double()).mean()
    precision = (same - 1) / max(total - 1, 1) * (1 - share) + share
    recalls = {f"R@{k}": 100 * curve[k - 1].item() for k in RECALLS if k <= total}
    average = 100 * precision.where(same > 0, 0).mean().item()
    return recalls | {"mAP": average, "median rank": 1 + int((curve < 0.5).sum())}


def embedded(features: Features, modality: str, space: str) -> Tensor:
    """One point of each video, [V, F] float64: the mean of its clips; [V, 0] where there is none.

    `modality` is video, audio, or fused, the mean of both scaled to length 1. Among points of
    length 1, Euclidean distances rank as cosines do.
    """
    unit = functools.partial(F.normalize, dim=-1)
    if modality == "fused":
        v, a = (unit(embedded(features, one, space)) for one in ("video", "audio"))
        return (v + a) / 2 if v.shape == a.shape else v[:, :0]
    clips: Tensor = getattr(features, modality).double()
    return clips.mean(dim=1) if space == THESIS else unit(unit(clips).mean(dim=1))


def compared(
    query: Features, gallery: Features, direction: str, space: str
) -> tuple[Tensor, Tensor] | None:
    """Points of queries [Q, F] and gallery [G, F]; None where an encoder lacks the direction."""
    asked, searched = DIRECTIONS[direction]
    q, g = embedded(query, asked, space), embedded(gallery, searched, space)
    return (q, g) if q.shape[1] and q.shape[1] == g.shape[1] else None


def find_neighbours(
    query: Features, gallery: Features, rows: Sequence[int], direction: str, k: int = 5
) -> Tensor:
    """[Q, k] rows of the gallery nearest to some `rows` of the queries (Figures A.1 to A.6).

    ValueError when the encoder has no features for the direction.
    """
    if (points := compared(query, gallery, direction, THESIS)) is None:
        raise ValueError(f"this encoder has no features for {direction!r}")
    return nearest(points[0][list(rows)], points[1], min(k, len(points[1])))


def projected(features: Features, heads: Mapping[str, nn.Module]) -> Features:
    """Features after the heads of pre-training, in the space of its loss; [V, C, 0] without one."""
    both = {"video": features.video, "audio": features.audio}
    with torch.inference_mode():
        for name, clips in both.items():
            head = heads.get(name, lambda x: x[:, :0])
            both[name] = head(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
    return replace(features, **both)


def centred(query: Features, gallery: Features) -> QueryAndGallery:
    """Both less the mean of the gallery in each modality, so that points share no direction."""
    v, a = (x.mean(dim=(0, 1)) for x in (gallery.video, gallery.audio))
    q, g = (replace(x, video=x.video - v, audio=x.audio - a) for x in (query, gallery))
    return q, g


def linearly_mapped(query: Features, gallery: Features) -> QueryAndGallery:
    """Centred features in which queries of each modality are mapped to the other.

    By ridge regression over the gallery's videos, without labels; its penalty is chosen by
    leave-one-out among multiples of the mean eigenvalue.
    """
    from sklearn.linear_model import RidgeCV  # takes a second to import

    query, gallery = centred(query, gallery)
    mapped = {}
    for name, other in (("video", "audio"), ("audio", "video")):
        x, y = (getattr(gallery, one).mean(dim=1).double() for one in (name, other))
        penalties = np.logspace(-3, 3, 7) * x.square().sum().item() / x.shape[1]
        weight = RidgeCV(penalties, fit_intercept=False).fit(x.numpy(), y.numpy()).coef_
        mapped[name] = getattr(query, name).double() @ torch.from_numpy(weight).T
    return replace(query, **mapped), gallery


def clip_sampling(run: Pretrain, config: Evaluation) -> Sampling:
    """How clips are sampled for queries and gallery: uniformly spaced, with audio."""
    clip = downstream_clip(run, config, audio_seconds=config.retrieval_audio_seconds)
    return uniform_sampling(clip, config)


def searched(manifest: Manifest) -> Manifest:
    """The videos with audio; where a split has none, all videos, which are searched by frames."""
    audible = manifest.with_audio()
    return audible if len({video.split for video in audible.videos}) == 2 else manifest


def query_and_gallery(
    source: EncoderSource, manifest: Manifest, config: Evaluation, cache: Path
) -> QueryAndGallery:
    """Features of test videos (queries) and training videos (gallery) of `searched`, cached."""
    videos, sampling = searched(manifest), clip_sampling(source.config, config)
    heard = all(video.audio for video in videos.videos)
    seen = any(video.source_width for video in videos.videos)  # not of files of sound
    sampling = replace(sampling, audio=heard, video=seen)
    query = extract(source, videos.split("test"), sampling, config, cache)
    return query, extract(source, videos.split("train"), sampling, config, cache)


def measure(
    query: Features, gallery: Features, config: Evaluation, space: str = THESIS, **metadata: Any
) -> list[Row]:
    """Recall, mean average precision and median rank in all directions that an encoder has.

    Across modalities also how often shuffled classes do as well, and how many gallery videos come
    first for any query, the distinct answers; chance is that of answers at random.
    """
    rows, by_chance = list[Row](), chances(query.label, gallery.label)
    rng, total = np.random.default_rng(config.seed), len(gallery.label)
    for level in CROSS_MODAL if space == MAPPED else DIRECTIONS:
        if (points := compared(query, gallery, level, space)) is None:
            continue
        known = metadata | {"task": "retrieval", "level": level, "space": space}
        first, precision = rank(*points, query.label, gallery.label)
        scores = {f"R@{k}": first <= k for k in RECALLS if k <= total}
        for metric, of_query in (scores | {"mAP": precision}).items():
            common = known | {"metric": metric, "chance": by_chance[metric]}
            rows.append(percent_row(of_query.numpy(), config, **common))
        rows.append(median_row(first.numpy(), config, chance=by_chance["median rank"], **known))
        if level in CROSS_MODAL:
            known |= {"n": len(first), "seed": config.seed}
            answers = nearest(*points, min(5, total))
            p = p_value(gallery.label[answers].numpy(), query.label.numpy(), rng)
            rows.append(Row(metric="p of R@5", value=p, **known))
            count = len(answers[:, 0].unique())
            at_random = total * (1 - (1 - 1 / total) ** len(first))
            rows.append(Row(metric="distinct answers", value=count, chance=at_random, **known))
    return rows


def median_row(ranks: np.ndarray, config: Evaluation, **metadata: Any) -> Row:
    """The median rank of the first right answer, with its bootstrap interval over queries."""
    low, high = bootstrap(ranks, np.median, config).tolist()
    metadata |= {"low": low, "high": high, "n": len(ranks), "seed": config.seed}
    return Row(metric="median rank", value=float(np.median(ranks)), **metadata)


def p_value(answers: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> float:
    """How often queries with shuffled `labels` [Q] find their class in `answers` [Q, k] as often.

    One-sided, with the order as found among the shuffles, so that it is never zero (Phipson & Smyth
    2010, doi:10.2202/1544-6115.1585).
    """
    orders = [labels, *(rng.permutation(labels) for _ in range(PERMUTATIONS))]
    shares = np.array([(answers == order[:, None]).any(axis=1).mean() for order in orders])
    return float((shares >= shares[0]).mean())
