"""Fine-tuning: the head first, then all; interrupted or not, on any number of processes."""

import dataclasses

import pytest
import torch

from avnb.config import Finetune, Pretrain
from avnb.data.clips import Batch, VideoClips
from avnb.data.loader import steps_per_epoch
from avnb.data.manifest import Manifest
from avnb.data.transform import BatchTransform
from avnb.evaluation.features import source_of_code, source_of_file, untrained_source
from avnb.models.encoders import VideoEncoder
from avnb.models.methods import build_method
from avnb.profiles import PROFILES, thesis_finetuning
from avnb.training import checkpoint, runs
from avnb.training.checkpoint import CheckpointError, Metadata
from avnb.training.classifier import Classifier, load_classifier
from avnb.training.launch import Resources
from avnb.training.loop import TrainingState, fit
from avnb.training.runs import finetuning_run, training_sampling
from tests.models.test_own_code import ENCODER
from tests.training.test_trainer import same_tensors

CPU = torch.device("cpu")
TWO = Resources(processes=2)


def smallest(**changes):
    smoke = PROFILES["smoke"]["finetune"]
    return Finetune.from_flat(**{**smoke, "frame_px": 16, "batch": 6, "tuned_epochs": 2, **changes})


@pytest.fixture(scope="module")
def ucf101(manifests):
    """A video of each class to train on, a few to test on; on disk, as processes read it."""
    whole = Manifest.load(manifests / "ucf101")
    train = {video.label: video for video in whole.split("train").videos}
    videos = (*train.values(), *whole.split("test").videos[:5])
    few = dataclasses.replace(whole, videos=videos, where=manifests / "few")
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
    count = TrainingState.count

    def counted(state, terms, step):
        count(state, terms, step)
        if stop_after is not None and state.steps > stop_after:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingState, "count", counted)
        return fit(model, BatchTransform(), clips, metadata, out, CPU)


@pytest.mark.parametrize(
    "dataset, pretrained, clips, epochs, decays, brightness",
    [
        ("ucf101", True, 10, 16, (6, 10, 14), 0.4), ("ucf101", False, 10, 100, (30, 60, 80), 0.4),
        ("hmdb51", True, 25, 10, (3, 6, 8), 1.0), ("hmdb51", False, 25, 100, (30, 60, 80), 1.0),
        ("holidays", True, 10, 16, (6, 10, 14), 0.4),  # not in the thesis: as for UCF-101
    ],
)  # fmt: skip
def test_the_schedule_is_that_of_the_thesis_for_each_data_set_and_start(
    dataset, pretrained, clips, epochs, decays, brightness
):
    run = Finetune.from_flat(**thesis_finetuning(dataset, pretrained=pretrained))
    assert (run.optim.warmup_epochs, run.optim.tuned_epochs) == (5, epochs)
    assert (run.clips_per_video, run.optim.batch, run.dropout) == (clips, 32, 0.5)
    assert (run.clip.frames, run.clip.frame_px, run.optim.weight_decay) == (8, 224, 0)
    a = run.augment
    assert (a.brightness, a.contrast, a.saturation, a.hue) == (*3 * (brightness,), 0.2)
    expected = [1e-4] * 5 + [1e-4 * 0.3 ** sum(e >= d for d in decays) for e in range(epochs)]
    assert [run.optim.lr_at(e) for e in range(run.optim.epochs)] == pytest.approx(expected)


def test_progress_is_0_in_the_warm_up_alone_and_1_at_the_end():
    optim = smallest(warmup_epochs=2, tuned_epochs=4).optim
    found = [optim.progress_at(e) for e in range(optim.epochs)]
    assert found == [0, 0, 0.25, 0.5, 0.75, 1]
    assert smallest(warmup_epochs=0).optim.progress_at(0) > 0


@pytest.mark.slow
def test_interrupted_it_ends_the_same_and_its_warm_up_moves_nothing_but_the_head(
    start, ucf101, tmp_path
):
    run = smallest(save_every_steps=1)
    before = start.load().state_dict()  # weights, and statistics of BatchNorm
    steps = steps_per_epoch(len(ucf101.split("train")), run)
    whole = checkpoint.load(train(run, start, ucf101, tmp_path / "a"))
    for stop in (1, steps):  # in the first epoch, and in the second, before its first checkpoint
        with pytest.raises(KeyboardInterrupt):
            train(run, start, ucf101, tmp_path / "b", stop_after=stop)
    warm = checkpoint.load(tmp_path / "b" / "last.pt")[1]["model"]
    fresh = Classifier(start.load(), len(ucf101.classes), run).state_dict()
    assert not torch.equal(warm["head.weight"], fresh["head.weight"])
    resumed = checkpoint.load(train(run, start, ucf101, tmp_path / "b"))
    assert same_tensors(whole, resumed)
    for name, value in before.items():
        assert torch.equal(warm[f"video_encoder.{name}"], value), name
        assert not torch.equal(resumed[1]["model"][f"video_encoder.{name}"], value), name
    assert [row["lr"] for row in whole[1]["log"]] == [2e-3] * 2 + [pytest.approx(6e-4)]


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
    later = dataclasses.replace(batch, step=8)
    assert not torch.equal(made.dropout_mask(later), whole)
    other = Classifier(VideoEncoder(4), 3, smallest(seed=1))
    assert not torch.equal(other.head.weight, made.head.weight)


@pytest.fixture(scope="module")
def tuned(ucf101, tmp_path_factory):
    """Two methods in one job of two processes, each from a checkpoint; the first is untrained."""
    folder = tmp_path_factory.mktemp("finetune")
    values = {**PROFILES["smoke"]["pretrain"], "width": 4, "mels": 16}
    xid = Pretrain.from_flat(**values, method="xid")
    data = {"data": "0", "data_set": "vggsound", "videos": 3, "classes": ["a", "b"]}
    model = build_method(xid.changed(seed=3), 3, 2)
    metadata = Metadata(kind="pretraining", config=xid.flat(), **data)
    checkpoint.save(folder / "xid.pt", metadata, model)
    sources = untrained_source(xid, folder), source_of_file(folder / "xid.pt")
    found = [
        finetuning_run(smallest(), source.starting_point, ucf101, folder) for source in sources
    ]
    assert not any(run.finished for run in found)
    runs.train(found, TWO)
    return found, ucf101, folder


@pytest.mark.slow
def test_one_job_of_two_processes_trains_all(tuned):
    found, manifest, folder = tuned
    assert [run.method for run in found] == ["random", "xid"]
    assert all(run.finished and run.name.startswith("finetune-ucf101-") for run in found)
    for run in found:
        assert [row["epoch"] for row in run.log] == [0, 1, 2]
        saved = checkpoint.load(run.checkpoint)[1]["model"]
        for name, value in run.start.load().state_dict().items():
            moved = not torch.equal(saved[f"video_encoder.{name}"], value)
            assert moved or "num_batches" in name, name
        assert finetuning_run(run.config, run.start, manifest, folder) == run


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
def test_a_classifier_is_no_start_and_a_start_no_classifier(tuned):
    found, _, folder = tuned
    with pytest.raises(CheckpointError, match="of finetuning, not of pretraining"):
        source_of_file(found[0].checkpoint)
    with pytest.raises(CheckpointError, match="of pretraining, not of finetuning"):
        load_classifier(folder / "xid.pt")


@pytest.mark.slow
def test_a_start_that_changes_is_another_run_and_refused_by_a_job(tuned, tmp_path):
    (_, run), manifest, folder = tuned
    file = tmp_path / "start.pt"
    file.write_bytes((folder / "xid.pt").read_bytes())
    same = finetuning_run(smallest(), source_of_file(file).starting_point, manifest, tmp_path)
    assert same.name == run.name  # wherever the file is
    same.prepare(TWO)
    metadata, content = checkpoint.load(file)
    content["model"]["video_encoder.stem.0.weight"][0, 0, 0, 0, 0] += 1
    torch.save(content, file)
    assert source_of_file(file).name == source_of_file(run.start.checkpoint).name
    other = finetuning_run(run.config, source_of_file(file).starting_point, manifest, folder)
    assert other.folder != run.folder and other.start.width == metadata.config["width"]
    with pytest.raises(
        CheckpointError, match=r"(?s)job\.json was .*other videos or code.* encoder: "
    ):
        runs.train_process(same.folder, CPU)


@pytest.mark.slow
def test_an_encoder_of_ones_own_is_fine_tuned_and_tested(ucf101, tiny, tmp_path):
    file = tmp_path / "colours.py"
    file.write_text(ENCODER)
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
