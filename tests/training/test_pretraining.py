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
from avnb.data.loader import steps_per_epoch
from avnb.data.manifest import Manifest
from avnb.data.subsets import training_and_validation
from avnb.data.transform import BatchTransform
from avnb.models.methods import build_method
from avnb.profiles import PROFILES
from avnb.training import checkpoint, runs
from avnb.training.launch import LaunchError, Resources, launch
from avnb.training.loop import validate
from avnb.training.runs import pretraining_run, run_name
from tests.conftest import ROOT, with_values
from tests.training.test_trainer import TRAINED, same_tensors

pytestmark = pytest.mark.slow

ALONE, TWO = Resources(processes=1), Resources(processes=2)
CPU = torch.device("cpu")


def gradients_on(tmp_path, manifests, config, processes):
    out = tmp_path / str(processes)
    out.mkdir()
    mels = config.spectrogram.mels
    job = {
        "config": config.flat(), "mel_statistics": [[-2.5] * mels, [1.0] * mels],
        "manifest": str(manifests / "vggsound"),
    }  # fmt: skip
    (out / "job.json").write_text(json.dumps(job))
    launch({out: ["tests.job_gradient", str(out)]}, processes, "gradient")
    return torch.load(out / "gradient.pt", weights_only=True)


def test_gradients_of_every_method_are_the_same_on_one_and_two_processes(tmp_path, manifests, tiny):
    """With banks, negatives and covariances of the whole batch."""
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
    data = training_and_validation(trained.manifest, config)[0].digest
    assert folder.name == run_name(config, data)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = trained_run(config, trained.manifest, folder.parent)
    assert again.folder == folder
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    clips = steps_per_epoch(32, config) * config.optim.epochs * config.optim.batch
    assert f"xid {clips}/{clips} clips" in (folder / "output.txt").read_text()


def test_runs_of_one_process_are_trained_side_by_side_and_as_they_are_alone(
    tiny, manifests, tmp_path, capfd
):
    manifest = Manifest.load(manifests / "vggsound")
    made = {}
    for folder, names in (("both", ("xid", "vicreg_v", "random")), ("alone", ("vicreg_v",))):
        configs = [with_values(tiny, method=name, shards=1, epochs=1) for name in names]
        found = [pretraining_run(config, manifest, tmp_path / folder) for config in configs]
        runs.train(found)
        made[folder] = {run.method: run for run in found}
    one, other = (made[folder]["vicreg_v"] for folder in ("both", "alone"))
    contents = [checkpoint.load(run.checkpoint)[1] for run in (one, other)]
    assert same_tensors(contents[0]["model"], contents[1]["model"])
    assert made["both"]["xid"].finished and made["both"]["random"].finished
    assert not list(tmp_path.rglob("error.json"))
    seen = capfd.readouterr().err
    assert "training xid, vicreg_v, random: 100%" in seen and "2/2" in seen


def test_longest_runs_are_shared_out_first(trained):
    values = dict(xid=5, vicreg_av=4, vicreg_v=2, supervised=1)  # two views take twice as long
    made = [with_values(trained.config, method=m, epochs=n) for m, n in values.items()]
    shared = runs.divided([dataclasses.replace(trained, config=config) for config in made], 2)
    found = [[run.config.method for run in group] for group in shared]
    assert found == [["xid", "supervised"], ["vicreg_av", "vicreg_v"]]


def test_validation_metrics_are_those_of_the_saved_weights(tiny, manifests, tmp_path):
    """Of one video, so that the second process has none."""
    config = with_values(tiny, method="supervised", epochs=1, validation_videos=1)
    manifest = Manifest.load(manifests / "vggsound")
    run = trained_run(config, manifest, tmp_path)
    metadata, content = checkpoint.load(run.checkpoint)
    model = build_method(config, metadata.videos, len(manifest.classes))
    model.load_state_dict(content["model"])
    _, videos = training_and_validation(manifest, config)
    transform = BatchTransform(config, metadata.mel_statistics)
    again = validate(model, transform, runs.validation_clips(videos, config), 0, CPU)
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
    job = json.loads((trained.folder / "job.json").read_text())
    job["metadata"]["data"] = "another digest"
    (tmp_path / "job.json").write_text(json.dumps(job))
    with pytest.raises(LaunchError, match=r"'data'. have changed since") as caught:
        launch({tmp_path: ["avnb", "train", str(tmp_path)]}, 2, "pre-training xid")
    assert "Traceback" in str(caught.value) and "runs.py" in str(caught.value)


def test_processes_and_micro_batches_that_do_not_fit_are_refused(trained):
    other = dataclasses.replace(trained, folder=trained.folder / "other")
    with pytest.raises(ValueError, match=r"3 processes .*share 2 shards.*take one of \[1, 2\]"):
        runs.train([other], Resources(processes=3))
    config = with_values(trained.config, method="vicreg_v", micro_batch=4)
    with pytest.raises(ValueError, match="vicreg_v needs variances of whole batches"):
        trained_run(config, trained.manifest, trained.folder.parent)


def test_a_job_resumes_after_sigkill_of_torchrun_to_the_same_end(trained, tmp_path):
    (tmp_path / "job.json").write_bytes((trained.folder / "job.json").read_bytes())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               "--nproc-per-node=2", "-m", "avnb", "train", str(tmp_path)]  # fmt: skip
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as job:
        while not (tmp_path / "last.pt").exists():  # one epoch is done
            time.sleep(0.02)
            assert job.poll() is None
        job.send_signal(signal.SIGKILL)
    launch({tmp_path: ["avnb", "train", str(tmp_path)]}, 2, "xid")
    assert same_tensors(checkpoint.load(tmp_path / "last.pt"), checkpoint.load(trained.checkpoint))
