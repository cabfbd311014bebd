"""A method of one's own: video and audio of a clip find each other."""

import torch
import torch.nn.functional as F

from avnb.config import Pretrain
from avnb.data.clips import Batch
from avnb.models.encoders import Projector
from avnb.models.losses import at_least_float
from avnb.models.methods import Method
from avnb.models.methods.base import Terms


class InBatchContrast(Method):
    """InfoNCE; negatives are the other clips of a process's share."""

    title = "In-batch contrast"
    colour = "#56b4e9"
    # In a part of a batch there are fewer negatives.
    supports_micro_batches = False
    temperature = 0.1

    def __init__(self, config: Pretrain, videos: int, classes: int):
        super().__init__(config, videos, classes)
        self.video_projector = Projector(self.video_encoder.features, 64)
        self.audio_projector = Projector(self.audio_encoder.features, 64)

    def forward(self, batch: Batch, progress: float) -> Terms:
        """Cross-entropy of both directions, and how often it is right."""
        with self.autocast(batch):
            v = self.video_projector(self.video_encoder(batch.frames))
            a = self.audio_projector(self.audio_encoder(batch.audio))
        v, a = (F.normalize(z, dim=1) for z in at_least_float(v, a))
        self.record(video=v, audio=a)
        cosine = v @ a.T  # [B, B]
        own = torch.arange(len(cosine), device=cosine.device)
        logits = cosine / self.temperature
        v_to_a = F.cross_entropy(logits, own)
        a_to_v = F.cross_entropy(logits.T, own)
        right = (cosine.argmax(1) == own).float().mean()
        return {"loss": (v_to_a + a_to_v) / 2, "accuracy": right}
