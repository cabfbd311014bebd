from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from avnb.book.localisation import overlaid
from avnb.config import Evaluation
from avnb.data.decoding import read_frames
from avnb.data.manifest import Manifest
from avnb.data.media import inspect
from avnb.data.previews import Shown, mel_centres, mel_spectrogram, small_file
from avnb.data.synthetic.world import object_boxes, read_scenes
from avnb.evaluation.encoder_source import untrained_source
from avnb.evaluation.localisation import (
    Localiser,
    SimilarityMap,
    known_scenes,
    localisation_rows,
    pointing,
)
from avnb.models.encoders import VideoEncoder
from avnb.profiles import Workspace


@pytest.fixture
def videos(manifests):
    return Manifest.load(manifests / "ucf101").with_audio().split("test")


def test_the_map_is_what_the_features_are_the_maximum_of():
    encoder, frames = VideoEncoder(4).eval(), torch.randn(2, 3, 8, 64, 96)
    found = encoder.feature_map(frames)
    assert found.shape == (2, 32, 1, 2, 3)
    assert torch.equal(found.amax(dim=(2, 3, 4)), encoder(frames))


def test_the_object_is_where_its_box_says(videos):
    """Inside the box the frame differs from the background, outside hardly."""
    scenes = known_scenes(videos)
    assert len(scenes) == len(videos)
    compared = 0
    for row, scene in list(scenes.items())[:6]:
        video = videos.videos[row]
        times = np.linspace(0.2, video.seconds - 0.2, 5)
        options = {"seconds": video.seconds, "start": video.start}
        frames = np.stack(read_frames(videos.original(video), times, **options)).astype(float)
        boxes = object_boxes(scene, times)
        assert ((boxes >= 0) & (boxes <= 1)).all() and (boxes[:, 2:] > boxes[:, :2]).all()
        moving = np.abs(np.diff(frames, axis=0)).mean(axis=(0, 3))
        height, width = moving.shape
        yy, xx = (np.mgrid[0:height, 0:width] + 0.5) / [[[height]], [[width]]]
        union = np.zeros((height, width), bool)
        for left, top, right, bottom in boxes:
            union |= (xx >= left) & (xx <= right) & (yy >= top) & (yy <= bottom)
        if 0.05 < union.mean() < 0.95:
            assert moving[union].mean() > moving[~union].mean()
            compared += 1
    assert compared >= 3


def test_real_videos_have_no_known_places(videos, tmp_path):
    assert known_scenes(replace(videos, folder=tmp_path / "elsewhere")) == {}
    (tmp_path / "scenes.json").write_text('[{"path": 3}]')
    with pytest.raises(ValueError, match="does not hold the scenes"):
        read_scenes(tmp_path / "ucf101")


def test_the_peak_is_where_the_highest_cosine_is():
    cosine = np.zeros((2, 3, 4), np.float32)
    cosine[:, 2, 0] = 1
    found = SimilarityMap(cosine=cosine, times=np.array([0.0, 0.1]))
    assert found.peak() == (0, 1)
    assert found.share_inside(np.array([0.1, 0.4, 1, 1])) == pytest.approx(6 / 12)
    frame = np.zeros((30, 40, 3), np.uint8)
    bright = overlaid(frame, cosine[0], 0.0, 1.0).sum(axis=2)
    assert bright[-1, 0] == bright.max() > 200 and bright[0, -1] == 0


def test_pointing_counts_peaks_on_the_object_and_names_both_baselines(
    videos, smoke, tmp_path, monkeypatch
):
    config = Evaluation(video_fps=8, video_seconds=0.25, localisation_px=65, bootstrap_resamples=20)
    source = untrained_source(smoke.changed(width=4), tmp_path)
    few = videos.only(videos.videos[:3])
    localiser = Localiser(source, few, config)
    maps = localiser.maps(0)
    assert len(maps) == 5 and maps[0].cosine.shape == (1, 3, 3)
    assert np.abs(maps[0].cosine).max() <= 1 + 1e-5
    for row, found in enumerate(localiser.all_maps()):  # read ahead, and the same
        for one, other in zip(found, localiser.maps(row), strict=True):
            np.testing.assert_array_equal(one.cosine, other.cosine)
            np.testing.assert_array_equal(one.times, other.times)
    assert row == 2
    scene = known_scenes(few)[0]
    hit, centre, area = pointing(maps, scene)
    assert 0 <= hit <= 1 and 0 <= centre <= 1 and 0 < area < 1
    box = object_boxes(scene, maps[0].times).mean(axis=0)
    middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    monkeypatch.setattr(SimilarityMap, "peak", lambda self: middle)
    assert pointing(maps[:1], scene)[0] == 1
    rows = localisation_rows({"random": source}, few, config, Workspace("smoke", tmp_path, {}))
    assert rows["method"].tolist() == ["random", "centre"] and (rows["n"] == 3).all()
    assert rows["chance"].nunique() == 1


def test_places_that_are_not_known_are_not_scored(videos, smoke, tmp_path):
    elsewhere = replace(videos, folder=tmp_path)
    with pytest.raises(ValueError, match="not known"):
        localisation_rows({}, elsewhere, Evaluation(), Workspace("smoke", tmp_path, {}))


# ---- previews -----------------------------------------------------------------------------------


def test_a_tone_lies_at_its_pitch_and_time():
    hz, t = 24_000, np.arange(48_000) / 24_000
    for pitch in (440, 3000):
        tone = np.where(t > 1, np.sin(2 * np.pi * pitch * t), 0).astype(np.float32)
        mel = mel_spectrogram(tone, hz)
        band = mel.levels[:, len(mel.seconds) * 3 // 4].argmax()
        assert mel.hertz[band] == pytest.approx(pitch, rel=0.05)
        loud = mel.levels[band] > -20
        assert mel.seconds[loud].min() == pytest.approx(1, abs=0.05)
    centres = mel_centres(128, 12_000)
    assert (np.diff(centres) > 0).all() and 0 < centres[0] < centres[-1] < 12_000


@pytest.mark.slow
def test_small_files_are_made_once_and_hold_picture_and_sound(videos, tmp_path):
    shown = Shown(videos, 0)
    file = small_file(shown, tmp_path)
    made = file.stat().st_mtime_ns
    assert small_file(shown, tmp_path) == file and file.stat().st_mtime_ns == made
    assert {p.name for p in tmp_path.iterdir()} == {file.name, f"{file.stem}.jpg"}
    found = inspect(file)
    assert imread(file.with_suffix(".jpg")).shape == (found.height, found.width, 3)
    assert found.audio_hz == 24_000 and found.fps == 15 and found.height <= 120
    assert found.seconds <= 3.2 and file.stat().st_size < 100_000


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


def test_a_side_that_gives_uneven_places_is_refused():
    with pytest.raises(ValueError, match="got 224, try 225"):
        Evaluation(localisation_px=224)
