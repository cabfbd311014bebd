"""Pre-training through the front door, in processes of its own."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import pytest
import torch

from avnb.config import Pretrain
from avnb.data import subsets
from avnb.data.batch_plan import steps_per_epoch
from avnb.data.manifest import Manifest
from avnb.models.methods import METHODS, build
from avnb.profiles import PROFILES
from avnb.training import checkpoint, cost, pretraining, released
from avnb.training.pretraining import Pretrained, describe, run_folder
from avnb.training.torchrun import LaunchError, launch
from avnb.training.trainer import Views, validation
from tests.conftest import ROOT, with_values
from tests.training.test_trainer import same_tensors


def gradients_on(tmp_path, manifests, tiny, processes):
    out = tmp_path / str(processes)
    out.mkdir()
    mels = tiny.spectrogram.mels
    job = {
        "run": tiny.flat(), "mel_statistics": [[-2.5] * mels, [1.0] * mels],
        "manifest": str(manifests / "vggsound"),
    }  # fmt: skip
    (out / "job.json").write_text(json.dumps(job))
    launch(
        [str(out)], processes=processes, folder=out, title="gradient",
        module="tests.job_gradient",
    )  # fmt: skip
    return torch.load(out / "gradient.pt", weights_only=True)


def test_the_gradient_of_every_method_on_two_processes_is_that_on_one(tmp_path, manifests, tiny):
    """With statistics of BatchNorm, banks and negatives of the whole batch."""
    found = [gradients_on(tmp_path, manifests, tiny, n) for n in (1, 2)]
    one, two = (each["double"] for each in found)
    assert one.keys() == two.keys()
    assert {name.split(".")[0] for name in one} == METHODS.keys() - {"random"}
    for name in one:
        assert one[name].dtype == torch.double
        torch.testing.assert_close(two[name], one[name], rtol=1e-6, atol=1e-9, msg=name)
    for name, loss in found[0]["half"].items():
        torch.testing.assert_close(found[1]["half"][name], loss, rtol=0.15, atol=0.1, msg=name)


@pytest.fixture(scope="module")
def trained(manifests, tmp_path_factory):
    """A smoke run on two processes, through the front door."""
    run = Pretrain.from_flat(**PROFILES["smoke"]["pretrain"])
    runs = tmp_path_factory.mktemp("runs")
    manifest = Manifest.load(manifests / "vggsound")
    folder = pretraining.pretrain(run, manifest, runs, processes=2)
    return run, manifest, runs, folder


def test_two_processes_train_to_the_end_and_a_second_call_does_nothing(trained, manifests):
    run, manifest, runs, folder = trained
    found = Pretrained(run=run, folder=folder)
    assert found.finished and len(found.log) == run.optim.epochs
    assert folder == run_folder(runs, run, subsets.training(manifest, run)[0])
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    pretraining.pretrain(run, manifest, runs, processes=2)
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_fewer_validation_videos_than_processes_are_enough(tiny, manifests, tmp_path):
    run = with_values(tiny, method="supervised", epochs=1, validation_videos=1)
    manifest = Manifest.load(manifests / "vggsound")
    folder = pretraining.pretrain(run, manifest, tmp_path, processes=2)
    ((row),) = Pretrained(run=run, folder=folder).log
    assert row["validation_accuracy"] in (0, 1) and row["validation_loss"] > 0


def test_what_validation_says_is_true_of_the_weights_that_are_saved(tiny, manifests, tmp_path):
    run = with_values(tiny, method="supervised", epochs=1, validation_videos=6)
    manifest = Manifest.load(manifests / "vggsound")
    folder = pretraining.pretrain(run, manifest, tmp_path, processes=2)
    found = checkpoint.load(folder / "last.pt")
    method = build(run, found["about"]["videos"], len(manifest.classes))
    method.load_state_dict(found["method"])
    _, videos = subsets.training(manifest, run)
    views = Views(run, found["about"]["mel_statistics"])
    again = validation(method, views, videos, run, torch.device("cpu"), 0)(lambda word: None)
    ((row),) = found["log"]
    assert {name: row[name] for name in again} == pytest.approx(again, rel=1e-5)


def test_compiled_encoders_learn_the_same(tiny, manifests, tmp_path, monkeypatch):
    # As on a processor without vector instructions: half as long to compile.
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    manifest = Manifest.load(manifests / "vggsound")
    logs = {}
    for compiled in (False, True):
        run = with_values(tiny, epochs=1, batch=32, compile_encoders=compiled)
        folder = pretraining.pretrain(run, manifest, tmp_path, processes=1)
        ((logs[compiled]),) = Pretrained(run=run, folder=folder).log
        released.encoders(folder / "last.pt")  # under the names of those that are not compiled
    for term in ("loss", "video_to_audio", "audio_to_video"):
        assert logs[True][term] == pytest.approx(logs[False][term], rel=1e-3), term


def test_a_workers_traceback_is_in_the_exception(trained, manifests, tmp_path):
    run, manifest, _, _ = trained
    broken = dataclasses.replace(manifest, folder=tmp_path / "gone", where=tmp_path / "manifest")
    broken.save()
    with pytest.raises(LaunchError, match=r"DecodeError.*gone.*No such file") as caught:
        folder = tmp_path / "run"
        folder.mkdir()
        flat = ([0.0] * 64, [1.0] * 64)
        train_ids, validation_ids = subsets.files(broken, run.subset)
        job = {"about": describe(run, subsets.chosen(broken, train_ids), flat), "workers": 0,
               "manifest": str(tmp_path / "manifest"), "train_ids": str(train_ids),
               "validation_ids": str(validation_ids)}  # fmt: skip
        (folder / "job.json").write_text(json.dumps(job))
        launch(["train", str(folder)], processes=2, folder=folder, title="pre-training xid")
    assert "Traceback" in str(caught.value) and "decode.py" in str(caught.value)


def test_processes_that_do_not_divide_the_shards_are_refused_in_words(trained):
    run, manifest, runs, _ = trained
    with pytest.raises(
        ValueError, match=r"3 processes cannot share 2 shards.*take one of \[1, 2\]"
    ):
        pretraining.pretrain(run, manifest, runs, processes=3)


def test_parts_that_do_not_fit_are_refused_in_words(trained):
    run, manifest, runs, _ = trained
    with pytest.raises(ValueError, match="8 clips a process cannot be taken 3 at a time"):
        pretraining.pretrain(with_values(run, micro_batch=3, seed=1), manifest, runs, processes=2)
    whole = with_values(run, method="vicreg_v", micro_batch=4)
    with pytest.raises(ValueError, match="takes variances and covariances of the whole batch"):
        pretraining.pretrain(whole, manifest, runs, processes=2)


def test_what_a_run_would_cost_is_measured_and_leaves_nothing(trained, tmp_path, capsys):
    run, manifest, _, folder = trained
    epoch = steps_per_epoch(run.subset.subset_videos, run)
    found = cost.measure(run, manifest, tmp_path, processes=1, steps=epoch + 2)
    assert 0 < found.step_seconds < 60 and found.clips == run.optim.batch
    assert found.steps == run.optim.epochs * steps_per_epoch(run.subset.subset_videos, run)
    assert found.hours == pytest.approx(found.step_seconds * found.steps / 3600)
    assert found.checkpoint_bytes == pytest.approx((folder / "last.pt").stat().st_size, rel=0.05)
    assert list(tmp_path.iterdir()) == [] and "clips/s on 1 processes" in str(found)
    other = with_values(run, seed=1)
    assert pretraining.outstanding([run, other], manifest, folder.parent) == [other]


def test_videos_without_sound_are_silent_dropped_or_an_error(trained):
    run, manifest, _, folder = trained
    train = subsets.training(manifest, run)[0]
    silent = len(train) - len(train.with_audio())
    assert (
        silent > 0
        and json.loads((folder / "job.json").read_text())["about"]["without_audio"] == silent
    )
    values = run.flat()
    drop = Pretrain.from_flat(**{**values, "missing_audio": "drop"})
    assert subsets.training(manifest, drop)[0] == train.with_audio()
    metadata = pretraining.job_of(drop, manifest, 1, 0)["about"]
    assert (metadata["videos"], metadata["without_audio"]) == (len(train) - silent, silent)
    error = Pretrain.from_flat(**{**values, "missing_audio": "error"})
    with pytest.raises(ValueError, match=f"{silent} of {len(train)} training videos"):
        subsets.training(manifest, error)


def test_torchrun_killed_with_sigkill_goes_on_and_ends_as_if_nothing_had_been(
    trained, manifests, tmp_path
):
    *_, folder = trained
    out = tmp_path / "run"
    out.mkdir()
    (out / "job.json").write_bytes((folder / "job.json").read_bytes())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               "--nproc-per-node=2", "-m", "avnb", "train", str(out)]  # fmt: skip
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as job:
        while not (out / "last.pt").exists():  # one epoch is done
            time.sleep(0.02)
            assert job.poll() is None
        job.send_signal(signal.SIGKILL)
    launch(["train", str(out)], processes=2, folder=out, title="xid")
    assert same_tensors(checkpoint.load(out / "last.pt"), checkpoint.load(folder / "last.pt"))
