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
from avnb.train import Views
from avnb.videos import Manifest


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of the clips of each video, with the labels of the videos."""

    video: Tensor  # [V, C, F] of the pictures
    audio: Tensor  # [V, C, F] of the sounds; [V, C, 0] when none was wanted
    label: Tensor  # [V]


class Frozen(torch.nn.Module):
    """The encoders of a checkpoint with their views, in evaluation mode."""

    def __init__(self, path: Path):
        super().__init__()
        self.video_encoder, self.audio_encoder, self.about = checkpoint.encoders(path)
        self.run = Pretrain.from_flat(**self.about["run"])
        self.views = Views(self.run, self.about["bands"])
        self.eval()


def extract(
    path: Path, manifest: Manifest, sampling: Sampling, cache: Path, *,
    seed: int, workers: int = 2, title: str = "features",
) -> Features:  # fmt: skip
    """Features of every video under the encoders of the checkpoint `path`.

    Kept in `cache` under a name made of the checkpoint, the data and the sampling, and read back
    when asked for again. Encoders are in evaluation mode: nothing in them changes.

    Raises:
        CheckpointError: when `path` is not a checkpoint.
        DecodeError: when a video of the manifest can no longer be read.
    """
    stat = path.stat()
    key = {
        "checkpoint": [str(path.resolve()), stat.st_mtime_ns, stat.st_size],
        "data": manifest.digest, "sampling": sampling, "seed": seed, "format": checkpoint.FORMAT,
    }  # fmt: skip
    file = cache / f"{manifest.name}-{digest(key)}.safetensors"
    if not manifest.videos:
        raise ValueError(f"no video of {manifest.name} in {manifest.folder} can be used here")
    with locked(cache):
        if file.exists():
            return load(file)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        frozen = Frozen(path).to(device)
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
        picture.append(frozen.video_encoder(frozen.views.picture(seen.frames)).cpu())
        if sampling.sound:
            sound.append(frozen.audio_encoder(frozen.views.sound(seen.sound)).cpu())
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
