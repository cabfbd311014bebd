"""The training loop: the same numbers on any number of processes, interrupted or not."""

import dataclasses
import json
import multiprocessing
import random
import shutil
import signal
from pathlib import Path

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from avnb.config import Pretrain
from avnb.data.clips import VideoClips
from avnb.data.loader import steps_per_epoch, training_epochs
from avnb.data.manifest import Manifest
from avnb.data.transform import BatchTransform
from avnb.models import losses
from avnb.models.methods import METHODS, build_method
from avnb.profiles import PROFILES, Workspace
from avnb.training import checkpoint
from avnb.training.checkpoint import CheckpointError
from avnb.training.launch import Resources
from avnb.training.loop import TrainingState, accumulate_gradients, fit, report
from avnb.training.runs import describe, main, pretraining_run, pretraining_runs, training_sampling
from tests.conftest import with_values
from tests.processes import wait_for

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
ALONE = Resources(processes=1)
SPEED = {"clips_per_second", "waiting"}  # in a log; another time they are others
TRAINED = sorted(name for name, method in METHODS.items() if method.is_trained)


@pytest.fixture(scope="module")
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


def first_batch(config, manifest):
    """The first training batch of a run."""
    clips = VideoClips(manifest, training_sampling(config), seed=0)
    _, batches = next(training_epochs(clips, config, 0, rank=0, processes=1, workers=0))
    return next(batches)


def same_tensors(a, b):
    """Whether two contents of checkpoints are equal, bit for bit, but for the speed in the log."""
    if isinstance(a, dict):
        names = a.keys() - SPEED
        return names == b.keys() - SPEED and all(same_tensors(a[k], b[k]) for k in names)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_tensors, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def read_log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tiny, vggsound, metadata, tmp_path_factory):
    """The folder of a whole run; tests copy what they damage."""
    out = tmp_path_factory.mktemp("trained")
    train(tiny, vggsound, metadata, out)
    return out


@pytest.fixture
def last(trained, tmp_path):
    """A copy of the last checkpoint of a whole run, in a folder of its own."""
    return Path(shutil.copy(trained / "last.pt", tmp_path))


def test_the_checkpoints_of_some_epochs_are_kept(tiny, vggsound, metadata, tmp_path, trained):
    """Again where an interruption came before; they are those of shorter logs."""
    config = with_values(tiny, keep_every_epochs=1, save_every_steps=1)
    for _ in range(2):
        train(config, vggsound, metadata, tmp_path)
        logs = [len(checkpoint.load(tmp_path / f"epoch-{n}.pt")[1]["log"]) for n in (1, 2)]
        assert logs == [1, 2] and not (trained / "epoch-1.pt").exists()
        (tmp_path / "epoch-2.pt").unlink()


TERMS = {
    "xid": "video_to_audio audio_to_video cosine_own cosine_other video_rank audio_spread",
    "vicreg_av": "invariance variance covariance video_rank audio_spread",
    "vicreg_v": "invariance variance covariance first_rank second_std",
    "supervised": "accuracy video_rank audio_rank",
}
VALUES = {"xid": {"micro_batch": 2}, "vicreg_av": {"audio_rest_prob": 1.0}}
SILENT = {"vicreg_av": {"audio_encoder", "audio_expander"}, "vicreg_v": {"audio_encoder"}}


@pytest.mark.parametrize("name", TERMS)
def test_every_method_trains_and_logs_its_terms_and_statistics(
    tiny, vggsound, metadata, tmp_path, name
):
    """The audio path moves unless it rests; statistics are of whole batches, divided or not."""
    config = with_values(tiny, method=name, epochs=1, **VALUES.get(name, {}))
    _, content = checkpoint.load(train(config, vggsound, metadata, tmp_path))
    (row,), model = content["log"], content["model"]
    assert set(TERMS[name].split()) < row.keys()
    assert row["clips_per_second"] > 0 and 0 <= row["waiting"] < 1
    before = build_method(config, len(vggsound), len(vggsound.classes))
    weights = dict(before.named_parameters())
    moved = {k.split(".")[0] for k, x in weights.items() if not torch.equal(model[k], x)}
    assert moved == {part.split(".")[0] for part in weights} - SILENT.get(name, set())
    if name == "xid":
        assert not torch.equal(model["video_bank.rows"], before.video_bank.rows)
        norms = model["video_bank.rows"].norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))
        assert row["video_rank"] > 2 and row["audio_std"] > 0  # not of two clips
        assert not losses.collapse_warning(row)
    if name.startswith("vicreg"):
        names = ("invariance", "variance", "covariance")
        weighted = sum(getattr(config.vicreg, f"{k}_weight") * row[k] for k in names)
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
    # The linear layers of XDC start from 0 after its first epoch, whatever the precision.
    losses, progress = [], 0.0 if name == "xdc" else 0.5
    for precision in ("fp32", "bf16"):
        config = with_values(tiny, method=name, precision=precision)
        method = build_method(config, len(vggsound), len(vggsound.classes)).train()
        transform = BatchTransform(config, metadata.mel_statistics)
        terms = method(transform(first_batch(config, vggsound)), progress)
        assert all(term.dtype == torch.float for term in terms.values())
        losses.append(terms["loss"].item())
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.15, abs=0.1)


def test_a_collapse_is_printed_and_every_row_is_an_event_of_tensorboard(
    trained, tmp_path, monkeypatch, capfd
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tensorboard")).Reload()
    log = read_log(trained)
    assert set(events.Tags()["scalars"]) == log[0].keys() - {"epoch"}
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(row["epoch"], pytest.approx(row["loss"])) for row in log]
    monkeypatch.setattr(losses, "MIN_SPREAD", 9.0)  # above any spread
    report(log[0], tmp_path)
    assert "collapse after epoch 1" in capfd.readouterr().out


def test_weights_that_are_not_finite_do_not_replace_a_good_checkpoint(
    tiny, vggsound, metadata, last
):
    before = last.read_bytes()
    model = build_method(tiny, len(vggsound), len(vggsound.classes))
    state = TrainingState(model, last, metadata)
    state.restore(CPU)
    model.video_projector[0].weight.data[0, 0] = float("inf")
    with pytest.raises(FloatingPointError, match=r"not finite, \['video_projector.0.weight'\]"):
        state.save()
    assert last.read_bytes() == before


def test_videos_without_audio_serve_methods_that_need_none(tiny, manifests, tmp_path, capsys):
    manifest = Manifest.load(manifests / "vggsound")
    silent = [dataclasses.replace(v, audio=False) for v in manifest.videos]
    manifest = dataclasses.replace(manifest, videos=tuple(silent), where=manifests / "silent")
    manifest.save()
    config = with_values(tiny, method="vicreg_v")
    metadata = pretraining_run(config, manifest, tmp_path).metadata()
    assert metadata.mel_statistics is None
    config = with_values(metadata.pretrain, epochs=1)
    assert train(config, manifest.split("train"), metadata, tmp_path / "r").exists()
    work, methods = Workspace("smoke", tmp_path, PROFILES["smoke"]), ("xid", "random", "supervised")
    found = pretraining_runs(work, manifest, methods)
    assert [*found] == ["random", "supervised"] and not found["random"].prepare(ALONE)
    assert capsys.readouterr().out == "xid is left out: no video has audio\n"
    run = found["supervised"]  # learns from the frames alone
    inputs = BatchTransform(run.config, run.metadata().mel_statistics)(first_batch(tiny, manifest))
    assert build_method(run.config, 99, len(manifest.classes))(inputs, 0.0)["loss"].isfinite()
    with pytest.raises(ValueError, match="supervised is left out: it has no videos to validate"):
        pretraining_runs(work, manifest, ("xid", "supervised"), values={"subset_videos": 10**5})
    flat = manifest.only(v for v in silent if v.label == silent[0].label)
    with pytest.raises(ValueError, match="supervised cannot be trained: there are no two classes"):
        pretraining_run(run.config, flat, tmp_path).prepare(ALONE)


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
    context.set_forkserver_preload(["avnb.training.runs"])
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


@pytest.mark.parametrize(
    ("method", "kills"), [("xid", (0, 3, 5)), ("avid_cma", (5,)), ("xdc", (5,))]
)
def test_a_run_killed_at_any_moment_resumes_to_the_same_end(
    tiny, vggsound, tmp_path, method, kills
):
    """Bit for bit: weights, banks, positives, clusters, optimiser, log."""
    config = with_values(tiny, save_every_steps=1, method=method)
    run = pretraining_run(config, Manifest.load(vggsound.where), tmp_path / "whole")
    assert run.prepare(ALONE)
    folders = run.folder, tmp_path / "killed"
    folders[1].mkdir()
    shutil.copy(run.folder / "job.json", folders[1])
    assert exit_status(folders[0]) == 0
    rng, seen = random.Random(0), []
    for saves in kills:  # in the second epoch at last
        moment = saves, rng.uniform(0, 0.15)  # a step takes about as long
        assert exit_status(folders[1], kill_after=moment) == -signal.SIGKILL
        steps = saved_at(folders[1]) and checkpoint.load(folders[1] / "last.pt")[1]["steps"]
        seen.append(steps)
    whole = steps_per_epoch(len(vggsound), config) * config.optim.epochs
    assert seen == sorted(seen) and (method != "xid" or seen[0] < seen[-1]) and seen[-1] < whole
    assert exit_status(folders[1]) == 0
    a, b = (checkpoint.load(folder / "last.pt") for folder in folders)
    assert same_tensors(a, b)
    assert same_tensors(*map(read_log, folders))


def test_another_runs_checkpoint_is_refused_with_the_difference(tiny, vggsound, metadata, last):
    other = dataclasses.replace(metadata, config={**metadata.config, "lr": 0.5})
    with pytest.raises(
        CheckpointError, match=rf" lr: it has {tiny.optim.lr}, this run has 0\.5\nGive this run"
    ):
        train(tiny, vggsound, other, last.parent)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    tiny, vggsound, metadata, last
):
    longer = with_values(tiny, epochs=3)
    _, content = checkpoint.load(last)
    content["model"]["video_encoder.stem.0.weight"].fill_(3e38)  # the next product overflows
    wants = describe(longer, vggsound, metadata.mel_statistics)
    torch.save({**content, "metadata": dataclasses.asdict(wants)}, last)
    before = last.read_bytes()
    with pytest.raises(FloatingPointError, match=r"what is not finite, \['loss'"):
        train(longer, vggsound, wants, last.parent)
    assert last.read_bytes() == before
