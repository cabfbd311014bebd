"""A video encoder that learns classes (thesis 4.2.2).

Shapes: B clips, T frames of S x S pixels, F features.
"""

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avnb.config import Finetune
from avnb.data.clips import Batch
from avnb.models.encoders import VideoEncoder
from avnb.models.losses import at_least_float
from avnb.models.methods.base import Terms, TrainableModule, derive_seed
from avnb.models.own import build_video_encoder
from avnb.training import checkpoint


class Classifier(TrainableModule):
    """Features of the video, dropout, a linear layer: [B, 3, T, S, S] -> [B, classes].

    While progress is 0, the warm-up, only the layer learns. The encoder is then in evaluation
    mode, as in the linear probe: neither its weights nor its batch statistics change, so that
    tuning starts from the very encoder that was pre-trained.
    """

    has_unused_parameters = shares_batch_norm = True
    uses_audio = False

    def __init__(self, encoder: VideoEncoder, classes: int, config: Finetune):
        super().__init__(config)
        self.video_encoder = encoder.requires_grad_(True)
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(config.seed, 5))
            self.head = nn.Linear(encoder.features, classes)

    def dropout_mask(self, batch: Batch) -> Tensor:
        """[B, F] factors of dropout: 0, or 1 / (1 - p).

        Drawn from seed and step for the batch of all processes, then divided: the same on any
        number of processes, and after an interruption.
        """
        config = self.config
        rng = torch.Generator().manual_seed(derive_seed(config.seed, 6, batch.step))
        drawn = torch.rand(config.optim.batch, self.head.in_features, generator=rng)
        kept = drawn[batch.offset : batch.offset + len(batch)] >= config.dropout
        return kept.to(batch.frames.device) / (1 - config.dropout)

    def logits(self, frames: Tensor) -> Tensor:
        """[B, classes] without dropout, of transformed frames [B, 3, T, S, S]."""
        return self.head(self.video_encoder(frames))

    def forward(self, batch: Batch, progress: float) -> Terms:
        """Cross-entropy, and the fraction of clips classified correctly, of a training batch."""
        warmup = progress == 0
        self.video_encoder.train(not warmup)
        with self.autocast(batch):
            with torch.set_grad_enabled(not warmup):
                features = self.video_encoder(batch.frames)
            (logits,) = at_least_float(self.head(features * self.dropout_mask(batch)))
        correct = (logits.argmax(1) == batch.label).float().mean()
        return {"loss": F.cross_entropy(logits, batch.label), "accuracy": correct}


def load_classifier(path: str | Path, *, backbone: str = "") -> Classifier:
    """A fine-tuned classifier, frozen in evaluation mode; errors are those of `checkpoint.load`.

    `backbone` is a video encoder of the user's own that the file may name.
    """
    metadata, content = checkpoint.load(path, "finetuning")
    name, width = metadata.encoder["backbone"], metadata.encoder["width"]
    checkpoint.check_backbone(path, name, backbone)
    config, classes = Finetune.from_flat(**metadata.config), len(metadata.classes)
    video = partial(build_video_encoder, name, width)
    return checkpoint.frozen(path, lambda: Classifier(video(), classes, config), content["model"])
