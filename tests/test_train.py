"""One loop, any number of processes, interrupted or not: the same numbers."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from avnb import checkpoint, pretrain
from avnb.batches import Sampling, VideoClips, steps_per_epoch, training_epochs
from avnb.checkpoint import CheckpointError
from avnb.config import Pretrain
from avnb.launch import LaunchError, launch
from avnb.methods import build
from avnb.pretrain import describe, finished, read_log, run_folder
from avnb.train import Views, fit, training_videos
from avnb.videos import Manifest
from tests.conftest import ROOT

CPU = torch.device("cpu")


def silent(done, note):
    pass


@pytest.fixture
def about(smoke, vggsound):
    flat = ([-2.5] * smoke.spectrogram.mels, [1.0] * smoke.spectrogram.mels)
    return describe(smoke, vggsound, flat)


def train(run: Pretrain, manifest, about, out, *, stop_after=None, report=silent):
    """Train in this process; `stop_after` steps raises KeyboardInterrupt, as Ctrl-C would."""
    out.mkdir(exist_ok=True)
    sampling = Sampling(
        clip=run.clip, count=run.clips_per_video, place="random", augment=run.augment
    )
    clips = VideoClips(manifest, sampling, seed=run.seed)

    def epochs(first):
        return training_epochs(clips, run, first, rank=0, processes=1, workers=0)

    def reporting(done, note):
        if stop_after is not None and done > stop_after:
            raise KeyboardInterrupt

    views = Views(run, about["bands"])
    return fit(
        build(run, len(manifest)), views, epochs, run.optim, out, about, CPU, reporting
    )  # fmt: skip


def same_tensors(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_tensors(a[k], b[k]) for k in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_an_interrupted_run_ends_as_one_left_alone_bit_for_bit(smoke, vggsound, about, tmp_path):
    whole = checkpoint.load(train(smoke, vggsound, about, tmp_path / "a"))
    steps = steps_per_epoch(len(vggsound), smoke)
    for stop in (1, steps + 2):  # in the first epoch, and in the second
        with pytest.raises(KeyboardInterrupt):
            train(smoke, vggsound, about, tmp_path / "b", stop_after=stop)
    resumed = checkpoint.load(train(smoke, vggsound, about, tmp_path / "b"))
    assert same_tensors(whole, resumed)
    logs = [(tmp_path / x / "log.jsonl").read_text() for x in "ab"]
    assert logs[0] == logs[1] and len(logs[0].splitlines()) == smoke.optim.epochs


def test_training_changes_encoders_and_banks_and_logs_every_term(smoke, vggsound, about, tmp_path):
    found = checkpoint.load(train(smoke, vggsound, about, tmp_path))
    before = build(smoke, len(vggsound)).state_dict()
    moved = {
        name for name, value in found["method"].items() if not torch.equal(value, before[name])
    }
    for part in ("video_encoder", "audio_encoder", "video_projector", "video_bank", "audio_bank"):
        assert any(name.startswith(part) for name in moved)
    terms = {"loss", "video_to_audio", "audio_to_video", "cosine_own", "cosine_other"}
    assert terms < found["log"][0].keys()
    norms = found["method"]["video_bank.rows"].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_another_runs_checkpoint_is_refused_with_the_difference(smoke, vggsound, about, tmp_path):
    train(smoke, vggsound, about, tmp_path)
    other = {**about, "run": {**about["run"], "lr": 0.5}}
    with pytest.raises(CheckpointError, match=r"run\.lr: it has 0\.0025, this run has 0\.5"):
        train(smoke, vggsound, other, tmp_path)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    smoke, vggsound, about, tmp_path
):
    last = train(smoke, vggsound, about, tmp_path)
    longer = Pretrain.from_flat(**{**smoke.flat(), "epochs": 3, "lr": 9.0, "temperature": 1e-4})
    found = checkpoint.load(last)
    found["method"]["video_encoder.stem.0.weight"].fill_(float("nan"))
    wants = describe(longer, vggsound, about["bands"])
    torch.save({**found, "about": wants}, last)
    before = last.read_bytes()
    with pytest.raises(FloatingPointError, match="epoch 2 gave"):
        train(longer, vggsound, wants, tmp_path)
    assert last.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"PK\x03\x04 truncated zip"], ids=["empty", "text", "zip"]
)
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pt is not a checkpoint"):
        checkpoint.load(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"format": 1, "method": Trap()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "x.pt")
    assert not (tmp_path / "sprung").exists()
    torch.save({"epoch": 3, "model": {}}, tmp_path / "y.pt")
    with pytest.raises(CheckpointError, match=r"holds \['epoch', 'model'\]"):
        checkpoint.load(tmp_path / "y.pt")


# ---- real processes ---------------------------------------------------------------------------


def gradients(tmp_path, manifests, smoke, about, processes):
    out = tmp_path / str(processes)
    out.mkdir()
    job = {"about": about, "manifest": str(manifests / "vggsound"), "workers": 0}
    (out / "job.json").write_text(json.dumps(job))
    launch(
        [str(out)], processes=processes, folder=out, title="gradient",
        module="tests.job_gradient",
    )  # fmt: skip
    return torch.load(out / "gradient.pt", weights_only=True)


def test_the_gradient_on_two_processes_is_the_gradient_on_one(tmp_path, manifests, smoke, about):
    one, two = (gradients(tmp_path, manifests, smoke, about, n) for n in (1, 2))
    assert one.keys() == two.keys() and len(one) > 50
    for name in one:
        scale = one[name].abs().max().item()
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-4 * scale, msg=name)


@pytest.fixture(scope="module")
def trained(manifests, tmp_path_factory):
    """A smoke run on two processes, through the front door."""
    from avnb.config import PROFILES

    run = Pretrain.from_flat(**PROFILES["smoke"]["pretrain"])
    runs = tmp_path_factory.mktemp("runs")
    manifest = Manifest.load(manifests / "vggsound")
    folder = pretrain.pretrain(run, manifest, runs, processes=2)
    return run, manifest, runs, folder


def test_two_processes_train_to_the_end_and_a_second_call_does_nothing(trained, manifests):
    run, manifest, runs, folder = trained
    assert finished(folder, run) and len(read_log(folder)) == run.optim.epochs
    assert folder == run_folder(runs, run, manifest.split("train"))
    before = (folder / "last.pt").stat().st_mtime_ns
    start = time.monotonic()
    pretrain.pretrain(run, manifest, runs, processes=2)
    assert (folder / "last.pt").stat().st_mtime_ns == before and time.monotonic() - start < 1


def test_a_workers_traceback_is_in_the_exception(trained, manifests, tmp_path):
    run, manifest, _, _ = trained
    broken = dataclasses.replace(manifest, folder=tmp_path / "gone", where=tmp_path / "manifest")
    broken.save()
    with pytest.raises(LaunchError, match=r"DecodeError.*gone.*No such file") as caught:
        folder = tmp_path / "run"
        folder.mkdir()
        flat = ([0.0] * 64, [1.0] * 64)
        job = {"about": describe(run, broken.split("train"), flat), "workers": 0,
               "manifest": str(tmp_path / "manifest")}  # fmt: skip
        (folder / "job.json").write_text(json.dumps(job))
        launch(["train", str(folder)], processes=2, folder=folder, title="pre-training xid")
    assert "Traceback" in str(caught.value) and "decode.py" in str(caught.value)


def test_processes_that_do_not_divide_the_shards_are_refused_in_words(trained):
    run, manifest, runs, _ = trained
    with pytest.raises(
        ValueError, match=r"3 processes cannot share 2 shards.*take one of \[1, 2\]"
    ):
        pretrain.pretrain(run, manifest, runs, processes=3)


def test_videos_without_sound_are_silent_dropped_or_an_error(trained):
    run, manifest, _, folder = trained
    train = manifest.split("train")
    silent = len(train) - len(train.with_sound())
    assert (
        silent > 0
        and json.loads((folder / "job.json").read_text())["about"]["without_sound"] == silent
    )
    values = run.flat()
    drop = Pretrain.from_flat(**{**values, "missing_sound": "drop"})
    assert training_videos(manifest, drop) == train.with_sound()
    error = Pretrain.from_flat(**{**values, "missing_sound": "error"})
    with pytest.raises(ValueError, match=f"{silent} of {len(train)} training videos"):
        training_videos(manifest, error)


def test_killed_with_sigkill_it_goes_on_and_ends_as_if_nothing_had_been(
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
