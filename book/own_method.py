"""A method of one's own: a clip's video and audio find each other among those of the batch."""

import torch
import torch.nn.functional as F

from avnb.config import Pretrain
from avnb.data.clips import Batch
from avnb.models.encoders import Projector
from avnb.models.losses import at_least_float
from avnb.models.methods import Method


class InBatchContrast(Method):
    """InfoNCE whose negatives are the other clips of a process's share of the batch."""

    title = "In-batch contrast"
    colour = "#56b4e9"
    supports_micro_batches = False  # in a part of a batch there are fewer negatives
    temperature = 0.1

    def __init__(self, config: Pretrain, videos: int, classes: int):
        super().__init__(config, videos, classes)
        self.video_projector = Projector(self.video_encoder.features, 64)
        self.audio_projector = Projector(self.audio_encoder.features, 64)

    def forward(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        """Cross-entropy of both directions, and how often the own audio is the nearest."""
        with self.autocast(batch):
            v = self.video_projector(self.video_encoder(batch.frames))
            a = self.audio_projector(self.audio_encoder(batch.audio))
        v, a = (F.normalize(z, dim=1) for z in at_least_float(v, a))
        self.record(video=v, audio=a)
        cosine = v @ a.T  # [B, B]
        own = torch.arange(len(cosine), device=cosine.device)
        logits = cosine / self.temperature
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        return {"loss": loss, "accuracy": (cosine.argmax(1) == own).float().mean()}
