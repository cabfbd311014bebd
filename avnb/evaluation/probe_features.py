"""Features that linear probes are trained and tested on: which clips, and their extraction.

Shapes: V videos, C clips of each, F features.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from avnb.config import Clip, Evaluation, Pretrain
from avnb.data.clips import Sampling
from avnb.data.loader import AUTO
from avnb.data.manifest import Manifest
from avnb.evaluation.encoder_source import EncoderSource
from avnb.evaluation.features import Features, extract
from avnb.profiles import Workspace

Sources = Mapping[str, EncoderSource]  # encoders to evaluate, by method


@dataclass(frozen=True, kw_only=True)
class ProbeFeatures:
    """Features that a probe is trained and tested on."""

    train: Features  # random clips, random crops; [V, 0, F] where fresh ones are encoded
    clip: Features  # random clips of test videos, centre crops
    video: Features  # uniformly spaced clips of test videos, centre crops


def downstream_clip(run: Pretrain, config: Evaluation, *, audio_seconds: float = 1.0) -> Clip:
    """The clips of an evaluation: video, and audio that starts with it."""
    return Clip(
        video_seconds=config.video_seconds,
        video_fps=config.video_fps,
        frame_px=run.clip.frame_px,
        audio_seconds=audio_seconds,
        audio_hz=run.clip.audio_hz,
        max_offset_seconds=0.0,
    )


def testing(clip: Clip, config: Evaluation) -> dict[str, Sampling]:
    """How clips of test videos are sampled, by level."""
    common: dict[str, Any] = {"clip": clip, "resize_px": config.resized_px(clip), "audio": False}
    common["interpolation"] = config.interpolation
    return {
        "clip": Sampling(count=config.clip_level_clips, place="random", **common),
        "video": Sampling(count=config.video_level_clips, place="uniform", **common),
    }


def samplings(run: Pretrain, config: Evaluation) -> dict[str, Sampling]:
    """How clips are sampled for training and for both levels of testing."""
    test = testing(downstream_clip(run, config), config)
    options: dict[str, Any] = {"count": config.train_clips, "flip_prob": config.flip_prob}
    return {"train": replace(test["clip"], random_crop=True, **options), **test}


def extract_parts(
    sources: Sources,
    parts: Mapping[str, Manifest],
    sampling_of: Callable[[Pretrain], Mapping[str, Sampling]],
    config: Evaluation,
    cache: Path,
    workers: int,
) -> dict[str, dict[str, Features]]:
    """Features by method and part, cached; encoders with equal sampling share a decoding pass."""
    features: dict[str, dict[str, Features]] = {method: {} for method in sources}
    options: dict[str, Any] = {"seed": config.seed, "at_once": config.clips_per_forward}
    for part, videos in parts.items():
        asked = {method: sampling_of(source.config)[part] for method, source in sources.items()}
        options |= {"workers": workers, "title": f"{videos.name}, {part}"}
        for sampling in dict.fromkeys(asked.values()):
            methods = [method for method in sources if asked[method] == sampling]
            chosen = [sources[method] for method in methods]
            extracted = extract(chosen, videos, sampling, cache, **options)
            for method, result in zip(methods, extracted, strict=True):
                features[method][part] = result
    return features


def extract_each(
    sources: Sources, manifest: Manifest, config: Evaluation, cache: Path, *, workers: int = AUTO
) -> dict[str, ProbeFeatures]:
    """Features for training and both levels of testing by method, cached."""
    train, test = manifest.split("train"), manifest.split("test")
    parts = {"train": train, "clip": test, "video": test}
    fresh = config.probe_clips == "fresh"
    if fresh:
        del parts["train"]
    sampling_of = functools.partial(samplings, config=config)
    features = extract_parts(sources, parts, sampling_of, config, cache, workers)
    for tested in features.values() if fresh else ():
        none = torch.empty(len(train), 0, tested["clip"].video.shape[2])
        label = torch.tensor(train.labels)
        tested["train"] = Features(video=none, audio=none[..., :0], label=label)
    return {method: ProbeFeatures(**tested) for method, tested in features.items()}


def row_metadata(
    source: EncoderSource, manifest: Manifest, work: Workspace, config: Evaluation
) -> dict[str, Any]:
    """Fields of result rows that identify the encoder, the videos, the profile and protocol."""
    encoder = {"method": source.method, "run": source.name, "protocol": config.protocol_title}
    return {"dataset": manifest.name, "data": manifest.origin, "profile": work.name, **encoder}
