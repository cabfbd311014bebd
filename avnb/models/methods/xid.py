"""`xid`: cross-modal instance discrimination, with memory banks of one row per video."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avnb import distributed
from avnb.config import Pretrain
from avnb.data.clips import Batch
from avnb.models.encoders import Projector
from avnb.models.losses import at_least_float, info_nce, rince
from avnb.models.methods.base import Method, Terms, cross_modal_terms, derive_seed


class MemoryBank(nn.Module):
    """Unit vectors [videos, D], updated by momentum (thesis 3.1).

    A buffer, not a parameter: it is saved in checkpoints but not optimised, and all processes hold
    the same copy because each of them applies the whole batch.
    """

    rows: Tensor

    def __init__(self, videos: int, dim: int, *, momentum: float, seed: int):
        super().__init__()
        self.momentum = momentum
        start = torch.randn(videos, dim, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("rows", F.normalize(start, dim=1))

    def similarities(self, z: Tensor, video: Tensor, neg: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine of z [B, D] with its video's row [B] and with the rows `neg` [B, K], [B, K]."""
        return (z * self.rows[video]).sum(1), torch.einsum("bd,bkd->bk", z, self.rows[neg])

    @torch.no_grad()
    def update(self, video: Tensor, z: Tensor) -> None:
        """Move rows `video` [B] towards the embeddings `z` [B, D] and normalise them.

        A video that occurs twice in a batch moves towards the mean of its embeddings, in whichever
        order the device writes. No shape depends on the values of `video`: nothing waits for them.
        """
        same = video[:, None] == video  # [B, B]
        first = same.int().argmax(1)  # duplicates write the very same row
        # In double precision the order of summation does not matter, and TF32 is not used.
        mean = (same.double() @ z.double() / same.sum(1, keepdim=True))[first].to(self.rows.dtype)
        mixed = self.momentum * self.rows[video] + (1 - self.momentum) * mean
        self.rows[video] = F.normalize(mixed, dim=1)


class CrossModalDiscrimination(Method):
    """xID: identify the audio of a clip among that of other videos, and vice versa.

    Thesis 3.1, eq. 3.3; Morgado et al. 2021, arXiv:2004.12943, with RINCE for InfoNCE.
    """

    title = "xID"
    colour = "#0b6e99"
    heads: ClassVar = {"video": "video_projector", "audio": "audio_projector"}

    def __init__(self, config: Pretrain, videos: int, classes: int):
        super().__init__(config, videos, classes)
        if videos < 2:
            raise ValueError(f"xid needs two videos to tell apart, got {videos}")
        self.videos, dim = videos, config.xid.embedding_dim
        self.video_projector, self.audio_projector = (
            Projector(encoder.features, dim, batch_norm=config.xid.projector_batch_norm)
            for encoder in (self.video_encoder, self.audio_encoder)
        )
        momentum = config.xid.bank_momentum
        self.video_bank, self.audio_bank = (
            MemoryBank(videos, dim, momentum=momentum, seed=derive_seed(config.seed, k))
            for k in (1, 2)
        )
        self.pending: list[tuple[Tensor, Tensor, Tensor]] = []  # video, embeddings

    def negatives(self, batch: Batch) -> Tensor:
        """[B, N] rows of either bank, uniform over all videos except the clip's own.

        They are drawn for the batch of all processes at once, so that they do not depend on how it
        is divided, and on the CPU, whose generator is the same on every machine.
        """
        config, own = self.config, batch.video_index
        rng = torch.Generator().manual_seed(derive_seed(config.seed, 3, batch.step))
        size = config.optim.batch, config.xid.negatives
        drawn = torch.randint(self.videos - 1, size, generator=rng)
        other = drawn[batch.offset : batch.offset + len(batch)]
        if own.is_cuda:
            other = other.pin_memory()  # else the copy waits for the device
        other = other.to(own.device, non_blocking=True)
        return other + (other >= own[:, None])

    def contrast(self, pos: Tensor, neg: Tensor, progress: float) -> Tensor:
        """The loss of the cosines pos [B] and neg [B, N]."""
        c = self.config.xid
        pos, neg = pos / c.temperature, neg / c.temperature
        if c.xid_loss == "info_nce":
            return info_nce(pos, neg)
        return rince(pos, neg, q=c.q_at(progress), lam=c.lam)

    def forward(self, batch: Batch, progress: float) -> Terms:
        """As `discriminate`; while training, the embeddings wait for the update of the banks."""
        with self.autocast(batch):
            v = self.video_projector(self.video_encoder(batch.frames))
            a = self.audio_projector(self.audio_encoder(batch.audio))
        v, a = (F.normalize(z, dim=1) for z in at_least_float(v, a))  # [B, D]
        self.record(video=v, audio=a)
        if self.training:
            self.pending.append((batch.video_index, v.detach(), a.detach()))
        return self.discriminate(v, a, batch, progress)

    def discriminate(self, v: Tensor, a: Tensor, batch: Batch, progress: float) -> Terms:
        """Loss, its two directions, and mean cosines with positives and negatives."""
        neg = self.negatives(batch)
        pos_v, neg_v = self.audio_bank.similarities(v, batch.video_index, neg)
        pos_a, neg_a = self.video_bank.similarities(a, batch.video_index, neg)
        v_to_a = self.contrast(pos_v, neg_v, progress)
        a_to_v = self.contrast(pos_a, neg_a, progress)
        own, other = (pos_v.mean() + pos_a.mean()) / 2, (neg_v.mean() + neg_a.mean()) / 2
        return cross_modal_terms(v_to_a, a_to_v, own, other)

    def after_step(self) -> None:
        """Update the banks with the embeddings of all processes."""
        columns = zip(*self.pending, strict=True)
        video, v, a = (distributed.gather_rows(torch.cat(parts)) for parts in columns)
        self.video_bank.update(video, v)
        self.audio_bank.update(video, a)
        self.pending.clear()
