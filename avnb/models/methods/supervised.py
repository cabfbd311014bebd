"""`supervised`: classification by late fusion of video and audio features."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avnb.config import Pretrain
from avnb.data.clips import Batch
from avnb.models.losses import at_least_float
from avnb.models.methods.base import Log, Method, Terms


class Supervised(Method):
    """One linear layer on the concatenated features of video and audio, trained on labels."""

    title = "Supervised"
    colour = "#d55e00"
    uses_labels = True
    validation_metrics = ("validation_loss", "validation_accuracy")

    def __init__(self, config: Pretrain, videos: int, classes: int):
        super().__init__(config, videos, classes)
        both = self.video_encoder.features + self.audio_encoder.features
        self.classifier = nn.Linear(both, classes)

    def logits(self, batch: Batch) -> Tensor:
        """[B, classes] float32."""
        with self.autocast(batch):
            v, a = self.video_encoder(batch.frames), self.audio_encoder(batch.audio)
            self.record(video=v, audio=a)
            (logits,) = at_least_float(self.classifier(torch.cat([v, a], dim=1)))
        return logits

    def forward(self, batch: Batch, progress: float) -> Terms:
        """Cross-entropy, and the fraction of clips classified correctly."""
        logits = self.logits(batch)
        correct = (logits.argmax(1) == batch.label).float().mean()
        return {"loss": F.cross_entropy(logits, batch.label), "accuracy": correct}

    def validate(self, batch: Batch) -> Terms:
        """[B] cross-entropy, and 1 where a clip is classified correctly."""
        logits = self.logits(batch)
        loss = F.cross_entropy(logits, batch.label, reduction="none")
        correct = (logits.argmax(1) == batch.label).float()
        return {"validation_loss": loss, "validation_accuracy": correct}

    @staticmethod
    def is_finished(config: Pretrain, log: Log) -> bool:
        """After the last epoch, or `patience_epochs` without better validation accuracy."""
        accuracy = [row["validation_accuracy"] for row in log]
        waited = len(accuracy) - 1 - accuracy.index(max(accuracy)) if accuracy else 0
        return len(log) >= config.optim.epochs or waited >= config.subset.patience_epochs
