"""One loop, any number of processes, interrupted or not: the same numbers."""

import dataclasses
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys

import pytest
import torch

from avnb.config import Pretrain
from avnb.data.batch_plan import steps_per_epoch
from avnb.data.clips import VideoClips
from avnb.data.loader import training_epochs
from avnb.data.manifest import Manifest
from avnb.models import collapse
from avnb.models.methods import METHODS, build
from avnb.progress import MARK
from avnb.training import checkpoint, pretraining
from avnb.training.checkpoint import CheckpointError
from avnb.training.entrypoint import main
from avnb.training.pretraining import describe
from avnb.training.trainer import (
    RunningMeans,
    State,
    Views,
    ended,
    fit,
    gradients,
    sampling_of,
    validation,
)
from tests.conftest import with_values
from tests.training.test_torchrun import wait_for

CPU = torch.device("cpu")


def silent(done, note):
    pass


@pytest.fixture
def metadata(tiny, vggsound):
    flat = ([-2.5] * tiny.spectrogram.mels, [1.0] * tiny.spectrogram.mels)
    return describe(tiny, vggsound, flat)


def train(run: Pretrain, manifest, metadata, out, *, stop_after=None, report=silent):
    """Train in this process; `stop_after` steps raises KeyboardInterrupt, as Ctrl-C would."""
    out.mkdir(exist_ok=True)
    clips = VideoClips(manifest, sampling_of(run), seed=run.seed)

    def epochs(first):
        return training_epochs(clips, run, first, rank=0, processes=1, workers=0)

    def reporting(done, note):
        if stop_after is not None and done > stop_after:
            raise KeyboardInterrupt

    views = Views(run, metadata["mel_statistics"])
    method = build(run, len(manifest), len(manifest.classes))
    return fit(method, views, epochs, run.optim, run.compute, out, metadata, CPU, reporting)


def same_tensors(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_tensors(a[k], b[k]) for k in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_an_interrupted_run_ends_as_one_left_alone_bit_for_bit(tiny, vggsound, metadata, tmp_path):
    whole = checkpoint.load(train(tiny, vggsound, metadata, tmp_path / "a"))
    steps = steps_per_epoch(len(vggsound), tiny)
    for stop in (1, steps + 2):  # in the first epoch, and in the second
        with pytest.raises(KeyboardInterrupt):
            train(tiny, vggsound, metadata, tmp_path / "b", stop_after=stop)
    resumed = checkpoint.load(train(tiny, vggsound, metadata, tmp_path / "b"))
    assert same_tensors(whole, resumed)
    logs = [(tmp_path / x / "log.jsonl").read_text() for x in "ab"]
    assert logs[0] == logs[1] and len(logs[0].splitlines()) == tiny.optim.epochs


def test_training_changes_encoders_and_banks_and_logs_every_term(
    tiny, vggsound, metadata, tmp_path
):
    found = checkpoint.load(train(tiny, vggsound, metadata, tmp_path))
    before = build(tiny, len(vggsound), 12).state_dict()
    moved = {
        name for name, value in found["method"].items() if not torch.equal(value, before[name])
    }
    for part in ("video_encoder", "audio_encoder", "video_projector", "video_bank", "audio_bank"):
        assert any(name.startswith(part) for name in moved)
    terms = {"loss", "video_to_audio", "audio_to_video", "cosine_own", "cosine_other"}
    assert terms < found["log"][0].keys()
    norms = found["method"]["video_bank.rows"].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


@pytest.mark.parametrize("name", ["vicreg_av", "vicreg_v", "supervised"])
def test_every_other_method_trains_and_says_how_its_embeddings_are(
    tiny, vggsound, metadata, tmp_path, name
):
    run = with_values(tiny, method=name, epochs=1)
    found = checkpoint.load(train(run, vggsound, metadata, tmp_path))
    row = found["log"][0]
    terms = {
        "vicreg_av": {"invariance", "variance", "covariance", "video_rank", "audio_spread"},
        "vicreg_v": {"invariance", "variance", "covariance", "first_rank", "second_std"},
        "supervised": {"accuracy", "video_rank", "audio_rank"},
    }
    assert terms[name] < row.keys() and all(row[k] >= 0 for k in terms[name])
    if name == "supervised":
        return
    v = run.vicreg
    weighted = (
        v.invariance_weight * row["invariance"] + v.variance_weight * row["variance"]
        + v.covariance_weight * row["covariance"]
    )  # fmt: skip
    assert row["loss"] == pytest.approx(weighted, rel=1e-5)


def test_parts_of_a_batch_add_up_to_its_gradient(tiny, vggsound, metadata):
    """BatchNorm at rest: its statistics are a part's own."""
    clips = VideoClips(vggsound, sampling_of(tiny), seed=0)
    _, batches = next(training_epochs(clips, tiny, 0, rank=0, processes=1, workers=0))
    batch, views = next(batches), Views(tiny, metadata["mel_statistics"])
    found = {}
    for micro in (0, 2):
        method = build(tiny, len(vggsound), len(vggsound.classes)).train()
        for part in method.modules():
            if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                part.eval()
        terms = gradients(method, views, batch, 0.5, micro, CPU)
        method.after_step()
        found[micro] = terms, method
    for name, value in found[0][0].items():
        torch.testing.assert_close(found[2][0][name], value, msg=name)
    for (name, one), other in zip(
        found[0][1].named_parameters(), found[2][1].parameters(), strict=True
    ):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-4, msg=name)
    torch.testing.assert_close(found[2][1].video_bank.rows, found[0][1].video_bank.rows)


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"random"}))
def test_half_precision_changes_the_loss_by_its_rounding_alone(tiny, vggsound, metadata, name):
    losses = []
    for precision in ("fp32", "bf16"):
        run = with_values(tiny, method=name, precision=precision)
        clips = VideoClips(vggsound, sampling_of(run), seed=0)
        _, batches = next(training_epochs(clips, run, 0, rank=0, processes=1, workers=0))
        method = build(run, len(vggsound), len(vggsound.classes)).train()
        terms = method(Views(run, metadata["mel_statistics"])(next(batches)), 0.5)
        assert all(term.dtype == torch.float for term in terms.values())
        losses.append(terms["loss"].item())
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.15, abs=0.1)


def test_a_resting_audio_path_does_not_move(tiny, vggsound, metadata, tmp_path):
    run = with_values(tiny, method="vicreg_av", epochs=1, audio_rest_prob=1.0)
    found = checkpoint.load(train(run, vggsound, metadata, tmp_path))["method"]
    before = dict(build(run, len(vggsound), len(vggsound.classes)).named_parameters())
    moved = {name for name, p in before.items() if not torch.equal(found[name], p)}
    assert moved and not any(name.startswith("audio") for name in moved)


def test_supervised_ends_when_validation_accuracy_stagnates(tiny):
    run = with_values(tiny, method="supervised", epochs=9)
    logs = [[{"validation_accuracy": x} for x in xs] for xs in (
        [0.1, 0.2, 0.2], [0.1, 0.2, 0.2, 0.2], [0.3, 0.2, 0.25], [0.1, 0.2, 0.3],
    )]  # fmt: skip
    assert [ended(run, log) for log in logs] == [False, True, True, False]
    assert ended(run, [{"validation_accuracy": float(i)} for i in range(9)])


def test_a_collapse_is_said(tiny):
    row = {"epoch": 2, "video_spread": 0.001, "video_rank": 1.0, "audio_spread": 0.9,
           "audio_rank": 9.0}  # fmt: skip
    assert collapse.collapse_warning(row).startswith("collapse after epoch 3: video embeddings")
    well = {**row, "video_spread": 0.5, "video_rank": 3.0}
    assert not collapse.collapse_warning(well)
    assert "embeddings have shrunk" in collapse.collapse_warning({**well, "variance": 0.97})


def test_a_collapse_is_announced_while_it_trains(
    tiny, vggsound, metadata, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(collapse, "SPREAD_LEAST", 9.0)  # as if directions this different were one
    train(with_values(tiny, epochs=1), vggsound, metadata, tmp_path)
    assert f'{MARK}{{"said": "collapse after epoch 1' in capfd.readouterr().out


def test_health_is_that_of_the_whole_batch_however_it_is_divided(
    tiny, vggsound, metadata, tmp_path
):
    run = with_values(tiny, epochs=1, micro_batch=2)
    (row,) = checkpoint.load(train(run, vggsound, metadata, tmp_path))["log"]
    assert row["video_rank"] > 2 and row["audio_std"] > 0 and not collapse.collapse_warning(row)


def test_weights_that_are_not_finite_are_not_saved_over_good_ones(
    tiny, vggsound, metadata, tmp_path
):
    last = train(tiny, vggsound, metadata, tmp_path)
    before = last.read_bytes()
    found = checkpoint.load(last)
    method = build(tiny, len(vggsound), len(vggsound.classes))
    method.load_state_dict(found["method"])
    method.video_projector[0].weight.data[0, 0] = float("inf")
    adam = torch.optim.Adam(method.parameters())
    state = State(method=method, adam=adam, log=found["log"], tally=RunningMeans(), steps=9)
    with pytest.raises(FloatingPointError, match=r"weights.*not finite.*last good weights are in"):
        state.save(last, metadata)
    assert last.read_bytes() == before


def test_validation_is_a_sign_of_life(tiny, vggsound, metadata):
    run = with_values(tiny, method="supervised")
    method = build(run, len(vggsound), len(vggsound.classes))
    words = []
    found = validation(method, Views(run, metadata["mel_statistics"]), vggsound, run, CPU, 0)(
        words.append
    )
    assert words[-1] == f"validation, {len(vggsound)} of {len(vggsound)} videos"
    assert found.keys() == {"validation_loss", "validation_accuracy"}


def test_a_silent_collection_serves_the_method_that_only_sees(tiny, vggsound, manifests, tmp_path):
    manifest = Manifest.load(manifests / "vggsound")
    silent = [dataclasses.replace(v, audio_hz=0) for v in manifest.videos]
    manifest = dataclasses.replace(manifest, videos=tuple(silent), where=tmp_path / "silent")
    manifest.save()
    job = pretraining.job_of(with_values(tiny, method="vicreg_v"), manifest, 1, 0)
    assert job["about"]["mel_statistics"] is None
    run = Pretrain.from_flat(**job["about"]["run"])
    assert train(with_values(run, epochs=1), manifest.split("train"), job["about"], tmp_path / "r")
    with pytest.raises(ValueError, match=r"no video of vggsound .* has an audio stream"):
        pretraining.job_of(tiny, manifest, 1, 0)


def test_supervised_without_validation_videos_is_refused_before_anything_trains(tiny, manifests):
    manifest = Manifest.load(manifests / "vggsound")
    run = with_values(tiny, method="supervised", subset_videos=10**5)
    with pytest.raises(ValueError, match=r"usable training videos none is left.*\(100000\)"):
        pretraining.job_of(run, manifest, 1, 0)


def test_a_full_disk_is_one_clear_error_and_the_old_checkpoint_stays(
    tiny, vggsound, metadata, tmp_path
):
    last = train(tiny, vggsound, metadata, tmp_path)
    before = last.read_bytes()
    said = subprocess.run(
        [sys.executable, "-c", FILL, str(last)], capture_output=True, text=True, check=False
    )
    assert f"CheckpointError: {last} could not be written" in said.stderr
    assert "the one before it is kept" in said.stderr
    assert last.read_bytes() == before and not list(tmp_path.glob("*.partial"))


FILL = """
import resource, sys
from pathlib import Path
from avnb.training import checkpoint
found = checkpoint.load(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # a disk with room for one page
class Same:
    def state_dict(self):
        return found["method"]
checkpoint.save(Path(sys.argv[1]), found["about"], Same())
"""


def run_alone(out):
    """The job in `out` as one process; `begun` appears when it is about to train."""
    torch.set_num_threads(1)
    (out / "submit_or_attach").write_text("")
    main(out)


def written(out):
    """When the last checkpoint was written; 0 before the first."""
    return (out / "last.pt").stat().st_mtime_ns if (out / "last.pt").exists() else 0


def live(out, kill_after=None):
    """One life of the job, from a server that has imported torch already; its exit status.

    `kill_after` is how many checkpoints it may write, and for how many seconds more it may live.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["avnb.worker"])
    (out / "submit_or_attach").unlink(missing_ok=True)
    job = context.Process(target=run_alone, args=(out,))
    job.start()
    if kill_after is not None:
        wait_for((out / "submit_or_attach").exists)
        saves, seconds = kill_after
        for _ in range(saves):
            before = written(out)
            wait_for(lambda before=before: written(out) != before, pause=0.005)
        job.join(seconds)
        job.kill()
    job.join()
    return job.exitcode


def test_killed_at_any_moment_it_ends_as_if_nothing_had_been(tiny, vggsound, metadata, tmp_path):
    """Bit for bit: weights, banks, optimiser, log."""
    run = with_values(tiny, save_every_steps=1, epochs=5)
    manifest = Manifest.load(vggsound.where)
    folders = tmp_path / "whole", tmp_path / "killed"
    job = {**pretraining.job_of(run, manifest, processes=1, workers=0), "title": "test"}
    for folder in folders:
        folder.mkdir()
        (folder / "job.json").write_text(json.dumps(job))
    assert live(folders[0]) == 0
    rng, met = random.Random(0), []
    for saves in (0, 1, 2, 0, 1, 2, 0, 1, 2, 1):
        moment = saves, rng.uniform(0, 0.15)  # a step takes about as long
        assert live(folders[1], kill_after=moment) == -signal.SIGKILL
        met.append(written(folders[1]) and checkpoint.load(folders[1] / "last.pt")["steps"])
    assert len(set(met)) > 4 and max(met) < steps_per_epoch(len(vggsound), run) * 5
    assert live(folders[1]) == 0
    a, b = (checkpoint.load(folder / "last.pt") for folder in folders)
    assert same_tensors(a, b)
    assert (folders[0] / "log.jsonl").read_text() == (folders[1] / "log.jsonl").read_text()


def test_saving_and_reading_ahead_may_change_while_a_run_lasts(tiny, vggsound, tmp_path):
    run = with_values(tiny, save_every_steps=1, epochs=2)
    other = with_values(run, save_every_steps=1000, window_steps=2)
    manifest = Manifest.load(vggsound.where)
    assert pretraining.located(run, manifest, tmp_path).folder.name == (
        pretraining.located(other, manifest, tmp_path).folder.name
    )
    jobs = [
        {**pretraining.job_of(one, manifest, processes=1, workers=0), "title": "test"}
        for one in (run, other)
    ]
    folders = tmp_path / "whole", tmp_path / "changed"
    for folder in folders:
        folder.mkdir()
        (folder / "job.json").write_text(json.dumps(jobs[0]))
    assert live(folders[0]) == 0
    assert live(folders[1], kill_after=(2, 0)) == -signal.SIGKILL
    (folders[1] / "job.json").write_text(json.dumps(jobs[1]))
    assert live(folders[1]) == 0
    a, b = (checkpoint.load(folder / "last.pt") for folder in folders)
    assert b["about"]["run"]["window_steps"] == 2
    assert same_tensors(a, {**b, "about": a["about"]})


def test_another_runs_checkpoint_is_refused_with_the_difference(tiny, vggsound, metadata, tmp_path):
    train(tiny, vggsound, metadata, tmp_path)
    other = {**metadata, "run": {**metadata["run"], "lr": 0.5}}
    with pytest.raises(CheckpointError, match=r"run\.lr: it has 0\.0025, this run has 0\.5"):
        train(tiny, vggsound, other, tmp_path)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    tiny, vggsound, metadata, tmp_path
):
    last = train(tiny, vggsound, metadata, tmp_path)
    longer = Pretrain.from_flat(**{**tiny.flat(), "epochs": 3, "lr": 9.0, "temperature": 1e-4})
    found = checkpoint.load(last)
    found["method"]["video_encoder.stem.0.weight"].fill_(float("nan"))
    wants = describe(longer, vggsound, metadata["mel_statistics"])
    torch.save({**found, "about": wants}, last)
    before = last.read_bytes()
    with pytest.raises(FloatingPointError, match=r"epoch 2\) gave"):
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
