"""Mean and standard deviation of each mel band, over the audio of a manifest."""

import json

import torch

from avnb.bars import tqdm
from avnb.config import Pretrain, digest
from avnb.data.batch_transform import MelStatistics
from avnb.data.clips import Sampling, VideoClips
from avnb.data.loader import AUTO, ClipLoader, video_blocks
from avnb.data.manifest import Manifest
from avnb.data.spectrograms import AudioTransform
from avnb.files import read_json, write_text


def mel_statistics(manifest: Manifest, run: Pretrain, *, workers: int = AUTO) -> MelStatistics:
    """Mean and standard deviation of each mel band over the videos that have audio.

    From one clip a video, not augmented; stored beside the manifest.

    Raises:
        ValueError: when no video has audio.
    """
    audible = manifest.with_audio()
    if not audible.videos:
        raise ValueError(f"no video of {manifest.name} in {manifest.folder} has an audio stream")
    key = {"data": audible.digest, "clip": run.clip, "form": run.spectrogram, "seed": run.seed}
    file = manifest.where / f"bands-{digest(key)}.json"
    if file.exists():
        stored = read_json(file, "statistics of mel bands")
        return stored["mean"], stored["std"]
    mels, n = run.spectrogram.mels, len(audible)
    transform = AudioTransform(run.clip, run.spectrogram, ([0.0] * mels, [1.0] * mels))
    clip = Sampling(clip=run.clip, count=1, place="random", augment=run.augment, video=False)
    plan = video_blocks(range(n), 1, 1)
    loader = ClipLoader(
        VideoClips(audible, clip, seed=run.seed), [(0, plan)], size=1, workers=workers
    )
    columns, total, squares = 0, torch.zeros(mels).double(), torch.zeros(mels).double()
    for batch in tqdm(loader, total=n, desc="mel band statistics", unit="video"):
        x = transform.log_mel(batch.audio).double()[0]  # [M, t]
        columns, total, squares = columns + x.shape[1], total + x.sum(1), squares + (x**2).sum(1)
    mean = total / columns
    std = (squares / columns - mean**2).clamp_min(0).sqrt().clamp_min(1e-3)  # of a constant band
    write_text(file, json.dumps({"mean": mean.tolist(), "std": std.tolist()}))
    return mean.tolist(), std.tolist()
