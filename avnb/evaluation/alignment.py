"""How video and audio lie to each other in a space that both are mapped to.

Shapes: V videos, each with one point of its video and one of its audio, D dimensions.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from avnb.config import Evaluation
from avnb.data.manifest import Manifest
from avnb.evaluation.features import Features
from avnb.evaluation.probe_features import Sources, row_metadata
from avnb.evaluation.results import Row, percent_row, record
from avnb.evaluation.retrieval import COSINE, PROJECTED, QueryAndGallery, embedded, projected
from avnb.evaluation.search import rank, unit
from avnb.models.collapse import effective_rank
from avnb.profiles import Workspace


def alignment(v: Tensor, a: Tensor) -> float:
    """Mean squared distance of each video to its own audio, on the unit sphere, in [0, 4].

    Wang & Isola 2020, arXiv:2005.10242, eq. 5.
    """
    return (unit(v) - unit(a)).square().sum(dim=1).mean().item()


def uniformity(z: Tensor) -> float:
    """How evenly the points [V, D] cover the unit sphere: at most 0, lower is more even.

    The logarithm of the mean Gaussian potential of two points (Wang & Isola 2020, eq. 6).
    """
    return torch.pdist(unit(z)).square().mul(-2).exp().mean().log().item()


def modality_gap(v: Tensor, a: Tensor) -> float:
    """Distance between the centres of video and audio on the unit sphere, in [0, 2].

    Liang et al. 2022, arXiv:2203.02053.
    """
    return (unit(v).mean(dim=0) - unit(a).mean(dim=0)).norm().item()


def alignment_rows(
    features: Features, heads: dict[str, Any], config: Evaluation, **metadata: Any
) -> list[Row]:
    """Both spaces of one encoder: alignment, uniformity, gap, rank, and finding its own audio.

    `own video R@1` is the share of videos whose own audio is nearer than that of any other video,
    and the reverse.
    """
    rows: list[Row] = []
    spaces = {COSINE: features, PROJECTED: projected(features, heads)}
    for space, points in spaces.items():
        v, a = (embedded(points, modality, space) for modality in ("video", "audio"))
        if not v.shape[1] or v.shape[1] != a.shape[1] or len(v) < 3:
            continue
        about = {"task": "alignment", "space": space, **metadata}
        numbers = {
            "alignment": alignment(v, a),
            "uniformity of video": uniformity(v),
            "uniformity of audio": uniformity(a),
            "modality gap": modality_gap(v, a),
            "effective rank of video": effective_rank(v).item(),
            "effective rank of audio": effective_rank(a).item(),
        }
        common = {"n": len(v), "seed": config.seed, **about}
        rows += [Row(metric=metric, value=value, **common) for metric, value in numbers.items()]
        about |= {"metric": "own video R@1", "chance": 100 / len(v)}
        own = torch.arange(len(v))
        for level, pair in {"v->a": (v, a), "a->v": (a, v)}.items():
            right = rank(*pair, own, own).within(1).double().numpy()
            rows.append(percent_row(right, config, level=level, **about))
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
