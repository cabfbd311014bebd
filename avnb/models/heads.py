"""Heads of pre-training: the projector of xID and the expander of VICReg."""

from torch import nn

from avnb.models.encoders import initialise


class Projector(nn.Sequential):
    """Three linear layers from features to the embedding, with a ReLU between them.

    The thesis puts a ReLU after every layer. Like the released code, this leaves the output
    linear: an embedding without negative entries cannot reach every direction.
    """

    def __init__(self, features: int, dim: int):
        super().__init__(
            nn.Linear(features, features),
            nn.ReLU(inplace=True),
            nn.Linear(features, features),
            nn.ReLU(inplace=True),
            nn.Linear(features, dim),
        )
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
