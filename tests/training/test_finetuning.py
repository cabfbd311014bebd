"""Fine-tuning: the head first, then all; interrupted or not, on any number of processes."""

import dataclasses

import pytest
import torch

from avnb.config import Pretrain
from avnb.data.batch import Batch
from avnb.data.batch_plan import steps_per_epoch
from avnb.data.clips import VideoClips
from avnb.data.loader import training_epochs
from avnb.data.manifest import Manifest
from avnb.evaluation import finetuned, results
from avnb.models.encoders import VideoEncoder
from avnb.profiles import PROFILES, thesis_finetuning
from avnb.protocols import Evaluation, Finetune
from avnb.training import checkpoint, finetuning
from avnb.training.checkpoint import CheckpointError
from avnb.training.finetuning import Classifier, FrameTransform, Start
from avnb.training.trainer import fit
from tests.conftest import with_values
from tests.training.test_trainer import same_tensors

CPU = torch.device("cpu")
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
def start(tiny):
    return Start(run=with_values(tiny, method="random"))


def silent(done, note):
    pass


def train(run, start, manifest, out, *, stop_after=None):
    """Train in this process; `stop_after` steps raises KeyboardInterrupt, as Ctrl-C would."""
    out.mkdir(exist_ok=True)
    some = manifest.split("train")
    clips = VideoClips(some, finetuning.sampling_of(run), seed=run.seed)

    def epochs(done):
        return training_epochs(clips, run, done, rank=0, processes=1, workers=0)

    def report(done, note):
        if stop_after is not None and done > stop_after:
            raise KeyboardInterrupt

    made = Classifier(start.encoder(), len(some.classes), run)
    metadata = finetuned.describe(run, start, manifest)
    return fit(made, FrameTransform(), epochs, run.optim, run.compute, out, metadata, CPU, report)


@pytest.mark.parametrize(
    "dataset, method, clips, epochs, falls, hue, brightness",
    [
        ("ucf101", "xid", 10, 16, (6, 10, 14), 0.2, 0.4),
        ("ucf101", "random", 10, 100, (30, 60, 80), 0.2, 0.4),
        ("hmdb51", "vicreg_v", 25, 10, (3, 6, 8), 0.2, 1.0),
        ("hmdb51", "random", 25, 100, (30, 60, 80), 0.2, 1.0),
    ],
)
def test_the_schedule_is_the_thesis_for_each_data_set_and_method(
    dataset, method, clips, epochs, falls, hue, brightness
):
    run = Finetune.from_flat(**thesis_finetuning(dataset, method))
    assert (run.optim.warmup_epochs, run.optim.tuned_epochs) == (5, epochs)
    assert (run.clips_per_video, run.optim.batch, run.dropout) == (clips, 32, 0.5)
    assert (run.clip.frames, run.clip.frame_px, run.optim.weight_decay) == (8, 224, 0)
    a = run.augment
    assert (a.brightness, a.contrast, a.saturation, a.hue) == (*3 * (brightness,), hue)
    expected = [1e-4] * 5 + [1e-4 * 0.3 ** sum(e >= f for f in falls) for e in range(epochs)]
    assert [run.optim.lr_at(e) for e in range(run.optim.epochs)] == pytest.approx(expected)


def test_other_data_sets_and_methods_are_refused():
    with pytest.raises(ValueError, match="did you mean 'ucf101'"):
        thesis_finetuning("ucf11", "xid")
    with pytest.raises(ValueError, match="did you mean 'vicreg_v'"):
        thesis_finetuning("ucf101", "vicreg")


def test_progress_is_0_in_the_warm_up_alone_and_1_at_the_end():
    optim = smallest(warmup_epochs=2, tuned_epochs=4).optim
    found = [optim.progress_at(e) for e in range(optim.epochs)]
    assert found == [0, 0, 0.25, 0.5, 0.75, 1]
    assert smallest(warmup_epochs=0).optim.progress_at(0) > 0


def test_the_warm_up_moves_the_head_and_nothing_of_the_encoder_then_all_moves(
    start, ucf101, tmp_path
):
    run = smallest()
    before = start.encoder().state_dict()
    steps = steps_per_epoch(len(ucf101.split("train")), run)
    with pytest.raises(KeyboardInterrupt):  # in the second epoch: the first was saved
        train(run, start, ucf101, tmp_path, stop_after=steps + 1)
    warm = checkpoint.load(tmp_path / "last.pt")["method"]
    fresh = Classifier(start.encoder(), len(ucf101.classes), run).state_dict()
    assert not torch.equal(warm["head.weight"], fresh["head.weight"])
    for name, value in before.items():  # weights, and statistics of BatchNorm
        assert torch.equal(warm[f"video_encoder.{name}"], value), name
    tuned = checkpoint.load(train(run, start, ucf101, tmp_path))["method"]
    for name, value in before.items():
        assert not torch.equal(tuned[f"video_encoder.{name}"], value), name


def test_interrupted_or_repeated_it_ends_the_same_bit_for_bit(start, ucf101, tmp_path):
    run = smallest(save_every_steps=1)
    steps = steps_per_epoch(len(ucf101.split("train")), run)
    whole = checkpoint.load(train(run, start, ucf101, tmp_path / "a"))
    for stop in (2, steps + 2):
        with pytest.raises(KeyboardInterrupt):
            train(run, start, ucf101, tmp_path / "b", stop_after=stop)
    assert same_tensors(whole, checkpoint.load(train(run, start, ucf101, tmp_path / "b")))
    assert [row["lr"] for row in whole["log"]] == [2e-3] * 2 + [pytest.approx(6e-4)]
    other = checkpoint.load(train(smallest(seed=1), start, ucf101, tmp_path / "c"))
    assert not torch.equal(other["method"]["head.weight"], whole["method"]["head.weight"])
    with pytest.raises(CheckpointError, match=r"finetune\.seed: it has 1, this run has 2"):
        train(smallest(seed=2), start, ucf101, tmp_path / "c")


def test_dropout_is_the_whole_batchs_and_its_own_in_each_step():
    run = smallest()
    made = Classifier(VideoEncoder(4), 3, run)
    frames = torch.zeros(6, 3, 4, 16, 16)
    rows = torch.arange(6)
    batch = Batch(frames=frames, audio=torch.zeros(6, 0), video=rows, label=rows, step=7)
    whole = made.kept(batch)
    assert set(whole.unique().tolist()) == {0, 2}
    parts = [made.kept(part) for part in batch.split(2)]
    assert torch.equal(torch.cat(parts), whole)
    assert whole.mean() == pytest.approx(1, abs=0.25)
    later = Batch(frames=frames, audio=torch.zeros(6, 0), video=rows, label=rows, step=8)
    assert not torch.equal(made.kept(later), whole)


def test_what_starts_without_a_checkpoint_is_random(tiny):
    with pytest.raises(ValueError, match="to start from xid takes a checkpoint"):
        Start(run=tiny)


# ---- through the front door -------------------------------------------------------------------


@pytest.fixture(scope="module")
def tuned(ucf101, tmp_path_factory):
    """Two methods in one job of two processes, the second from a checkpoint."""
    from avnb.models.methods import build

    folder = tmp_path_factory.mktemp("finetune")
    values = {**PROFILES["smoke"]["pretrain"], "width": 4, "mels": 16}
    random, xid = (Pretrain.from_flat(**values, method=m) for m in ("random", "xid"))
    metadata = {"run": xid.flat(), "videos": 3, "classes": ["a", "b"]}
    checkpoint.save(folder / "xid.pt", metadata, build(Pretrain.from_flat(**values, seed=3), 3, 2))
    many = [(smallest(), Start(run=random)), (smallest(), Start.read(folder / "xid.pt"))]
    return many, ucf101, folder, finetuned.finetune(many, ucf101, folder, processes=2)


def test_one_job_of_two_processes_trains_all_and_a_second_call_does_nothing(tuned):
    many, manifest, folder, found = tuned
    assert [one.method for one in found] == ["random", "xid"]
    assert all(one.finished and one.name.startswith("finetune-ucf101-") for one in found)
    for (_, start), one in zip(many, found, strict=True):
        assert [row["epoch"] for row in one.log] == [0, 1, 2]
        saved = checkpoint.load(one.checkpoint)["method"]
        before = start.encoder().state_dict()
        for name, value in before.items():
            moved = not torch.equal(saved[f"video_encoder.{name}"], value)
            assert moved or "num_batches" in name, name
    times = [one.checkpoint.stat().st_mtime_ns for one in found]
    assert finetuned.finetune(many, manifest, folder, processes=2) == found
    assert [one.checkpoint.stat().st_mtime_ns for one in found] == times


def test_two_processes_learn_what_one_learns(tuned, tmp_path):
    """Up to rounding: the batches, their dropout and their statistics are those of one."""
    many, manifest, _, found = tuned
    alone = checkpoint.load(train(*many[0], manifest, tmp_path))
    for optimiser in (alone["optimiser"], checkpoint.load(found[0].checkpoint)["optimiser"]):
        taken = [int(state["step"]) for _, state in sorted(optimiser["state"].items())]
        assert set(taken[:-2]) == {4} and set(taken[-2:]) == {6}  # two epochs; three of the head
    for one, two in zip(alone["log"], found[0].log, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=0.02)
    both = checkpoint.load(found[0].checkpoint)["method"]
    for name in ("head.weight", "video_encoder.stem.0.weight"):
        torch.testing.assert_close(both[name], alone["method"][name], rtol=0.02, atol=2e-3)


def test_rows_of_both_levels_are_written_and_kept(tuned, tmp_path):
    *_, manifest, _, found = tuned
    rows = finetuned.measure(found[1], manifest, EVALUATION, profile="smoke", split="test1")
    results.append(tmp_path / "rows.jsonl", rows)
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
    assert finetuned.measure(found[1], manifest, EVALUATION, profile="smoke", split="test1") == rows
    assert cache.stat().st_mtime_ns == before
    made = finetuned.scores(found[1], manifest, EVALUATION)
    assert made.clip.shape == (len(made.label), 3, len(manifest.classes))
    assert made.video.shape == (len(made.label), 2, len(manifest.classes))


def test_a_classifier_is_no_start_and_a_start_no_classifier(tuned):
    *_, folder, found = tuned
    with pytest.raises(CheckpointError, match="fine-tuned on ucf101"):
        Start.read(found[0].checkpoint)
    with pytest.raises(CheckpointError, match="checkpoint of pre-training"):
        finetuning.load(folder / "xid.pt")


def test_a_start_that_changes_is_another_run_and_a_batch_must_be_divided(tuned):
    many, manifest, folder, found = tuned
    metadata = finetuned.describe(*many[1], manifest)
    assert finetuned.run_folder(folder, metadata) == found[1].folder
    other = {**metadata, "start": {**metadata["start"], "weights": "0"}}
    assert finetuned.run_folder(folder, other) != found[1].folder
    with pytest.raises(ValueError, match=r"take one of \[1, 2\]"):
        finetuned.finetune(many, manifest, folder, processes=3)


def test_the_published_rows_hold_table_4_4():
    rows = results.published()
    rows = rows[rows["task"] == "finetune"]
    assert len(rows) == 2 * 5 * 4 and set(rows["where"]) == {"Table 4.4"}
    one = rows[(rows["method"] == "xid") & (rows["dataset"] == "hmdb51")]
    assert list(one["value"]) == [38.2, 69.6, 42.85, 73.69]
