"""Audio features of whole soundtracks, as the released code retrieved with.

Shapes: V videos, F features.
"""

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avnb.config import digest
from avnb.data.decoding import read_soundtrack
from avnb.data.loader import spare_workers
from avnb.data.manifest import Manifest, Video
from avnb.evaluation.encoder_source import EncoderSource
from avnb.evaluation.feature_store import FeatureWriter, mapped, whole
from avnb.evaluation.features import FrozenEncoders, device, encoders_key, training_part
from avnb.files import in_order, in_parallel, locked
from avnb.training import checkpoint

BLOCK = 16  # videos that an interrupted extraction repeats at most
CORE_SECONDS = 7e-3  # that a second of sound takes to read, about


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
    done, videos = writer.done, manifest.videos[writer.done :]
    workers = spare_workers(CORE_SECONDS * sum(video.seconds for video in videos))
    files = [(manifest.path(video), video) for video in videos]
    waves = in_parallel(partial(read, hz), files, workers=workers, title=title, done=done)
    with closing(waves):
        for wave in in_order(waves):
            feature = encoder(transform(torch.from_numpy(wave)[None].to(device())))
            writer.add({"audio": feature.cpu()[:, None]})


def read(hz: int, file: tuple[Path, Video]) -> np.ndarray:
    """The whole audio of a video, as `read_soundtrack` gives it."""
    path, video = file
    return read_soundtrack(path, hz, seconds=video.seconds, start=video.start)
