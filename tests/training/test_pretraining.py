"""Pre-training by `runs.train`, in processes of its own."""

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
from avnb.data.batch_transform import BatchTransform
from avnb.data.manifest import Manifest
from avnb.models.methods import build_method
from avnb.profiles import PROFILES
from avnb.progress import ProgressReporter
from avnb.training import checkpoint, cost, runs
from avnb.training.launch import LaunchError
from avnb.training.runs import describe, pretraining_run, run_name
from avnb.training.launch import Resources
from avnb.training.launch import launch
from tests.conftest import ROOT, with_values
from tests.training.test_trainer import TRAINED, same_tensors, validation_of

pytestmark = pytest.mark.slow

ALONE, TWO = Resources(processes=1), Resources(processes=2)


def gradients_on(tmp_path, manifests, config, processes):
    out = tmp_path / str(processes)
    out.mkdir()
    mels = config.spectrogram.mels
    job = {
        "config": config.flat(), "mel_statistics": [[-2.5] * mels, [1.0] * mels],
        "manifest": str(manifests / "vggsound"),
    }  # fmt: skip
    (out / "job.json").write_text(json.dumps(job))
    launch(
        [str(out)], processes=processes, folder=out, title="gradient",
        module="tests.job_gradient",
    )  # fmt: skip
    return torch.load(out / "gradient.pt", weights_only=True)


def test_gradients_of_every_method_are_the_same_on_one_and_two_processes(tmp_path, manifests, tiny):
    """With BatchNorm statistics, banks and negatives of the whole batch."""
    found = [gradients_on(tmp_path, manifests, tiny, n) for n in (1, 2)]
    one, two = (each["double"] for each in found)
    assert one.keys() == two.keys()
    assert {name.split(".")[0] for name in one} == set(TRAINED)
    for name in one:
        assert one[name].dtype == torch.double
        torch.testing.assert_close(two[name], one[name], rtol=1e-6, atol=1e-9, msg=name)
    for name, loss in found[0]["half"].items():
        torch.testing.assert_close(found[1]["half"][name], loss, rtol=0.15, atol=0.1, msg=name)


def trained_run(config, manifest, folder, resources=TWO):
    """The run, trained now."""
    run = pretraining_run(config, manifest, folder)
    runs.train([run], resources)
    return run


@pytest.fixture(scope="module")
def trained(manifests, tmp_path_factory):
    """A smoke run, trained on two processes."""
    config = Pretrain.from_flat(**PROFILES["smoke"]["pretrain"])
    manifest = Manifest.load(manifests / "vggsound")
    return trained_run(config, manifest, tmp_path_factory.mktemp("runs"))


def test_two_processes_train_to_the_end_and_a_second_call_does_nothing(trained):
    config, folder = trained.config, trained.folder
    assert trained.finished and len(trained.log) == config.optim.epochs
    assert folder.name == run_name(
        config, subsets.training_and_validation(trained.manifest, config)[0].digest
    )
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = trained_run(config, trained.manifest, folder.parent)
    assert again.folder == folder
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_runs_of_one_process_are_trained_side_by_side_and_as_they_are_alone(
    tiny, manifests, tmp_path
):
    manifest = Manifest.load(manifests / "vggsound")
    made = {}
    for folder, names in (("both", ("xid", "vicreg_v")), ("alone", ("vicreg_v",))):
        configs = [with_values(tiny, method=name, shards=1, epochs=1) for name in names]
        found = [pretraining_run(config, manifest, tmp_path / folder) for config in configs]
        runs.train(found)
        made[folder] = {run.method: run for run in found}
    one, other = (made[folder]["vicreg_v"] for folder in ("both", "alone"))
    contents = [checkpoint.load(run.checkpoint)[1] for run in (one, other)]
    assert same_tensors(contents[0]["model"], contents[1]["model"])
    assert made["both"]["xid"].finished
    assert not list(tmp_path.rglob("error.json"))


@pytest.mark.parametrize("work, groups", [([5, 4, 3, 1], [[5, 1], [4, 3]]), ([2], [[2]]), ([], [])])
def test_longest_runs_are_shared_out_first(work, groups):
    @dataclasses.dataclass(frozen=True)
    class Job:
        work: int

    shared = runs.divided([Job(n) for n in work], 2)
    assert [[job.work for job in group] for group in shared] == groups


def test_fewer_validation_videos_than_processes_are_enough(tiny, manifests, tmp_path):
    config = with_values(tiny, method="supervised", epochs=1, validation_videos=1)
    run = trained_run(config, Manifest.load(manifests / "vggsound"), tmp_path)
    (row,) = run.log
    assert row["validation_accuracy"] in (0, 1) and row["validation_loss"] > 0


def test_validation_metrics_are_those_of_the_saved_weights(tiny, manifests, tmp_path):
    config = with_values(tiny, method="supervised", epochs=1, validation_videos=6)
    manifest = Manifest.load(manifests / "vggsound")
    run = trained_run(config, manifest, tmp_path)
    metadata, content = checkpoint.load(run.checkpoint)
    model = build_method(config, metadata.videos, len(manifest.classes))
    model.load_state_dict(content["model"])
    _, videos = subsets.training_and_validation(manifest, config)
    transform = BatchTransform(config, metadata.mel_statistics)
    bar = ProgressReporter(0, silent=True)
    again = validation_of(config, videos).measure(model, transform, torch.device("cpu"), bar)
    (row,) = content["log"]
    assert {name: row[name] for name in again} == pytest.approx(again, rel=1e-5)


SMALL_ENCODER = """from torch import nn


def small():
    return nn.Sequential(
        nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4), nn.ReLU(), nn.AdaptiveMaxPool3d(1), nn.Flatten()
    )
"""


def test_compiled_encoders_learn_the_same(tiny, manifests, tmp_path, monkeypatch):
    # As on a processor without vector instructions: half as long to compile. The video encoder
    # is a small one, because the audio encoder's ten layers take half a minute already.
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    (tmp_path / "own.py").write_text(SMALL_ENCODER)
    backbone, manifest = f"{tmp_path / 'own.py'}:small", Manifest.load(manifests / "vggsound")
    logs = {}
    for compiled in (False, True):
        values = dict(epochs=1, batch=32, backbone=backbone, compile_encoders=compiled)
        run = trained_run(with_values(tiny, **values), manifest, tmp_path, ALONE)
        (logs[compiled],) = run.log
        # Tensors have the names of uncompiled encoders.
        checkpoint.load_encoders(run.checkpoint, backbone=backbone)
    for term in ("loss", "video_to_audio", "audio_to_video"):
        assert logs[True][term] == pytest.approx(logs[False][term], rel=1e-3), term


def test_the_error_contains_the_traceback_of_a_worker(trained, tmp_path):
    broken = dataclasses.replace(
        trained.manifest, folder=tmp_path / "gone", where=tmp_path / "manifest"
    )
    broken.save()
    folder, mels = tmp_path / "run", trained.config.spectrogram.mels
    train_ids, validation_ids = subsets.subset_files(broken, trained.config.subset)
    statistics = ([0.0] * mels, [1.0] * mels)
    job = {
        "metadata": describe(trained.config, subsets.load_subset(broken, train_ids), statistics),
        "manifest": str(tmp_path / "manifest"), "train_ids": str(train_ids),
        "validation_ids": str(validation_ids), "workers": 0,
    }  # fmt: skip
    runs.write_job(folder, job)
    with pytest.raises(LaunchError, match=r"DecodeError.*gone.*No such file") as caught:
        launch(["train", str(folder)], processes=2, folder=folder, title="pre-training xid")
    assert "Traceback" in str(caught.value) and "decoding.py" in str(caught.value)


def test_processes_that_do_not_divide_the_shards_are_refused(trained):
    with pytest.raises(
        ValueError, match=r"3 processes .*cannot share 2 shards.*take one of \[1, 2\]"
    ):
        runs.train([trained], Resources(processes=3))


def test_micro_batches_that_do_not_fit_are_refused(trained):
    def train(config):
        trained_run(config, trained.manifest, trained.folder.parent)

    with pytest.raises(ValueError, match="8 clips per process cannot be taken 3 at a time"):
        train(with_values(trained.config, micro_batch=3, seed=1))
    with pytest.raises(ValueError, match="takes variances and covariances of the whole batch"):
        train(with_values(trained.config, method="vicreg_v", micro_batch=4))


def test_the_cost_of_a_run_is_measured_and_nothing_is_left_behind(trained, tmp_path):
    config, manifest = trained.config, trained.manifest
    epoch = steps_per_epoch(config.subset.subset_videos, config)
    run = pretraining_run(config, manifest, tmp_path)
    measured = cost.measure(run, ALONE, steps=epoch + 2)
    assert 0 < measured.step_seconds < 60 and measured.clips == config.optim.batch
    assert measured.steps == config.optim.epochs * epoch
    assert measured.hours == pytest.approx(measured.step_seconds * measured.steps / 3600)
    size = trained.checkpoint.stat().st_size
    assert measured.checkpoint_bytes == pytest.approx(size, rel=0.05)
    assert list(tmp_path.iterdir()) == [] and "clips/s on 1 processes" in str(measured)


def test_only_unfinished_runs_are_pending(trained):
    other = pretraining_run(
        with_values(trained.config, seed=2), trained.manifest, trained.folder.parent
    )
    assert [run for run in (trained, other) if run.is_pending] == [other]


def test_videos_without_audio_are_silent_dropped_or_an_error(trained):
    config, manifest, folder = trained.config, trained.manifest, trained.folder
    train = subsets.training_and_validation(manifest, config)[0]
    silent = len(train) - len(train.with_audio())
    job = json.loads((folder / "job.json").read_text())
    assert silent > 0 and runs.read_metadata(job).without_audio == silent
    drop = with_values(config, missing_audio="drop")
    assert subsets.training_and_validation(manifest, drop)[0] == train.with_audio()
    metadata = pretraining_run(drop, manifest, folder.parent).job(ALONE)["metadata"]
    assert (metadata.videos, metadata.without_audio) == (len(train) - silent, silent)
    error = with_values(config, missing_audio="error")
    with pytest.raises(ValueError, match=f"{silent} of {len(train)} training videos"):
        subsets.training_and_validation(manifest, error)


def test_a_job_resumes_after_sigkill_of_torchrun_to_the_same_end(trained, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "job.json").write_bytes((trained.folder / "job.json").read_bytes())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               "--nproc-per-node=2", "-m", "avnb", "train", str(out)]  # fmt: skip
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as job:
        while not (out / "last.pt").exists():  # one epoch is done
            time.sleep(0.02)
            assert job.poll() is None
        job.send_signal(signal.SIGKILL)
    watch = [sys.executable, "-m", "avnb", "watch", str(out), "--every", "0.2"]
    with subprocess.Popen(watch, cwd=ROOT, stdout=subprocess.PIPE, text=True) as watcher:
        launch(["train", str(out)], processes=2, folder=out, title="xid")
        said = watcher.communicate(timeout=60)[0].splitlines()
    assert said[0] == str(out) and said[-1].startswith("finished after") and len(said) > 2
    assert "clips/s" in said[-1] and "loss" in said[-1]
    assert same_tensors(checkpoint.load(out / "last.pt"), checkpoint.load(trained.checkpoint))
