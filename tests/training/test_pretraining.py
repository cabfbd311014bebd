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
from avnb.data.clips import Sampling, VideoClips
from avnb.data.loader import steps_per_epoch
from avnb.data.manifest import Manifest
from avnb.data.subsets import training_and_validation
from avnb.data.transform import BatchTransform
from avnb.models.methods import build_method
from avnb.profiles import PROFILES
from avnb.training import checkpoint, runs
from avnb.training.launch import Resources, launch
from avnb.training.loop import parallel, validate
from avnb.training.runs import pretraining_run, run_name
from tests.conftest import ROOT, with_values
from tests.training.test_trainer import TRAINED, same_tensors

pytestmark = pytest.mark.slow

TWO = Resources(processes=2)


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
    one, two = (gradients_on(tmp_path, manifests, tiny, n) for n in (1, 2))
    assert one.keys() == two.keys()
    assert {name.split(".")[0] for name in one} == set(TRAINED)
    for name in one:
        assert one[name].dtype == torch.double
        torch.testing.assert_close(two[name], one[name], rtol=1e-6, atol=1e-9, msg=name)


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


def test_two_processes_train_to_the_end_and_a_second_call_does_nothing(trained, capsys):
    config, folder = trained.config, trained.folder
    assert trained.finished and len(trained.log) == config.optim.epochs
    data = training_and_validation(trained.manifest, config)[0].digest
    assert folder.name == run_name(config, data)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = trained_run(with_values(config, micro_batch=4), trained.manifest, folder.parent)
    assert again.folder == folder
    assert "is finished: micro_batch = 4 changes nothing" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    clips = steps_per_epoch(32, config) * config.optim.epochs * config.optim.batch
    assert f"xid {clips}/{clips} clips" in (folder / "output.txt").read_text()


def test_runs_of_one_process_are_trained_side_by_side(tiny, manifests, tmp_path, capfd):
    manifest, methods = Manifest.load(manifests / "vggsound"), ("xid", "vicreg_v", "random")
    configs = [with_values(tiny, method=name, shards=1, epochs=1) for name in methods]
    found = [pretraining_run(config, manifest, tmp_path) for config in configs]
    runs.train(found)
    assert all(run.finished for run in found) and not list(tmp_path.rglob("error.json"))
    seen = capfd.readouterr().err
    assert "training xid, vicreg_v, random: 100%" in seen and "2/2" in seen


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
    once = Sampling(clip=config.clip, count=1, place="random", resize_px=config.clip.resized_px)
    again = validate(model, transform, VideoClips(videos, once, seed=config.seed), 0)
    (row,) = content["log"]
    assert {name: row[name] for name in again} == pytest.approx(again, rel=1e-5)


def test_compiled_encoders_keep_the_names_of_their_tensors(tiny):
    model = build_method(with_values(tiny, compile_encoders=True), 8, 2)
    names = list(model.state_dict())
    assert parallel(model) is model and list(model.state_dict()) == names
    for encoder in (model.video_encoder, model.audio_encoder):
        assert encoder._compiled_call_impl  # it compiles when it is called


def test_processes_and_micro_batches_that_do_not_fit_are_refused(trained):
    other = dataclasses.replace(trained, folder=trained.folder / "other")
    with pytest.raises(ValueError, match=r"3 processes .*share 2 shards.*take one of \[1, 2\]"):
        runs.train([other], Resources(processes=3))
    config = with_values(trained.config, method="vicreg_v", micro_batch=4)
    with pytest.raises(
        ValueError, match="vicreg_v needs whole batches for its loss: no `micro_batch`"
    ):
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
