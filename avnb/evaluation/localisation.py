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


def embed(
    source: EncoderSource, manifest: Manifest, config: Evaluation, rows: Iterable[int]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Embeddings of length 1 of some videos: of each place [C, t, h, w, D] and of the audio [C, D].

    And the times [C, T] of frames in seconds. Clips are whole frames as squares; one of 32 k + 1
    pixels has k + 1 places on a side, the outer ones at its rim. Where pre-training had no heads,
    embeddings are features. ValueError when there is no feature map or audio encoder.
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
            audio = F.normalize(audio, dim=1)
        starts = clips.draw(0, row).starts[:, :1]  # [C, 1]
        times = starts + np.arange(clip.frames) / clip.video_fps
        times = np.mod(times, manifest.videos[row].seconds)
        yield video.cpu().numpy(), audio.cpu().numpy(), times


def pointing(cosines: np.ndarray, times: np.ndarray, scene: Scene) -> np.ndarray:
    """The pointing game (Zhang et al. 2018, doi:10.1007/s11263-017-1059-x) in one video.

    Whether the most similar place of a map [C, t, h, w] lies on the object that is heard, whether
    on the silent one, whether the middle of the frame lies on the former, and the share of the
    places that do: [4], means of clips.
    """
    scores, axes = [], [np.linspace(0, 1, size) for size in cosines.shape[:-3:-1]]
    places = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    points = np.append(places, [[0.5, 0.5]], axis=0)  # the last is the middle
    for cosine, at in zip(cosines, times, strict=True):
        boxes = (object_boxes(scene, at, silent=i > 0).mean(axis=0).reshape(2, 2) for i in (0, 1))
        heard, silent = (((low <= points) & (points <= high)).all(axis=1) for low, high in boxes)
        peak = cosine.mean(axis=0).argmax()
        scores.append([heard[peak], silent[peak], heard[-1], heard[:-1].mean()])
    return np.mean(scores, axis=0)
