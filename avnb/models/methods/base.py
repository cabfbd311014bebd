"""What training expects of a module, and what all pre-training methods have in common."""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from avnb.config import Pretrain
from avnb.data.clips import Batch
from avnb.models.encoders import AudioEncoder, scale_residuals
from avnb.models.own import build_video_encoder

Terms = dict[str, Tensor]
Log = list[dict[str, float]]


def cross_modal_terms(v_to_a: Tensor, a_to_v: Tensor, own: Tensor, other: Tensor) -> Terms:
    """Loss, its two directions, and mean cosines with positives and with negatives."""
    return {
        "loss": (v_to_a + a_to_v) / 2,
        "video_to_audio": v_to_a,
        "audio_to_video": a_to_v,
        "cosine_own": own,
        "cosine_other": other,
    }


def derive_seed(*parts: int) -> int:
    """One seed out of several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


class TrainableModule(nn.Module):
    """A module whose forward(batch, progress) returns named scalar terms.

    `loss` is minimised, the other terms are logged; `progress` runs from 0 in the first epoch to
    1 in the last. `config` has the values of the run, among them `optim` and `compute`.
    """

    uses_audio: ClassVar[bool] = True
    uses_labels: ClassVar[bool] = False  # then it can learn from videos that have no audio
    uses_second_view: ClassVar[bool] = False  # a second clip of each video in the batch
    in_sync: ClassVar[bool] = False  # frames and audio of a clip start at the same moment
    is_trained: ClassVar[bool] = True
    supports_micro_batches: ClassVar[bool] = True  # the loss is a mean over the batch's parts
    shares_batch_norm: ClassVar[bool] = False  # BatchNorm is over all GPUs by default
    has_unused_parameters: ClassVar[bool] = False  # whether some steps leave weights untouched
    validation_metrics: ClassVar[tuple[str, ...]] = ()  # of `validate`; () without validation

    def __init__(self, config: Any):
        super().__init__()
        self.config = config
        self.embeddings: dict[str, list[Tensor]] = {}  # [B, D] of each micro-batch of a step

    def record(self, **embeddings: Tensor) -> None:
        """Keep the embeddings [B, D] of a training (micro-)batch for the collapse metrics."""
        if self.training:
            for name, z in embeddings.items():
                self.embeddings.setdefault(name, []).append(z.detach())

    def autocast(self, batch: Batch) -> torch.autocast:
        """Autocast of the networks; losses are computed outside of it."""
        lower = self.config.compute.precision == "bf16"
        return torch.autocast(batch.label.device.type, torch.bfloat16, enabled=lower)

    def before_step(self, step: int) -> None:
        """Called after the backward pass, before the optimiser's step."""

    def after_step(self) -> None:
        """Called after the optimiser's step."""

    def validate(self, batch: Batch) -> Terms:
        """[B] metrics of each clip of a validation batch, by the names in `validation_metrics`."""
        raise NotImplementedError(f"{type(self).__name__} is not validated")

    @staticmethod
    def is_finished(config: Any, log: Log) -> bool:
        """Whether training with this log of epochs is complete."""
        return len(log) >= config.optim.epochs


class Method(TrainableModule):
    """A pre-training method: the two encoders, initialised alike, and what else the loss needs.

    A method of your own is a subclass with a `forward`; the class attributes tell the trainer and
    the figures about it. Only `video_encoder` and `audio_encoder` are used after pre-training. It
    is built from the values of the run, and the numbers of training videos and of their classes.
    """

    title: ClassVar[str] = ""  # in tables and figures; '' for the class's name
    colour: ClassVar[str] = ""  # in figures, as #rrggbb; '' to have one chosen
    heads: ClassVar[dict[str, str]] = {}  # attribute that maps features to the loss, by modality

    def __init__(self, config: Pretrain, videos: int, classes: int):
        super().__init__(config)
        self.video_encoder = build_video_encoder(config.backbone, config.width)
        self.audio_encoder = AudioEncoder(config.width)
        scale_residuals(self.video_encoder, config.residual_scale)
        if not self.uses_audio:
            self.audio_encoder.requires_grad_(False)  # stays as it was initialised


class Random(Method):
    """Encoders as they are initialised: what every other method is compared with."""

    title = "Random"
    colour = "#8a8f98"
    is_trained = False

    @staticmethod
    def is_finished(config: Pretrain, log: Log) -> bool:
        """Always: there is nothing to train."""
        return True
