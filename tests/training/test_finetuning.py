"""Fine-tuning: the head first, then all; interrupted or not, on any number of processes."""

import dataclasses

import pytest
import torch

from avnb.config import Evaluation, Finetune, Pretrain
from avnb.data.clips import Batch, VideoClips
from avnb.data.loader import steps_per_epoch
from avnb.data.manifest import Manifest
from avnb.data.transform import BatchTransform
from avnb.evaluation import fine_tuning, results
from avnb.evaluation.features import source_of_code, source_of_file, untrained_source
from avnb.models.encoders import VideoEncoder
from avnb.models.methods import build_method
from avnb.profiles import PROFILES, Workspace, thesis_finetuning
from avnb.training import checkpoint, runs
from avnb.training.checkpoint import CheckpointError, Metadata
from avnb.training.classifier import Classifier, load_classifier
from avnb.training.launch import Resources
from avnb.training.loop import fit
from avnb.training.runs import StartingPoint, finetuning_run, training_sampling
from tests.training.test_trainer import interrupt_after, same_tensors

CPU = torch.device("cpu")
TWO = Resources(processes=2)
OWN_ENCODER = """from torch import nn


class Colours(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 6)

    def forward(self, frames):
        return self.layer(frames.mean(dim=(2, 3, 4)))
"""
EVALUATION = Evaluation.from_flat(
    video_fps=8.0, resize_px=18, clip_level_clips=3, video_level_clips=2, bootstrap_resamples=50
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small gain nothing from a second thread, and wait for it on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def smallest(**changes):
    smoke = PROFILES["smoke"]["finetune"]
    return Finetune.from_flat(**{**smoke, "frame_px": 16, "batch": 6, "tuned_epochs": 2, **changes})


@pytest.fixture(scope="module")
def ucf101(manifests, tmp_path_factory):
    """A video of each class to train on, a few to test on; on disk, as processes read it."""
    whole = Manifest.load(manifests / "ucf101")
    train = {video.label: video for video in whole.split("train").videos}
    videos = (*train.values(), *whole.split("test").videos[:5])
    few = dataclasses.replace(whole, videos=videos, where=tmp_path_factory.mktemp("few"))
    few.save()
    return few


@pytest.fixture
def start(tiny, tmp_path):
    return untrained_source(tiny, tmp_path / "untrained").starting_point


def train(config, start, manifest, out, *, stop_after=None):
    """Train in this process; `stop_after` steps raises KeyboardInterrupt, as Ctrl-C would."""
    out.mkdir(exist_ok=True)
    train = manifest.split("train")

    model = Classifier(start.load(), len(train.classes), config)
    clips = VideoClips(train, training_sampling(config), seed=config.seed)
    metadata = finetuning_run(config, start, manifest, out).metadata()
    with pytest.MonkeyPatch.context() as patch:
        if stop_after is not None:
            interrupt_after(patch, stop_after)
        return fit(model, BatchTransform(), clips, metadata, out, CPU)


@pytest.mark.parametrize(
    "dataset, pretrained, clips, epochs, decays, hue, brightness",
    [
        ("ucf101", True, 10, 16, (6, 10, 14), 0.2, 0.4),
        ("ucf101", False, 10, 100, (30, 60, 80), 0.2, 0.4),
        ("hmdb51", True, 25, 10, (3, 6, 8), 0.2, 1.0),
        ("hmdb51", False, 25, 100, (30, 60, 80), 0.2, 1.0),
        ("holidays", True, 10, 16, (6, 10, 14), 0.2, 0.4),  # not in the thesis: as for UCF-101
        ("holidays", False, 10, 100, (30, 60, 80), 0.2, 0.4),
    ],
)
def test_the_schedule_is_that_of_the_thesis_for_each_data_set_and_start(
    dataset, pretrained, clips, epochs, decays, hue, brightness
):
    run = Finetune.from_flat(**thesis_finetuning(dataset, pretrained=pretrained))
    assert (run.optim.warmup_epochs, run.optim.tuned_epochs) == (5, epochs)
    assert (run.clips_per_video, run.optim.batch, run.dropout) == (clips, 32, 0.5)
    assert (run.clip.frames, run.clip.frame_px, run.optim.weight_decay) == (8, 224, 0)
    a = run.augment
    assert (a.brightness, a.contrast, a.saturation, a.hue) == (*3 * (brightness,), hue)
    expected = [1e-4] * 5 + [1e-4 * 0.3 ** sum(e >= d for d in decays) for e in range(epochs)]
    assert [run.optim.lr_at(e) for e in range(run.optim.epochs)] == pytest.approx(expected)


def test_a_workspace_fine_tunes_what_was_not_pre_trained_for_longer(tiny, ucf101, tmp_path):
    work = Workspace("thesis", tmp_path, PROFILES["thesis"])
    random = untrained_source(tiny, tmp_path)
    xid, own = (dataclasses.replace(random, method=m) for m in ("xid", "of_ones_own"))
    sources = {source.method: source for source in (random, xid, own)}
    found = fine_tuning.finetuning_runs(work, sources, ucf101, seed=3)
    epochs = {name: run.config.optim.tuned_epochs for name, run in found.items()}
    assert epochs == {"random": 100, "xid": 16, "of_ones_own": 16}
    assert all(run.config.seed == 3 and not run.finished for run in found.values())
    assert [run.method for run in found.values()] == list(sources)


def test_progress_is_0_in_the_warm_up_alone_and_1_at_the_end():
    optim = smallest(warmup_epochs=2, tuned_epochs=4).optim
    found = [optim.progress_at(e) for e in range(optim.epochs)]
    assert found == [0, 0, 0.25, 0.5, 0.75, 1]
    assert smallest(warmup_epochs=0).optim.progress_at(0) > 0


@pytest.mark.slow
def test_the_warm_up_moves_the_head_and_nothing_of_the_encoder_then_all_moves(
    start, ucf101, tmp_path
):
    run = smallest()
    before = start.load().state_dict()
    steps = steps_per_epoch(len(ucf101.split("train")), run)
    with pytest.raises(KeyboardInterrupt):  # in the second epoch: the first was saved
        train(run, start, ucf101, tmp_path, stop_after=steps + 1)
    warm = checkpoint.load(tmp_path / "last.pt")[1]["model"]
    fresh = Classifier(start.load(), len(ucf101.classes), run).state_dict()
    assert not torch.equal(warm["head.weight"], fresh["head.weight"])
    for name, value in before.items():  # weights, and statistics of BatchNorm
        assert torch.equal(warm[f"video_encoder.{name}"], value), name
    tuned = checkpoint.load(train(run, start, ucf101, tmp_path))[1]["model"]
    for name, value in before.items():
        assert not torch.equal(tuned[f"video_encoder.{name}"], value), name


@pytest.mark.slow
def test_interrupted_or_repeated_it_ends_the_same_bit_for_bit(start, ucf101, tmp_path):
    run = smallest(save_every_steps=1)
    steps = steps_per_epoch(len(ucf101.split("train")), run)
    whole = checkpoint.load(train(run, start, ucf101, tmp_path / "a"))
    for stop in (2, steps + 2):
        with pytest.raises(KeyboardInterrupt):
            train(run, start, ucf101, tmp_path / "b", stop_after=stop)
    assert same_tensors(whole, checkpoint.load(train(run, start, ucf101, tmp_path / "b")))
    assert [row["lr"] for row in whole[1]["log"]] == [2e-3] * 2 + [pytest.approx(6e-4)]
    _, other = checkpoint.load(train(smallest(seed=1), start, ucf101, tmp_path / "c"))
    assert not torch.equal(other["model"]["head.weight"], whole[1]["model"]["head.weight"])
    with pytest.raises(CheckpointError, match=r"config\.seed: it has 1, this run has 2"):
        train(smallest(seed=2), start, ucf101, tmp_path / "c")


def test_dropout_is_the_whole_batchs_and_its_own_in_each_step():
    run = smallest()
    made = Classifier(VideoEncoder(4), 3, run)
    frames = torch.zeros(6, 3, 4, 16, 16)
    rows = torch.arange(6)
    batch = Batch(frames=frames, audio=torch.zeros(6, 0), video_index=rows, label=rows, step=7)
    whole = made.dropout_mask(batch)
    assert set(whole.unique().tolist()) == {0, 2}
    parts = [made.dropout_mask(part) for part in batch.split(2)]
    assert torch.equal(torch.cat(parts), whole)
    assert whole.mean() == pytest.approx(1, abs=0.25)
    later = Batch(frames=frames, audio=torch.zeros(6, 0), video_index=rows, label=rows, step=8)
    assert not torch.equal(made.dropout_mask(later), whole)


def test_what_starts_without_a_checkpoint_is_code_of_ones_own():
    start = StartingPoint(method="xid", checkpoint=None, backbone="r2plus1d_18", width=4)
    with pytest.raises(ValueError, match=r"'r2plus1d_18' takes a checkpoint"):
        start.load()


# ---- as a user calls it -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def tuned(ucf101, tmp_path_factory):
    """Two methods in one job of two processes, each from a checkpoint; the first is untrained."""
    folder = tmp_path_factory.mktemp("finetune")
    values = {**PROFILES["smoke"]["pretrain"], "width": 4, "mels": 16}
    xid = Pretrain.from_flat(**values, method="xid")
    metadata = Metadata(
        kind="pretraining", config=xid.flat(), data="0", data_set="vggsound", videos=3,
        classes=["a", "b"],
    )  # fmt: skip
    model = build_method(Pretrain.from_flat(**values, seed=3), 3, 2)
    checkpoint.save(folder / "xid.pt", metadata, model)
    sources = untrained_source(xid, folder), source_of_file(folder / "xid.pt")
    found = [
        finetuning_run(smallest(), source.starting_point, ucf101, folder) for source in sources
    ]
    assert not any(run.finished for run in found)
    runs.train(found, TWO)
    return found, ucf101, folder


@pytest.mark.slow
def test_one_job_of_two_processes_trains_all_and_a_second_call_does_nothing(tuned, monkeypatch):
    found, manifest, folder = tuned
    assert [run.method for run in found] == ["random", "xid"]
    assert all(run.finished and run.name.startswith("finetune-ucf101-") for run in found)
    for run in found:
        assert [row["epoch"] for row in run.log] == [0, 1, 2]
        saved = checkpoint.load(run.checkpoint)[1]["model"]
        for name, value in run.start.load().state_dict().items():
            moved = not torch.equal(saved[f"video_encoder.{name}"], value)
            assert moved or "num_batches" in name, name
    assert (found[0].folder / "output.txt").exists()  # one job: its output is in the first folder
    assert not (found[1].folder / "output.txt").exists()
    times = [run.checkpoint.stat().st_mtime_ns for run in found]
    again = [finetuning_run(run.config, run.start, manifest, folder) for run in found]
    assert again == found
    monkeypatch.setattr(runs, "launch", None)  # cannot be called
    runs.train(again, TWO)
    assert [run.checkpoint.stat().st_mtime_ns for run in again] == times


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tuned, tmp_path):
    """In the warm-up, where BatchNorm's statistics are fixed: batches and dropout are those of one.

    Later each process on a CPU normalises its own part of the batch.
    """
    (run, _), manifest, _ = tuned
    _, alone = checkpoint.load(train(run.config, run.start, manifest, tmp_path))
    _, both = checkpoint.load(run.checkpoint)
    for optimiser in (alone["optimiser"], both["optimiser"]):
        taken = [int(state["step"]) for _, state in sorted(optimiser["state"].items())]
        assert set(taken[:-2]) == {4} and set(taken[-2:]) == {6}  # two epochs; three of the head
    for name in ("loss", "accuracy"):
        assert run.log[0][name] == pytest.approx(alone["log"][0][name], rel=1e-5)


@pytest.mark.slow
def test_rows_of_both_levels_are_written_and_kept(tuned, tmp_path):
    found, manifest, _ = tuned
    rows = fine_tuning.measure(found[1], manifest, EVALUATION, profile="smoke", split="test1")
    results.record(tmp_path / "rows.jsonl", rows)
    read = results.read(tmp_path / "rows.jsonl")
    assert list(read["level"] + read["metric"]) == [
        "cliptop1",
        "cliptop5",
        "videotop1",
        "videotop5",
    ]
    assert set(read["task"]) == {"finetune"} and set(read["run"]) == {found[1].name}
    assert set(read["method"]) == {"xid"} and set(read["data"]) == {manifest.origin}
    assert set(read["n"]) == {len(manifest.split("test"))}
    (cache,) = found[1].folder.glob("test-*.safetensors")
    before = cache.stat().st_mtime_ns
    assert (
        fine_tuning.measure(found[1], manifest, EVALUATION, profile="smoke", split="test1") == rows
    )
    assert cache.stat().st_mtime_ns == before
    made = fine_tuning.scores(found[1], manifest, EVALUATION)
    assert made["clip"].shape == (len(made["label"]), 3, len(manifest.classes))
    assert made["video"].shape == (len(made["label"]), 2, len(manifest.classes))


@pytest.mark.slow
def test_a_classifier_is_no_start_and_a_start_no_classifier(tuned):
    found, _, folder = tuned
    with pytest.raises(CheckpointError, match="fine-tuned on ucf101"):
        source_of_file(found[0].checkpoint)
    with pytest.raises(CheckpointError, match="fine-tuned on ucf101"):
        dataclasses.replace(found[0].start, checkpoint=found[0].checkpoint).load()
    with pytest.raises(CheckpointError, match="checkpoint of pre-training"):
        load_classifier(folder / "xid.pt")


@pytest.mark.slow
def test_a_start_that_changes_is_another_run_and_a_batch_must_be_divided(tuned, tmp_path):
    found, manifest, folder = tuned
    run = found[1]
    assert finetuning_run(run.config, run.start, manifest, folder).folder == run.folder
    metadata, content = checkpoint.load(run.start.checkpoint)
    content["model"]["video_encoder.stem.0.weight"][0, 0, 0, 0, 0] += 1
    changed = tmp_path / "changed.pt"
    torch.save(content, changed)
    assert source_of_file(changed).name == source_of_file(run.start.checkpoint).name
    other = finetuning_run(run.config, source_of_file(changed).starting_point, manifest, folder)
    assert other.folder != run.folder and other.start.width == metadata.config["width"]
    with pytest.raises(ValueError, match=r"take one of \[1, 2\]"):
        runs.train(found, Resources(processes=3))
    odd = finetuning_run(smallest(micro_batch=2), run.start, manifest, tmp_path)
    with pytest.raises(ValueError, match="3 clips per process cannot be taken 2 at a time"):
        runs.train([odd], TWO)


@pytest.mark.slow
def test_a_start_that_changes_after_the_job_was_written_is_refused(tuned, tmp_path):
    found, manifest, folder = tuned
    file = tmp_path / "start.pt"
    file.write_bytes((folder / "xid.pt").read_bytes())
    run = finetuning_run(smallest(), source_of_file(file).starting_point, manifest, tmp_path)
    assert run.name == found[1].name  # wherever the file is
    run.prepare(TWO)
    _, content = checkpoint.load(file)
    content["model"]["video_encoder.stem.0.weight"].zero_()
    torch.save(content, file)
    with pytest.raises(ValueError, match=r"'encoder'. have changed since .*job\.json"):
        runs.train_process(run.folder, CPU)


@pytest.mark.slow
def test_an_encoder_of_ones_own_is_fine_tuned_and_tested(ucf101, tiny, tmp_path):
    file = tmp_path / "colours.py"
    file.write_text(OWN_ENCODER)
    start = source_of_code(f"{file}:Colours", tiny).starting_point
    run = finetuning_run(smallest(tuned_epochs=1), start, ucf101, tmp_path)
    assert run.name.startswith("finetune-ucf101-Colours-")
    run.prepare(TWO)
    runs.train_process(run.folder, CPU)
    assert run.finished
    with pytest.raises(CheckpointError, match="whose code is not run on a file's word"):
        load_classifier(run.checkpoint)
    weight = load_classifier(run.checkpoint, backbone=start.backbone).video_encoder.network
    assert not torch.equal(weight.layer.weight, start.load().network.layer.weight)
    rows = fine_tuning.measure(run, ucf101, EVALUATION)
    assert {row.method for row in rows} == {"Colours"} and len(rows) == 4
