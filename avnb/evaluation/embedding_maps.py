"""Embeddings as points of a plane: principal components, and a map of neighbours."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from avnb.evaluation.features import Features
from avnb.evaluation.retrieval import COSINE, embedded, projected


def principal_components(x: Tensor) -> np.ndarray:
    """The two directions of greatest variance of x [N, F], as coordinates [N, 2]."""
    centred = (x - x.mean(dim=0)).double()
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    signs = u.gather(0, u.abs().argmax(dim=0, keepdim=True)).sign()  # SVD leaves them open
    return (u * signs * s)[:, :2].numpy()


def neighbour_map(x: Tensor, seed: int, perplexity: float = 30.0) -> np.ndarray:
    """t-SNE of x [N, F] as coordinates [N, 2]: neighbours stay neighbours, distances mean little.

    Van der Maaten & Hinton 2008; begun from principal components, so that a seed decides little.
    """
    from sklearn.manifold import TSNE  # takes a second

    tsne = TSNE(init="pca", perplexity=min(perplexity, (len(x) - 1) / 3), random_state=seed)
    return tsne.fit_transform(x.float().numpy())


MAPS = {"principal components": lambda x, seed: principal_components(x), "t-SNE": neighbour_map}


def method_maps(
    features: Features, heads: Mapping[str, nn.Module], seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """By space and kind of map, coordinates [2 V, 2] of V videos, then of their audio.

    A space that has only one of the two modalities is left out.
    """
    maps = {}
    spaces = {"features": features, "after the heads": projected(features, dict(heads))}
    for space, points in spaces.items():
        v, a = (embedded(points, modality, COSINE) for modality in ("video", "audio"))
        if v.shape == a.shape and v.shape[1]:
            both = torch.cat([v, a])
            maps[space] = {kind: of(both, seed) for kind, of in MAPS.items()}
    return maps
