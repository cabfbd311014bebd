"""A method and a video encoder of the user's own, named by module or by file."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from avnb.config import Clip
from avnb.data.clips import Sampling
from avnb.data.prepare import load_dataset
from avnb.evaluation.features import source_of_file, untrained_source
from avnb.models.methods import build_method, find_method, parse_methods
from avnb.models.own import (
    OwnEncoder,
    build_video_encoder,
    file_of,
    find,
    is_spec,
    resolved_spec,
    source_digest,
)
from avnb.profiles import PROFILES, Workspace
from avnb.training import checkpoint, runs
from avnb.training.checkpoint import CheckpointError, load
from avnb.training.launch import Resources
from avnb.training.runs import pretraining_run, pretraining_runs
from tests.conftest import ROOT, with_values

METHOD_FILE = ROOT / "book" / "own_method.py"
METHOD = f"{METHOD_FILE}:PairwiseSigmoid"
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


def code(spec):
    return find("method", spec, {})


def test_code_is_named_by_a_module_or_a_file_and_a_name():
    assert all(map(is_spec, ("package.module:Class", "a folder/some-file.py:Class")))
    for text in ("xid", ":", "file.py", "file.py:", "file.py:a-b", "xid/last.pt", "runs:1/last"):
        assert not is_spec(text)


def test_a_file_is_executed_once_and_again_when_it_failed_or_has_changed(tmp_path):
    assert code("collections:OrderedDict").__name__ == "OrderedDict"
    file = tmp_path / "counted.py"
    file.write_text("A = 1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        code(f"{file}:A")
    file.write_text("A = object()\n")
    first = code(f"{file}:A")
    assert code(f"{file}:A") is first
    file.write_text("A = 'corrected'\n")
    assert code(f"{file}:A") == "corrected"


def test_the_path_of_a_file_becomes_absolute_and_other_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert resolved_spec("a.py:B") == f"{tmp_path / 'a.py'}:B"
    assert resolved_spec("~/a.py:B") == f"{tmp_path / 'home' / 'a.py'}:B"
    for text in (f"{tmp_path}/a.py:B", "package.module:B", "xid", "", "a.py"):
        assert resolved_spec(text) == text


def test_a_missing_file_module_or_name_is_named(encoder_file):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.py, named as .* does not exist"):
        code("/nowhere.py:A")
    with pytest.raises(ImportError, match="no_such_package"):
        code("no_such_package:A")
    with pytest.raises(ImportError, match=r"defines no 'Colour'; it has .*Colours"):
        code(f"{encoder_file}:Colour")


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
    with pytest.raises(ValueError, match=r"(?s)did you mean 'xid'.*file\.py:name"):
        find_method("xidd")


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


def test_what_is_no_encoder_is_refused(encoder_file):
    with pytest.raises(ValueError, match=r"to \[B, D\]; Unpooled gives \(2, 3, 1\) for B = 2"):
        build_video_encoder(f"{encoder_file}:Unpooled", 0)
    with pytest.raises(ValueError, match=r"gives list, not a torch\.nn\.Module"):
        build_video_encoder(f"{encoder_file}:nothing", 0)
    with pytest.raises(ValueError, match=r"(?s)did you mean 'r2plus1d_18'.*file\.py:name"):
        build_video_encoder("r2plus1d", 0)


def test_a_checkpoint_alone_does_not_determine_what_code_is_run(encoder_file, tiny, tmp_path):
    spec = f"{encoder_file}:Colours"
    source = untrained_source(with_values(tiny, backbone=spec), tmp_path)
    assert source.config.backbone == spec and load(source.checkpoint, "pretraining")[0].code
    encoder_file.write_text("raise SystemExit('it was run')\n")
    with pytest.raises(CheckpointError, match="not run"):
        source_of_file(source.checkpoint)
    encoder_file.write_text(ENCODER)
    found = source_of_file(source.checkpoint, backbone=spec)
    assert found.name == source.name and found.load()[0].features == 6


@pytest.mark.slow
def test_a_method_of_ones_own_is_trained_by_two_processes(world, tmp_path, monkeypatch):
    """A changed file is another run; the encoders are read without it."""
    monkeypatch.chdir(tmp_path)
    file = Path(shutil.copy(METHOD_FILE, tmp_path / "mine.py"))
    work = Workspace("smoke", tmp_path / "work", PROFILES["smoke"])
    data = str(world / "vggsound")
    manifest = load_dataset(work, "vggsound", data, subset=work.pretraining().subset)
    methods = parse_methods("mine.py:PairwiseSigmoid")
    run = pretraining_runs(work, manifest, methods, values={"epochs": 1})["PairwiseSigmoid"]
    assert not run.finished
    runs.train([run], Resources(processes=2))
    assert run.finished and run.name.startswith("PairwiseSigmoid-")
    (row,) = run.log
    assert {"loss", "accuracy", "video_rank", "audio_spread"} < row.keys() and row["loss"] > 0
    metadata, content = checkpoint.load(run.checkpoint)
    assert metadata.pretrain.method == f"{file}:PairwiseSigmoid"
    assert metadata.code == source_digest(METHOD)
    before = build_method(run.config, metadata.videos, len(metadata.classes)).state_dict()
    assert before.keys() == content["model"].keys()
    moved = {k.split(".")[0] for k, x in before.items() if not torch.equal(x, content["model"][k])}
    networks = {"video_encoder", "audio_encoder", "video_projector", "audio_projector"}
    assert moved == networks | {"log_scale", "bias"}
    file.write_text(file.read_text() + "# another\n")
    other = pretraining_run(run.config, run.manifest, run.folder.parent)
    assert other.folder != run.folder and not other.finished
    file.unlink()
    video, audio, _ = source_of_file(run.checkpoint).load()
    assert video.features == audio.features == 8 * run.config.width


def test_a_file_is_the_same_however_it_is_named(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    names = "../own.py:A", f"{tmp_path}/own.py:A"
    assert [file_of(name) for name in names] == 2 * [tmp_path / "own.py"]
