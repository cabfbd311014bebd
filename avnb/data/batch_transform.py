"""From a batch of decoded clips to the input of the networks."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn

from avnb.config import Pretrain
from avnb.data.batch import Batch
from avnb.data.spectrograms import AudioTransform
from avnb.data.transforms import VideoTransform

MelStatistics = Sequence[list[float]]  # mean and standard deviation of each band


class BatchTransform(nn.Module):
    """Normalises frames and turns audio into spectrograms, augmented as the batch's parameters say.

    Args:
        config: clip and spectrogram of the run.
        mel_statistics: without them audio stays as it is, as for networks that use none.
    """

    def __init__(self, config: Pretrain | None = None, mel_statistics: MelStatistics | None = None):
        super().__init__()
        self.video, self.audio = VideoTransform(), None
        if config is not None and mel_statistics is not None:
            self.audio = AudioTransform(
                config.clip, config.spectrogram, mel_statistics, config.augment.masks
            )

    @torch.no_grad()
    def forward(self, batch: Batch) -> Batch:
        """Frames [B, 3, T, S, S] float and audio [B, 1, M, t]."""
        second, audio = batch.second_view, batch.audio
        if second is not None:
            second = self.video(second, batch.second_params)
        if self.audio is not None and audio.shape[1]:
            audio = self.audio(audio, batch.params)
        return dataclasses.replace(
            batch,
            frames=self.video(batch.frames, batch.params),
            audio=audio,
            second_view=second,
            params=None,
            second_params=None,
        )
