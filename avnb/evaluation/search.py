"""Exact search: the nearest rows of a gallery, and at which ranks those of a query's class come.

Shapes: Q queries, G gallery rows, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SPARE = 4  # gallery rows listed by their approximate distance beyond those asked for
TIED = 1e-9  # squared distances closer than this, on the scale of the gallery, count as equal


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


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How well a gallery is ranked for each query, where rows of its class are relevant."""

    first: Tensor  # [Q] rank of the first relevant row, from 1; G + 1 where there is none
    average_precision: Tensor  # [Q] in [0, 1]; 0 where no row is relevant

    def within(self, k: int) -> Tensor:
        """[Q] bool, whether a relevant row is among the k nearest."""
        return self.first <= k


def rank(
    query: Tensor, gallery: Tensor, query_label: Tensor, gallery_label: Tensor, *, rows: int = 64
) -> Ranking:
    """Rank the gallery for each query by Euclidean distance; ties go to the smaller row.

    Nothing is sorted but the relevant rows: every other is counted between two of them. `rows`
    queries are compared at a time, so memory grows with the gallery alone. Distances that are
    equal but for rounding count as ties.

    Args:
        query: [Q, F] features, in one space with the gallery's.
        gallery: [G, F] features.
        query_label: [Q] classes of the queries.
        gallery_label: [G] classes of the gallery.
        rows: queries at a time.

    Raises:
        ValueError: when the shapes do not fit, or a feature is not finite.
    """
    check(query, gallery, [])
    if not (query.isfinite().all() and gallery.isfinite().all()):
        raise ValueError("the features to rank are not finite")
    gallery = gallery.double()
    centre = gallery.mean(dim=0)
    gallery = gallery - centre
    norms, size = gallery.square().sum(dim=1), len(gallery)
    first = torch.full((len(query),), size + 1, device=query.device)
    precision = torch.zeros(len(query), dtype=torch.double, device=query.device)
    place = torch.arange(size, device=query.device)
    grid = TIED * norms.max().clamp_min(1e-300)
    for block in query_label.argsort(stable=True).split(rows):
        squared = torch.addmm(norms, query[block].double() - centre, gallery.T, alpha=-2)
        key = squared.div_(grid).round_().long().mul_(size).add_(place)  # no two are equal
        for label in query_label[block].unique():
            relevant = (gallery_label == label).nonzero()[:, 0]
            if len(relevant):
                mine = query_label[block] == label
                at = ranks_of(key[mine], key[mine][:, relevant].sort(dim=1).values)
                first[block[mine]] = at[:, 0]
                found = torch.arange(1, len(relevant) + 1, device=at.device)
                precision[block[mine]] = (found / at).mean(dim=1, dtype=torch.double)
    return Ranking(first=first, average_precision=precision)


def ranks_of(key: Tensor, relevant: Tensor) -> Tensor:
    """Ranks [Q, R], from 1, of the `relevant` keys [Q, R], ascending, among all keys [Q, G]."""
    queries, count = relevant.shape
    below = torch.searchsorted(relevant, key)  # number of relevant keys below each
    below += torch.arange(queries, device=key.device)[:, None] * (count + 1)
    between = below.flatten().bincount(minlength=queries * (count + 1))
    return between.unflatten(0, (queries, count + 1)).cumsum(dim=1)[:, :-1]


def unit(x: Tensor) -> Tensor:
    """Rows scaled to length 1: their Euclidean distances rank as their cosines do."""
    return F.normalize(x.double(), dim=-1)
