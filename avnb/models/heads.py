"""Heads of pre-training: projector and expander."""

from torch import nn

from avnb.models.encoders import initialise


class Projector(nn.Sequential):
    """Three linear layers from features to the embedding, ReLU between them and none at the end.

    The thesis says that a ReLU follows each layer; the released code has none on the output,
    and neither has this: an embedding without negative entries could not point everywhere.
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
    """Three linear layers from features to a wide embedding, BatchNorm and ReLU between them.

    Where BatchNorm follows there is no bias: it would take it out again.
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
