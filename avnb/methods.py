"""Ways to pre-train: modules whose forward(batch, progress) returns named scalar terms.

`loss` is minimised; the others are logged. A method holds its encoders as `video_encoder` and
`audio_encoder`; whatever else it has (projectors, banks) is left behind after pre-training.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avnb import dist
from avnb.bank import MemoryBank, draw_negatives
from avnb.batches import Batch
from avnb.config import Pretrain
from avnb.encoders import AudioEncoder, Projector, VideoEncoder
from avnb.losses import rince


class Random(nn.Module):
    """No pre-training: the encoders as they are initialised, the same for every method."""

    def __init__(self, run: Pretrain, videos: int):
        super().__init__()
        self.video_encoder, self.audio_encoder = VideoEncoder(run.width), AudioEncoder(run.width)


class CrossModalDiscrimination(Random):
    """xID: find the sound of a picture among those of other videos, and the reverse.

    Thesis 3.1, eq. 3.3; Morgado et al. 2021, arXiv:2004.12943, with RINCE for InfoNCE.
    """

    def __init__(self, run: Pretrain, videos: int):
        super().__init__(run, videos)
        if videos < 2:
            raise ValueError(f"xid needs two videos to tell apart, got {videos}")
        self.run, self.videos, x = run, videos, run.xid
        features = self.video_encoder.features
        self.video_projector = Projector(features, x.embedding_dim)
        self.audio_projector = Projector(features, x.embedding_dim)
        self.video_bank, self.audio_bank = (
            MemoryBank(videos, x.embedding_dim, momentum=x.bank_momentum, seed=seed_of(run.seed, k))
            for k in (1, 2)
        )

    def negatives(self, batch: Batch) -> Tensor:
        """[B, N] rows of either bank; drawn for the whole batch of all processes, then divided."""
        rng = torch.Generator().manual_seed(seed_of(self.run.seed, 3, batch.step))
        size, video = len(batch.video), dist.gather_rows(batch.video)
        drawn = draw_negatives(video, self.videos, self.run.xid.negatives, rng)
        return drawn[dist.rank() * size :][:size]

    def score(
        self, z: Tensor, bank: MemoryBank, video: Tensor, neg: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cosine of z [B, D] with its own row [B] and with the negatives' [B, N]."""
        return (z * bank.rows[video]).sum(1), torch.einsum("bd,bnd->bn", z, bank.rows[neg])

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Unit embeddings of pictures and of sounds, both [B, D] float32."""
        v = self.video_projector(self.video_encoder(batch.frames))
        a = self.audio_projector(self.audio_encoder(batch.sound))
        return F.normalize(v.float(), dim=1), F.normalize(a.float(), dim=1)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Loss and its parts; `progress` from 0 in the first epoch to 1 in the last."""
        v, a = self.embed(batch)
        neg, x = self.negatives(batch), self.run.xid
        pos_v, neg_v = self.score(v, self.audio_bank, batch.video, neg)
        pos_a, neg_a = self.score(a, self.video_bank, batch.video, neg)
        form = {"q": x.q_at(progress), "lam": x.lam}
        v_to_a = rince(pos_v / x.temperature, neg_v / x.temperature, **form)
        a_to_v = rince(pos_a / x.temperature, neg_a / x.temperature, **form)
        if self.training:
            video = dist.gather_rows(batch.video)
            self.video_bank.update(video, dist.gather_rows(v))
            self.audio_bank.update(video, dist.gather_rows(a))
        return {
            "loss": (v_to_a + a_to_v) / 2,
            "video_to_audio": v_to_a,
            "audio_to_video": a_to_v,
            "cosine_own": (pos_v.mean() + pos_a.mean()) / 2,
            "cosine_other": (neg_v.mean() + neg_a.mean()) / 2,
        }


METHODS: dict[str, type[Random]] = {"xid": CrossModalDiscrimination, "random": Random}


def seed_of(*parts: int) -> int:
    """One seed out of several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def build(run: Pretrain, videos: int) -> Random:
    """The method of a run, initialised from its seed alone; global generators stay as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(run.seed, 0))
        return METHODS[run.method](run, videos)
