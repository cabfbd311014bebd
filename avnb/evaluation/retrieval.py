"""Retrieval: nearest gallery videos of each query, within and across modalities (thesis A.1).

Shapes: V videos, Q queries, G gallery videos, C clips of each, F features, D dimensions.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avnb.config import Evaluation, Pretrain
from avnb.data.clips import Sampling
from avnb.data.manifest import Manifest, Video
from avnb.evaluation.features import Features, Sources, downstream_clip, extract_parts, row_metadata
from avnb.evaluation.results import Row, percent_row, record
from avnb.models.losses import effective_rank
from avnb.profiles import Workspace

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
BLOCK = 256  # queries compared at a time: memory grows with the gallery alone
QueryAndGallery = tuple[Features, Features]


# ---- nearest neighbours -------------------------------------------------------------------------


def unit(x: Tensor) -> Tensor:
    """Rows scaled to length 1: their Euclidean distances rank as their cosines do."""
    return F.normalize(x.double(), dim=-1)


def distances(query: Tensor, gallery: Tensor) -> Iterator[Tensor]:
    """Euclidean distances [B, G] of a block of queries after the other.

    In float64, in which matrix products tell even near duplicates apart.

    Raises:
        ValueError: when the shapes do not fit, or a feature is not finite.
    """
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        shapes = f"{tuple(query.shape)} and {tuple(gallery.shape)}"
        raise ValueError(f"query must be [Q, F] and gallery [G, F], got {shapes}")
    if not (query.isfinite().all() and gallery.isfinite().all()):
        raise ValueError("the features to rank are not finite")
    gallery = gallery.double()
    for block in query.double().split(BLOCK):
        yield torch.cdist(block, gallery, compute_mode="use_mm_for_euclid_dist")


def nearest(query: Tensor, gallery: Tensor, k: int) -> Tensor:
    """[Q, k] rows of the gallery [G, F] nearest to each query [Q, F] by Euclidean distance."""
    found = [d.topk(k, dim=1, largest=False).indices for d in distances(query, gallery)]
    return torch.cat(found)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How well a gallery is ranked for each query, where rows of its class are relevant."""

    first: Tensor  # [Q] rank of the first relevant row, from 1; G + 1 where there is none
    average_precision: Tensor  # [Q] in [0, 1]; 0 where no row is relevant

    def within(self, k: int) -> Tensor:
        """[Q] bool, whether a relevant row is among the k nearest."""
        return self.first <= k


def rank(query: Tensor, gallery: Tensor, query_label: Tensor, gallery_label: Tensor) -> Ranking:
    """Rank the gallery [G, F] with labels [G] for queries [Q, F] with labels [Q], by distance."""
    first, precision = [], []
    ranks = torch.arange(1, len(gallery) + 1, device=gallery.device)
    for labels, distance in zip(query_label.split(BLOCK), distances(query, gallery), strict=True):
        order = distance.argsort(dim=1, stable=True)
        relevant = gallery_label[order] == labels[:, None]  # [B, G]
        first.append(ranks.where(relevant, len(gallery) + 1).amin(dim=1))
        found = relevant.cumsum(dim=1)  # relevant rows up to each rank
        share = (found / ranks.double() * relevant).sum(dim=1)
        precision.append(share / found[:, -1].clamp_min(1))
    return Ranking(first=torch.cat(first), average_precision=torch.cat(precision))


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
        ValueError: when shapes or k do not fit, or a feature is not finite.
    """
    if wrong := [k for k in ks if not 1 <= k <= len(gallery)]:
        size = len(gallery)
        raise ValueError(f"k must lie in [1, {size}], the size of the gallery; got {wrong[0]}")
    ranking = rank(query, gallery, query_label, gallery_label)
    return {k: ranking.within(k).double().mean().item() for k in ks}


# ---- what a random order gives ------------------------------------------------------------------


def relevant_counts(query_label: Tensor, gallery_label: Tensor) -> Tensor:
    """[Q] gallery videos of each query's class."""
    total = len(gallery_label)
    classes, class_of = torch.cat([gallery_label, query_label]).unique(return_inverse=True)
    return class_of[:total].bincount(minlength=len(classes))[class_of[total:]].double()


def chance_curve(query_label: Tensor, gallery_label: Tensor) -> Tensor:
    """[G] recall@1, @2, ... of a gallery in random order: k of G drawn without replacement."""
    total = len(gallery_label)
    counts, queries = relevant_counts(query_label, gallery_label).unique(return_counts=True)
    drawn = torch.arange(total)
    miss = ((total - counts[:, None] - drawn) / (total - drawn)).cumprod(dim=1)
    return 1 - queries.double() @ miss / len(query_label)


def chance_median(query_label: Tensor, gallery_label: Tensor) -> int:
    """Median rank of the first right answer in random order; G + 1 where most have none."""
    return 1 + int((chance_curve(query_label, gallery_label) < 0.5).sum())


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


def compared(
    query: Features, gallery: Features, direction: str, space: str
) -> tuple[Tensor, Tensor] | None:
    """Points of queries [Q, F] and gallery [G, F]; None where an encoder lacks the direction."""
    asked, searched = DIRECTIONS[direction]
    q, g = embedded(query, asked, space), embedded(gallery, searched, space)
    return (q, g) if q.shape[1] and q.shape[1] == g.shape[1] else None


def projected(features: Features, heads: Mapping[str, nn.Module]) -> Features:
    """Features after the heads of pre-training, in the space of its loss; [V, C, 0] without one."""

    @torch.inference_mode()
    def through(modality: str) -> Tensor:
        clips: Tensor = getattr(features, modality)
        if modality not in heads:
            return clips[..., :0]
        return heads[modality](clips.flatten(0, 1)).unflatten(0, clips.shape[:2])

    return replace(features, video=through("video"), audio=through("audio"))


def samplings(run: Pretrain, config: Evaluation) -> dict[str, Sampling]:
    """How clips are sampled for queries and gallery: uniformly spaced, with audio.

    With `whole_video_sound` the audio becomes that of whole videos.
    """
    clip = downstream_clip(run, config, audio_seconds=config.retrieval_audio_seconds)
    sampling = Sampling(
        clip=clip,
        count=config.video_level_clips,
        place="uniform",
        resize_px=config.resized_px(clip),
        interpolation=config.interpolation,
    )
    return {"queries": sampling, "gallery": sampling}


def extract_each(
    sources: Sources, manifest: Manifest, config: Evaluation, cache: Path
) -> dict[str, QueryAndGallery]:
    """Query (test) and gallery (training) features of the videos with audio, by method, cached."""
    videos, sampling_of = manifest.with_audio(), functools.partial(samplings, config=config)
    parts = {"queries": videos.split("test"), "gallery": videos.split("train")}
    features = extract_parts(sources, parts, sampling_of, config, cache)
    return {method: (both["queries"], both["gallery"]) for method, both in features.items()}


# ---- rows ---------------------------------------------------------------------------------------


def rankings(
    query: Features, gallery: Features, space: str = THESIS
) -> Iterator[tuple[str, Ranking]]:
    """By direction, how the gallery is ranked; directions that an encoder lacks are left out."""
    for level in DIRECTIONS:
        if points := compared(query, gallery, level, space):
            yield level, rank(*points, query.label, gallery.label)


def measure(
    query: Features, gallery: Features, config: Evaluation, space: str = THESIS, **metadata: Any
) -> list[Row]:
    """Recall, mean average precision and median rank in all directions that an encoder has."""
    rows, labels = [], (query.label, gallery.label)
    chances = 100 * chance_curve(*labels)
    precision, median = 100 * chance_precision(*labels), chance_median(*labels)
    for level, ranking in rankings(query, gallery, space):
        metadata |= {"task": "retrieval", "level": level, "space": space}
        for k in (k for k in RECALLS if k <= len(gallery.label)):
            right, by_chance = ranking.within(k).numpy(), chances[k - 1].item()
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
        if points := compared(query, gallery, level, space):
            answers = gallery.label[nearest(*points, min(5, len(points[1])))].numpy()
            orders = [query.label.numpy()]
            orders += [rng.permutation(orders[0]) for _ in range(PERMUTATIONS)]
            shares = np.array([(answers == o[:, None]).any(axis=1).mean() for o in orders])
            p = float((shares >= shares[0]).mean())
            metadata |= {"task": "retrieval", "level": level, "space": space}
            metadata |= {"n": len(query.label), "seed": config.seed}
            rows.append(Row(metric="p of R@5", value=p, **metadata))
    return rows


def retrieval_rows(
    sources: Sources, manifest: Manifest, config: Evaluation, work: Workspace
) -> tuple[pd.DataFrame, dict[str, QueryAndGallery]]:
    """Retrieval with several encoders in every space, measured and appended to the results.

    Returns the rows of these encoders, and query and gallery features by method.
    """
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


# ---- how video and audio lie to each other ------------------------------------------------------


def uniformity(z: Tensor) -> float:
    """How evenly unit vectors [V, D] cover the sphere: at most 0, lower is more even.

    The logarithm of the mean Gaussian potential of two points (Wang & Isola 2020,
    arXiv:2005.10242, eq. 6).
    """
    return torch.pdist(z).square().mul(-2).exp().mean().log().item()


def alignment_rows(
    features: Features, heads: Mapping[str, nn.Module], config: Evaluation, **metadata: Any
) -> list[Row]:
    """Both spaces of one encoder: how video and audio lie to each other on the unit sphere.

    `alignment` is the mean squared distance of a video to its own audio (Wang & Isola 2020, eq. 5),
    `modality gap` that of the two centres (Liang et al. 2022, arXiv:2203.02053), `own video R@1`
    the share of videos whose own audio is nearer than that of any other video, and the reverse.
    """
    rows: list[Row] = []
    for space, given in {COSINE: features, PROJECTED: projected(features, heads)}.items():
        points = compared(given, given, "v->a", space)
        if points is None or len(features.label) < 3:
            continue
        v, a = points
        numbers = {
            "alignment": (v - a).square().sum(dim=1).mean().item(),
            "uniformity of video": uniformity(v),
            "uniformity of audio": uniformity(a),
            "modality gap": (v.mean(dim=0) - a.mean(dim=0)).norm().item(),
            "effective rank of video": effective_rank(v).item(),
            "effective rank of audio": effective_rank(a).item(),
        }
        metadata |= {"task": "alignment", "space": space}
        common = {"n": len(v), "seed": config.seed, **metadata}
        rows += [Row(metric=metric, value=value, **common) for metric, value in numbers.items()]
        own, common = torch.arange(len(v)), {"chance": 100 / len(v), **metadata}
        for level, pair in {"v->a": (v, a), "a->v": (a, v)}.items():
            right = rank(*pair, own, own).within(1).numpy()
            rows.append(percent_row(right, config, metric="own video R@1", level=level, **common))
    return rows


def all_alignment_rows(
    sources: Sources,
    features: Mapping[str, QueryAndGallery],
    manifest: Manifest,
    config: Evaluation,
    work: Workspace,
) -> pd.DataFrame:
    """`alignment_rows` of several encoders on the test videos, appended to the results."""
    rows = []
    for method, source in sources.items():
        metadata = row_metadata(source, manifest, work, config)
        rows += alignment_rows(features[method][0], source.heads(), config, **metadata)
    return record(work.results, rows)


# ---- galleries ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """A video of a manifest, to be looked at."""

    manifest: Manifest
    row: int

    @property
    def video(self) -> Video:
        """Its entry in the manifest."""
        return self.manifest.videos[self.row]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Q queries, each with its k nearest videos, nearest first (Figures A.1 to A.6)."""

    direction: str
    queries: Sequence[Shown]
    answers: Sequence[Sequence[Shown]]  # [Q][k]
    right: np.ndarray  # [Q, k] bool, whether an answer has the query's class
    is_judged: bool = True  # whether the queries' classes are known


def draw_queries(test: Manifest, count: int, seed: int) -> np.ndarray:
    """Rows of at most `count` test videos, drawn without replacement, ascending."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(len(test), min(count, len(test)), replace=False))


def find_gallery(
    manifest: Manifest,
    query: Features,
    gallery: Features,
    rows: Sequence[int] | np.ndarray,
    *,
    direction: str,
    k: int = 5,
    space: str = THESIS,
    queries: Manifest | None = None,
) -> Gallery:
    """The k nearest training videos of some `rows` of the test videos of a manifest.

    `query` and `gallery` are features of its test and training videos; or `query` those of videos
    of the user's own, `queries`. ValueError when the encoder has no features for the direction.
    """
    points = compared(query, gallery, direction, space)
    if points is None:
        raise ValueError(f"this encoder has no features for {direction!r} in {space}")
    test, train = queries or manifest.split("test"), manifest.split("train")
    index = torch.as_tensor(np.asarray(rows))
    ranks = nearest(points[0][index], points[1], min(k, len(train)))
    return Gallery(
        direction=direction,
        queries=[Shown(test, int(row)) for row in index],
        answers=[[Shown(train, int(i)) for i in line] for line in ranks],
        right=(gallery.label[ranks] == query.label[index][:, None]).numpy(),
        is_judged=queries is None,
    )
