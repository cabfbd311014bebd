"""Retrieval: nearest gallery videos of each query, within and across modalities (thesis A.1)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avnb.config import Pretrain
from avnb.data.clips import Sampling
from avnb.data.decoding import read
from avnb.data.manifest import Manifest, Split
from avnb.evaluation.encoder_source import Source
from avnb.evaluation.features import Features, extract
from avnb.evaluation.probe import downstream_clip
from avnb.evaluation.results import Row, percent_row
from avnb.protocols import Evaluation

DIRECTIONS = {
    "v->v": ("video", "video"),
    "a->a": ("audio", "audio"),
    "v->a": ("video", "audio"),
    "a->v": ("audio", "video"),
}


def nearest(query: Tensor, gallery: Tensor, k: int, *, rows: int = 256) -> Tensor:
    """[Q, k] gallery rows nearest to each query by Euclidean distance, nearest first.

    query [Q, F] and gallery [G, F] share one space. Ties go to the smaller row. A block of
    `rows` queries is compared at a time, so memory grows with the gallery alone.

    Raises:
        ValueError: when the shapes do not fit, or k is not in [1, G].
    """
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        shapes = f"{tuple(query.shape)} and {tuple(gallery.shape)}"
        raise ValueError(f"query must be [Q, F] and gallery [G, F], got {shapes}")
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k must lie in [1, {len(gallery)}], the size of the gallery; got {k}")
    found = []
    for block in query.double().split(rows):
        distance = torch.cdist(block, gallery.double(), compute_mode="donot_use_mm_for_euclid_dist")
        found.append(distance.argsort(dim=1, stable=True)[:, :k])
    return torch.cat(found)


def hits(
    query: Tensor, gallery: Tensor, query_label: Tensor, gallery_label: Tensor, k: int
) -> Tensor:
    """[Q] bool: whether any of the k nearest has the query's class."""
    found = gallery_label[nearest(query, gallery, k)]
    return (found == query_label[:, None]).any(dim=1)


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
        ks: numbers of answers looked at.

    Raises:
        ValueError: when shapes or k do not fit.
    """
    return {
        k: hits(query, gallery, query_label, gallery_label, k).double().mean().item() for k in ks
    }


def chance(query_label: Tensor, gallery_label: Tensor, k: int) -> float:
    """Recall@k of a gallery in random order, in [0, 1]: drawing k of G without putting back."""
    total, miss = len(gallery_label), torch.ones(len(query_label), dtype=torch.double)
    same = (query_label[:, None] == gallery_label).sum(dim=1).double()
    for i in range(k):
        miss *= ((total - same - i) / (total - i)).clamp_min(0)
    return float((1 - miss).mean())


SIDES: tuple[tuple[Split, str], ...] = (("test", "queries"), ("train", "gallery"))


def extract_both(
    source: Source, manifest: Manifest, config: Evaluation, cache: Path, *, workers: int = 2
) -> tuple[Features, Features]:
    """Query (test) and gallery (training) features of the videos with sound, cached."""
    return extract_each({"one": source}, manifest, config, cache, workers=workers)["one"]


def extract_each(
    sources: Mapping[str, Source],
    manifest: Manifest,
    config: Evaluation,
    cache: Path,
    *,
    workers: int = 2,
) -> dict[str, tuple[Features, Features]]:
    """`extract_both` for several encoders, reading each video once for all that see the same."""
    heard, parts = manifest.with_audio(), dict[str, list[Features]]()
    asked = {name: sampled(source.run, config) for name, source in sources.items()}
    for sampling in dict.fromkeys(asked.values()):
        names = [name for name in sources if asked[name] == sampling]
        for split, part in SIDES:
            found = extract(
                [sources[name].checkpoint for name in names],
                heard.split(split),
                sampling,
                cache,
                seed=config.seed,
                workers=workers,
                at_once=config.clips_per_forward,
                title=f"{manifest.name}, {part}",
            )
            for name, features in zip(names, found, strict=True):
                parts.setdefault(name, []).append(features)
    return {name: (parts[name][0], parts[name][1]) for name in sources}


def sampled(run: Pretrain, config: Evaluation) -> Sampling:
    """Uniformly spaced clips with their sound."""
    clip = downstream_clip(run, config, audio_seconds=config.retrieval_audio_seconds)
    return Sampling(
        clip=clip,
        count=config.video_level_clips,
        place="uniform",
        resize_px=config.resized_px(clip),
    )


def measure(query: Features, gallery: Features, config: Evaluation, **metadata: str) -> list[Row]:
    """Recall@1 and @5 in all four directions; a video is the mean of its clips' features."""
    rows = []
    for level, (asked, searched) in DIRECTIONS.items():
        q, g = (getattr(f, m).mean(dim=1) for f, m in ((query, asked), (gallery, searched)))
        for k in (1, 5):
            each = hits(q, g, query.label, gallery.label, k).double().numpy()
            rows.append(
                percent_row(
                    each,
                    bootstrap_resamples=config.bootstrap_resamples,
                    seed=config.seed,
                    task="retrieval",
                    metric=f"R@{k}",
                    level=level,
                    chance=100 * chance(query.label, gallery.label, k),
                    **metadata,
                )
            )
    return rows


def middle_frame(manifest: Manifest, row: int) -> np.ndarray:
    """The frame [H, W, 3] in the middle of a video."""
    video, seen = manifest.videos[row], []
    times = np.array([video.seconds / 2])
    read(
        manifest.path(video),
        times,
        lambda _, frame: seen.append(frame),
        seconds=video.seconds,
        start=video.start,
    )
    return seen[0]


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
    """Random queries with their k nearest, as `figures.gallery` takes them (Figures A.1 to A.4)."""
    asked, searched = DIRECTIONS[direction]
    test, train = manifest.split("test"), manifest.split("train")
    drawn = np.random.default_rng(seed).choice(len(test), min(count, len(test)), replace=False)
    rows = torch.from_numpy(np.sort(drawn))
    q, g = getattr(query, asked).mean(1)[rows], getattr(gallery, searched).mean(1)
    ranks = nearest(q, g, min(k, len(train)))
    frames = {int(r): middle_frame(train, int(r)) for r in ranks.unique()}
    names = []
    for i, row in enumerate(rows.tolist()):
        frames[-1 - i] = middle_frame(test, row)
        names += [test.videos[row].label, *(train.videos[j].label for j in ranks[i].tolist())]
    right = gallery.label[ranks] == query.label[rows][:, None]
    return frames, ranks.numpy(), names, right.numpy()
