"""From decoded clips to the input of the networks, batched, on any device.

Frames are augmented and normalised, waveforms become standardised log-mel spectrograms.

Shapes: B clips, T frames of S x S pixels, N audio samples, M mel bands, t spectrogram columns.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from avnb.config import Clip, Pretrain, Spectrogram, digest
from avnb.data.augment import AugmentParams, jitter
from avnb.data.clips import Batch, Sampling, VideoClips
from avnb.data.loader import load
from avnb.data.manifest import Manifest
from avnb.files import locked, tqdm, write_text

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MelStatistics = Sequence[list[float]]  # mean and standard deviation of each band


class VideoTransform(nn.Module):
    """uint8 frames -> float, augmented if parameters are given, normalised as for ImageNet."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None, None])

    def forward(self, frames: Tensor, params: AugmentParams | None = None) -> Tensor:
        """frames [B, 3, T, S, S] uint8 -> [B, 3, T, S, S] float32, in the same memory format.

        Clip by clip, as each has its own order of changes.
        """
        done = frames.float().div_(255)
        if params is not None:
            for i, order in enumerate(params.order):
                clip = slice(i, i + 1)
                x = done[clip].contiguous()
                x = torch.where(params.flip[clip, None, None, None, None], x.flip(-1), x)
                done[clip] = jitter(x, params.factors[clip], order)
        return done.sub_(self.mean).div_(self.std)


class AudioTransform(nn.Module):
    """Waveform [B, N] -> standardised log-mel spectrogram [B, 1, M, t].

    log10 of the mel *magnitude* (Slaney filters of equal area, floor 1e-5), standardised per mel
    band with statistics of the training set. With 128 bands of 257 bins at 16 kHz no filter is
    empty, but the lowest neighbours share a bin.

    Windows are centred on multiples of the hop, or, as in the released code, the first ends
    (window + hop) / 2 after the beginning; either way the ends are filled up by reflection.
    """

    band_mean: Tensor
    band_std: Tensor

    def __init__(self, clip: Clip, form: Spectrogram, mel_statistics: MelStatistics):
        super().__init__()
        self.form = form
        sizes = form.fft_samples, form.window_samples, form.hop_samples
        is_centred, bins = form.framing == "centred", form.fft_samples // 2 + 1
        scale: dict[str, Any] = {"norm": "slaney", "mel_scale": "slaney", "n_stft": bins}
        self.spectrum = torchaudio.transforms.Spectrogram(*sizes, power=None, center=is_centred)
        self.mel = torchaudio.transforms.MelScale(form.mels, clip.audio_hz, **scale)
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
        spectrum = self.spectrum(wave)[..., :columns]
        mel = self.mel(torch.hypot(spectrum.real, spectrum.imag))  # as abs, but faster
        return mel.clamp_min(self.form.floor).log10()

    def forward(self, wave: Tensor, params: AugmentParams | None = None) -> Tensor:
        """wave [B, N] -> [B, 1, M, t]; what is masked gets the mean of its band."""
        x = self.log_mel(wave, 1.0 if params is None else params.gain)
        if params is not None:
            bands, columns = (axis_mask(params.masks[:, i], x.shape[i + 1]) for i in (0, 1))
            x = torch.where(bands[:, :, None] | columns[:, None], self.band_mean, x)
        return ((x - self.band_mean) / self.band_std)[:, None]


def axis_mask(masks: Tensor, size: int) -> Tensor:
    """[B, size] bool, True where masked; begin and length [B, 2] are fractions of `size`."""
    begin, length = (masks[:, :1] * size).round(), (masks[:, 1:] * size).floor()
    at = torch.arange(size, device=masks.device)
    return (at >= begin) & (at < begin + length)


class BatchTransform(nn.Module):
    """Normalises frames and turns audio into spectrograms, augmented as the batch's parameters say.

    Without statistics audio stays as it is, as for networks that use none.
    """

    def __init__(self, config: Pretrain | None = None, mel_statistics: MelStatistics | None = None):
        super().__init__()
        self.video, self.audio = VideoTransform(), None
        if config and mel_statistics:
            self.audio = AudioTransform(config.clip, config.spectrogram, mel_statistics)

    @torch.no_grad()
    def forward(self, batch: Batch) -> Batch:
        """Frames [B, 3, T, S, S] float and audio [B, 1, M, t]."""
        second, audio = batch.second_view, batch.audio
        return dataclasses.replace(
            batch,
            frames=self.video(batch.frames, batch.params),
            audio=self.audio(audio, batch.params) if self.audio and audio.shape[1] else audio,
            second_view=None if second is None else self.video(second, batch.second_params),
            params=None,
            second_params=None,
        )


def mel_statistics(manifest: Manifest, run: Pretrain) -> MelStatistics:
    """Mean and deviation of each mel band, measured once; 0 and 1 where no video has audio."""
    audible = manifest.with_audio()
    if not audible.videos:
        return [0.0] * run.spectrogram.mels, [1.0] * run.spectrogram.mels
    key = {"data": audible.digest, "clip": run.clip, "form": run.spectrogram, "seed": run.seed}
    file = manifest.where / f"mel-bands-{digest(key)}.json"
    with locked(manifest.where):
        if not file.exists():
            write_text(file, json.dumps(measured_statistics(audible, run)))
    return json.loads(file.read_text())


def measured_statistics(manifest: Manifest, run: Pretrain) -> MelStatistics:
    """Mean and standard deviation of each mel band, from one random clip a video."""
    mels, n = run.spectrogram.mels, len(manifest)
    transform = AudioTransform(run.clip, run.spectrogram, ([0.0] * mels, [1.0] * mels))
    clip = Sampling(clip=run.clip, count=1, place="random", augment=run.augment, video=False)
    plan = ([(0, video, 0)] for video in range(n))
    batches = load(VideoClips(manifest, clip, seed=run.seed), plan)
    columns, total, squares = 0, torch.zeros(mels).double(), torch.zeros(mels).double()
    for batch in tqdm(batches, total=n, desc="mel band statistics", unit="video"):
        x = transform.log_mel(batch.audio).double()[0]  # [M, t]
        columns, total, squares = columns + x.shape[1], total + x.sum(1), squares + (x**2).sum(1)
    mean = total / columns
    std = (squares / columns - mean**2).clamp_min(0).sqrt().clamp_min(1e-3)  # of a constant band
    return mean.tolist(), std.tolist()
