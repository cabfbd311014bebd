"""`avts`: is the audio in time? A pretext task on the distance of frames and audio."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from avnb.config import Pretrain
from avnb.data.clips import Batch
from avnb.distributed import gather_rows, whole_batch
from avnb.models.encoders import Projector
from avnb.models.losses import at_least_float
from avnb.models.methods.base import Method, Terms


class Synchronisation(Method):
    r"""Contrast of distances: small for frames and audio of one moment, else at least a margin.

        L = 1/2 ( mean d(v_i, a_i)^2 + mean max(0, m - d(v, a))^2 )

    d is the distance of unit vectors. The second mean is over pairs that do not belong together:
    easy ones of two videos; from the middle of the run on, with the weight `hard_share`, also hard
    ones, whose frames are of another time of the same video. A clip's audio is as long as its
    frames. Korbar et al. 2018, arXiv:1807.00230.
    """

    title = "AVTS"
    colour = "#bcbd22"
    uses_second_view = True
    in_sync = True
    supports_micro_batches = False  # in a part of a batch there are fewer negatives
    shares_batch_norm = True
    heads: ClassVar = {"video": "video_projector", "audio": "audio_projector"}

    def __init__(self, config: Pretrain, videos: int, classes: int):
        super().__init__(config, videos, classes)
        norm, dim = config.xid.projector_batch_norm, config.xid.embedding_dim
        self.video_projector = Projector(self.video_encoder.features, dim, batch_norm=norm)
        self.audio_projector = Projector(self.audio_encoder.features, dim, batch_norm=norm)

    def beyond(self, distance: Tensor) -> Tensor:
        """Mean squared hinge loss of distances below the margin."""
        return F.relu(self.config.peers.margin - distance).square().mean()

    def forward(self, batch: Batch, progress: float) -> Terms:
        """Loss, its three parts, and the mean distance of pairs that belong together."""
        if batch.second_view is None:
            raise ValueError("avts needs batches with a second clip of each video")
        with self.autocast(batch):
            both = torch.cat([batch.frames, batch.second_view])  # one batch for BatchNorm
            frames = self.video_projector(self.video_encoder(both))
            a = self.audio_projector(self.audio_encoder(batch.audio))
        frames, a = (F.normalize(z, dim=1) for z in at_least_float(frames, a))
        (v, late), video = frames.chunk(2), gather_rows(batch.video_index)
        self.record(video=v, audio=a)
        v, late, a = map(whole_batch, (v, late, a))
        own = F.pairwise_distance(v, a)
        easy = self.beyond(torch.cdist(v, a)[video[:, None] != video])
        hard = self.beyond(F.pairwise_distance(late, a))
        share = self.config.peers.hard_share if progress >= 0.5 else 0.0
        positive = own.square().mean()
        loss = (positive + (1 - share) * easy + share * hard) / 2
        terms = {"positive": positive, "easy": easy, "hard": hard, "distance_own": own.mean()}
        return {"loss": loss, **terms}
