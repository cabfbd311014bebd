"""`in_batch`: video and audio find each other among the clips of a batch, without memory banks."""

from typing import ClassVar

import torch
import torch.nn.functional as F

from avnb.config import Pretrain
from avnb.data.clips import Batch
from avnb.distributed import gather_rows, whole_batch
from avnb.models.encoders import Projector
from avnb.models.losses import at_least_float
from avnb.models.methods.base import Method, Terms, cross_modal_terms


class InBatchContrast(Method):
    r"""InfoNCE in both directions, with the other videos of the whole batch as negatives.

        L = -1/2B sum_i ( log softmax_j( v_i a_j / tau ) + log softmax_j( a_i v_j / tau ) ) at j = i

    As Radford et al. 2021, arXiv:2103.00020 (CLIP), with a fixed temperature; other clips of the
    same video are left out of the sums, because they are no negatives.
    """

    title = "In-batch"
    colour = "#4b6a9b"
    supports_micro_batches = False  # in a part of a batch there are fewer negatives
    shares_batch_norm = True
    heads: ClassVar = {"video": "video_projector", "audio": "audio_projector"}

    def __init__(self, config: Pretrain, videos: int, classes: int):
        super().__init__(config, videos, classes)
        self.video_projector, self.audio_projector = (
            Projector(
                encoder.features,
                config.xid.embedding_dim,
                batch_norm=config.xid.projector_batch_norm,
            )
            for encoder in (self.video_encoder, self.audio_encoder)
        )

    def forward(self, batch: Batch, progress: float) -> Terms:
        """Loss, its two directions, and mean cosines with positives and negatives."""
        with self.autocast(batch):
            v = self.video_projector(self.video_encoder(batch.frames))
            a = self.audio_projector(self.audio_encoder(batch.audio))
        v, a = (F.normalize(z, dim=1) for z in at_least_float(v, a))
        self.record(video=v, audio=a)
        v, a, video = whole_batch(v), whole_batch(a), gather_rows(batch.video_index)
        cosine, own = v @ a.T, torch.arange(len(video), device=video.device)
        same = (video[:, None] == video) & (own[:, None] != own)
        logits = (cosine / self.config.xid.temperature).masked_fill(same, -torch.inf)
        v_to_a, a_to_v = F.cross_entropy(logits, own), F.cross_entropy(logits.T, own)
        other = cosine[video[:, None] != video].mean()
        return cross_modal_terms(v_to_a, a_to_v, cosine.diagonal().mean(), other)
