"""Ways to pre-train: modules whose forward(batch, progress) returns named scalar terms.

`loss` is minimised; the others are logged. A method holds its encoders as `video_encoder` and
`audio_encoder`; whatever else it has (projectors, banks) is left behind after pre-training.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avnb import distributed
from avnb.config import Compute, Pretrain
from avnb.data.batch import Batch
from avnb.models.encoders import AudioEncoder, VideoEncoder
from avnb.models.heads import Expander, Projector
from avnb.models.losses import at_least_float, info_nce, rince, vicreg_terms
from avnb.models.memory_bank import MemoryBank, draw_negatives

Terms = dict[str, Tensor]


class TrainableModule(nn.Module):
    """What training asks of a module, beside its terms; a module without need leaves it as it is.

    Args:
        compute: precision of the networks.
    """

    has_unused_parameters = False  # whether there are steps in which some weights have no gradient

    def __init__(self, compute: Compute):
        super().__init__()
        self.compute = compute
        self.embedded: dict[str, list[Tensor]] = {}  # [B, D] each, of the step's parts

    def remember(self, **embedded: Tensor) -> None:
        """Keep the embeddings [B, D] of a training batch, or a part of it, for a look at health."""
        if self.training:
            for name, z in embedded.items():
                self.embedded.setdefault(name, []).append(z.detach())

    def autocast(self, batch: Batch) -> torch.autocast:
        """Networks run inside it, losses outside."""
        lower = self.compute.precision == "bf16"
        return torch.autocast(batch.video.device.type, torch.bfloat16, enabled=lower)

    def before_step(self, step: int) -> None:
        """Called when gradients are there and weights have not moved yet."""

    def after_step(self) -> None:
        """Called when weights have moved."""


class Method(TrainableModule):
    """The two encoders, initialised alike for every method.

    Args:
        run: the run's values.
        videos: rows of the training manifest.
        classes: its classes.
    """

    measures: tuple[str, ...] = ()  # what `validate` finds
    supports_micro_batches = (
        True  # whether the loss of a batch is the mean of the losses of its parts
    )

    def __init__(self, run: Pretrain, videos: int, classes: int):
        super().__init__(run.compute)
        self.run = run
        self.video_encoder, self.audio_encoder = VideoEncoder(run.width), AudioEncoder(run.width)

    @torch.no_grad()
    def validate(self, batch: Batch) -> Terms:
        """[B] measures of each clip of a validation batch, for methods that have labels."""
        raise NotImplementedError(f"{type(self).__name__} is not validated")


class Random(Method):
    """No pre-training."""


class CrossModalDiscrimination(Method):
    """xID: find the sound of a picture among those of other videos, and the reverse.

    Thesis 3.1, eq. 3.3; Morgado et al. 2021, arXiv:2004.12943, with RINCE for InfoNCE.
    """

    def __init__(self, run: Pretrain, videos: int, classes: int):
        super().__init__(run, videos, classes)
        if videos < 2:
            raise ValueError(f"xid needs two videos to tell apart, got {videos}")
        self.videos, x = videos, run.xid
        features = self.video_encoder.features
        self.video_projector = Projector(features, x.embedding_dim)
        self.audio_projector = Projector(features, x.embedding_dim)
        self.video_bank, self.audio_bank = (
            MemoryBank(
                videos, x.embedding_dim, momentum=x.bank_momentum, seed=derive_seed(run.seed, k)
            )
            for k in (1, 2)
        )
        self.fresh: list[tuple[Tensor, Tensor, Tensor]] = []  # what the banks have yet to see

    def negatives(self, batch: Batch) -> Tensor:
        """[B, N] rows of either bank; drawn for the whole batch of all processes, then divided."""
        rng = torch.Generator().manual_seed(derive_seed(self.run.seed, 3, batch.step))
        return draw_negatives(
            batch.video,
            self.videos,
            self.run.xid.negatives,
            rng,
            first=batch.first,
            whole=self.run.optim.batch,
        )

    def score(
        self, z: Tensor, bank: MemoryBank, video: Tensor, neg: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cosine of z [B, D] with its own row [B] and with the negatives' [B, N]."""
        return (z * bank.rows[video]).sum(1), torch.einsum("bd,bnd->bn", z, bank.rows[neg])

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Unit embeddings of pictures and of sounds, both [B, D] float32."""
        with self.autocast(batch):
            v = self.video_projector(self.video_encoder(batch.frames))
            a = self.audio_projector(self.audio_encoder(batch.audio))
        v, a = at_least_float(v, a)
        return F.normalize(v, dim=1), F.normalize(a, dim=1)

    def contrast(self, pos: Tensor, neg: Tensor, progress: float) -> Tensor:
        """The loss of cosines pos [B] and neg [B, N]."""
        x = self.run.xid
        pos, neg = pos / x.temperature, neg / x.temperature
        if x.xid_loss == "info_nce":
            return info_nce(pos, neg)
        return rince(pos, neg, q=x.q_at(progress), lam=x.lam)

    def forward(self, batch: Batch, progress: float) -> Terms:
        """Loss and its parts; `progress` from 0 in the first epoch to 1 in the last."""
        v, a = self.embed(batch)
        neg = self.negatives(batch)
        pos_v, neg_v = self.score(v, self.audio_bank, batch.video, neg)
        pos_a, neg_a = self.score(a, self.video_bank, batch.video, neg)
        v_to_a = self.contrast(pos_v, neg_v, progress)
        a_to_v = self.contrast(pos_a, neg_a, progress)
        self.remember(video=v, audio=a)
        if self.training:
            self.fresh.append((batch.video, v.detach(), a.detach()))
        return {
            "loss": (v_to_a + a_to_v) / 2,
            "video_to_audio": v_to_a,
            "audio_to_video": a_to_v,
            "cosine_own": (pos_v.mean() + pos_a.mean()) / 2,
            "cosine_other": (neg_v.mean() + neg_a.mean()) / 2,
        }

    def after_step(self) -> None:
        """The banks see the embeddings of all processes."""
        video, v, a = (
            distributed.gather_rows(torch.cat(part)) for part in zip(*self.fresh, strict=True)
        )
        self.video_bank.update(video, v)
        self.audio_bank.update(video, a)
        self.fresh.clear()


class AudioVisualVICReg(Method):
    """VICReg between a picture and its sound, each with its own encoder and expander.

    Thesis 3.2; Bardes et al. 2022, arXiv:2105.04906.
    """

    supports_micro_batches = False  # variances and covariances are the whole batch's

    def __init__(self, run: Pretrain, videos: int, classes: int):
        super().__init__(run, videos, classes)
        features, dim = self.video_encoder.features, run.vicreg.expander_dim
        self.video_expander = Expander(features, dim)
        self.audio_expander = Expander(features, dim)

    def regularised(self, **embedded: Tensor) -> Terms:
        """The weighted sum and its terms, of two embeddings [B, D] of each clip of a process."""
        self.remember(**embedded)
        x, y = map(distributed.whole_batch, at_least_float(*embedded.values()))
        config = self.run.vicreg
        terms = vicreg_terms(x, y, huber_delta=config.huber_delta)
        loss = (
            config.invariance_weight * terms["invariance"]
            + config.variance_weight * terms["variance"]
            + config.covariance_weight * terms["covariance"]
        )
        return {"loss": loss, **terms}

    def forward(self, batch: Batch, progress: float) -> Terms:
        """Loss and the three terms, of the whole batch on every process."""
        with self.autocast(batch):
            v = self.video_expander(self.video_encoder(batch.frames))
            a = self.audio_expander(self.audio_encoder(batch.audio))
        return self.regularised(video=v, audio=a)

    def before_step(self, step: int) -> None:
        """Now and then, as `audio_rest_prob` says, the audio path rests (thesis 4.2.3)."""
        share = self.run.vicreg.audio_rest_prob
        if share and np.random.default_rng([self.run.seed, 4, step]).random() < share:
            for part in (self.audio_encoder, self.audio_expander):
                part.zero_grad(set_to_none=True)  # what has no gradient, Adam does not touch


class VisualVICReg(AudioVisualVICReg):
    """VICReg between two clips of one video, seconds apart, with one encoder; no sound."""

    def __init__(self, run: Pretrain, videos: int, classes: int):
        super().__init__(run, videos, classes)
        del self.audio_expander
        self.audio_encoder.requires_grad_(False)  # stays as it was initialised

    def forward(self, batch: Batch, progress: float) -> Terms:
        """Loss and the three terms, of the whole batch on every process."""
        if batch.second_view is None:
            raise ValueError("vicreg_v needs batches with a second clip of each video")
        with self.autocast(batch):
            z = self.video_expander(
                self.video_encoder(torch.cat([batch.frames, batch.second_view]))
            )
        first, second = z.chunk(2)
        return self.regularised(first=first, second=second)


class LateFusion(Method):
    """Supervised: one linear layer on the features of picture and sound, side by side."""

    measures = ("validation_loss", "validation_accuracy")

    def __init__(self, run: Pretrain, videos: int, classes: int):
        super().__init__(run, videos, classes)
        both = self.video_encoder.features + self.audio_encoder.features
        self.classifier = nn.Linear(both, classes)

    def logits(self, batch: Batch) -> Tensor:
        """[B, classes], not in half precision."""
        with self.autocast(batch):
            v, a = self.video_encoder(batch.frames), self.audio_encoder(batch.audio)
            self.remember(video=v, audio=a)
            (logits,) = at_least_float(self.classifier(torch.cat([v, a], dim=1)))
        return logits

    def forward(self, batch: Batch, progress: float) -> Terms:
        """Cross-entropy, and the share of clips classified right."""
        logits = self.logits(batch)
        right = (logits.argmax(1) == batch.label).float().mean()
        return {"loss": F.cross_entropy(logits, batch.label), "accuracy": right}

    @torch.no_grad()
    def validate(self, batch: Batch) -> Terms:
        """[B] cross-entropy, and 1 where a clip is classified right."""
        logits = self.logits(batch)
        return {
            "validation_loss": F.cross_entropy(logits, batch.label, reduction="none"),
            "validation_accuracy": (logits.argmax(1) == batch.label).float(),
        }


METHODS: dict[str, type[Method]] = {
    "xid": CrossModalDiscrimination,
    "vicreg_av": AudioVisualVICReg,
    "vicreg_v": VisualVICReg,
    "supervised": LateFusion,
    "random": Random,
}


def derive_seed(*parts: int) -> int:
    """One seed out of several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def build(run: Pretrain, videos: int, classes: int) -> Method:
    """The method of a run, initialised from its seed alone; global generators stay as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(run.seed, 0))
        return METHODS[run.method](run, videos, classes)
