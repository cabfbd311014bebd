"""Released checkpoints give what their author's networks give; a wrong file is named.

The networks below carry the released names and are written for this test, without the package.
"""

import dataclasses
import os
import re
from collections import OrderedDict

import numpy as np
import pytest
import scipy.signal
import torch
import torchvision
from torch import nn

from avnb.config import LATER_FIELDS, Clip, Evaluation, Finetune, Pretrain, Spectrogram
from avnb.data.batch import Batch
from avnb.data.clips import Sampling, VideoClips
from avnb.data.decoding import read_soundtrack
from avnb.data.manifest import Manifest
from avnb.data.spectrograms import AudioTransform
from avnb.evaluation.class_names import class_list
from avnb.evaluation.class_splits import pretraining_classes
from avnb.evaluation.encoder_source import encoder_sources, source_of_file, untrained_source
from avnb.evaluation.features import FrozenEncoders, extract
from avnb.evaluation.retrieval import DIRECTIONS, retrieval_rows, with_bands
from avnb.evaluation.soundtracks import soundtrack_features
from avnb.models import backbones
from avnb.models.encoders import AudioEncoder, VideoEncoder
from avnb.models.methods import build_method
from avnb.profiles import PROFILES, Workspace
from avnb.training import checkpoint, released
from avnb.training.checkpoint import (
    CheckpointError,
    load_encoders,
    load_released,
    read_metadata,
    released_metadata,
)
from avnb.training.classifier import Classifier, load_classifier
from avnb.training.runs import describe
from avnb.training.released import released_encoders, released_key
from tests.conftest import ROOT, with_values

CHANNELS = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]


class ResidualBlock(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        for number, (c, s) in enumerate([(c_in, stride), (c_out, 1)], 1):
            space = nn.Conv3d(c, c_out, (1, 3, 3), (1, s, s), (0, 1, 1), bias=False)
            time = nn.Conv3d(c_out, c_out, (3, 1, 1), (s, 1, 1), (1, 0, 0), bias=False)
            self.add_module(f"spatial_conv{number}", space)
            self.add_module(f"spatial_bn{number}", nn.BatchNorm3d(c_out))
            self.add_module(f"temporal_conv{number}", time)
        self.temporal_bn1, self.out_bn = nn.BatchNorm3d(c_out), nn.BatchNorm3d(c_out)
        if c_in != c_out:
            self.res_conv = nn.Conv3d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x):
        y = self.temporal_conv1(self.spatial_bn1(self.spatial_conv1(x)).relu())
        y = self.spatial_bn2(self.spatial_conv2(self.temporal_bn1(y).relu())).relu()
        skip = self.res_conv(x) if hasattr(self, "res_conv") else x
        return self.out_bn(self.temporal_conv2(y) + skip).relu()


class Video(nn.Module):
    def __init__(self):
        super().__init__()
        stem = nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        self.conv1 = nn.Sequential(stem, nn.BatchNorm3d(64))
        for number, (c_in, c_out, stride) in enumerate(CHANNELS, 2):
            blocks = ResidualBlock(c_in, c_out, stride), ResidualBlock(c_out, c_out, 1)
            self.add_module(f"conv{number}x", nn.Sequential(*blocks))

    def forward(self, x):
        x = nn.functional.max_pool3d(self.conv1(x).relu(), (1, 3, 3), (1, 2, 2), (0, 1, 1))
        return self.conv5x(self.conv4x(self.conv3x(self.conv2x(x)))).amax((2, 3, 4))


class PlainBlock(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(c_out), nn.BatchNorm2d(c_out)

    def forward(self, x):
        return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()


class Audio(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64))
        for number, sizes in enumerate([(64, 64, 2), (64, 128, 2), (128, 256, 2), (256, 512, 1)]):
            self.add_module(f"block{number + 1}", PlainBlock(*sizes))

    def forward(self, x):
        x = self.block2(self.block1(self.conv1(x).relu()))
        return self.block4(self.block3(x)).amax((2, 3))


def projection():
    relu = nn.ReLU()
    layers = nn.Linear(512, 512), relu, nn.Linear(512, 512), relu, nn.Linear(512, 128)
    return nn.ModuleDict({"projection": nn.Sequential(*layers)})


def expansion(dim=16):  # 4096 in the released files: a third of a gigabyte that nobody reads
    norm, relu = nn.BatchNorm1d(dim), nn.ReLU()
    layers = nn.Linear(512, dim), norm, relu, nn.Linear(dim, dim), norm, relu, nn.Linear(dim, dim)
    return nn.ModuleDict({"expansion": nn.Sequential(*layers)})


HEADS = {"xid": ("proj", projection), "vicreg_av": ("exp", expansion)}


def unsettled(net):
    """Random weights, and normalisations as if something had been learnt."""
    torch.manual_seed(1)
    for part in net.modules():
        if isinstance(part, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(part.weight)
        elif isinstance(part, (nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.normal_(part.running_mean, std=0.3)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.3, 0.9)
            nn.init.normal_(part.bias, std=0.2)
            part.num_batches_tracked += 39_062
    return net.eval()


@pytest.fixture(scope="module")
def networks():
    return unsettled(nn.ModuleDict({"video_model": Video(), "audio_model": Audio()}))


@pytest.fixture(scope="module")
def content(networks):
    """A variant -> what its file holds, in the released layout."""

    def made(variant):
        suffix, head = HEADS[variant]
        heads = {f"{side}_{suffix}": head() for side in ("video", "audio")}
        whole = nn.ModuleDict({"module": nn.ModuleDict({**networks, **heads})})
        adam = torch.optim.Adam(nn.Linear(2, 2).parameters(), lr=5e-4)
        banks = {f"nce_average.view{i}_mem": torch.randn(10, 128) for i in (1, 2)}
        return {
            "epoch": 100, "model": whole.state_dict(), "optimizer": adam.state_dict(),
            "train_criterion": banks if variant == "xid" else OrderedDict(),
        }  # fmt: skip

    return made


@pytest.fixture(scope="module")
def xid_file(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("released") / "xID"
    torch.save(content("xid"), path)
    return path


def same_weights(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@torch.no_grad()
def same_outputs(networks, video, waveform):
    g = torch.Generator().manual_seed(2)
    frames = torch.randn(2, 3, 8, 32, 32, generator=g)
    audio = torch.randn(2, 1, 128, 62, generator=g)
    for name, net, x in (("video_model", video, frames), ("audio_model", waveform, audio)):
        wanted = networks[name](x)
        assert wanted.shape == (2, 512) and wanted.std() > 0.1
        torch.testing.assert_close(net(x), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", HEADS)
def test_a_released_checkpoint_gives_what_its_networks_gave(variant, networks, content, tmp_path):
    path = tmp_path / variant
    torch.save(content(variant), path)
    before = torch.get_rng_state()
    video, audio = load_released(path)
    assert torch.equal(torch.get_rng_state(), before)  # nothing was drawn
    assert isinstance(video, VideoEncoder) and isinstance(audio, AudioEncoder)
    for net in (video, audio):
        assert not any(part.training for part in net.modules())
        assert not any(p.requires_grad for p in net.parameters())
    same_outputs(networks, video, audio)
    *encoders, metadata = load_encoders(path)
    for net, same in zip((video, audio), encoders, strict=True):
        assert same_weights(net.state_dict(), same.state_dict())
    assert metadata == read_metadata(path) == released_metadata(variant)
    released = dict(peak=0.95, framing="released", masks="released")
    assert metadata.pretrain == Pretrain.from_flat(method=variant, **released)
    assert metadata.data is None
    mean, std = metadata.mel_statistics
    assert (mean[0], std[0], len(mean), len(std)) == (-2.01244134, 0.4379371, 128, 128)


def test_one_trained_without_a_parallel_wrapper_has_no_prefix(networks, content, tmp_path):
    found = content("xid")
    found["model"] = {k.removeprefix("module."): v for k, v in found["model"].items()}
    path = tmp_path / "xID"
    torch.save(found, path)
    same_outputs(networks, *released_encoders(path, found))
    assert read_metadata(path).pretrain.method == "xid"


def test_the_path_of_a_released_checkpoint_may_be_a_text(xid_file):
    for net, same in zip(load_released(str(xid_file)), load_released(xid_file), strict=True):
        assert same_weights(net.state_dict(), same.state_dict())
    assert read_metadata(str(xid_file)) == load_encoders(str(xid_file))[2]


def test_every_tensor_has_a_released_name_of_its_own(networks):
    with torch.device("meta"):
        ours = {"video_encoder": VideoEncoder(), "audio_encoder": AudioEncoder()}
    names = [f"{side}.{name}" for side, net in ours.items() for name in net.state_dict()]
    assert {released_key(name) for name in names} == set(networks.state_dict())
    assert len({released_key(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        ("video_encoder.stem.0.weight", "video_model.conv1.0.weight"),
        ("video_encoder.stages.0.1.first.3.weight", "video_model.conv2x.1.temporal_conv1.weight"),
        ("video_encoder.stages.3.0.norm1.bias", "video_model.conv5x.0.temporal_bn1.bias"),
        ("video_encoder.stages.2.1.norm2.running_var", "video_model.conv4x.1.out_bn.running_var"),
        ("video_encoder.stages.1.0.skip.weight", "video_model.conv3x.0.res_conv.weight"),
        ("audio_encoder.stem.1.running_mean", "audio_model.conv1.1.running_mean"),
        ("audio_encoder.stages.2.1.0.weight", "audio_model.block3.conv2.weight"),
        ("audio_encoder.stages.3.0.1.weight", "audio_model.block4.bn1.weight"),
    ],
)
def test_released_names_by_hand(ours, theirs):
    assert released_key(ours) == theirs


# ---- audio under the published statistics -------------------------------------------------------


def slaney_filters(hz=16_000, bins=257, bands=128):
    """[bands, bins] triangles of equal area on Slaney's scale: linear up to 1 kHz, then log."""
    step = np.log(6.4) / 27

    def to_hz(mel):
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(step * (mel - 15)))

    top = 15 + np.log(hz / 2 / 1000) / step
    edges = to_hz(np.linspace(0, top, bands + 2))
    at = np.linspace(0, hz / 2, bins)
    rise = (at - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - at) / np.diff(edges)[1:, None]
    return np.clip(np.minimum(rise, fall), 0, None) * 2 / (edges[2:] - edges[:-2])[:, None]


def released_log_mel(wave):
    """The released code's spectrogram of one waveform, as its description says, in NumPy."""
    wave = 0.95 * wave / np.abs(wave).max()
    padded = np.pad(wave, (512 - 256) // 2, mode="reflect")
    window = scipy.signal.get_window("hann", 512)
    starts = range(0, len(padded) - 511, 256)
    magnitude = np.abs([np.fft.rfft(padded[s : s + 512] * window) for s in starts])
    return np.log10(np.maximum(magnitude @ slaney_filters().T, 1e-5)).T


def one_clip():
    """A raw clip of 32 x 32 pixels with a second of silence."""
    row = torch.zeros(1, dtype=torch.long)
    frames = torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8)
    return Batch(frames=frames, audio=torch.zeros(1, 16_000), video_index=row, label=row)


@pytest.fixture
def few(manifests, tmp_path):
    """Six training and two test videos of UCF-101 that can be heard, as a data set."""
    whole = Manifest.load(manifests / "ucf101").with_audio()
    videos = (*whole.split("train").videos[:6], *whole.split("test").videos[:2])
    manifest = dataclasses.replace(whole.only(videos), where=tmp_path / "few")
    manifest.save()
    return manifest


def test_no_filter_is_empty_and_each_has_the_area_of_all_others():
    filters = slaney_filters()
    assert (filters.max(axis=1) > 0).all()
    theirs = AudioTransform(Clip(), Spectrogram(), ([0.0] * 128, [1.0] * 128)).mel.mel_scale.fb.T
    np.testing.assert_allclose(theirs.numpy(), filters, atol=1e-6)


@pytest.mark.parametrize("seconds", [1.0, 2.0])
def test_log_mels_of_real_files_are_those_of_the_released_code(few, xid_file, seconds):
    frozen = FrozenEncoders(source_of_file(xid_file))
    clip = Clip(video_seconds=0.25, frame_px=32, audio_seconds=seconds, max_offset_seconds=0.0)
    sampling = Sampling(clip=clip, count=2, place="uniform", resize_px=36, video=False)
    for row in range(len(few)):
        for wave in VideoClips(few, sampling, seed=0).whole(row).audio:
            ours = frozen.transform.audio.log_mel(wave[None])[0].numpy()
            theirs = released_log_mel(wave.double().numpy())
            assert ours.shape == theirs.shape == (128, int(62.5 * seconds))
            apart = np.abs(ours - theirs)
            # Where a band is nearly silent beside loud ones, single precision shows.
            assert np.quantile(apart, 0.999) < 1e-4 and apart.max() < 1e-3


@pytest.mark.slow
def test_a_released_checkpoint_hears_as_the_released_code_did(
    xid_file, networks, few, tmp_path, capsys
):
    clip = Clip(video_seconds=0.25, frame_px=32, audio_seconds=1.0, max_offset_seconds=0.0)
    config = Sampling(clip=clip, count=1, place="uniform", resize_px=36)
    test = few.split("test")
    (features,) = extract([source_of_file(xid_file)], test, config, tmp_path, seed=0)
    assert "statistics" not in capsys.readouterr().out
    bands = np.array(released.read_bands(released.BANDS, 128))[..., None]
    for row in range(2):
        (wave,) = VideoClips(test, config, seed=0).whole(row).audio
        x = (released_log_mel(wave.double().numpy()) - bands[0]) / bands[1]
        with torch.no_grad():
            wanted = networks["audio_model"](torch.from_numpy(x).float()[None, None])
        torch.testing.assert_close(features.audio[row], wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_released_checkpoint_is_evaluated_alone(xid_file, few, tmp_path, monkeypatch):
    """Without VGGSound, without pre-training anything; retrieval under both protocols."""
    work = Workspace("smoke", tmp_path, PROFILES["smoke"])
    sources = encoder_sources(work, "", str(xid_file))
    assert set(sources) == {"xid"} and sources["xid"].is_released
    assert pretraining_classes(sources, Evaluation()) == class_list("vggsound")
    rows = {}
    for protocol in ("thesis", "author"):
        config = Evaluation.from_flat(protocol=protocol, video_level_clips=2, clips_per_forward=2)
        table, features = retrieval_rows(sources, few, config, work)
        rows[protocol] = table
        assert set(table["protocol"]) == {protocol} and set(table["level"]) == set(DIRECTIONS)
    for side, part in zip(features["xid"], ("test", "train"), strict=True):
        videos = few.split(part)
        assert side.video.shape == (len(videos), 2, 512) and side.audio.shape == (
            len(videos),
            1,
            512,
        )
    # The last query's audio feature by hand, from the whole soundtrack.
    video = few.split("test").videos[-1]
    wave = read_soundtrack(few.path(video), 16_000, seconds=video.seconds, start=video.start)
    frozen = FrozenEncoders(sources["xid"])
    with torch.no_grad():
        wanted = frozen.audio_encoder(frozen.transform.audio(torch.from_numpy(wave)[None]))
    torch.testing.assert_close(features["xid"][0].audio[-1], wanted, rtol=1e-4, atol=1e-4)
    # Read by other processes, every video has the same.
    monkeypatch.setattr("avnb.evaluation.soundtracks.spare_workers", lambda seconds: 2)
    (again,) = soundtrack_features([sources["xid"]], few.split("test"), tmp_path / "again")
    torch.testing.assert_close(again, features["xid"][0].audio, rtol=0, atol=0)
    assert not work.runs.exists()
    other = tmp_path / "bands.csv"
    other.write_text("band,mean,std\n" + "".join(f"{i},0,1\n" for i in range(128)))
    replaced = with_bands(sources["xid"], Evaluation(mel_statistics=str(other)))
    assert replaced.load()[2].mel_statistics == [128 * [0.0], 128 * [1.0]]
    with pytest.raises(ValueError, match="name each once"):
        encoder_sources(work, "", "")


def test_a_table_of_bands_is_whole_or_an_error_that_says_what_is_wrong(tmp_path):
    good, path = released.BANDS.read_text(), tmp_path / "bands.csv"
    shared = ROOT.parent / "shared" / "data" / "author_band_statistics.csv"
    assert not shared.exists() or shared.read_text() == good
    for text, said in (
        (good[: good.index("37,")], r"has \d+ rows; the bands 0 to 127 are needed"),
        (good.replace("band", "row", 1), "no table of the columns band, mean, std"),
        (good.replace("0.43793710", "0"), "band 0 needs a finite mean and a deviation above 0"),
        (good.replace("0.43793710", "nan"), "band 0 needs"),
        (good.replace("0.43793710", "much"), "no table of the columns"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            released.read_bands(path, 128)
    with pytest.raises(FileNotFoundError):
        released.read_bands(tmp_path / "none.csv", 128)


@pytest.mark.slow
def test_untrained_encoders_take_the_statistics_of_the_training_videos(few, tmp_path, tiny, capsys):
    clip = Clip(video_seconds=0.25, frame_px=32, audio_seconds=1.0, max_offset_seconds=0.0)
    config = Sampling(clip=clip, count=1, place="uniform", resize_px=36)
    source = untrained_source(tiny, tmp_path / "runs")
    both = extract([source], few.split("test"), config, tmp_path, seed=0)
    said = "holds no mel band statistics: taken from 6 videos of ucf101"
    assert capsys.readouterr().out.count(said) == 1
    few.only((*few.videos[:1], *few.split("test").videos)).save()
    both += extract([source], few.split("test"), config, tmp_path, seed=0)
    assert torch.equal(both[0].video, both[1].video)
    assert not torch.allclose(both[0].audio, both[1].audio, atol=1e-3)
    capsys.readouterr()
    silent = dataclasses.replace(config, audio=False)
    (unheard,) = extract([source], few.split("test"), silent, tmp_path, seed=0)
    assert unheard.audio.numel() == 0 and "statistics" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="name the videos to take them from"):
        FrozenEncoders(source).encode(one_clip(), audio=True, at_once=1)


def test_a_released_checkpoint_is_evaluated_under_a_name_made_of_its_content(xid_file, tmp_path):
    one, moved = source_of_file(xid_file), tmp_path / "renamed"
    moved.write_bytes(xid_file.read_bytes())
    assert re.fullmatch(r"xid-released-[0-9a-f]{8}", one.name) and one.method == "xid"
    assert source_of_file(moved).name == one.name
    beside = untrained_source(one.config, tmp_path)
    assert beside.config == with_values(one.config, method="random")
    assert beside.load()[2].mel_statistics is None
    assert source_of_file(beside.checkpoint).name == beside.name


# ---- wrong files --------------------------------------------------------------------------------


def refused(found, path, match, read=load_released):
    torch.save(found, path)
    with pytest.raises(CheckpointError, match=match) as caught:
        read(path)
    assert str(path) in str(caught.value) and "weights_only" not in str(caught.value)
    return str(caught.value)


def test_tensors_that_are_missing_unexpected_or_of_another_shape_are_named(content, tmp_path):
    path, found = tmp_path / "xID", content("xid")
    model = found["model"]
    del (
        model["module.audio_model.block3.bn2.running_var"],
        model["module.video_proj.projection.2.bias"],
    )
    model["module.video_model.conv2x.0.res_conv.weight"] = torch.zeros(64, 64, 1, 1, 1)
    model["module.video_model.conv1.0.weight"] = torch.zeros(64, 3, 1, 7, 7)
    model["module.audio_model.conv1.1.bias"] = "text"
    said = refused(found, path, r"2 missing: \['audio_model.block3.bn2.running_var', 'video_proj")
    assert "1 unexpected: ['video_model.conv2x.0.res_conv.weight']" in said
    assert "video_model.conv1.0.weight is (64, 3, 1, 7, 7), expected (64, 3, 3, 7, 7)" in said
    assert "audio_model.conv1.1.bias is str, expected (64,)" in said


def test_a_run_without_sound_or_without_heads_is_refused(content, tmp_path):
    found = content("vicreg_av")
    picture = {k: v for k, v in found["model"].items() if "audio" not in k}
    refused({**found, "model": picture}, tmp_path / "a", r"missing: \['audio_model.conv1.0.weight'")
    bare = {k: v for k, v in found["model"].items() if "_exp." not in k}
    refused(
        {**found, "model": bare}, tmp_path / "b",
        r"heads of one method, video_proj.projection or video_exp.expansion; found \[\]",
    )  # fmt: skip


@pytest.mark.parametrize("read", [load_released, load_encoders, read_metadata])
def test_files_of_other_kinds_are_named(read, content, tmp_path):
    path = tmp_path / "x"
    resnet = torchvision.models.resnet18().state_dict()
    said = refused(resnet, path, r"bare state dict.*'conv1.weight'.*and 116 more", read)
    assert "['epoch', 'model', 'optimizer', 'train_criterion']" in said
    refused({"state_dict": {}, "epoch": 3}, path, r"but a dict of \['state_dict', 'epoch'\]", read)
    refused([1, 2], path, "but a list", read)
    refused(torch.zeros(3), path, "but a Tensor", read)
    refused({**content("xid"), "model": {}}, path, "missing", read)


def test_our_own_checkpoint_is_read_by_load_encoders_and_named_by_load_released(
    smoke, vggsound, tmp_path
):
    path = tmp_path / "last.pt"
    metadata = described(smoke, vggsound)
    model = build_method(smoke, len(vggsound), len(vggsound.classes))
    checkpoint.save(path, metadata, model)
    with pytest.raises(CheckpointError, match="is a checkpoint of avnb, not one released"):
        load_released(path)
    video, audio, same = load_encoders(path)
    assert same == metadata == read_metadata(path) and not video.training
    for net, own in ((video, model.video_encoder), (audio, model.audio_encoder)):
        assert same_weights(net.state_dict(), own.state_dict())
    found = FrozenEncoders(source_of_file(path)).encode(one_clip(), audio=True, at_once=1)
    assert found["audio"].shape == (1, 8 * smoke.width)
    _, content = checkpoint.load(path)
    for read in (load_encoders, read_metadata, checkpoint.load):
        refused({**content, "format": 99}, path, "not written by avnb", read)
        refused({"format": 2, "model": {}}, path, "not written by avnb", read)


def described(config, manifest):
    """Metadata with mel statistics that change nothing."""
    mels = config.spectrogram.mels
    return describe(config, manifest, ([0.0] * mels, [1.0] * mels))


# ---- files of the former format -----------------------------------------------------------------


FORMER_PRETRAINING = {
    "method": "vicreg_av", "seed": 3, "width": 4, "clips_per_video": 2, "missing_sound": "drop",
    "window_steps": 10, "picture_seconds": 0.75, "picture_fps": 8.0, "frame_px": 16,
    "sound_seconds": 0.5, "sound_hz": 8000, "max_offset_seconds": 0.25, "crop_area_min": 0.5,
    "crop_aspect_max": 1.5, "flip_share": 0.25, "brightness": 0.1, "contrast": 0.2,
    "saturation": 0.3, "hue": 0.05, "gain_min": 0.6, "mask_share": 0.15, "window_samples": 256,
    "fft_samples": 512, "hop_samples": 128, "mels": 16, "floor": 1e-4, "peak": 0.9, "epochs": 2,
    "lr": 0.002, "lr_decay": 0.8, "lr_decay_every_epochs": 3, "weight_decay": 1e-4, "batch": 8,
    "shards": 2, "xid_loss": "info_nce", "embedding_dim": 32, "negatives": 16,
    "temperature": 0.1, "bank_momentum": 0.4, "q_first": 0.01, "q_last": 0.2, "lam": 0.02,
    "expander_dim": 24, "invariance_weight": 20.0, "variance_weight": 21.0,
    "covariance_weight": 2.0, "apart_seconds_min": 1.0, "apart_seconds_max": 3.0,
    "huber_delta": 0.5, "audio_rest_share": 0.125, "subset_videos": 30, "validation_videos": 5,
    "subset_seed": 1, "patience_epochs": 4, "precision": "bf16", "compile_encoders": False,
    "sync_batch_norm": "vicreg", "micro_batch": 0, "save_every_steps": 7,
}  # fmt: skip
FORMER_FINETUNING = {
    "seed": 2, "clips_per_video": 3, "dropout": 0.25, "window_steps": 10, "picture_seconds": 0.25,
    "picture_fps": 8.0, "frame_px": 16, "sound_seconds": 2.0, "sound_hz": 16_000,
    "max_offset_seconds": 0.5, "crop_area_min": 0.5, "crop_aspect_max": 1.5, "flip_share": 0.25,
    "brightness": 0.1, "contrast": 0.2, "saturation": 0.3, "hue": 0.05, "gain_min": 0.6,
    "mask_share": 0.15, "warmup_epochs": 1, "tuned_epochs": 2, "lr": 0.002, "lr_factor": 0.5,
    "first_fall": 0.1, "second_fall": 0.2, "third_fall": 0.3, "batch": 6, "shards": 2,
    "precision": "fp32", "compile_encoders": False, "sync_batch_norm": "all", "micro_batch": 3,
    "save_every_steps": 9,
}  # fmt: skip


@pytest.fixture(params=["first names", "last names"])
def former(request, tmp_path):
    """A checkpoint of pre-training as the former code wrote it, and its method.

    The names of values and of metadata changed once before the format did.
    """
    values = {checkpoint.FORMER_NAMES.get(k, k): v for k, v in FORMER_PRETRAINING.items()}
    del values["window_steps"]
    model = build_method(Pretrain.from_flat(**values | {"sync_batch_norm": "method"}), 30, 2)
    about = {"data": "0a1b2c3d", "data_set": "vggsound", "videos": 30, "classes": ["a", "b"]}
    statistics = [[-2.5] * 16, [1.5] * 16]
    if request.param == "first names":
        about |= {"run": FORMER_PRETRAINING, "without_sound": 4, "bands": statistics}
    else:
        about |= {"run": values, "without_audio": 4, "mel_statistics": statistics}
    path = tmp_path / "former.pt"
    content = {"format": 2, "about": about, "method": model.state_dict(), "log": [{"loss": 1.0}]}
    torch.save(content, path)
    return path, model


def test_a_checkpoint_of_format_2_gives_its_values_and_its_encoders(former):
    path, model = former
    metadata = read_metadata(path)
    assert (metadata.kind, metadata.data_set, metadata.data) == (
        "pretraining",
        "vggsound",
        "0a1b2c3d",
    )
    assert (metadata.videos, metadata.without_audio) == (30, 4)
    assert metadata.classes == ["a", "b"] and metadata.code == "" and metadata.encoder is None
    assert metadata.mel_statistics == [[-2.5] * 16, [1.5] * 16]
    c = metadata.pretrain
    assert (c.method, c.backbone, c.missing_audio) == ("vicreg_av", "r2plus1d_18", "drop")
    assert c.clip == Clip(
        video_seconds=0.75, video_fps=8.0, frame_px=16, audio_seconds=0.5, audio_hz=8000,
        max_offset_seconds=0.25,
    )  # fmt: skip
    assert (c.augment.flip_prob, c.augment.mask_max_fraction) == (0.25, 0.15)
    v = c.vicreg
    assert (v.second_view_min_seconds, v.second_view_max_seconds) == (1.0, 3.0)
    assert v.audio_rest_prob == 0.125 and c.compute.sync_batch_norm == "method"
    same = FORMER_PRETRAINING.keys() & c.flat().keys() - {"sync_batch_norm"}
    assert {name: c.flat()[name] for name in same} == {n: FORMER_PRETRAINING[n] for n in same}
    later = {"backbone", "read_ahead_gb", "subset_ids", "tensorboard", *LATER_FIELDS}
    assert c.flat().keys() - later == metadata.config.keys()  # no value is lost
    video, audio, again = load_encoders(path)
    assert again == metadata
    for net, own in ((video, model.video_encoder), (audio, model.audio_encoder)):
        assert same_weights(net.state_dict(), own.state_dict())
        assert not net.training and not any(p.requires_grad for p in net.parameters())
    loaded, content = checkpoint.load(path)
    assert loaded == metadata and content["log"] == [{"loss": 1.0}]
    assert same_weights(content["model"], model.state_dict())
    with pytest.raises(CheckpointError, match="is a checkpoint of avnb, not one released"):
        load_released(path)


def test_a_classifier_of_format_2_is_read(tmp_path):
    values = {checkpoint.FORMER_NAMES.get(k, k): v for k, v in FORMER_FINETUNING.items()}
    del values["window_steps"]
    config = Finetune.from_flat(**values)
    model = Classifier(VideoEncoder(4), 3, config)
    about = {
        "finetune": FORMER_FINETUNING,
        "start": {"method": "xid", "width": 4, "weights": "0123456789abcdef"},
        "data": "0a1b2c3d", "data_set": "ucf101", "videos": 9, "classes": ["a", "b", "c"],
    }  # fmt: skip
    path = tmp_path / "former.pt"
    torch.save({"format": 2, "about": about, "method": model.state_dict(), "log": []}, path)
    found = load_classifier(path)
    assert same_weights(found.state_dict(), model.state_dict()) and not found.training
    assert found.config == config and config.optim.lr_decay_factor == 0.5
    tuning = config.optim
    assert (tuning.first_decay, tuning.second_decay, tuning.third_decay) == (0.1, 0.2, 0.3)
    assert config.clip.video_seconds == 0.25
    with pytest.raises(CheckpointError, match="is a classifier, fine-tuned on ucf101"):
        read_metadata(path)


# ---- what a checkpoint says is read without building or running anything ------------------------


def test_metadata_is_read_without_building_a_network(
    smoke, vggsound, xid_file, former, tmp_path, monkeypatch
):
    path = tmp_path / "last.pt"
    metadata = described(smoke, vggsound)
    checkpoint.save(path, metadata, build_method(smoke, len(vggsound), len(vggsound.classes)))

    def build(*_, **__):
        raise AssertionError("a network was built")

    for module in (backbones, checkpoint):
        monkeypatch.setattr(module, "build_video_encoder", build)
    assert read_metadata(xid_file) == released_metadata("xid")
    with pytest.MonkeyPatch.context() as patch:  # released files are compared with shapes
        patch.setattr(torch.nn.Module, "__init__", build)
        assert read_metadata(path) == metadata
        assert read_metadata(former[0]).data == "0a1b2c3d"
        assert source_of_file(path).config == smoke
    with pytest.raises(AssertionError, match="a network was built"):
        load_encoders(path)


def test_a_video_encoder_that_only_the_file_names_is_not_run(smoke, vggsound, tmp_path):
    """`os.abort` would end this process."""
    path = tmp_path / "last.pt"
    model = build_method(smoke, len(vggsound), len(vggsound.classes))
    metadata = described(with_values(smoke, backbone="os:abort"), vggsound)
    checkpoint.save(path, metadata, model)
    said = r"video encoder of its own, 'os:abort', whose code is not run on a file's word"
    with pytest.raises(CheckpointError, match=said):
        load_encoders(path)
    with pytest.raises(CheckpointError, match=said):
        load_encoders(path, backbone="os:getcwd")
    assert read_metadata(path).pretrain.backbone == "os:abort"
    encoder = {"method": "xid", "backbone": "os:abort", "width": 8, "weights": ""}
    tuned = dataclasses.replace(
        metadata, kind="finetuning", config=Finetune().flat(), encoder=encoder
    )
    checkpoint.save(path, tuned, model)
    with pytest.raises(CheckpointError, match=said):
        load_classifier(path)


# ---- files that are no checkpoints --------------------------------------------------------------


NO_CHECKPOINTS = {
    "empty": b"", "text": b"not a checkpoint", "table": b"a,b\n1,2\n", "json": b'{"model": {}}',
    "zip": b"PK\x03\x04 truncated zip", "zeros": bytes(64), "pickle": b"\x80\x02K\x01K",
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_CHECKPOINTS)
@pytest.mark.parametrize("read", [load_released, load_encoders, read_metadata, checkpoint.load])
def test_what_is_no_checkpoint_at_all_is_named(kind, read, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(NO_CHECKPOINTS[kind])
    with pytest.raises(CheckpointError, match="x is not a checkpoint, or is damaged") as caught:
        read(path)
    assert "weights_only" not in str(caught.value)


def test_a_folder_and_nothing_at_all_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="it is a folder"):
        load_released(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing"):
        load_released(tmp_path / "nothing")


def test_a_damaged_file_is_named_or_harmless(xid_file, tmp_path):
    whole = xid_file.read_bytes()
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load_released(tmp_path / "half")


def test_code_in_a_released_file_is_not_run(content, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    refused({**content("xid"), "train_criterion": Trap()}, tmp_path / "x", "mkdir, which is code")
    assert not (tmp_path / "sprung").exists()
