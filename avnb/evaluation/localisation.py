"""Where in the frame, and when, the video resembles the audio: similarity maps and their score.

The maps are those of Morgado et al. 2021 (section 5 there): the head of pre-training is applied to
every place of the last feature map instead of its maximum, and each is compared with the audio.

Shapes: C clips, t x h x w places of the last feature map, F features, D dimensions.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from avnb.config import Evaluation
from avnb.data.clips import Sampling, VideoClips
from avnb.data.manifest import Manifest
from avnb.data.synthetic.scenes import Scene
from avnb.data.synthetic.world import object_boxes
from avnb.evaluation import features
from avnb.evaluation.features import EncoderSource

CLIPS = 5  # of each video, one after the other


class Embedded(NamedTuple):
    """The clips of one video: embeddings of length 1, and when their frames are shown."""

    places: np.ndarray  # [C, t, h, w, D]
    audio: np.ndarray  # [C, D]
    times: np.ndarray  # [C, T] seconds

    def cosines(self, audio: np.ndarray) -> np.ndarray:
        """Maps [C, t, h, w] of the places against audio [C, D], their own or another video's."""
        return np.einsum("cthwd,cd->cthw", self.places, audio)


def embed(
    source: EncoderSource, manifest: Manifest, config: Evaluation, rows: Iterable[int]
) -> Iterator[Embedded]:
    """Places and audio of some videos, in the space in which pre-training compared them.

    Clips are whole frames as squares; one of 32 k + 1 pixels has k + 1 places on a side, the outer
    ones at its rim. Where pre-training had no heads, they are the features themselves. ValueError
    when there is no feature map or audio encoder.
    """
    frozen = features.FrozenEncoders(source, features.training_part(manifest))
    encoders, heads = frozen.to(features.device()), source.heads()
    if not (hasattr(encoders.video_encoder, "feature_map") and encoders.audio_encoder):
        raise ValueError(f"{source.method} has no map of features, or no audio encoder")
    both = torch.nn.ModuleDict(heads if {"video", "audio"} <= heads.keys() else {})
    both.to(features.device())
    px, audio_seconds = config.localisation_px, config.retrieval_audio_seconds
    clip = features.downstream_clip(source.config, config, audio_seconds=audio_seconds)
    sampling = Sampling(clip=replace(clip, frame_px=px), count=CLIPS, place="uniform", resize_px=px)
    clips = VideoClips(manifest, sampling, seed=config.seed)
    for row in rows:
        with torch.inference_mode():
            batch = encoders.transform(clips.whole(row).to(features.device()))
            places = encoders.video_encoder.feature_map(batch.frames)  # [C, F, t, h, w]
            video = places.movedim(1, -1).flatten(0, -2)  # [C t h w, F]
            audio = encoders.audio_encoder(batch.audio)  # [C, F]
            if both:
                video, audio = both["video"](video), both["audio"](audio)  # [..., D]
            video = F.normalize(video, dim=1).unflatten(0, (CLIPS, *places.shape[2:]))
            both_embedded = video.cpu().numpy(), F.normalize(audio, dim=1).cpu().numpy()
        starts = clips.draw(0, row).starts[:, :1]  # [C, 1]
        times = starts + np.arange(clip.frames) / clip.video_fps
        yield Embedded(*both_embedded, np.mod(times, manifest.videos[row].seconds))


def inside(box: np.ndarray, x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
    """Whether points lie in a box: left, top, right, bottom."""
    left, top, right, bottom = box
    return (left <= x) & (x <= right) & (top <= y) & (y <= bottom)


def pointing(cosines: np.ndarray, times: np.ndarray, scene: Scene) -> np.ndarray:
    """The pointing game (Zhang et al. 2018, doi:10.1007/s11263-017-1059-x) in one video.

    Whether the most similar place lies on the object that is heard, whether it lies on the silent
    one, whether the middle of the frame lies on the former, and the share of the places that do:
    [4], means of clips.
    """
    scores, axes = [], [np.linspace(0, 1, size) for size in cosines.shape[:-3:-1]]
    x, y = np.meshgrid(*axes)  # [h, w]
    for cosine, at in zip(cosines, times, strict=True):
        peak = np.unravel_index(cosine.mean(axis=0).argmax(), x.shape)
        heard, silent = (object_boxes(scene, at, silent=i).mean(axis=0) for i in (False, True))
        hits, missed = inside(heard, x, y), inside(silent, x, y)
        scores.append([hits[peak], missed[peak], inside(heard, 0.5, 0.5), hits.mean()])
    return np.mean(scores, axis=0)
