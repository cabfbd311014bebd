"""Where in the frame, and when, the video resembles the audio: similarity maps and their score.

The maps are those of Morgado et al. 2021 (section 5 there): the head of pre-training is applied to
every place of the last feature map instead of its maximum, and each is compared with the audio.

Shapes: C clips, t x h x w places of the last feature map, F features, D dimensions.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

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


def similarity_maps(
    source: EncoderSource, manifest: Manifest, config: Evaluation, rows: Iterable[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Maps of some videos: cosines of each clip's places with its audio [C, t, h, w], and times.

    Clips are whole frames as squares; one of 32 k + 1 pixels has k + 1 places on a side, the outer
    ones at its rim. Times [C, T] of frames are in seconds. Where pre-training had no heads, the
    features themselves are compared. ValueError when there is no feature map or audio encoder.
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
            cosines = torch.einsum("cthwd,cd->cthw", video, F.normalize(audio, dim=1))
        starts = clips.draw(0, row).starts[:, :1]  # [C, 1]
        times = starts + np.arange(clip.frames) / clip.video_fps
        yield cosines.cpu().numpy(), np.mod(times, manifest.videos[row].seconds)


def pointing(cosines: np.ndarray, times: np.ndarray, scene: Scene) -> np.ndarray:
    """The pointing game (Zhang et al. 2018, doi:10.1007/s11263-017-1059-x) in one video.

    Whether the most similar place lies on the object, whether the middle of the frame does, and the
    share of the places that do: [3], means of clips.
    """
    scores, axes = [], [np.linspace(0, 1, size) for size in cosines.shape[:-3:-1]]
    x, y = np.meshgrid(*axes)  # [h, w]
    for cosine, at in zip(cosines, times, strict=True):
        left, top, right, bottom = object_boxes(scene, at).mean(axis=0)
        inside = (left <= x) & (x <= right) & (top <= y) & (y <= bottom)
        peak = inside.flat[cosine.mean(axis=0).argmax()]
        scores.append([peak, left <= 0.5 <= right and top <= 0.5 <= bottom, inside.mean()])
    return np.mean(scores, axis=0)
