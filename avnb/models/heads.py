"""Heads of pre-training: the projector of xID and the expander of VICReg."""

from torch import nn

from avnb.models.encoders import initialise


class Projector(nn.Sequential):
    """Three linear layers from features to the embedding, with a ReLU between them.

    The thesis puts a ReLU after every layer. Like the released code, this leaves the output
    linear: an embedding without negative entries cannot reach every direction.

    With `batch_norm`, every layer is followed by BatchNorm, the last one without an affine map:
    embeddings are then centred from the first step (SimCLR's head, Chen et al. 2020,
    arXiv:2002.05709). Without it they start nearly parallel, and long runs are needed to part them.
    """

    def __init__(self, features: int, dim: int, *, batch_norm: bool = False):
        layers: list[nn.Module] = []
        for i, out in enumerate((features, features, dim)):
            layers.append(nn.Linear(features, out, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm1d(out, affine=i < 2))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers[:-1])
        initialise(self)


class Expander(nn.Sequential):
    """Three linear layers from features to a wide embedding, with BatchNorm and ReLU between them.

    A layer followed by BatchNorm has no bias, because BatchNorm would subtract it again.
    """

    def __init__(self, features: int, dim: int):
        super().__init__(
            nn.Linear(features, dim, bias=False),
            nn.BatchNorm1d(dim),
            nn.ReLU(inplace=True),
            nn.Linear(dim, dim, bias=False),
            nn.BatchNorm1d(dim),
            nn.ReLU(inplace=True),
            nn.Linear(dim, dim),
        )
        initialise(self)
