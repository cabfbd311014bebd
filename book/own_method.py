"""A method of one's own: a yes or a no to every pair of a video and a sound."""

import torch
import torch.nn.functional as F
from torch import nn

from avnb.config import Pretrain
from avnb.data.clips import Batch
from avnb.models.encoders import Projector
from avnb.models.losses import at_least_float
from avnb.models.methods import Method
from avnb.models.methods.base import Terms


class PairwiseSigmoid(Method):
    """Logistic regression on cosines (Zhai et al. 2023)."""

    title = "Pairwise sigmoid"
    colour = "#56b4e9"
    # In a part of a batch there are fewer pairs.
    supports_micro_batches = False

    def __init__(self, config: Pretrain, videos: int, classes: int):
        super().__init__(config, videos, classes)
        self.video_projector = Projector(self.video_encoder.features, 64)
        self.audio_projector = Projector(self.audio_encoder.features, 64)
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def forward(self, batch: Batch, progress: float) -> Terms:
        """Loss of a clip's pairs, and how often the nearest sound is its own."""
        with self.autocast(batch):
            v = self.video_projector(self.video_encoder(batch.frames))
            a = self.audio_projector(self.audio_encoder(batch.audio))
        v, a = (F.normalize(z, dim=1) for z in at_least_float(v, a))
        self.record(video=v, audio=a)
        cosine = v @ a.T  # [B, B]
        own = torch.eye(len(cosine), device=cosine.device)
        logits = self.log_scale.exp() * cosine + self.bias
        pairs = F.binary_cross_entropy_with_logits(logits, own, reduction="none")
        right = (cosine.argmax(1) == own.argmax(1)).float().mean()
        return {"loss": pairs.sum(1).mean(), "accuracy": right}
