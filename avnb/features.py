"""Frozen encoders over a manifest, once: features on disk, from which all else is arithmetic.

Shapes: V videos, C clips of each, F features (8 * width).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from avnb import checkpoint
from avnb.batches import Arrivals, Sampling, VideoClips, worth_starting
from avnb.config import Pretrain, digest
from avnb.files import locked
from avnb.pretrain import bands
from avnb.videos import Manifest
from avnb.views import PictureView, SoundView


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of the clips of each video, with the labels of the videos."""

    video: Tensor  # [V, C, F] of the pictures
    audio: Tensor  # [V, C, F] of the sounds; [V, C, 0] when none was wanted
    label: Tensor  # [V]


class Frozen(torch.nn.Module):
    """The encoders of a checkpoint with their views, in evaluation mode.

    A released checkpoint lacks the statistics that its sounds were standardised with. Those of
    the videos `heard` stand in for them; without such videos it can only see.
    """

    def __init__(self, path: Path, heard: Manifest | None = None, *, workers: int = 2):
        super().__init__()
        self.video_encoder, self.audio_encoder, self.about = checkpoint.encoders(path)
        self.run = Pretrain.from_flat(**self.about["run"])
        statistics = self.about["bands"]
        if statistics is None and heard is not None:
            count = len(heard.with_sound())
            print(f"{path} holds no mel band statistics: taken from {count} videos of {heard.name}")
            statistics = bands(heard, self.run, workers=workers)
        self.picture_view, self.sound_view = PictureView(), None
        if statistics is not None:
            self.sound_view = SoundView(self.run.clip, self.run.spectrogram, statistics)
        self.eval()

    def see(self, frames: Tensor) -> Tensor:
        """uint8 [B, 3, T, S, S] -> [B, F]."""
        return self.video_encoder(self.picture_view(frames))

    def hear(self, wave: Tensor) -> Tensor:
        """[B, N] -> [B, F]; ValueError when the statistics of the mel bands are not known."""
        if self.sound_view is None:
            raise ValueError("no mel band statistics: name the videos to take them from (`heard`)")
        return self.audio_encoder(self.sound_view(wave))


def training_part(manifest: Manifest) -> Manifest:
    """The training videos of the data set that `manifest` is a part of."""
    return Manifest.load(manifest.where).split("train")


def extract(
    path: Path, manifest: Manifest, sampling: Sampling, cache: Path, *,
    seed: int, workers: int = 2, title: str = "features",
) -> Features:  # fmt: skip
    """Features of every video under the encoders of the checkpoint `path`.

    Kept in `cache` under a name made of the checkpoint, the data and the sampling, and read back
    when asked for again. Encoders are in evaluation mode: nothing in them changes. Where the
    checkpoint holds no statistics of the mel bands and sound is wanted, they are taken from the
    training videos of the data set, and a line says so.

    Raises:
        CheckpointError: when `path` is not a checkpoint.
        DecodeError: when a video of the manifest can no longer be read.
    """
    stat, heard = path.stat(), training_part(manifest) if sampling.sound else None
    key = {
        "checkpoint": [str(path.resolve()), stat.st_mtime_ns, stat.st_size],
        "data": manifest.digest, "heard": heard and heard.digest,
        "sampling": sampling, "seed": seed, "format": checkpoint.FORMAT,
    }  # fmt: skip
    file = cache / f"{manifest.name}-{digest(key)}.safetensors"
    if not manifest.videos:
        raise ValueError(f"no video of {manifest.name} in {manifest.folder} can be used here")
    with locked(cache):
        if file.exists():
            return load(file)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        frozen = Frozen(path, heard, workers=workers).to(device)
        store(file, forward(frozen, manifest, sampling, device, seed, workers, title), key)
    return load(file)


def load(file: Path) -> Features:
    """Read back what `store` wrote."""
    with safe_open(file, framework="pt") as tensors:
        return Features(**{name: tensors.get_tensor(name) for name in ("video", "audio", "label")})


@torch.inference_mode()
def forward(
    frozen: Frozen, manifest: Manifest, sampling: Sampling, device: torch.device,
    seed: int, workers: int, title: str,
) -> Features:  # fmt: skip
    """All features, video by video."""
    dataset = VideoClips(manifest, sampling, seed=seed)
    every = tuple(range(sampling.count))
    items = [(0, row, every) for row in range(len(manifest))]
    picture, sound = [], []
    clips = Arrivals(dataset, items, workers=worth_starting(workers, len(items)))
    for batch in tqdm(clips, total=len(items), desc=title, unit="video"):
        seen = batch.to(device)
        picture.append(frozen.see(seen.frames).cpu())
        if sampling.sound:
            sound.append(frozen.hear(seen.sound).cpu())
    video = torch.stack(picture)
    audio = torch.stack(sound) if sound else video[..., :0].clone()
    return Features(video=video, audio=audio, label=torch.tensor(dataset.labels))


def store(file: Path, features: Features, about: dict[str, Any]) -> None:
    """Write aside and rename; the file says what it was made of."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    tensors = {"video": features.video, "audio": features.audio, "label": features.label}
    made_of = json.dumps(about, default=lambda value: vars(value))
    save_file({k: v.contiguous() for k, v in tensors.items()}, partial, {"about": made_of})
    partial.replace(file)
