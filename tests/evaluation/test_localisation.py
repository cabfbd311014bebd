"""Similarity maps: what they are compared with, and how they are scored."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from avnb.config import Evaluation
from avnb.data.clips import VideoClips
from avnb.data.manifest import Manifest
from avnb.data.synthetic.world import object_boxes
from avnb.evaluation import localisation
from avnb.evaluation.features import untrained_source
from avnb.evaluation.localisation import (
    Localiser,
    SimilarityMap,
    known_scenes,
    localisation_rows,
    mean_box,
    pointing,
    whole_frames,
)
from avnb.models.encoders import VideoEncoder
from avnb.profiles import Workspace

CONFIG = Evaluation(video_fps=8, video_seconds=0.25, localisation_px=65, bootstrap_resamples=20)


@pytest.fixture
def videos(manifests):
    return Manifest.load(manifests / "ucf101").with_audio().split("test")


@pytest.fixture
def source(smoke, tmp_path):
    return untrained_source(smoke.changed(width=4), tmp_path)


def test_the_map_is_what_the_features_are_the_maximum_of():
    encoder, frames = VideoEncoder(4).eval(), torch.randn(2, 3, 8, 64, 96)
    found = encoder.feature_map(frames)
    assert found.shape == (2, 32, 1, 2, 3)
    assert torch.equal(found.amax(dim=(2, 3, 4)), encoder(frames))


@pytest.mark.parametrize("side, even", [(97, True), (96, False)])
def test_places_lie_evenly_in_frames_of_the_right_size_only(side, even):
    """With symmetric kernels the map of a mirrored frame is the mirrored map."""
    encoder = VideoEncoder(2).eval().double()  # whose rounding is far below any map's values
    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.weight.data = module.weight.data + module.weight.data.flip(-1)
    frames = torch.randn(1, 3, 2, side, side, generator=torch.Generator().manual_seed(0)).double()
    mirrored = encoder.feature_map(frames.flip(-1)).flip(-1)
    places = encoder.feature_map(frames)
    assert places.max() > 0
    assert torch.allclose(places, mirrored, rtol=0, atol=1e-6 * places.max().item()) == even
    with pytest.raises(ValueError, match="got 224, try 225"):
        Evaluation(localisation_px=224)


def test_a_peak_and_its_score_by_eye(monkeypatch):
    cosine = np.zeros((2, 3, 4), np.float32)
    cosine[:, 2, 0], cosine[0, 0, 3] = 1, 1.5  # the mean over time decides
    found = SimilarityMap(cosine=cosine, times=np.array([0.0, 0.1]))
    assert [line.tolist() for line in found.places] == [
        pytest.approx([0, 1 / 3, 2 / 3, 1]), [0, 0.5, 1],
    ]  # fmt: skip
    assert found.peak() == (0, 1)
    boxes = {"corner": [0, 0.6, 0.3, 1], "right": [0.45, 0.5, 1, 1], "top": [0, 0, 1, 0.5]}
    monkeypatch.setattr(localisation, "mean_box", lambda name, times: np.array(boxes[name]))
    assert pointing([found], "corner") == pytest.approx((1, 0, 1 / 12))
    assert pointing([found], "right") == pytest.approx((0, 1, 4 / 12))  # its edge counts
    assert pointing([found], "top") == pytest.approx((0, 1, 8 / 12))
    other = replace(found, cosine=cosine[:, ::-1])
    assert pointing([found, other], "top") == pytest.approx((0.5, 1, 8 / 12))


def test_the_object_is_where_its_box_says_in_the_frames_that_are_compared(videos, smoke):
    """Inside the box the frames differ from one another, outside hardly."""
    scenes = known_scenes(videos)
    assert len(scenes) == len(videos)
    config = Evaluation(video_fps=8, video_seconds=1.0, localisation_px=65)
    clips, compared = VideoClips(videos, whole_frames(smoke, config), seed=0), 0
    for row, scene in list(scenes.items())[:4]:
        frames = clips.whole(row).frames.float()  # [C, 3, T, px, px]
        for start, film in zip(clips.draw(0, row).starts[:, 0], frames, strict=True):
            boxes = object_boxes(scene, start + np.arange(8) / 8)
            assert ((boxes >= 0) & (boxes <= 1)).all() and (boxes[:, 2:] > boxes[:, :2]).all()
            moving = film.diff(dim=1).abs().mean(dim=(0, 1)).numpy()
            y, x = (np.mgrid[0:65, 0:65] + 0.5) / 65
            union = np.zeros((65, 65), bool)
            for left, top, right, bottom in boxes:
                union |= (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
            if 0.05 < union.mean() < 0.95:
                assert moving[union].mean() > moving[~union].mean()
                compared += 1
    assert compared >= 10


def test_maps_are_cosines_of_the_features_of_the_same_clips(videos, source):
    localiser = Localiser(source, videos, CONFIG)
    maps = localiser.maps(1)
    assert len(maps) == 5 and maps[0].cosine.shape == (1, 3, 3)
    assert np.abs([m.cosine for m in maps]).max() <= 1 + 1e-5
    length, first, last = videos.videos[1].seconds, maps[0].times, maps[-1].times
    assert first == pytest.approx([0, 1 / 8]) and first[1] < maps[1].times[0] < last[0] < length
    batch = localiser.encoders.transform(localiser.clips.whole(1))
    with torch.inference_mode():
        audio = localiser.encoders.audio_encoder(batch.audio[2:3])[0]
        place = localiser.encoders.video_encoder.feature_map(batch.frames[2:3])[0, :, 0, 2, 1]
    expected = torch.cosine_similarity(audio, place, dim=0).item()
    assert maps[2].cosine[0, 2, 1] == pytest.approx(expected, abs=1e-5)


def test_pointing_counts_peaks_on_the_object_and_names_both_baselines(
    videos, source, tmp_path, monkeypatch
):
    few, work = videos.only(videos.videos[:3]), Workspace("smoke", tmp_path, {})
    rows = localisation_rows({"random": source}, few, CONFIG, work)
    assert rows["method"].tolist() == ["random", "centre"] and (rows["n"] == 3).all()
    localiser, scenes = Localiser(source, few, CONFIG), known_scenes(few)
    scores = [pointing(localiser.maps(row), scene) for row, scene in scenes.items()]
    peak, centre, share = 100 * np.mean(scores, axis=0)
    assert rows["value"].tolist() == pytest.approx([peak, centre])
    assert rows["chance"].tolist() == pytest.approx([share, share]) and 1 < share < 100
    scene, maps = scenes[0], localiser.maps(0)
    left, top, right, bottom = mean_box(scene, maps[0].times)
    monkeypatch.setattr(
        SimilarityMap, "peak", lambda self: ((left + right) / 2, (top + bottom) / 2)
    )
    assert pointing(maps[:1], scene)[0] == 1


def test_places_that_are_not_known_are_not_scored(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(localisation, "scenes_of", lambda manifest: {})  # as for real videos
    assert known_scenes(videos) == {}
    with pytest.raises(ValueError, match="not known"):
        localisation_rows({}, videos, Evaluation(), Workspace("smoke", tmp_path, {}))
