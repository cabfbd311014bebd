"""Retrieval: nearest gallery videos of each query, within and across modalities (thesis A.1).

Shapes: Q queries, G gallery videos, F features.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from avnb.config import Pretrain
from avnb.data.clips import Sampling
from avnb.data.decoding import read_frames
from avnb.data.loader import AUTO
from avnb.data.manifest import Manifest
from avnb.evaluation.encoder_source import EncoderSource
from avnb.evaluation.features import Features
from avnb.evaluation.probe_features import Sources, downstream_clip, extract_parts, row_metadata
from avnb.evaluation.results import Row, percent_row, record
from avnb.evaluation.soundtracks import soundtrack_features
from avnb.protocols import Evaluation
from avnb.training.released import read_bands
from avnb.workspace import Workspace

DIRECTIONS = {
    "v->v": ("video", "video"),
    "a->a": ("audio", "audio"),
    "v->a": ("video", "audio"),
    "a->v": ("audio", "video"),
}
QueryAndGallery = tuple[Features, Features]
SPARE = 4  # gallery videos listed by their approximate distance beyond those asked for


def check(query: Tensor, gallery: Tensor, ks: Sequence[int]) -> None:
    """Raise ValueError when the shapes do not fit, or a k is not in [1, G]."""
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        shapes = f"{tuple(query.shape)} and {tuple(gallery.shape)}"
        raise ValueError(f"query must be [Q, F] and gallery [G, F], got {shapes}")
    if wrong := [k for k in ks if not 1 <= k <= len(gallery)]:
        size = len(gallery)
        raise ValueError(f"k must lie in [1, {size}], the size of the gallery; got {wrong[0]}")


def nearest(query: Tensor, gallery: Tensor, k: int, *, rows: int = 256) -> Tensor:
    """[Q, k] gallery rows nearest to each query by Euclidean distance, nearest first.

    query [Q, F] and gallery [G, F] share one space. Ties go to the smaller row. `rows` queries are
    compared at a time, so memory grows with the gallery alone.

    A matrix product lists a few more than k, which are compared exactly. Queries for which the
    product's rounding could have hidden a nearer one, or a tie, are compared with all.

    Raises:
        ValueError: when the shapes do not fit, or k is not in [1, G].
    """
    check(query, gallery, [k])
    kept = min(k + SPARE, len(gallery))
    score = Score(gallery)
    ranks, certain = [], []
    for block in query.split(rows):
        listed, least = score.best(block, kept)
        distance = distances(block[:, None], gallery[listed])[:, 0]
        order = distance.argsort(dim=1, stable=True)[:, :k]
        ranks.append(listed.gather(1, order))
        certain.append(distance.gather(1, order[:, -1:])[:, 0] < least)
    found = torch.cat(ranks)
    if kept < len(gallery):
        for doubtful in (~torch.cat(certain)).nonzero()[:, 0].split(rows):
            order = distances(query[doubtful], gallery).argsort(dim=1, stable=True)
            found[doubtful] = order[:, :k]
    return found


def distances(query: Tensor, gallery: Tensor) -> Tensor:
    """Euclidean distances [..., Q, G] float64, precise for near duplicates far from the origin."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(query.double(), gallery.double(), compute_mode=exact)


class Score:
    """Squared distances from a gallery [G, F] by matrix products, and how far they may be off."""

    def __init__(self, gallery: Tensor):
        # Float32 is off by known amounts; GPUs may round it to TF32, and are fast in float64.
        self.dtype = torch.float if gallery.is_cpu else torch.double
        wide = torch.promote_types(gallery.dtype, self.dtype)
        self.centre = gallery.mean(dim=0, dtype=torch.double).to(wide)
        self.rows = (gallery.to(wide) - self.centre).to(self.dtype)
        self.norms = self.rows.square().sum(dim=1)
        self.reach = self.norms.double().max().sqrt()

    def best(self, query: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The best `count` gallery rows [Q, count], ascending; every other is farther than [Q].

        A sum of F products is off by at most F u times the sum of their sizes, whatever its order;
        u is the unit roundoff (Higham 2002, section 3.1). The 8 more are for rounded factors.
        """
        q = query.double() - self.centre
        score = torch.addmm(self.norms, q.to(self.dtype), self.rows.T, alpha=-2)
        values, listed = score.topk(count, dim=1, largest=False)
        size, form, exact = q.norm(dim=1), torch.finfo(self.dtype), torch.finfo(torch.double)
        error = form.eps / 2 * self.reach * (2 * size + self.reach) + form.tiny
        error += exact.eps / 2 * (size + self.reach + self.centre.norm()).square()
        least = values[:, -1].double() + size.square() - (q.shape[1] + 8) * error
        return listed.sort(dim=1).values, least.clamp_min(0).sqrt()


def hits(
    query: Tensor,
    gallery: Tensor,
    query_label: Tensor,
    gallery_label: Tensor,
    ks: Sequence[int] = (1, 5),
) -> dict[int, Tensor]:
    """By k, whether any of the k nearest has the query's class, [Q] bool."""
    check(query, gallery, ks)
    right = gallery_label[nearest(query, gallery, max(ks))] == query_label[:, None]
    return {k: right[:, :k].any(dim=1) for k in ks}


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
    found = hits(query, gallery, query_label, gallery_label, ks)
    return {k: right.double().mean().item() for k, right in found.items()}


def chance(query_label: Tensor, gallery_label: Tensor, k: int) -> float:
    """Recall@k of a gallery in random order, in [0, 1]: k of G drawn without replacement."""
    total, miss = len(gallery_label), torch.ones(len(query_label), dtype=torch.double)
    classes, class_of = torch.cat([gallery_label, query_label]).unique(return_inverse=True)
    same = class_of[:total].bincount(minlength=len(classes))[class_of[total:]].double()
    for i in range(k):
        miss *= ((total - same - i) / (total - i)).clamp_min(0)
    return float((1 - miss).mean())


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


def measure(query: Features, gallery: Features, config: Evaluation, **metadata: Any) -> list[Row]:
    """Recall@1 and @5 in all four directions; a video is the mean of its clips' features.

    An encoder without audio has features of width 0 there, and is measured among videos only.
    """
    rows, labels = [], (query.label, gallery.label)
    for level, (asked, searched) in DIRECTIONS.items():
        q, g = getattr(query, asked).mean(dim=1), getattr(gallery, searched).mean(dim=1)
        if not q.shape[1] or not g.shape[1]:
            continue
        for k, right in hits(q, g, *labels, (1, 5)).items():
            scores = right.double().numpy()
            metadata |= {"level": level, "metric": f"R@{k}", "chance": 100 * chance(*labels, k)}
            rows.append(percent_row(scores, config, task="retrieval", **metadata))
    return rows


def retrieval_rows(
    sources: Sources, manifest: Manifest, config: Evaluation, work: Workspace
) -> tuple[pd.DataFrame, dict[str, QueryAndGallery]]:
    """Retrieval with several encoders, measured and appended to the workspace's results.

    Returns the rows of these encoders, and query and gallery features by method.
    """
    if config.mel_statistics:
        sources = {m: with_bands(source, config) for m, source in sources.items()}
    features, rows = extract_each(sources, manifest, config, work.features), []
    for method, source in sources.items():
        metadata = row_metadata(source, manifest.with_audio(), work, config)
        rows += measure(*features[method], config, **metadata)
    return record(work.results, rows), features


def middle_frame(manifest: Manifest, row: int) -> np.ndarray:
    """The frame [H, W, 3] in the middle of a video."""
    video = manifest.videos[row]
    middle = np.array([video.seconds / 2])
    return read_frames(manifest.path(video), middle, seconds=video.seconds, start=video.start)[0]


def examples(
    manifest: Manifest,
    query: Features,
    gallery: Features,
    *,
    direction: str,
    count: int,
    seed: int,
    k: int = 5,
) -> tuple[dict[int, np.ndarray], np.ndarray, list[str], np.ndarray]:
    """Random queries with their k nearest, as `report.plot_gallery` takes them (Figures A.1-A.4).

    Returns middle frames by gallery row, or by -1 - i for query i; ranks [Q, k]; class names, each
    query's before its neighbours'; whether each neighbour has the query's class [Q, k].
    """
    asked, searched = DIRECTIONS[direction]
    test, train = manifest.split("test"), manifest.split("train")
    drawn = np.random.default_rng(seed).choice(len(test), min(count, len(test)), replace=False)
    rows = torch.from_numpy(np.sort(drawn))
    q, g = getattr(query, asked).mean(1)[rows], getattr(gallery, searched).mean(1)
    ranks = nearest(q, g, min(k, len(train)))
    frames = {int(row): middle_frame(train, int(row)) for row in ranks.unique()}
    frames |= {-1 - i: middle_frame(test, row) for i, row in enumerate(rows.tolist())}
    names = []
    for row, neighbours in zip(rows.tolist(), ranks.tolist(), strict=True):
        names += [test.videos[row].label, *(train.videos[i].label for i in neighbours)]
    right = gallery.label[ranks] == query.label[rows][:, None]
    return frames, ranks.numpy(), names, right.numpy()
