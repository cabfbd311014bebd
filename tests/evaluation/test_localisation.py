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
    boxes = {"corner": [0, 0.6, 0.3, 1], "right": [0.45, 0.5, 1, 1], "top": [0, 0, 1, 0.5]}

    def object_boxes(names, _, *, silent):
        return np.array([boxes[names.split("/")[silent]]])

    monkeypatch.setattr(localisation, "object_boxes", object_boxes)
    times = np.array([[0.0, 0.1]])
    assert pointing(cosine, times, "corner/top") == pytest.approx((1, 0, 0, 1 / 12))
    edge = pointing(cosine, times, "right/corner")  # an edge counts
    assert edge == pytest.approx((0, 1, 1, 4 / 12))
    assert pointing(cosine, times, "top/top") == pytest.approx((0, 0, 1, 8 / 12))
    both = np.concatenate([cosine, cosine[:, :, ::-1]])
    found = pointing(both, times.repeat(2, 0), "top/corner")
    assert found == pytest.approx((0.5, 0.5, 1, 8 / 12))


def test_located_videos_have_their_scenes_and_the_place_of_the_silent_object(videos):
    scenes = scenes_of(videos)
    assert scenes.keys() == {video.id for video in videos.videos} and videos.name == "located"
    labels = [video.label for video in videos.videos]
    half = len(labels) // 2
    assert labels == [scenes[v.id].thing for v in videos.videos]
    # half of the set on is the sound of the object that is silent
    assert labels[half:] + labels[:half] == [scenes[v.id].silent_thing for v in videos.videos]


def test_maps_are_cosines_of_the_features_of_the_same_clips(videos, source):
    first_video, other = embed(source, videos, CONFIG, [1, 0])
    times, cosines = first_video.times, first_video.cosines(first_video.audio)
    assert cosines.shape == (5, 1, 3, 3) and np.abs(cosines).max() <= 1 + 1e-5
    assert not np.allclose(cosines, first_video.cosines(other.audio), atol=1e-4)
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
