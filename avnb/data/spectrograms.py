"""Waveforms -> standardised log-mel spectrograms, batched, on any device.

Shapes: B clips, N audio samples, M mel bands, t spectrogram columns.
"""

from collections.abc import Sequence

import torch
import torchaudio
from torch import Tensor, nn

from avnb.config import Clip, Spectrogram
from avnb.data.transforms import AugmentParams


class AudioTransform(nn.Module):
    """Waveform [B, N] -> standardised log-mel spectrogram [B, 1, M, t].

    log10 of the mel *magnitude* (Slaney filters of equal area, floor 1e-5), standardised per mel
    band with statistics of the training set. With 128 bands of 257 bins at 16 kHz no filter is
    empty, but the lowest neighbours share a bin.
    """

    band_mean: Tensor
    band_std: Tensor

    def __init__(self, clip: Clip, form: Spectrogram, mel_statistics: Sequence[list[float]]):
        super().__init__()
        self.form = form
        sizes = form.fft_samples, form.window_samples, form.hop_samples
        scale = {"n_mels": form.mels, "norm": "slaney", "mel_scale": "slaney"}
        self.mel = torchaudio.transforms.MelSpectrogram(clip.audio_hz, *sizes, power=1.0, **scale)
        mean, std = (torch.tensor(values)[:, None] for values in mel_statistics)
        self.register_buffer("band_mean", mean)
        self.register_buffer("band_std", std)

    def log_mel(self, wave: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """[B, N] -> [B, M, t], not standardised; silence stays silent.

        The peak is scaled to `gain`, a number or [B], in units of the form's own peak.
        """
        peak = wave.abs().amax(dim=1, keepdim=True)
        wave = torch.where(peak > 0, wave / peak.clamp_min(1e-12), wave)
        wave = wave * self.form.peak * (gain[:, None] if isinstance(gain, Tensor) else gain)
        mel = self.mel(wave)[..., : self.form.frames(wave.shape[1])]
        return mel.clamp_min(self.form.floor).log10()

    def forward(self, wave: Tensor, params: AugmentParams | None = None) -> Tensor:
        """wave [B, N] -> [B, 1, M, t]; masked places hold 0, each band's mean."""
        x = self.log_mel(wave, 1.0 if params is None else params.gain)
        x = (x - self.band_mean) / self.band_std
        if params is not None:
            for axis, size in ((0, x.shape[1]), (1, x.shape[2])):
                x = x.masked_fill(axis_mask(params.masks[:, axis], size).unsqueeze(2 - axis), 0.0)
        return x[:, None]


def axis_mask(mask: Tensor, size: int) -> Tensor:
    """[B, size] bool, True where masked; begin and length [B, 2] are fractions of `size`."""
    begin = (mask[:, :1] * size).round()
    length = (mask[:, 1:] * size).floor()
    at = torch.arange(size, device=mask.device)
    return (at >= begin) & (at < begin + length)
