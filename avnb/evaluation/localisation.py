"""Where in the frame, and when, the video resembles the audio: similarity maps and their score.

The maps are those of Morgado et al. 2021 (section 5 there): the head of pre-training is applied to
every place of the last feature map instead of its maximum, and each is compared with the audio.

Shapes: C clips, t x h x w places of the last feature map, F features, D dimensions.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from avnb.config import Evaluation, Pretrain
from avnb.data.clips import Sampling, VideoClips
from avnb.data.manifest import Manifest
from avnb.data.synthetic.scenes import Scene
from avnb.data.synthetic.world import object_boxes, scenes_of
from avnb.evaluation.features import (
    EncoderSource,
    FrozenEncoders,
    device,
    downstream_clip,
    row_metadata,
    training_part,
)
from avnb.evaluation.results import Row, percent_row, record
from avnb.files import tqdm
from avnb.models.encoders import VideoEncoder
from avnb.profiles import Workspace

CLIPS = 5  # of each video, one after the other


@dataclass(frozen=True, kw_only=True)
class SimilarityMap:
    """The cosine of a clip's audio with every place of its video."""

    cosine: np.ndarray  # [t, h, w]
    times: np.ndarray  # [T] seconds, of the clip's frames

    @property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """x [w] and y [h] in [0, 1]: a frame of 32 k + 1 pixels has a place at every 32nd."""
        _, height, width = self.cosine.shape
        return np.linspace(0, 1, width), np.linspace(0, 1, height)

    def peak(self) -> tuple[float, float]:
        """x and y of the place with the highest mean over time."""
        x, y = self.places
        i, j = divmod(int(self.cosine.mean(axis=0).argmax()), len(x))
        return float(x[j]), float(y[i])


def whole_frames(run: Pretrain, config: Evaluation) -> Sampling:
    """Clips from the beginning to the end of each video, their frames whole, as squares."""
    px = config.localisation_px
    clip = downstream_clip(run, config, audio_seconds=config.retrieval_audio_seconds)
    clip = replace(clip, frame_px=px)
    return Sampling(clip=clip, count=CLIPS, place="uniform", resize_px=px)


class Localiser:
    """The encoders and heads of a source, and the maps that they give.

    Where pre-training had no heads, the features themselves are compared.

    Raises:
        ValueError: when the video encoder has no feature map, or there is no audio encoder.
    """

    def __init__(self, source: EncoderSource, manifest: Manifest, config: Evaluation):
        self.encoders = FrozenEncoders(source, training_part(manifest)).to(device())
        if not isinstance(self.encoders.video_encoder, VideoEncoder):
            raise ValueError(f"the video encoder of {source.method} gives no map of features")
        if (audio_encoder := self.encoders.audio_encoder) is None:
            raise ValueError(f"{source.method} has no audio encoder to compare places with")
        self.audio_encoder = audio_encoder
        heads = source.heads()
        both = heads if {"video", "audio"} <= heads.keys() else {}
        self.heads = {name: head.to(device()) for name, head in both.items()}
        self.clips = VideoClips(manifest, whole_frames(source.config, config), seed=config.seed)

    def head(self, modality: str, x: Tensor) -> Tensor:
        """Features [N, F] in the space of the loss, scaled to length 1."""
        return F.normalize(self.heads[modality](x) if self.heads else x, dim=1)

    @torch.inference_mode()
    def maps(self, row: int) -> list[SimilarityMap]:
        """The maps of the clips of one video, each with its own audio."""
        batch = self.encoders.transform(self.clips.whole(row).to(device()))
        places = self.encoders.video_encoder.feature_map(batch.frames)  # [C, F, t, h, w]
        audio = self.head("audio", self.audio_encoder(batch.audio))  # [C, D]
        video = self.head("video", places.movedim(1, -1).flatten(0, -2))  # [C t h w, D]
        video = video.unflatten(0, (len(places), *places.shape[2:]))  # [C, t, h, w, D]
        cosines = torch.einsum("cthwd,cd->cthw", video, audio).cpu().numpy()
        clip, seconds = self.clips.sampling.clip, self.clips.manifest.videos[row].seconds
        frames = np.arange(clip.frames) / clip.video_fps
        starts = self.clips.draw(0, row).starts[:, 0]
        return [
            SimilarityMap(cosine=cosine, times=np.mod(start + frames, seconds))
            for cosine, start in zip(cosines, starts, strict=True)
        ]


def known_scenes(manifest: Manifest) -> dict[int, Scene]:
    """By row, the scene of each synthetic video that can be heard; {} for real videos."""
    audible = {video.id for video in manifest.with_audio().videos}
    scenes = {name: s for name, s in scenes_of(manifest).items() if name in audible and not s.flaw}
    rows = {video.id: row for row, video in enumerate(manifest.videos)}
    return {row: scenes[name] for name, row in rows.items() if name in scenes}


def mean_box(scene: Scene, times: np.ndarray) -> np.ndarray:
    """Left, top, right, bottom in [0, 1], averaged over the times."""
    return object_boxes(scene, times).mean(axis=0)


def inside(box: np.ndarray, x: float, y: float) -> bool:
    """Whether a point lies in a box."""
    return bool(box[0] <= x <= box[2] and box[1] <= y <= box[3])


def pointing(maps: Sequence[SimilarityMap], scene: Scene) -> tuple[float, float, float]:
    """Means over clips: peak on the object, middle of the frame on it, share of places on it."""
    scores = list[tuple[float, float, float]]()
    for found in maps:
        box, places = mean_box(scene, found.times), itertools.product(*found.places)
        share = float(np.mean([inside(box, x, y) for x, y in places]))
        scores.append((inside(box, *found.peak()), inside(box, 0.5, 0.5), share))
    peak, centre, share = np.mean(scores, axis=0).tolist()
    return peak, centre, share


def localisation_rows(
    sources: Mapping[str, EncoderSource], manifest: Manifest, config: Evaluation, work: Workspace
) -> pd.DataFrame:
    """The pointing game: how often the most similar place lies on the object that is heard.

    In percent of the clips of the test videos whose object's place is known. `chance` is the share
    of the places that lie on them; the method `centre` always points to the middle (Zhang et
    al. 2018, doi:10.1007/s11263-017-1059-x).
    """
    scenes = known_scenes(manifest)
    if not scenes:
        raise ValueError(f"the places of objects in {manifest.name} are not known")
    rows, common = list[Row](), dict[str, Any]()
    for method, source in sources.items():
        localiser = Localiser(source, manifest, config)
        bar = tqdm(scenes.items(), f"maps of {method}", len(scenes), unit="video")
        scores = [pointing(localiser.maps(row), scene) for row, scene in bar]
        peak, centre, share = np.transpose(scores)
        common = row_metadata(source, manifest, work, config) | {"task": "localisation"}
        common |= {"metric": "pointing", "chance": 100 * float(share.mean())}
        rows.append(percent_row(peak, config, **common))
    rows.append(percent_row(centre, config, **common | {"method": "centre", "run": ""}))
    return record(work.results, rows)
