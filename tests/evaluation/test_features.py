"""Features on disk: as they come, in little memory, the same after a kill; encoders stay frozen."""

import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from avnb.config import Evaluation, Pretrain
from avnb.data.clips import VideoClips
from avnb.data.manifest import Manifest
from avnb.evaluation import feature_store, features, finetuned, retrieval
from avnb.evaluation.encoder_source import encoder_sources, source_of_file, untrained_source
from avnb.evaluation.features import FrozenEncoders
from avnb.models.methods import build_method
from avnb.profiles import PROFILES, Workspace
from avnb.training import checkpoint
from avnb.training.checkpoint import CheckpointError
from avnb.training.runs import describe
from tests.conftest import ROOT, with_values
from tests.job_features import SAMPLING, extracted, some

SMALL = Pretrain.from_flat(method="xid", mels=16, audio_seconds=0.5, frame_px=16, video_fps=8)


def run_job(*arguments):
    command = [sys.executable, "-m", "tests.job_features", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Untrained encoders of different widths."""
    folder = tmp_path_factory.mktemp("runs")
    return [untrained_source(with_values(SMALL, width=width), folder) for width in (2, 4)]


def files(cache):
    """Bytes of all tensors, by folder and name."""
    return {f.relative_to(cache).as_posix(): f.read_bytes() for f in sorted(cache.rglob("*.npy"))}


@pytest.fixture(scope="module")
def whole(two, manifests, tmp_path_factory):
    cache = tmp_path_factory.mktemp("whole")
    return cache, extracted(two, manifests / "ucf101", cache)


@pytest.mark.slow
def test_features_of_a_killed_extraction_are_those_of_one_that_was_not(
    two, manifests, whole, tmp_path
):
    where = manifests / "ucf101"
    job = run_job("killed", where, tmp_path, *(source.checkpoint for source in two))
    assert job.returncode == -signal.SIGKILL, job.stderr
    counts = sorted(int(note.read_text()) for note in tmp_path.rglob("done.txt"))
    assert counts == [9, 12] and not list(tmp_path.rglob("made.json"))  # the second was torn
    read = []

    class Counted(VideoClips):
        def read(self, item, *into):
            read.append(item[1])
            super().read(item, *into)

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
    for source, found in zip(two, whole[1], strict=True):
        assert found.video.shape == (len(train), 2, FrozenEncoders(source).video_encoder.features)
        batch = VideoClips(train, SAMPLING, seed=0).whole(3)
        frozen = FrozenEncoders(source, features.training_part(train))
        alone = frozen.encode(batch, audio=True, at_once=1)
        for name in ("video", "audio"):
            torch.testing.assert_close(getattr(found, name)[3], alone[name], rtol=1e-4, atol=1e-5)
        assert found.label.tolist() == train.labels
    (second,) = extracted(two[1:], manifests / "ucf101", whole[0])
    assert torch.equal(second.video, whole[1][1].video)
    assert not set(whole[0].rglob("*.npy")) ^ {whole[0] / name for name in files(whole[0])}


@pytest.mark.slow
def test_98_mib_of_features_are_written_and_used_in_40(tmp_path):
    job = run_job("narrow", tmp_path / "features")
    assert job.returncode == 0, job.stderr[-2000:]
    assert "as a whole it does not fit" in job.stdout


def test_encoding_changes_nothing_in_the_encoders(two, manifests):
    train = some(manifests / "ucf101")
    frozen = FrozenEncoders(two[0], train)
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
            begin = growing.done
            for at in range(begin, upto, 2):
                growing.add({name: x[at : at + 2] for name, x in rows.items()})
        return begin, growing

    assert write(4)[0] == 0 and write(4)[0] == 4
    (tmp_path / "a.npy").unlink()
    begin, growing = write(6)
    assert begin == 0
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


def test_rows_of_a_writer_that_began_anew_are_not_taken_for_the_former_ones(tmp_path):
    rows = {"a": torch.rand(4, 3)}
    with feature_store.FeatureWriter(tmp_path, 4, {"a": (3,)}, 2) as growing:
        growing.add(rows)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:40])  # cut off
    feature_store.FeatureWriter(tmp_path, 4, {"a": (3,)}, 2)  # killed before its first row
    assert (tmp_path / "a.npy").stat().st_size == 128 + 4 * 3 * 4
    with feature_store.FeatureWriter(tmp_path, 4, {"a": (3,)}, 2) as growing:
        assert growing.done == 0
        growing.add(rows)
    growing.finish({})
    assert torch.equal(feature_store.mapped(tmp_path / "a.npy"), rows["a"])


def test_a_file_has_its_blocks_from_the_beginning(tmp_path):
    writer = feature_store.FeatureWriter(str(tmp_path), 1000, {"a": (512,)}, 2)
    stat = (tmp_path / "a.npy").stat()
    assert writer.done == 0 and 512 * stat.st_blocks >= stat.st_size >= 4 * 512 * 1000


def test_a_disk_without_room_is_noticed_before_anything_is_encoded(tmp_path):
    with pytest.raises(OSError, match=r"GB are still to be written and .* GB are free"):
        feature_store.FeatureWriter(tmp_path, 10**9, {"a": (10**6,)}, 1)


# ---- what is evaluated --------------------------------------------------------------------------


def test_a_checkpoint_keeps_its_name_wherever_it_is(two, tmp_path):
    moved = tmp_path / "mine.pt"
    moved.write_bytes(two[0].checkpoint.read_bytes())
    source = source_of_file(moved)
    assert source.name == two[0].name == two[0].checkpoint.parent.name
    assert (source.method, source.config) == ("random", two[0].config) and source.config.width == 2
    with pytest.raises(FileNotFoundError):
        source_of_file(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("no")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        source_of_file(tmp_path / "text.pt")


def test_a_checkpoint_stands_beside_the_same_encoders_untrained(two, vggsound, tmp_path):
    work = Workspace("smoke", tmp_path, PROFILES["smoke"])
    found = encoder_sources(work, "random", str(two[1].checkpoint))
    assert list(found) == ["random"]  # it is an untrained one itself
    assert found["random"] == two[1]
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
    with pytest.raises(ValueError, match="did you mean 'xid'"):
        encoder_sources(work, "random,xidd", str(file))


@pytest.mark.slow
def test_values_of_the_pre_training_say_which_runs_are_meant(world, manifests, tmp_path):
    work = Workspace("smoke", tmp_path, PROFILES["smoke"])
    data, narrow = str(world / "vggsound"), '{"width": 2}'
    usual = encoder_sources(work, "random", data=data)["random"]
    other = encoder_sources(work, "random", data=data, values=narrow)["random"]
    assert other.config.width == 2 != usual.config.width and other.name != usual.name
    ucf101 = Manifest.load(manifests / "ucf101")
    run = finetuned.finetuning_runs(work, {"random": other}, ucf101)["random"]
    assert run.start.width == 2 and run.start.load().features == 16


def test_frames_and_audio_of_a_video_are_taken_together(two, manifests, tmp_path):
    few = some(manifests / "ucf101")
    few = few.only((*few.videos[:5], *Manifest.load(few.where).split("test").videos[:3]))
    config = Evaluation(video_fps=8, video_seconds=0.25, resize_px=20, video_level_clips=2)
    given = {source.name: source for source in two}
    both = retrieval.extract_each(given, few, config, tmp_path, workers=0)
    heard = few.with_audio()
    for (test, train), width in zip(both.values(), (16, 32), strict=True):
        for part, split in ((test, "test"), (train, "train")):
            shape = (len(heard.split(split)), 2, width)
            assert part.video.shape == part.audio.shape == shape
            assert part.label.tolist() == heard.split(split).labels
    name = next(iter(given))
    one = {name: given[name]}
    again = retrieval.extract_each(one, few, config, tmp_path, workers=0)[name]
    assert torch.equal(again[0].audio, both[name][0].audio)
    rows, features = retrieval.retrieval_rows(given, few, config, Workspace("smoke", tmp_path, {}))
    assert set(rows["run"]) == set(given) == features.keys()
    assert set(rows["level"]) == set(retrieval.DIRECTIONS)
    usual = rows[(rows["space"] == retrieval.THESIS) & rows["metric"].isin(["R@1", "R@5"])]
    assert len(usual) == 2 * 5 * 2  # of two encoders, in five directions
    assert set(rows["data"]) == {heard.origin} and set(rows["dataset"]) == {"ucf101"}
