"""Audio features of whole soundtracks, as the released code retrieved with.

Shapes: V videos, F features.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from avnb.bars import tqdm
from avnb.data.decoding import read_soundtrack
from avnb.data.manifest import Manifest
from avnb.evaluation.encoder_source import EncoderSource
from avnb.evaluation.feature_store import FeatureWriter, mapped, whole
from avnb.evaluation.features import FrozenEncoders, device, encoders_key, training_part
from avnb.files import locked
from avnb.training import checkpoint
from avnb.values import digest

BLOCK = 16  # videos that an interrupted extraction repeats at most


def soundtrack_features(
    sources: Sequence[EncoderSource], manifest: Manifest, cache: Path
) -> list[Tensor]:
    """Features [V, 1, F] of each video's whole audio under the audio encoder of each source.

    The peak is that of the whole video. F is 0 for an encoder without audio. Kept in `cache`.

    Raises:
        DecodeError: when a video of the manifest can no longer be read.
    """
    training = training_part(manifest)
    return [one_source(source, manifest, training, cache) for source in sources]


def one_source(
    source: EncoderSource, manifest: Manifest, training: Manifest, cache: Path
) -> Tensor:
    """The features of one source, encoded now if they are not there."""
    if source.checkpoint is None:
        return torch.empty(len(manifest), 1, 0)
    key = [encoders_key(source), manifest.digest, training.digest, checkpoint.FORMAT]
    folder = cache / f"{manifest.name}-soundtracks-{digest(key)}"
    with locked(folder):
        if not whole(folder):
            encoders = FrozenEncoders(source, training).to(device())
            width = encoders.widths(audio=True)["audio"]
            with FeatureWriter(folder, len(manifest), {"audio": (1, width)}, BLOCK) as writer:
                fill(encoders, manifest, writer)
                writer.finish({"encoders": key})
    return mapped(folder / "audio.npy")


@torch.inference_mode()
def fill(encoders: FrozenEncoders, manifest: Manifest, writer: FeatureWriter) -> None:
    """Encode the videos that are missing, one after the other: no two are of one length."""
    transform, encoder = encoders.transform.audio, encoders.audio_encoder
    if transform is None or encoder is None:
        raise ValueError("no mel band statistics: name the videos to take them from")
    hz, title = encoders.source.config.clip.audio_hz, f"{manifest.name}, soundtracks"
    videos = manifest.videos[writer.done :]
    for video in tqdm(videos, title, len(manifest), initial=writer.done, unit="video"):
        path = manifest.path(video)
        wave = read_soundtrack(path, hz, seconds=video.seconds, start=video.start)
        feature = encoder(transform(torch.from_numpy(wave)[None].to(device())))
        writer.add({"audio": feature.cpu()[:, None]})
