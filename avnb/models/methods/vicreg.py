"""`vicreg_av` and `vicreg_v`: VICReg between video and audio, and between two clips of a video."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from avnb import distributed
from avnb.config import Pretrain
from avnb.data.clips import Batch
from avnb.models.encoders import Expander
from avnb.models.losses import at_least_float, vicreg_terms
from avnb.models.methods.base import Method, Terms


class AudioVisualVICReg(Method):
    """VICReg between a clip's video and its audio, each with its own encoder and expander.

    Thesis 3.2; Bardes et al. 2022, arXiv:2105.04906.
    """

    title = "VICReg-AV"
    colour = "#cc79a7"
    supports_micro_batches = False  # variances and covariances are those of the whole batch
    shares_batch_norm = True
    heads: ClassVar = {"video": "video_expander", "audio": "audio_expander"}

    def __init__(self, config: Pretrain, videos: int, classes: int):
        super().__init__(config, videos, classes)
        dim = config.vicreg.expander_dim
        self.video_expander = Expander(self.video_encoder.features, dim)
        self.audio_expander = Expander(self.audio_encoder.features, dim)

    def regularised(self, **views: Tensor) -> Terms:
        """Weighted sum and terms over all processes, from two views' embeddings [B, D] of one."""
        self.record(**views)
        x, y = map(distributed.whole_batch, at_least_float(*views.values()))
        c = self.config.vicreg
        terms = vicreg_terms(x, y, huber_delta=c.huber_delta)
        loss = sum(getattr(c, f"{name}_weight") * term for name, term in terms.items())
        return {"loss": loss, **terms}

    def forward(self, batch: Batch, progress: float) -> Terms:
        """Loss and the three terms, of the whole batch on every process."""
        with self.autocast(batch):
            v = self.video_expander(self.video_encoder(batch.frames))
            a = self.audio_expander(self.audio_encoder(batch.audio))
        return self.regularised(video=v, audio=a)

    def before_step(self, step: int) -> None:
        """With probability `audio_rest_prob`, skip the update of the audio path (thesis 4.2.3)."""
        prob = self.config.vicreg.audio_rest_prob
        if prob and np.random.default_rng([self.config.seed, 4, step]).random() < prob:
            for part in (self.audio_encoder, self.audio_expander):
                part.zero_grad(set_to_none=True)  # Adam skips parameters without a gradient


class VisualVICReg(AudioVisualVICReg):
    """VICReg between two clips of one video, seconds apart, with one encoder; no audio."""

    title = "VICReg-V"
    colour = "#009e73"
    uses_audio = False
    uses_second_view = True
    heads: ClassVar = {"video": "video_expander"}

    def __init__(self, config: Pretrain, videos: int, classes: int):
        super().__init__(config, videos, classes)
        del self.audio_expander

    def forward(self, batch: Batch, progress: float) -> Terms:
        """Loss and the three terms, of the whole batch on every process."""
        if batch.second_view is None:
            raise ValueError("vicreg_v needs batches with a second clip of each video")
        with self.autocast(batch):
            views = torch.cat([batch.frames, batch.second_view])  # one batch for BatchNorm
            first, second = self.video_expander(self.video_encoder(views)).chunk(2)
        return self.regularised(first=first, second=second)
