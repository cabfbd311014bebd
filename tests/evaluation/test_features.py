"""Features on disk: encoded once for each encoder, clips and videos."""

from dataclasses import replace

import pytest
import torch

from avnb.config import Clip, Evaluation, Pretrain
from avnb.data.clips import Sampling, VideoClips
from avnb.data.manifest import Manifest
from avnb.data.store import read_audio
from avnb.evaluation import features
from avnb.evaluation.features import (
    FrozenEncoders,
    encoder_sources,
    source_of_file,
    untrained_source,
)
from avnb.models.methods import build_method
from avnb.profiles import PROFILES, Workspace
from avnb.training import checkpoint
from avnb.training.checkpoint import CheckpointError
from avnb.training.runs import describe
from tests.conftest import with_values

SMALL = Pretrain.from_flat(method="xid", mels=16, audio_seconds=0.5, frame_px=16, video_fps=8)
SAMPLING = Sampling(
    clip=Clip(video_seconds=0.25, video_fps=8, frame_px=16, audio_seconds=0.5),
    count=2, place="random", resize_px=20, random_crop=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Untrained encoders of different widths."""
    folder = tmp_path_factory.mktemp("runs")
    return [untrained_source(with_values(SMALL, width=width), folder) for width in (2, 4)]


@pytest.fixture(scope="module")
def train(manifests):
    whole = Manifest.load(manifests / "ucf101").split("train")
    return whole.only(whole.videos[:14])


CONFIG = Evaluation(clips_per_forward=6)  # three videos with two clips each


def extracted(sources, train, cache, sampling=SAMPLING, config=CONFIG):
    return [features.extract(source, train, sampling, config, cache) for source in sources]


@pytest.fixture(scope="module")
def whole(two, train, tmp_path_factory):
    cache = tmp_path_factory.mktemp("whole")
    return cache, extracted(two, train, cache)


def test_each_encoder_gives_what_it_gives_alone_and_is_kept(two, train, whole, monkeypatch):
    for source, found in zip(two, whole[1], strict=True):
        frozen = FrozenEncoders(source, features.training_part(train))
        assert found.video.shape == (14, 2, frozen.video_encoder.features)
        assert found.audio.shape == (14, 2, frozen.audio_encoder.features)
        alone = frozen.encode(VideoClips(train, SAMPLING, seed=0).whole(3))
        for known, one in zip((found.video[3], found.audio[3]), alone, strict=True):
            torch.testing.assert_close(known, one, rtol=1e-4, atol=1e-5)
        assert found.label.tolist() == train.labels
        in_memory = features.encode_all(frozen.encode, train, SAMPLING, CONFIG)
        assert all(torch.equal(vars(in_memory)[k], x) for k, x in vars(found).items())
    monkeypatch.setattr(features, "encode_all", None)  # nothing is encoded again
    (second,) = extracted(two[1:], train, whole[0])
    assert torch.equal(second.video, whole[1][1].video)


def test_other_clips_or_other_videos_are_other_features(two, train, whole, tmp_path):
    few = train.only(train.videos[:3])
    (found,) = extracted(two[:1], few, tmp_path)
    (other,) = extracted(two[:1], few, tmp_path, config=replace(CONFIG, seed=1))
    (silent,) = extracted(two[:1], few, tmp_path, replace(SAMPLING, audio=False))
    assert len(list(tmp_path.iterdir())) == 3 and len(found.video) == 3
    assert not torch.equal(found.video, other.video) and silent.audio.shape == (3, 2, 0)
    with pytest.raises(ValueError, match="no video of ucf101"):
        extracted(two[:1], train.only(()), tmp_path)


def test_whole_soundtracks_are_encoded_one_by_one(two, train, tmp_path):
    few = train.with_audio()
    few, config = few.only(few.videos[:4]), replace(CONFIG, whole_video_sound=True)
    for source, found in zip(two, extracted(two, few, tmp_path, config=config), strict=True):
        frozen = FrozenEncoders(source, features.training_part(train))
        assert found.audio.shape == (4, 1, frozen.audio_encoder.features)
        for row, video in enumerate(few.videos):
            wave = torch.from_numpy(read_audio(few.path(video), 0, int(16_000 * video.seconds)))
            alone = frozen.encode_audio(wave[None])
            torch.testing.assert_close(found.audio[row], alone, rtol=1e-3, atol=1e-3)


def test_an_evaluations_clips_are_the_runs_frames_with_audio_from_their_start():
    run = with_values(SMALL, max_offset_seconds=0.5)
    clip = features.downstream_clip(run, Evaluation(video_fps=4.0), audio_seconds=2.0)
    assert (clip.frame_px, clip.audio_hz, clip.video_fps) == (16, 16_000, 4)
    assert (clip.video_seconds, clip.audio_seconds, clip.max_offset_seconds) == (0.5, 2, 0)


def test_a_checkpoint_keeps_its_name_wherever_it_is(two, tmp_path):
    moved = tmp_path / "mine.pt"
    moved.write_bytes(two[0].checkpoint.read_bytes())
    source = source_of_file(moved)
    assert source.name == two[0].name == two[0].checkpoint.parent.name
    assert (source.method, source.config) == ("random", two[0].config) and source.config.width == 2
    assert source.features_name != two[0].features_name  # another file may hold other weights
    with pytest.raises(FileNotFoundError):
        source_of_file(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("no")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        source_of_file(tmp_path / "text.pt")


def test_a_checkpoint_stands_beside_the_same_encoders_untrained(two, vggsound, tmp_path):
    work = Workspace("smoke", tmp_path, PROFILES["smoke"])
    found = encoder_sources(work, "random", str(two[1].checkpoint))
    assert found == {"random": two[1]}  # it is an untrained one itself
    config, file = with_values(SMALL, width=3), tmp_path / "xid.pt"
    statistics = ([0.0] * 16, [1.0] * 16)
    model = build_method(config, len(vggsound), len(vggsound.classes))
    checkpoint.save(file, describe(config, vggsound, statistics), model)
    found = encoder_sources(work, "random", f"{file}, {two[0].checkpoint}")
    assert found == {"random": two[0], "xid": source_of_file(file)}
    found = encoder_sources(work, "random", str(file))
    assert list(found) == ["random", "xid"] and found["xid"].checkpoint == file
    assert found["random"].config == with_values(config, method="random")
    first = model.video_encoder.state_dict()["stem.0.weight"]
    assert all(torch.equal(s.load()[0].stem[0].weight, first) for s in found.values())
    assert found["xid"].trained_on.names == vggsound.classes and not found["random"].trained_on
    with pytest.raises(ValueError, match="did you mean 'xid'"):
        encoder_sources(work, "random,xidd", str(file))


def test_values_of_the_pre_training_say_which_encoders_are_meant(tmp_path):
    work = Workspace("smoke", tmp_path, PROFILES["smoke"])
    usual = encoder_sources(work, "random")["random"]
    other = encoder_sources(work, "random", values='{"width": 2}')["random"]
    assert other.config.width == 2 != usual.config.width and other.name != usual.name
    seeded = encoder_sources(work, "random", seed=3)["random"]
    assert seeded.config.seed == 3 and seeded.name != usual.name
