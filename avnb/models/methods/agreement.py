"""`avid_cma` and `r_xid`: what the two memory banks agree on decides positives, or trust."""

import torch
from torch import Tensor

from avnb import distributed
from avnb.config import Pretrain
from avnb.data.clips import Batch
from avnb.models.losses import info_nce, log_total
from avnb.models.methods.base import Terms, cross_modal_terms
from avnb.models.methods.xid import CrossModalDiscrimination, MemoryBank

CHUNK = 1024  # rows of a bank that are compared with all at once


class CrossModalAgreement(CrossModalDiscrimination):
    r"""AVID, and discrimination within each modality of videos that are similar in both.

    The positives P_i of video i are the videos j with the largest min( v_i v_j, a_i a_j ), by the
    rows of both banks. To xID's InfoNCE across modalities is added, with weight w,

        1/2 mean_{j in P_i} ( NCE(v_i; video row j) + NCE(a_i; audio row j) )

    Morgado et al. 2021, arXiv:2004.12943, who begin it from a trained AVID: here in the second half
    of a run, and with InfoNCE where their code estimates by binary NCE. Positives are found anew at
    the beginning of every epoch, and stored with the run; across modalities they may be negatives.
    """

    title = "AVID-CMA"
    colour = "#9467bd"
    positives: Tensor
    found_at: Tensor

    def __init__(self, config: Pretrain, videos: int, classes: int):
        super().__init__(config, videos, classes)
        count = min(config.peers.positives, max(1, (videos - 1) // 2))  # negatives are left
        self.register_buffer("positives", torch.zeros(videos, count, dtype=torch.long))
        self.register_buffer("found_at", torch.tensor(-1.0, dtype=torch.double))

    def contrast(self, pos: Tensor, neg: Tensor, progress: float) -> Tensor:
        """InfoNCE of the cosines pos [B] and neg [B, N]."""
        return info_nce(pos / self.config.xid.temperature, neg / self.config.xid.temperature)

    @torch.no_grad()
    def find_positives(self) -> None:
        """Fill `positives` [videos, P] from the banks, which all processes have alike."""
        v, a = self.video_bank.rows, self.audio_bank.rows
        for begin in range(0, len(v), CHUNK):
            part = slice(begin, begin + CHUNK)
            alike = torch.minimum(v[part] @ v.T, a[part] @ a.T)
            alike[torch.arange(len(alike)), torch.arange(len(alike)) + begin] = -torch.inf
            self.positives[part] = alike.topk(self.positives.shape[1]).indices

    def within(self, z: Tensor, bank: MemoryBank, positives: Tensor, neg: Tensor) -> Tensor:
        """Mean NCE of embeddings z [B, D] with each of their positives [B, P] of the same bank.

        Negatives [B, N] that are positives are left out.
        """
        cosine = torch.einsum("bd,bkd->bk", z, bank.rows[torch.cat([positives, neg], dim=1)])
        pos, others = cosine.split([positives.shape[1], neg.shape[1]], dim=1)
        wrong = (neg[:, :, None] == positives[:, None]).any(2)
        others = others.masked_fill(wrong, -torch.inf)
        return torch.stack([self.contrast(p, others, 0.0) for p in pos.unbind(1)]).mean()

    def discriminate(self, v: Tensor, a: Tensor, batch: Batch, progress: float) -> Terms:
        """As of xID; from the middle of the run on also `agreement`, its second part."""
        terms = super().discriminate(v, a, batch, progress)
        if progress < 0.5:
            return {**terms, "agreement": torch.zeros_like(terms["loss"])}
        if self.training and self.found_at != progress:
            self.find_positives()
            self.found_at.fill_(progress)
        neg, positives = self.negatives(batch), self.positives[batch.video_index]
        parts = (v, self.video_bank), (a, self.audio_bank)
        agreement = sum(self.within(*part, positives, neg) for part in parts) / 2
        loss = terms["loss"] + self.config.peers.agreement_weight * agreement
        return {**terms, "loss": loss, "agreement": agreement}


class RobustDiscrimination(CrossModalDiscrimination):
    r"""xID with InfoNCE in which each pair is weighted by how well its rows in the banks agree.

        w_i = w_min + (1 - w_min) Phi( (s_i - mu - delta sigma) / (sqrt(kappa) sigma) )
        L = sum_i w_i L_i / sum_i w_i

    s_i is the cosine of the video's rows, mu and sigma are its mean and deviation over all videos,
    and Phi is the standard normal CDF. The remedy for wrong pairs of Morgado et al. 2021,
    arXiv:2103.15916; their soft targets for false negatives are left out. In the first epoch, when
    the banks are random, all pairs count alike.
    """

    title = "R-xID"
    colour = "#17becf"
    supports_micro_batches = False  # weights are normalised over the whole batch

    def weights(self, video: Tensor) -> Tensor:
        """[B] of the videos with these rows."""
        c = self.config.peers
        cosine = (self.video_bank.rows * self.audio_bank.rows).sum(1)  # of all videos
        std, mean = torch.std_mean(cosine)
        z = (cosine[video] - mean - c.trust_delta * std) / (c.trust_kappa**0.5 * std)
        return c.least_trust + (1 - c.least_trust) * torch.special.ndtr(z)

    def discriminate(self, v: Tensor, a: Tensor, batch: Batch, progress: float) -> Terms:
        """As of xID, with the mean weight as `trust`."""
        neg, tau = self.negatives(batch), self.config.xid.temperature
        pos_v, neg_v = self.audio_bank.similarities(v, batch.video_index, neg)
        pos_a, neg_a = self.video_bank.similarities(a, batch.video_index, neg)
        weight = self.weights(batch.video_index) if progress > 0 else torch.ones_like(pos_v)
        share = weight / distributed.gather_rows(weight).mean() / len(weight)
        both = (pos_v, neg_v), (pos_a, neg_a)
        v_to_a, a_to_v = (
            (share * (log_total(pos / tau, others / tau) - pos / tau)).sum() for pos, others in both
        )
        own, other = (pos_v.mean() + pos_a.mean()) / 2, (neg_v.mean() + neg_a.mean()) / 2
        return cross_modal_terms(v_to_a, a_to_v, own, other) | {"trust": weight.mean()}
