"""The training loop: the same numbers on any number of processes, interrupted or not."""

import dataclasses
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from avnb import book as report
from avnb.config import Pretrain
from avnb.data.batch import Batch
from avnb.data.batch_plan import steps_per_epoch
from avnb.data.batch_transform import BatchTransform
from avnb.data.clips import Sampling, VideoClips
from avnb.data.loader import training_epochs
from avnb.data.manifest import Manifest
from avnb.data.replacements import read_ledger
from avnb.models import collapse
from avnb.models.methods import METHODS, build_method, find_method
from avnb.progress import MARK, ProgressReporter
from avnb.training import checkpoint, runs, speed
from avnb.training.checkpoint import CheckpointError
from avnb.training.runs import main
from avnb.training.runs import describe, pretraining_run, training_sampling
from avnb.training.launch import Resources
from avnb.training.state import TrainingState
from avnb.training.loop import Validation, accumulate_gradients, fit
from tests.conftest import with_values
from tests.training.test_torchrun import wait_for

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
ALONE = Resources(processes=1)
TRAINED = sorted(name for name, method in METHODS.items() if method.is_trained)


@pytest.fixture
def metadata(tiny, vggsound):
    statistics = ([-2.5] * tiny.spectrogram.mels, [1.0] * tiny.spectrogram.mels)
    return describe(tiny, vggsound, statistics)


def train(config: Pretrain, manifest, metadata, out):
    """Train in this process, without validation."""
    out.mkdir(exist_ok=True)
    model = build_method(config, len(manifest), len(manifest.classes))
    transform = BatchTransform(config, metadata.mel_statistics)
    clips = VideoClips(manifest, training_sampling(config), seed=config.seed)
    return fit(model, transform, clips, metadata, out, CPU)


def interrupt_after(monkeypatch, clips):
    """Raise KeyboardInterrupt, as Ctrl-C would, after the step that exceeds so many clips."""

    def report(self, done, note):
        if done > clips:
            raise KeyboardInterrupt

    monkeypatch.setattr(ProgressReporter, "report", report)


def first_batch(config, manifest):
    """The first training batch of a run."""
    clips = VideoClips(manifest, training_sampling(config), seed=0)
    _, batches = next(training_epochs(clips, config, 0, rank=0, processes=1, workers=0))
    return next(batches)


def validation_of(config, manifest):
    """Validation on all videos of a manifest."""
    px = config.clip.resized_px
    sampling = Sampling(clip=config.clip, count=1, place="random", resize_px=px)
    return Validation(clips=VideoClips(manifest, sampling, seed=config.seed), workers=0)


def same_tensors(a, b):
    """Whether two contents of checkpoints are equal, bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_tensors(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_tensors, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_an_interrupted_run_ends_bit_for_bit_like_an_uninterrupted_one(
    tiny, vggsound, metadata, tmp_path, monkeypatch
):
    whole = checkpoint.load(train(tiny, vggsound, metadata, tmp_path / "a"))
    steps = steps_per_epoch(len(vggsound), tiny)
    for stop in (1, steps + 2):  # in the first epoch, and in the second
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt_after(patch, stop * tiny.optim.batch)
            train(tiny, vggsound, metadata, tmp_path / "b")
    resumed = checkpoint.load(train(tiny, vggsound, metadata, tmp_path / "b"))
    assert same_tensors(whole, resumed)
    logs = [(tmp_path / x / "log.jsonl").read_text() for x in "ab"]
    assert logs[0] == logs[1] and len(logs[0].splitlines()) == tiny.optim.epochs


def test_a_video_that_is_lost_after_the_audit_does_not_end_a_run(
    tiny, vggsound, metadata, tmp_path
):
    shutil.copytree(vggsound.folder, tmp_path / "videos")
    lost = dataclasses.replace(vggsound, folder=tmp_path / "videos", cache=None)
    lost.path(lost.videos[2]).unlink()
    config = with_values(tiny, epochs=1)
    path = train(config, lost, metadata, tmp_path / "run")
    lines = list(read_ledger(path.parent))
    assert {line["video"] for line in lines} == {lost.videos[2].path}
    assert len(lines) == config.clips_per_video  # of one epoch
    said = report.describe_replacements(path.parent)
    assert f"**{len(lines)} clips of 1 video** could not be read" in said
    assert report.describe_replacements(tmp_path) == ""


def test_training_changes_encoders_and_banks_and_logs_every_term(
    tiny, vggsound, metadata, tmp_path
):
    _, content = checkpoint.load(train(tiny, vggsound, metadata, tmp_path))
    before = build_method(tiny, len(vggsound), 12).state_dict()
    moved = {
        name for name, value in content["model"].items() if not torch.equal(value, before[name])
    }
    for part in ("video_encoder", "audio_encoder", "video_projector", "video_bank", "audio_bank"):
        assert any(name.startswith(part) for name in moved)
    terms = {"loss", "video_to_audio", "audio_to_video", "cosine_own", "cosine_other"}
    assert terms < content["log"][0].keys()
    norms = content["model"]["video_bank.rows"].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


@pytest.mark.parametrize("name", ["vicreg_av", "vicreg_v", "supervised"])
def test_other_methods_train_and_log_statistics_of_their_embeddings(
    tiny, vggsound, metadata, tmp_path, name
):
    config = with_values(tiny, method=name, epochs=1)
    _, content = checkpoint.load(train(config, vggsound, metadata, tmp_path))
    row = content["log"][0]
    terms = {
        "vicreg_av": {"invariance", "variance", "covariance", "video_rank", "audio_spread"},
        "vicreg_v": {"invariance", "variance", "covariance", "first_rank", "second_std"},
        "supervised": {"accuracy", "video_rank", "audio_rank"},
    }
    assert terms[name] < row.keys() and all(row[k] >= 0 for k in terms[name])
    if name == "supervised":
        return
    v = config.vicreg
    weighted = (
        v.invariance_weight * row["invariance"] + v.variance_weight * row["variance"]
        + v.covariance_weight * row["covariance"]
    )  # fmt: skip
    assert row["loss"] == pytest.approx(weighted, rel=1e-5)


def test_micro_batches_accumulate_to_the_gradient_of_the_batch(tiny, vggsound, metadata):
    """BatchNorm in evaluation mode: in training its statistics are those of a part."""
    batch = first_batch(tiny, vggsound)
    transform = BatchTransform(tiny, metadata.mel_statistics)
    found = {}
    for micro in (0, 2):
        method = build_method(tiny, len(vggsound), len(vggsound.classes)).train()
        for part in method.modules():
            if isinstance(part, _BatchNorm):
                part.eval()
        terms = accumulate_gradients(method, transform, batch, 0.5, micro)
        method.after_step()
        found[micro] = terms, method
    for name, value in found[0][0].items():
        torch.testing.assert_close(found[2][0][name], value, msg=name)
    for (name, one), other in zip(
        found[0][1].named_parameters(), found[2][1].parameters(), strict=True
    ):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-4, msg=name)
    torch.testing.assert_close(found[2][1].video_bank.rows, found[0][1].video_bank.rows)


@pytest.mark.parametrize("name", TRAINED)
def test_half_precision_changes_the_loss_only_by_rounding(tiny, vggsound, metadata, name):
    losses = []
    for precision in ("fp32", "bf16"):
        config = with_values(tiny, method=name, precision=precision)
        method = build_method(config, len(vggsound), len(vggsound.classes)).train()
        transform = BatchTransform(config, metadata.mel_statistics)
        terms = method(transform(first_batch(config, vggsound)), 0.5)
        assert all(term.dtype == torch.float for term in terms.values())
        losses.append(terms["loss"].item())
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.15, abs=0.1)


def test_skipped_updates_leave_the_audio_path_unchanged(tiny, vggsound, metadata, tmp_path):
    config = with_values(tiny, method="vicreg_av", epochs=1, audio_rest_prob=1.0)
    _, content = checkpoint.load(train(config, vggsound, metadata, tmp_path))
    before = build_method(config, len(vggsound), len(vggsound.classes)).named_parameters()
    moved = {name for name, p in before if not torch.equal(content["model"][name], p)}
    assert moved and not any(name.startswith("audio") for name in moved)


def test_supervised_stops_when_validation_accuracy_stagnates(tiny):
    config = with_values(tiny, method="supervised", epochs=9)
    is_finished = find_method("supervised").is_finished
    logs = [[{"validation_accuracy": x} for x in xs] for xs in (
        [0.1, 0.2, 0.2], [0.1, 0.2, 0.2, 0.2], [0.3, 0.2, 0.25], [0.1, 0.2, 0.3],
    )]  # fmt: skip
    assert [is_finished(config, log) for log in logs] == [False, True, True, False]
    assert is_finished(config, [{"validation_accuracy": float(i)} for i in range(9)])


def test_collapse_warnings_name_the_embeddings(tiny):
    row = {"epoch": 2, "video_spread": 0.001, "video_rank": 1.0, "audio_spread": 0.9,
           "audio_rank": 9.0}  # fmt: skip
    assert collapse.collapse_warning(row).startswith("collapse after epoch 3: video embeddings")
    well = {**row, "video_spread": 0.5, "video_rank": 3.0}
    assert not collapse.collapse_warning(well)
    assert "embeddings have shrunk" in collapse.collapse_warning({**well, "variance": 0.97})


def test_a_collapse_and_too_little_memory_are_announced_during_training(
    tiny, vggsound, metadata, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(collapse, "SPREAD_LEAST", 9.0)  # above any spread
    bounded = with_values(tiny, epochs=1, shuffle_steps=5, read_ahead_gb=0.0)
    train(bounded, vggsound, metadata, tmp_path)
    said = capfd.readouterr().out
    assert f'{MARK}{{"said": "collapse after epoch 1' in said
    assert f'{MARK}{{"said": "a video\'s clips come within 5 steps' in said


def test_progress_shows_clips_and_the_loss_of_the_last_epoch(
    tiny, vggsound, metadata, tmp_path, capfd
):
    train(tiny, vggsound, metadata, tmp_path / "xid-0")
    lines = [line for line in capfd.readouterr().out.split("\n") if line.startswith(MARK)]
    first, last = (json.loads(lines[i].removeprefix(MARK)) for i in (0, -1))
    total = steps_per_epoch(len(vggsound), tiny) * tiny.optim.epochs * tiny.optim.batch
    assert first["note"] == "xid, first epoch"
    assert (last["done"], last["total"]) == (total, total)
    assert last["note"].startswith("xid, loss ") and "validation" not in last["note"]


def test_embedding_statistics_are_those_of_the_whole_batch(tiny, vggsound, metadata, tmp_path):
    """However it is divided: no part of two clips has a rank above 2."""
    config = with_values(tiny, epochs=1, micro_batch=2)
    _, content = checkpoint.load(train(config, vggsound, metadata, tmp_path))
    (row,) = content["log"]
    assert row["video_rank"] > 2 and row["audio_std"] > 0 and not collapse.collapse_warning(row)


def test_weights_that_are_not_finite_do_not_replace_a_good_checkpoint(
    tiny, vggsound, metadata, tmp_path
):
    last = train(tiny, vggsound, metadata, tmp_path)
    before = last.read_bytes()
    _, content = checkpoint.load(last)
    model = build_method(tiny, len(vggsound), len(vggsound.classes))
    model.load_state_dict(content["model"])
    model.video_projector[0].weight.data[0, 0] = float("inf")
    state = TrainingState(model, torch.optim.Adam(model.parameters()), last, metadata)
    state.log, state.steps = content["log"], 9
    with pytest.raises(FloatingPointError, match=r"weights.*not finite.*last good weights are in"):
        state.save()
    assert last.read_bytes() == before


def test_validation_reports_progress(tiny, vggsound, metadata, capfd):
    config = with_values(tiny, method="supervised")
    model = build_method(config, len(vggsound), len(vggsound.classes))
    transform = BatchTransform(config, metadata.mel_statistics)
    bar = ProgressReporter(0, "supervised")  # nothing is left to do, so every call is reported
    metrics = validation_of(config, vggsound).measure(model, transform, CPU, bar)
    lines = [line.removeprefix(MARK) for line in capfd.readouterr().out.splitlines()]
    videos = len(vggsound)
    assert json.loads(lines[-1])["note"] == f"supervised, validation, {videos} of {videos} videos"
    assert metrics.keys() == {"validation_loss", "validation_accuracy"}


def test_videos_without_audio_serve_a_method_that_uses_none(tiny, manifests, tmp_path):
    manifest = Manifest.load(manifests / "vggsound")
    silent = [dataclasses.replace(v, audio_hz=0) for v in manifest.videos]
    manifest = dataclasses.replace(manifest, videos=tuple(silent), where=tmp_path / "silent")
    manifest.save()
    config = with_values(tiny, method="vicreg_v")
    metadata = pretraining_run(config, manifest, tmp_path).job(ALONE)["metadata"]
    assert metadata.mel_statistics is None
    config = with_values(metadata.pretrain, epochs=1)
    assert train(config, manifest.split("train"), metadata, tmp_path / "r").exists()
    with pytest.raises(ValueError, match=r"no video of vggsound .* has an audio stream"):
        pretraining_run(tiny, manifest, tmp_path).job(ALONE)


def test_supervised_without_validation_videos_is_refused_before_training(tiny, manifests, tmp_path):
    manifest = Manifest.load(manifests / "vggsound")
    config = with_values(tiny, method="supervised", subset_videos=10**5)
    with pytest.raises(ValueError, match=r"usable training videos none is left.*\(100000\)"):
        pretraining_run(config, manifest, tmp_path).job(ALONE)


def test_a_full_disk_is_one_clear_error_and_the_old_checkpoint_stays(
    tiny, vggsound, metadata, tmp_path
):
    last = train(tiny, vggsound, metadata, tmp_path)
    before = last.read_bytes()
    answer = subprocess.run(
        [sys.executable, "-c", FILL, str(last)], capture_output=True, text=True, check=False
    )
    assert f"CheckpointError: {last} could not be written" in answer.stderr
    assert "the previous one is kept" in answer.stderr
    assert last.read_bytes() == before and not list(tmp_path.glob("*.partial"))
    assert not list(tmp_path.glob(".*.partial"))


FILL = """
import resource, sys
from pathlib import Path
from avnb.training import checkpoint
metadata, content = checkpoint.load(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # a disk with room for one page
class Same:
    def state_dict(self):
        return content["model"]
checkpoint.save(Path(sys.argv[1]), metadata, Same())
"""


def run_alone(out):
    """The job in `out` as one process; `begun` appears when it is about to train."""
    torch.set_num_threads(1)
    (out / "begun").write_text("")
    main(out)


def saved_at(out):
    """When the last checkpoint was written; 0 before the first."""
    return (out / "last.pt").stat().st_mtime_ns if (out / "last.pt").exists() else 0


def exit_status(out, kill_after=None):
    """Start the job in a server that has imported torch, perhaps kill it; its exit status.

    `kill_after` is how many checkpoints it may write, and for how many seconds more it may run.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["avnb.training.entrypoint", "avnb.training.pretraining"])
    (out / "begun").unlink(missing_ok=True)
    job = context.Process(target=run_alone, args=(out,))
    job.start()
    if kill_after is not None:
        wait_for((out / "begun").exists)
        saves, seconds = kill_after
        for _ in range(saves):
            before = saved_at(out)
            wait_for(lambda before=before: saved_at(out) != before, pause=0.005)
        job.join(seconds)
        job.kill()
    job.join()
    return job.exitcode


def test_a_run_killed_at_any_moment_resumes_to_the_same_end(tiny, vggsound, tmp_path):
    """Bit for bit: weights, banks, optimiser, log."""
    config = with_values(tiny, save_every_steps=1, epochs=5)
    job = pretraining_run(config, Manifest.load(vggsound.where), tmp_path).job(ALONE)
    folders = tmp_path / "whole", tmp_path / "killed"
    for folder in folders:
        runs.write_job(folder, job)
    assert exit_status(folders[0]) == 0
    rng, seen = random.Random(0), []
    for saves in (0, 1, 2, 0, 1, 2, 0, 1, 2, 1):
        moment = saves, rng.uniform(0, 0.15)  # a step takes about as long
        assert exit_status(folders[1], kill_after=moment) == -signal.SIGKILL
        steps = saved_at(folders[1]) and checkpoint.load(folders[1] / "last.pt")[1]["steps"]
        seen.append(steps)
    assert len(set(seen)) > 4 and max(seen) < steps_per_epoch(len(vggsound), config) * 5
    assert exit_status(folders[1]) == 0
    a, b = (checkpoint.load(folder / "last.pt") for folder in folders)
    assert same_tensors(a, b)
    assert (folders[0] / "log.jsonl").read_text() == (folders[1] / "log.jsonl").read_text()


def test_values_outside_the_identity_may_change_during_a_run(tiny, vggsound, tmp_path):
    """How often checkpoints are written, and how far ahead clips are read."""
    config = with_values(tiny, save_every_steps=1, epochs=2)
    other = with_values(config, save_every_steps=1000, read_ahead_gb=0.0)
    manifest = Manifest.load(vggsound.where)
    same = [pretraining_run(one, manifest, tmp_path) for one in (config, other)]
    assert same[0].name == same[1].name
    jobs = [run.job(ALONE) for run in same]
    folders = tmp_path / "whole", tmp_path / "changed"
    for folder in folders:
        runs.write_job(folder, jobs[0])
    assert exit_status(folders[0]) == 0
    assert exit_status(folders[1], kill_after=(2, 0)) == -signal.SIGKILL
    runs.write_job(folders[1], jobs[1])
    assert exit_status(folders[1]) == 0
    (_, a), (metadata, b) = (checkpoint.load(folder / "last.pt") for folder in folders)
    assert metadata.config["read_ahead_gb"] == 0
    assert same_tensors(a, {**b, "metadata": a["metadata"]})


def test_another_runs_checkpoint_is_refused_with_the_difference(tiny, vggsound, metadata, tmp_path):
    train(tiny, vggsound, metadata, tmp_path)
    other = dataclasses.replace(metadata, config={**metadata.config, "lr": 0.5})
    with pytest.raises(
        CheckpointError, match=rf"config\.lr: it has {tiny.optim.lr}, this run has 0\.5"
    ):
        train(tiny, vggsound, other, tmp_path)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    tiny, vggsound, metadata, tmp_path
):
    last = train(tiny, vggsound, metadata, tmp_path)
    longer = with_values(tiny, epochs=3, lr=9.0, temperature=1e-4)
    _, content = checkpoint.load(last)
    content["model"]["video_encoder.stem.0.weight"].fill_(3e38)  # the next product overflows
    wants = describe(longer, vggsound, metadata.mel_statistics)
    torch.save({**content, "metadata": dataclasses.asdict(wants)}, last)
    before = last.read_bytes()
    with pytest.raises(FloatingPointError, match=r"epoch 2\) gave"):
        train(longer, vggsound, wants, tmp_path)
    assert last.read_bytes() == before
    content["model"]["video_encoder.stem.0.weight"].fill_(float("nan"))
    torch.save({**content, "metadata": dataclasses.asdict(wants)}, last)
    with pytest.raises(
        CheckpointError, match=r"1 are not finite: \['video_encoder.stem.0.weight'\]"
    ):
        train(longer, vggsound, wants, tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"PK\x03\x04 truncated zip"], ids=["empty", "text", "zip"]
)
def test_a_file_that_is_no_checkpoint_is_named_in_the_error(tmp_path, content):
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


def test_speed_is_logged_beside_the_limit_and_changes_nothing(tiny, vggsound, metadata, tmp_path):
    config = with_values(tiny, epochs=2)
    train(config, vggsound, metadata, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "speed.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1]
    for row in rows:
        assert row["clips_per_second"] > 0 and 0 <= row["waiting_share"] < 1
        share = pytest.approx(row["tflops"] / row["matmul_tflops"])
        assert 0 < row["matmul_share"] == share and share.expected < 1


def test_operations_of_a_clip_are_those_of_the_thesis(vggsound):
    """136.7 GFLOP a clip."""
    config = Pretrain()
    model = build_method(config, 10, 2)
    frames = torch.zeros(1, 3, 16, 224, 224)
    rest = {"label": torch.zeros(1), "video_index": torch.zeros(1)}
    batch = Batch(frames=frames, audio=torch.zeros(1, 1, 128, 125), **rest)
    assert speed.flops_per_clip(model, batch) / 1e9 == pytest.approx(136.7, rel=0.01)
