"""Features on disk: as they come, in little memory, the same after a kill; encoders stay frozen."""

import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from avnb.config import Pretrain
from avnb.data.clips import VideoClips
from avnb.data.manifest import Manifest
from avnb.evaluation import encoder_source, feature_store, features, retrieval
from avnb.evaluation.features import Frozen
from avnb.profiles import PROFILES
from avnb.protocols import Evaluation
from avnb.training.checkpoint import CheckpointError
from avnb.training.finetuning import finetuning
from avnb.workspace import Workspace
from tests.conftest import ROOT, with_values
from tests.job_features import SAMPLING, extracted, some


def run_job(*arguments):
    command = [sys.executable, "-m", "tests.job_features", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Encoders of different widths that nobody has trained."""
    runs = tmp_path_factory.mktemp("runs")
    small = Pretrain.from_flat(method="xid", mels=16, audio_seconds=0.5, frame_px=16, video_fps=8)
    made = [encoder_source.untrained(with_values(small, width=w), runs) for w in (2, 4)]
    return [one.checkpoint for one in made]


def files(cache):
    """Bytes of all tensors, by folder and name."""
    return {f.relative_to(cache).as_posix(): f.read_bytes() for f in sorted(cache.rglob("*.npy"))}


@pytest.fixture(scope="module")
def whole(two, manifests, tmp_path_factory):
    cache = tmp_path_factory.mktemp("whole")
    return cache, extracted(two, manifests / "ucf101", cache)


def test_features_of_a_killed_extraction_are_those_of_one_that_was_not(
    two, manifests, whole, tmp_path
):
    where = manifests / "ucf101"
    job = run_job("killed", where, tmp_path, *two)
    assert job.returncode == -signal.SIGKILL, job.stderr
    counts = sorted(int(note.read_text()) for note in tmp_path.rglob("done.txt"))
    assert counts == [9, 12] and not list(tmp_path.rglob("made.json"))  # the second was torn
    read = []
    taken = VideoClips.__getitem__

    class Counted(VideoClips):
        def __getitem__(self, item):
            read.append(item[1])
            return taken(self, item)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "VideoClips", Counted)
        found = extracted(two, where, tmp_path)
    assert read == list(range(9, 14))
    assert files(tmp_path) == files(whole[0])
    for one, other in zip(found, whole[1], strict=True):
        assert torch.equal(one.video, other.video) and torch.equal(one.audio, other.audio)


def test_an_interrupt_loses_no_block(two, manifests, whole, tmp_path, monkeypatch):
    add, blocks = feature_store.FeatureWriter.add, []

    def stopped(self, rows):
        if len(blocks) == 5:
            raise KeyboardInterrupt
        blocks.append(1)
        add(self, rows)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(feature_store.FeatureWriter, "add", stopped)
        extracted(two, manifests / "ucf101", tmp_path)
    assert sorted(int(n.read_text()) for n in tmp_path.rglob("done.txt")) == [6, 9]
    extracted(two, manifests / "ucf101", tmp_path)
    assert files(tmp_path) == files(whole[0])


def test_each_encoder_gives_what_it_gives_alone(two, manifests, whole, tmp_path):
    train = some(manifests / "ucf101")
    for path, found in zip(two, whole[1], strict=True):
        assert found.video.shape == (len(train), 2, Frozen(path).video_encoder.features)
        batch = VideoClips(train, SAMPLING, seed=0).whole(3)
        frozen = Frozen(path, features.training_part(train))
        alone = frozen.encode(batch, audio=True, at_once=1)
        for name in ("video", "audio"):
            torch.testing.assert_close(getattr(found, name)[3], alone[name], rtol=1e-4, atol=1e-5)
        assert found.label.tolist() == train.labels
    (second,) = extracted(two[1:], manifests / "ucf101", whole[0])
    assert torch.equal(second.video, whole[1][1].video)
    assert not set(whole[0].rglob("*.npy")) ^ {whole[0] / name for name in files(whole[0])}


def test_98_mib_of_features_are_written_and_used_in_40(tmp_path):
    job = run_job("narrow", tmp_path / "features")
    assert job.returncode == 0, job.stderr[-2000:]
    assert "as a whole it does not fit" in job.stdout


def test_encoding_changes_nothing_in_the_encoders(two, manifests):
    train = some(manifests / "ucf101")
    frozen = Frozen(two[0], train)
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    assert any(name.endswith("num_batches_tracked") for name in before)
    for row in range(3):
        batch = VideoClips(train, SAMPLING, seed=0).whole(row)
        frozen.encode(batch, audio=True, at_once=64)
    assert all(torch.equal(before[name], value) for name, value in frozen.state_dict().items())
    assert not any(part.training for part in frozen.modules())


def test_a_tensor_that_somebody_took_away_is_written_again(tmp_path):
    rows = {"a": torch.rand(6, 3), "b": torch.rand(6, 0)}

    def write(upto):
        with feature_store.FeatureWriter(tmp_path, 6, {"a": (3,), "b": (0,)}, 2) as growing:
            submit_or_attach = growing.done
            for at in range(submit_or_attach, upto, 2):
                growing.add({name: x[at : at + 2] for name, x in rows.items()})
        return submit_or_attach, growing

    assert write(4)[0] == 0 and write(4)[0] == 4
    (tmp_path / "a.npy").unlink()
    submit_or_attach, growing = write(6)
    assert submit_or_attach == 0
    growing.finish({})
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows["a"])
    assert np.load(tmp_path / "b.npy").shape == (6, 0)


def test_unfinished_or_uneven_rows_are_refused(tmp_path):
    with feature_store.FeatureWriter(tmp_path, 4, {"a": (3,), "b": (1,)}, 2) as growing:
        with pytest.raises(ValueError, match="added together"):
            growing.add({"a": torch.zeros(2, 3), "b": torch.zeros(1, 1)})
        with pytest.raises(ValueError, match="0 of 4 rows"):
            growing.finish({})
    assert not feature_store.whole(tmp_path)


def test_a_disk_without_room_is_noticed_before_anything_is_encoded(tmp_path):
    with pytest.raises(OSError, match=r"GB are still to be written and .* GB are free"):
        feature_store.FeatureWriter(tmp_path, 10**9, {"a": (10**6,)}, 1)


# ---- what is evaluated --------------------------------------------------------------------------


def test_a_checkpoint_keeps_its_name_wherever_it_lies(two, tmp_path):
    moved = tmp_path / "mine.pt"
    moved.write_bytes(two[0].read_bytes())
    one = encoder_source.given(moved)
    assert one.name == two[0].parent.name and one.run.method == "random" and one.run.width == 2
    with pytest.raises(FileNotFoundError):
        encoder_source.given(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("no")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        encoder_source.given(tmp_path / "text.pt")


def test_a_checkpoint_stands_beside_the_same_encoder_untrained(two, tmp_path):
    work = Workspace("smoke", tmp_path, {})
    found = encoder_source.sources(work, "supervised,xid", str(two[1]))
    assert list(found) == ["random"]  # it is an untrained one itself
    assert found["random"].checkpoint == two[1]
    with pytest.raises(ValueError, match="did you mean 'xid'"):
        encoder_source.sources(work, "random,xidd", str(two[1]))


def test_values_of_the_pre_training_say_which_runs_are_meant(world, tmp_path):
    work = Workspace("smoke", tmp_path, PROFILES["smoke"])
    data, narrow = str(world / "vggsound"), '{"width": 2}'
    usual = encoder_source.sources(work, "random", data=data)["random"]
    other = encoder_source.sources(work, "random", data=data, values=narrow)["random"]
    assert other.run.width == 2 != usual.run.width and other.name != usual.name
    assert finetuning.starts(work, "random", values=narrow)["random"].run.width == 2


def test_pictures_and_sounds_of_a_video_are_taken_together(two, manifests, tmp_path):
    few = some(manifests / "ucf101")
    few = few.only((*few.videos[:4], *Manifest.load(few.where).split("test").videos[:3]))
    config = Evaluation(video_fps=8, video_seconds=0.25, resize_px=20, video_level_clips=2)
    given = {path.parent.name: encoder_source.given(path) for path in two}
    both = retrieval.extract_each(given, few, config, tmp_path, workers=0)
    heard = few.with_audio()
    for (test, train), width in zip(both.values(), (16, 32), strict=True):
        for part, split in ((test, "test"), (train, "train")):
            shape = (len(heard.split(split)), 2, width)
            assert part.video.shape == part.audio.shape == shape
            assert part.label.tolist() == heard.split(split).labels
    (name, one) = next(iter(given.items()))
    again = retrieval.extract_both(one, few, config, tmp_path, workers=0)
    assert torch.equal(again[0].audio, both[name][0].audio)
