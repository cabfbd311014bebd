"""Waveforms -> standardised log-mel spectrograms, batched, on any device.

Shapes: B clips, N audio samples, M mel bands, t spectrogram columns.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from avnb.config import Clip, Spectrogram
from avnb.data.transforms import AugmentParams


class AudioTransform(nn.Module):
    """Waveform [B, N] -> standardised log-mel spectrogram [B, 1, M, t].

    log10 of the mel *magnitude* (Slaney filters of equal area, floor 1e-5), standardised per mel
    band with statistics of the training set. With 128 bands of 257 bins at 16 kHz no filter is
    empty, but the lowest neighbours share a bin.

    Windows are centred on multiples of the hop, or, as in the released code, the first ends
    (window + hop) / 2 after the beginning; either way the ends are filled up by reflection.

    Args:
        clip: its sampling rate.
        form: of the spectrogram.
        mel_statistics: mean and deviation of each band.
        masks: one mask an axis, filled with each band's mean, or the released code's, filled with
            the clip's minimum.
    """

    band_mean: Tensor
    band_std: Tensor

    def __init__(
        self,
        clip: Clip,
        form: Spectrogram,
        mel_statistics: Sequence[list[float]],
        masks: str = "one",
    ):
        super().__init__()
        self.form, self.masks = form, masks
        sizes = form.fft_samples, form.window_samples, form.hop_samples
        scale: dict[str, Any] = {"n_mels": form.mels, "norm": "slaney", "mel_scale": "slaney"}
        scale["center"] = form.framing == "centred"
        self.mel = torchaudio.transforms.MelSpectrogram(clip.audio_hz, *sizes, power=1.0, **scale)
        mean, std = (torch.tensor(values)[:, None] for values in mel_statistics)
        self.register_buffer("band_mean", mean)
        self.register_buffer("band_std", std)

    def log_mel(self, wave: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """[B, N] -> [B, M, t], not standardised; silence stays silent.

        The peak is scaled to `gain`, a number or [B], in units of the form's own peak.
        """
        columns = self.form.frames(wave.shape[1])
        peak = wave.abs().amax(dim=1, keepdim=True)
        wave = torch.where(peak > 0, wave / peak.clamp_min(1e-12), wave)
        wave = wave * self.form.peak * (gain[:, None] if isinstance(gain, Tensor) else gain)
        if self.form.framing == "released":
            room = (self.form.fft_samples - self.form.hop_samples) // 2
            wave = F.pad(wave, (room, room), mode="reflect")
        mel = self.mel(wave)[..., :columns]
        return mel.clamp_min(self.form.floor).log10()

    def forward(self, wave: Tensor, params: AugmentParams | None = None) -> Tensor:
        """wave [B, N] -> [B, 1, M, t]."""
        x = self.log_mel(wave, 1.0 if params is None else params.gain)
        least = x.amin(dim=(1, 2), keepdim=True)
        fill = self.band_mean if self.masks == "one" else least
        if params is not None:
            bands, columns = (axis_mask(params.masks[:, i], x.shape[i + 1]) for i in (0, 1))
            x = torch.where(bands[:, :, None] | columns[:, None], fill, x)
        return ((x - self.band_mean) / self.band_std)[:, None]


def axis_mask(masks: Tensor, size: int) -> Tensor:
    """[B, size] bool, True where masked; begin and length [B, K, 2] are fractions of `size`."""
    begin = (masks[..., :1] * size).round()
    length = (masks[..., 1:] * size).floor()
    at = torch.arange(size, device=masks.device)
    return ((at >= begin) & (at < begin + length)).any(dim=1)
