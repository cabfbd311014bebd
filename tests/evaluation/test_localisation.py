"""Similarity maps: what they are compared with, and how they are scored."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from avnb.config import Evaluation
from avnb.data.clips import Sampling, VideoClips
from avnb.data.manifest import Manifest
from avnb.evaluation import localisation
from avnb.evaluation.features import (
    FrozenEncoders,
    downstream_clip,
    training_part,
    untrained_source,
)
from avnb.evaluation.localisation import pointing, similarity_maps

CONFIG = Evaluation(video_fps=8, video_seconds=0.25, localisation_px=65, bootstrap_resamples=20)


@pytest.fixture
def videos(manifests):
    return Manifest.load(manifests / "ucf101").with_audio().split("test")


@pytest.fixture
def source(smoke, tmp_path):
    return untrained_source(smoke.changed(width=4), tmp_path)


def test_a_peak_and_its_score_by_eye(monkeypatch):
    """Four places in a row, at x of 0, 1/3, 2/3 and 1, in three rows, at y of 0, 1/2 and 1."""
    cosine = np.zeros((1, 2, 3, 4), np.float32)
    cosine[0, :, 2, 0], cosine[0, 0, 0, 3] = 1, 1.5  # the mean over time decides
    boxes = {"corner": [0, 0.6, 0.3, 1], "right": [0.45, 0.5, 1, 1], "top": [0, 0, 1, 0.5]}
    monkeypatch.setattr(localisation, "object_boxes", lambda name, _: np.array([boxes[name]]))
    times = np.array([[0.0, 0.1]])
    assert pointing(cosine, times, "corner") == pytest.approx((1, 0, 1 / 12))
    assert pointing(cosine, times, "right") == pytest.approx((0, 1, 4 / 12))  # its edge counts
    assert pointing(cosine, times, "top") == pytest.approx((0, 1, 8 / 12))
    both = np.concatenate([cosine, cosine[:, :, ::-1]])
    assert pointing(both, times.repeat(2, 0), "top") == pytest.approx((0.5, 1, 8 / 12))


def test_maps_are_cosines_of_the_features_of_the_same_clips(videos, source):
    (cosines, times), _ = similarity_maps(source, videos, CONFIG, [1, 0])
    assert cosines.shape == (5, 1, 3, 3) and np.abs(cosines).max() <= 1 + 1e-5
    length, (first, second), last = videos.videos[1].seconds, times[:2], times[-1]
    assert first == pytest.approx([0, 1 / 8]) and first[1] < second[0] < last[0] < length
    encoders = FrozenEncoders(source, training_part(videos))
    clip = replace(downstream_clip(source.config, CONFIG), frame_px=65)
    whole = Sampling(clip=clip, count=5, place="uniform", resize_px=65)
    clips = VideoClips(videos, whole, seed=CONFIG.seed)
    batch = encoders.transform(clips.whole(1))
    with torch.inference_mode():
        audio = encoders.audio_encoder(batch.audio[2:3])[0]
        place = encoders.video_encoder.feature_map(batch.frames[2:3])[0, :, 0, 2, 1]
    expected = torch.cosine_similarity(audio, place, dim=0).item()
    assert cosines[2, 0, 2, 1] == pytest.approx(expected, abs=1e-5)
