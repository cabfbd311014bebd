"""Similarity maps: what they are compared with, and how they are scored."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from avnb.config import Evaluation
from avnb.data.clips import Sampling, VideoClips
from avnb.data.manifest import Manifest
from avnb.data.synthetic.world import scenes_of
from avnb.evaluation import localisation
from avnb.evaluation.features import (
    FrozenEncoders,
    downstream_clip,
    training_part,
    untrained_source,
)
from avnb.evaluation.localisation import embed, pointing

CONFIG = Evaluation(video_fps=8, video_seconds=0.25, localisation_px=65, bootstrap_resamples=20)


@pytest.fixture
def videos(manifests):
    return Manifest.load(manifests / "located")


@pytest.fixture
def source(smoke, tmp_path):
    return untrained_source(smoke.changed(width=4), tmp_path)


def test_a_peak_and_its_score_by_eye(monkeypatch):
    """Four places in a row, at x of 0, 1/3, 2/3 and 1, in three rows, at y of 0, 1/2 and 1."""
    cosine = np.zeros((1, 2, 3, 4), np.float32)
    cosine[0, :, 2, 0], cosine[0, 0, 0, 3] = 1, 1.5  # the mean over time decides
    corner, right, top = [0, 0.6, 0.3, 1], [0.45, 0.5, 1, 1], [0, 0, 1, 0.5]
    monkeypatch.setattr(localisation, "object_boxes", lambda s, _, silent: np.array([s[silent]]))
    times = np.array([[0.0, 0.1]])
    assert pointing(cosine, times, (corner, top)) == pytest.approx((1, 0, 0, 1 / 12))
    assert pointing(cosine, times, (right, corner)) == pytest.approx((0, 1, 1, 4 / 12))  # edge
    assert pointing(cosine, times, (top, top)) == pytest.approx((0, 0, 1, 8 / 12))
    both, times = np.concatenate([cosine, cosine[:, :, ::-1]]), times.repeat(2, 0)
    assert pointing(both, times, (top, corner)) == pytest.approx((0.5, 0.5, 1, 8 / 12))


def test_half_of_the_set_on_is_heard_what_is_silent(videos):
    scenes = scenes_of(videos)
    made, labels = [scenes[v.id] for v in videos.videos], [v.label for v in videos.videos]
    assert labels == [scene.thing for scene in made] and videos.name == "located"
    assert list(np.roll(labels, len(labels) // 2)) == [scene.silent_thing for scene in made]


def test_maps_are_cosines_of_the_features_of_the_same_clips(videos, source):
    (places, audio, times), _ = embed(source, videos, CONFIG, [1, 0])
    cosines = np.einsum("cthwd,cd->cthw", places, audio)
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
