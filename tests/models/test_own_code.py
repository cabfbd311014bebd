"""A method and a video encoder of the user's own, named by module or by file."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from avnb.config import Clip, Pretrain
from avnb.data.catalogue import load_dataset
from avnb.data.clips import Sampling
from avnb.data.manifest import Manifest
from avnb.evaluation.encoder_source import (
    encoder_sources,
    source_of_code,
    source_of_file,
    untrained_source,
)
from avnb.evaluation.features import FrozenEncoders, extract
from avnb.models.backbones import OwnEncoder, build_video_encoder
from avnb.models.methods import Method, build_method, find_method, method_label, parse_methods
from avnb.models.specs import is_spec, load_spec, resolved_spec, source_digest
from avnb.profiles import PROFILES, Workspace
from avnb.training import checkpoint, runs
from avnb.training.checkpoint import CheckpointError, read_metadata
from avnb.training.classifier import load_classifier
from avnb.training.launch import Resources
from avnb.training.runs import finetuning_run, pretraining_run, pretraining_runs
from tests.conftest import ROOT, with_values

METHOD_FILE = ROOT / "book" / "own_method.py"
METHOD = f"{METHOD_FILE}:InBatchContrast"
ENCODER = '''"""An encoder of the mean colour in a few directions."""

import torch
from torch import nn


class Colours(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 6)

    def forward(self, frames):
        return self.layer(frames.mean(dim=(2, 3, 4)))


class Unpooled(nn.Module):
    def forward(self, frames):
        return frames.mean(dim=(2, 3, 4))[..., None]


def nothing():
    return [Colours()]


VALUE = 3
'''
CLIP = Clip(video_seconds=0.25, video_fps=8, frame_px=16, audio_seconds=0.5)
SAMPLING = Sampling(clip=CLIP, count=2, place="uniform", resize_px=20)


@pytest.fixture
def encoder_file(tmp_path):
    path = tmp_path / "own_encoder.py"
    path.write_text(ENCODER)
    return path


def some_videos(manifests):
    train = Manifest.load(manifests / "ucf101").split("train")
    return train.only(train.with_audio().videos[:3])


# ---- names of code ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ("package.module:Class", True),
        ("package:function", True),
        ("file.py:Class", True),
        ("a folder/some-file.py:Class", True),
        ("/absolute/file.py:Class", True),
        ("xid", False),
        ("", False),
        (":", False),
        (":Class", False),
        ("file.py", False),
        ("file.py:", False),
        ("file.py:a-b", False),
        ("runs/xid-0a1b/last.pt", False),
        ("runs/xid:1/last.pt", False),
        ("a folder/file:Class", False),
    ],
)
def test_code_is_named_by_a_module_or_a_file_and_a_name(text, expected):
    assert is_spec(text) is expected


def test_the_path_of_a_file_becomes_absolute_and_other_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert resolved_spec("a.py:B") == f"{tmp_path / 'a.py'}:B"
    assert resolved_spec("~/a.py:B") == f"{tmp_path / 'home' / 'a.py'}:B"
    for text in (f"{tmp_path}/a.py:B", "package.module:B", "xid", "", "a.py"):
        assert resolved_spec(text) == text


def test_what_a_spec_names_is_loaded_and_a_file_is_executed_once(tmp_path):
    assert load_spec("collections:OrderedDict").__name__ == "OrderedDict"
    file = tmp_path / "counted.py"
    file.write_text("from pathlib import Path\nPath(__file__ + '.log').open('a').write('x')\nA = 1")
    assert load_spec(f"{file}:A") == load_spec(f"{file}:A") == 1
    assert Path(f"{file}.log").read_text() == "x"


def test_a_file_that_fails_is_executed_again_when_it_has_been_corrected(tmp_path):
    file = tmp_path / "mistaken.py"
    file.write_text("A = 1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        load_spec(f"{file}:A")
    file.write_text("A = 1  # corrected\n")
    assert load_spec(f"{file}:A") == 1


def test_a_missing_file_module_or_name_is_named(encoder_file):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.py does not exist"):
        load_spec("/nowhere.py:A")
    with pytest.raises(ImportError, match=r"'no_such_package:A'.*is the package installed"):
        load_spec("no_such_package:A")
    with pytest.raises(ImportError, match=r"'collections\.none:A'.*is the package installed"):
        load_spec("collections.none:A")
    with pytest.raises(ImportError, match=r"defines no 'Colour'; it has .*Colours"):
        load_spec(f"{encoder_file}:Colour")


def test_a_digest_stands_for_the_content_of_a_file(encoder_file):
    before = source_digest(f"{encoder_file}:Colours")
    assert len(before) == 16 and before == source_digest(f"{encoder_file}:Unpooled")
    encoder_file.write_text(ENCODER + "# another\n")
    assert source_digest(f"{encoder_file}:Colours") != before
    assert source_digest("xid") == source_digest("torchvision.models.video:r3d_18") == ""


def test_a_method_must_be_a_subclass_of_method(encoder_file):
    for name in ("Colours", "nothing", "VALUE"):
        with pytest.raises(ValueError, match=r"not a subclass of avnb\.models\.methods"):
            find_method(f"{encoder_file}:{name}")
    with pytest.raises(ValueError, match=r"(?s)did you mean 'xid'.*file\.py:Class"):
        find_method("xidd")


def test_methods_of_ones_own_are_listed_with_the_others(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert parse_methods("random, book/own_method.py:InBatchContrast") == ("random", METHOD)
    installed = "book.own_method:InBatchContrast"
    assert parse_methods(installed) == (installed,)
    assert method_label(METHOD) == "InBatchContrast" and method_label("xid") == "xid"
    assert issubclass(find_method(METHOD), Method)
    with pytest.raises(ValueError, match="name each once"):
        parse_methods(f"{METHOD},{installed}")
    with pytest.raises(ImportError, match="defines no 'Contrast'"):
        parse_methods("xid,book/own_method.py:Contrast")


# ---- video encoders -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_network_of_torchvision_loses_its_classification_head():
    encoder = build_video_encoder("torchvision.models.video:r3d_18", 0)
    assert isinstance(encoder, OwnEncoder) and encoder.features == 512
    assert isinstance(encoder.network.fc, nn.Identity)
    with torch.no_grad():
        assert encoder(torch.zeros(1, 3, 4, 32, 32)).shape == (1, 512)


def test_a_module_of_a_file_is_an_encoder_of_its_width(encoder_file):
    encoder = build_video_encoder(f"{encoder_file}:Colours", 0)
    assert encoder.features == 6 and encoder.training
    frames = torch.rand(2, 3, 4, 16, 16)
    assert torch.equal(encoder(frames), encoder.network(frames))
    state = torch.get_rng_state()
    first, second = (checkpoint.own_encoder(f"{encoder_file}:Colours") for _ in range(2))
    assert torch.equal(first.network.layer.weight, second.network.layer.weight)
    assert torch.equal(torch.get_rng_state(), state)
    assert not first.training and not any(p.requires_grad for p in first.parameters())


def test_what_is_no_encoder_is_refused(encoder_file):
    with pytest.raises(ValueError, match=r"to \[B, D\]; Unpooled gives \(2, 3, 1\) for B = 2"):
        build_video_encoder(f"{encoder_file}:Unpooled", 0)
    with pytest.raises(ValueError, match=r"gives list, not a torch\.nn\.Module"):
        build_video_encoder(f"{encoder_file}:nothing", 0)
    with pytest.raises(ValueError, match=r"(?s)did you mean 'r2plus1d_18'.*file\.py:callable"):
        build_video_encoder("r2plus1d", 0)


@pytest.mark.slow
def test_features_of_ones_own_encoder_have_no_audio(encoder_file, manifests, tiny, tmp_path):
    videos = some_videos(manifests)
    source = source_of_code(f"{encoder_file}:Colours", tiny)
    assert source.method == "Colours" and source.checkpoint is None
    (found,) = extract([source], videos, SAMPLING, tmp_path / "features", seed=0, workers=0)
    assert found.video.shape == (3, 2, 6) and found.audio.shape == (3, 2, 0)
    assert found.video.std() > 0 and found.label.tolist() == videos.labels
    (again,) = extract([source], videos, SAMPLING, tmp_path / "features", seed=0, workers=0)
    assert torch.equal(found.video, again.video)
    beside = untrained_source(tiny, tmp_path / "runs")
    own, other = extract(
        [source, beside], videos, SAMPLING, tmp_path / "together", seed=0, workers=0
    )
    assert torch.equal(own.video, found.video) and own.audio.shape == (3, 2, 0)
    assert other.video.shape == other.audio.shape == (3, 2, 8 * tiny.width)


def test_other_code_or_another_clip_is_another_encoder(encoder_file, tiny):
    spec = f"{encoder_file}:Colours"
    names = {source_of_code(spec, tiny).name, source_of_code(spec, tiny).name}
    assert len(names) == 1
    names.add(source_of_code(spec, with_values(tiny, frame_px=24)).name)
    encoder_file.write_text(ENCODER + "# another\n")
    names.add(source_of_code(spec, tiny).name)
    assert len(names) == 3 and all(name.startswith("Colours-") for name in names)


def test_encoders_of_ones_own_stand_beside_untrained_ones(encoder_file, tmp_path, monkeypatch):
    monkeypatch.chdir(encoder_file.parent)
    work = Workspace("smoke", tmp_path / "work", PROFILES["smoke"])
    found = encoder_sources(work, "random", "own_encoder.py:Colours")
    assert list(found) == ["random", "Colours"]
    assert found["Colours"].config.backbone == f"{encoder_file}:Colours"
    assert found["Colours"].load()[1] is None and found["random"].load()[1] is not None


def test_a_checkpoint_with_an_encoder_of_ones_own_is_read_with_its_name_alone(
    encoder_file, tiny, manifests, tmp_path, monkeypatch
):
    monkeypatch.chdir(encoder_file.parent)
    spec = f"{encoder_file}:Colours"
    source = untrained_source(with_values(tiny, backbone="own_encoder.py:Colours"), tmp_path)
    assert source.config.backbone == spec and read_metadata(source.checkpoint).code
    video, audio, _ = source.load()
    assert video.features == 6 and audio.features == 8 * tiny.width
    work = Workspace("smoke", tmp_path / "work", PROFILES["smoke"])
    file, refused = source.checkpoint, "whose code is not run on a file's word"
    encoder_file.write_text("raise SystemExit('it was run')\n")
    for read in (
        lambda: checkpoint.load_encoders(file),
        lambda: source_of_file(file),
        lambda: encoder_sources(work, "random", str(file)),
    ):
        with pytest.raises(CheckpointError, match=refused):
            read()
    encoder_file.write_text(ENCODER)
    values = '{"backbone": "own_encoder.py:Colours"}'
    found = encoder_sources(work, "random", str(file), values=values)["random"]
    assert found == source_of_file(file, backbone=spec) and found.name == source.name
    assert found.load()[0].features == 6
    start = found.starting_point
    config = work.finetuning("ucf101")
    run = finetuning_run(config, start, Manifest.load(manifests / "ucf101"), tmp_path)
    assert run.metadata().encoder["backbone"] == spec
    with pytest.raises(CheckpointError, match="is a checkpoint of pre-training"):
        load_classifier(file, backbone=spec)


# ---- a method -----------------------------------------------------------------------------------


def test_the_example_is_short():
    assert len(METHOD_FILE.read_text().splitlines()) < 40


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """A workspace, the videos, and a run of the example in two processes."""
    folder = tmp_path_factory.mktemp("own")
    file = Path(shutil.copy(METHOD_FILE, folder / "mine.py"))
    work = Workspace("smoke", folder / "work", PROFILES["smoke"])
    data = str(world / "vggsound")
    manifest = load_dataset(work, "vggsound", data, subset=work.pretraining().subset)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        methods = parse_methods("mine.py:InBatchContrast")
        run = pretraining_runs(work, manifest, methods, values={"epochs": 1})["InBatchContrast"]
        assert not run.finished
        runs.train([run], Resources(processes=2))
    return work, data, file, run


@pytest.fixture
def no_job(monkeypatch):
    def launch(*_, **__):
        raise AssertionError("a job was started")

    monkeypatch.setattr(runs, "launch", launch)


@pytest.mark.slow
def test_a_method_of_ones_own_is_trained_by_two_processes(trained):
    *_, file, run = trained
    assert run.finished and run.name.startswith("InBatchContrast-")
    (row,) = run.log
    assert {"loss", "accuracy", "video_rank", "audio_spread"} < row.keys() and row["loss"] > 0
    metadata, content = checkpoint.load(run.checkpoint)
    assert metadata.pretrain.method == f"{file}:InBatchContrast"
    assert metadata.code == source_digest(METHOD)
    before = build_method(run.config, metadata.videos, len(metadata.classes)).state_dict()
    assert before.keys() == content["model"].keys()
    for part in ("video_encoder", "audio_encoder", "video_projector", "audio_projector"):
        weights = [k for k in before if k.startswith(part) and k.endswith("weight")]
        assert all(not torch.equal(before[k], content["model"][k]) for k in weights)
    assert '"processes": 2' in (run.folder / "job.json").read_text()


@pytest.mark.slow
def test_a_second_call_trains_nothing(trained, no_job):
    *_, run = trained
    before = run.checkpoint.stat().st_mtime_ns, run.log
    runs.train([run], Resources(processes=2))
    assert (run.checkpoint.stat().st_mtime_ns, run.log) == before


@pytest.mark.slow
def test_a_method_of_ones_own_is_found_and_evaluated_beside_untrained_encoders(
    trained, manifests, tmp_path, no_job, monkeypatch
):
    work, data, file, run = trained
    monkeypatch.chdir(file.parent)
    found = encoder_sources(
        work, "random,mine.py:InBatchContrast", data=data, values='{"epochs": 1}'
    )
    assert list(found) == ["random", "InBatchContrast"]
    own = found["InBatchContrast"]
    assert (own.checkpoint, own.name, own.method) == (run.checkpoint, run.name, "InBatchContrast")
    assert source_of_file(own.checkpoint) == own
    assert read_metadata(own.checkpoint).pretrain == own.config
    random, features = extract(
        list(found.values()), some_videos(manifests), SAMPLING, tmp_path, seed=0, workers=0
    )
    width = 8 * own.config.width
    assert features.video.shape == features.audio.shape == (3, 2, width)
    assert not torch.equal(features.video, random.video)
    assert not torch.equal(features.audio, random.audio)


@pytest.mark.slow
def test_a_changed_file_is_another_run_and_the_checkpoint_keeps_its_name(trained):
    """Its encoders are read without the file of the method."""
    *_, file, run = trained
    moved = file.rename(file.with_suffix(".moved"))
    try:
        source = source_of_file(run.checkpoint)
        assert source.name == run.name and FrozenEncoders(source).audio_encoder is not None
        file.write_text(moved.read_text() + "# another\n")
        other = pretraining_run(run.config, run.manifest, run.folder.parent)
        assert other.folder != run.folder and not other.finished
        assert source_of_file(run.checkpoint).name == run.name
    finally:
        moved.rename(file)
    assert pretraining_run(run.config, run.manifest, run.folder.parent).folder == run.folder


@pytest.mark.slow
def test_a_batch_is_not_divided_for_a_method_that_needs_it_whole(trained, tmp_path):
    *_, run = trained
    config = with_values(run.config, micro_batch=4)
    with pytest.raises(ValueError, match=r"cannot be taken 4 at a time: InBatchContrast needs"):
        runs.train([pretraining_run(config, run.manifest, tmp_path)], Resources(processes=2))


def test_its_defaults_are_those_of_a_method_of_the_package():
    method = build_method(Pretrain(method=METHOD, width=4), 3, 2)
    assert method.title == "In-batch contrast" and method.colour == "#56b4e9"
    assert method.uses_audio and method.is_trained and not method.uses_second_view
    assert method.validation_metrics == () and not method.shares_batch_norm
