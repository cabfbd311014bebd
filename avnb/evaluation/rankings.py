"""Which targets the second text encoder ranks highest for each query: computed, or as published.

The rankings of `whaleloops/phrase-bert` for the six pairs of data sets of Table 4.5 are figures of
the publication: its code lists the three most similar targets of every query, with their cosines.

Legend: Q queries, K targets ranked for each.
"""

import csv
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

from avnb.evaluation.class_names import class_list
from avnb.evaluation.text_encoders import PHRASE_BERT

DEPTH = 3  # targets that were published for each query
Pairs = dict[tuple[str, str], dict[str, list[tuple[str, float]]]]


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The K most similar targets of each query, best first."""

    targets: np.ndarray  # [Q, K] labels
    cosines: np.ndarray  # [Q, K]
    title: str  # of the text encoder, for tables and figures
    report: str  # where it comes from, in a sentence

    @property
    def depth(self) -> int:
        """Targets ranked for each query, K."""
        return self.targets.shape[1]

    def top(self, count: int) -> list[list[int]]:
        """The best `count` targets of each query.

        Raises:
            ValueError: when fewer are known.
        """
        if count > self.depth:
            raise ValueError(
                f"{self.title} names {self.depth} targets for each class, so top cannot be "
                f"{count}: lower it, or give a folder with the text encoder itself"
            )
        found: list[list[int]] = self.targets[:, :count].tolist()
        return found


@functools.cache
def published_pairs() -> Pairs:
    """The published targets and cosines of each query, by the keys of both data sets."""
    file = resources.files("avnb.evaluation").joinpath("classes", "phrase_bert_top3.csv")
    pairs: Pairs = {}
    for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines()):
        queries = pairs.setdefault((row["queries"], row["targets"]), {})
        queries.setdefault(row["query"], []).append((row["target"], float(row["cosine"])))
    return pairs


def published_ranking(
    keys: tuple[str, str], queries: Sequence[str], targets: Sequence[str]
) -> Ranking | None:
    """The published ranking of a pair of data sets; None for names that it was not made of.

    Args:
        keys: of the data sets.
        queries: all normalised names of the pre-training set, or some.
        targets: all normalised names of the test set: among fewer, others would be ranked.
    """
    known = published_pairs().get(keys, {})
    if not {*queries} <= known.keys() or {*targets} != {*class_list(keys[1]).plain}:
        return None
    ranked = [known[query] for query in queries]
    label = {name: i for i, name in enumerate(targets)}
    return Ranking(
        targets=np.array([[label[name] for name, _ in row] for row in ranked]),
        cosines=np.array([[cosine for _, cosine in row] for row in ranked]),
        title=f"{PHRASE_BERT}, as published",
        report=f"`{PHRASE_BERT}`: its published ranking, the {DEPTH} most similar test classes of "
        "each pre-training class",
    )
