"""Random queries with their nearest videos, to look at and to listen to (Figures A.1 to A.6)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from avnb.data.manifest import Manifest
from avnb.data.previews import Shown
from avnb.evaluation.features import Features
from avnb.evaluation.retrieval import DIRECTIONS, THESIS, embedded
from avnb.evaluation.search import nearest


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Q queries, each with its k nearest videos, nearest first."""

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
    """The nearest training videos of some test videos, or of others.

    Args:
        manifest: the videos that the features are of, of both splits.
        query: features of the test videos.
        gallery: features of the training videos.
        rows: of the queries among the test videos.
        direction: a name of DIRECTIONS.
        k: answers to each query, fewer where there are fewer videos.
        space: where they are compared.
        queries: videos of the user's own that `query` is of, instead of the test videos.

    Raises:
        ValueError: when the encoder has no features for the direction.
    """
    asked, searched = DIRECTIONS[direction]
    test, train = queries or manifest.split("test"), manifest.split("train")
    index = torch.as_tensor(np.asarray(rows))
    q, g = embedded(query, asked, space)[index], embedded(gallery, searched, space)
    if not q.shape[1] or q.shape[1] != g.shape[1]:
        raise ValueError(f"this encoder has no features for {direction!r} in {space}")
    ranks = nearest(q, g, min(k, len(train)))
    return Gallery(
        direction=direction,
        queries=[Shown(test, int(row)) for row in index],
        answers=[[Shown(train, int(i)) for i in line] for line in ranks],
        is_judged=queries is None,
        right=(gallery.label[ranks] == query.label[index][:, None]).numpy(),
    )
