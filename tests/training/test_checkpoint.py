"""Released checkpoints give what their author's networks give; a wrong file is named.

The networks below carry the released names and are written for this test, without the package.
"""

import os
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import scipy.signal
import torch
from torch import nn

from avnb.config import Clip, Finetune, Pretrain, Spectrogram
from avnb.data.transform import AudioTransform
from avnb.models.encoders import AudioEncoder, VideoEncoder
from avnb.models.methods import build_method
from avnb.training import checkpoint
from avnb.training.checkpoint import CheckpointError, load_encoders, load_heads, load_released
from avnb.training.classifier import load_classifier
from avnb.training.runs import describe

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


def same_weights(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("variant", HEADS)
def test_a_released_checkpoint_gives_what_its_networks_gave(variant, networks, content, tmp_path):
    path = tmp_path / variant
    torch.save(content(variant), path)
    before = torch.get_rng_state()
    video, audio = load_released(path)
    assert torch.equal(torch.get_rng_state(), before)  # nothing was drawn
    assert isinstance(video, VideoEncoder) and isinstance(audio, AudioEncoder)
    g = torch.Generator().manual_seed(2)
    frames = torch.randn(2, 3, 8, 32, 32, generator=g)
    mels = torch.randn(2, 1, 128, 62, generator=g)
    for name, net, x in (("video_model", video, frames), ("audio_model", audio, mels)):
        assert not any(part.training for part in net.modules())
        assert not any(p.requires_grad for p in net.parameters())
        with torch.no_grad():
            wanted = networks[name](x)
        assert wanted.shape == (2, 512) and wanted.std() > 0.1
        torch.testing.assert_close(net(x), wanted, rtol=1e-5, atol=1e-5)
    metadata = checkpoint.load(path, "pretraining")[0]
    released = dict(peak=0.95, framing="released")
    assert metadata.pretrain == Pretrain.from_flat(method=variant, **released)
    assert metadata.data is None
    mean, std = metadata.mel_statistics
    assert (mean[0], std[0], len(mean), len(std)) == (-2.01244134, 0.4379371, 128, 128)


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


def test_log_mels_are_those_of_the_released_code():
    """Of a rising tone in noise, and of a short click in near silence."""
    clip, form = Clip(audio_seconds=2.0), Spectrogram(peak=0.95, framing="released")
    bands = np.loadtxt(checkpoint.BANDS, delimiter=",", skiprows=1)
    transform = AudioTransform(clip, form, bands[:, 1:].T.tolist())
    rng, t = np.random.default_rng(0), np.arange(32_000) / 16_000
    tone = np.sin(2 * np.pi * (200 + 3000 * t) * t) + 0.1 * rng.normal(size=len(t))
    click = np.where(np.abs(t - 0.5) < 0.01, 1.0, 1e-3) * rng.normal(size=len(t))
    for wave in (0.3 * tone, click):
        ours = transform.log_mel(torch.from_numpy(wave).float()[None])[0].numpy()
        theirs = released_log_mel(wave)
        assert ours.shape == theirs.shape == (128, 125)
        apart = np.abs(ours - theirs)
        # Where a band is nearly silent beside loud ones, single precision shows.
        assert np.quantile(apart, 0.999) < 1e-4 and apart.max() < 1e-3


def refused(found, path, match, read=load_released):
    torch.save(found, path)
    with pytest.raises(CheckpointError, match=match) as caught:
        read(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_tensors_that_are_missing_unexpected_or_of_another_shape_are_named(content, tmp_path):
    path, found = tmp_path / "xID", content("xid")
    model = found["model"]
    del model["module.audio_model.block3.bn2.running_var"]
    model["module.video_model.conv2x.0.res_conv.weight"] = torch.zeros(64, 64, 1, 1, 1)
    model["module.video_model.conv1.0.weight"] = torch.zeros(64, 3, 1, 7, 7)
    model["module.audio_model.conv1.1.bias"] = "text"
    said = refused(found, path, "does not hold the tensors")
    for name in ("stages.2.1.1.running_var", "stages.0.0.skip", "stem.0.weight", "stem.1.bias"):
        assert name in said
    assert "[64, 3, 1, 7, 7]" in said


def test_files_of_other_kinds_are_named(content, tmp_path):
    path, neither = tmp_path / "x", "neither a checkpoint of avnb .* nor one released"
    found = content("vicreg_av")
    bare = {k: v for k, v in found["model"].items() if "_exp." not in k}
    refused({**found, "model": bare}, path, f"{neither}.*heads of either xid or vicreg_av")
    refused({"state_dict": {}, "epoch": 3}, path, rf"{neither}.*\['state_dict', 'epoch'\]")
    refused([1, 2], path, rf"{neither}.*it holds \[1, 2\]", checkpoint.load)


@pytest.fixture
def own(smoke, vggsound, tmp_path):
    """A checkpoint of ours, its run and its network."""
    mels, path = smoke.spectrogram.mels, tmp_path / "last.pt"
    metadata = describe(smoke, vggsound, ([0.0] * mels, [1.0] * mels))
    model = build_method(smoke, len(vggsound), len(vggsound.classes))
    checkpoint.save(path, metadata, model)
    return path, metadata, model


def test_our_own_checkpoint_is_read_by_load_encoders_and_named_by_load_released(own):
    path, metadata, model = own
    with pytest.raises(CheckpointError, match="was not released with the thesis"):
        load_released(path)
    video, audio, same = load_encoders(path)
    assert same == metadata == checkpoint.load(path, "pretraining")[0] and not video.training
    heads = load_heads(path)
    for net, part in (
        (video, model.video_encoder), (audio, model.audio_encoder),
        (heads["video"], model.video_projector), (heads["audio"], model.audio_projector),
    ):  # fmt: skip
        assert same_weights(net.state_dict(), part.state_dict())
    _, content = checkpoint.load(path)
    refused({**content, "format": 99}, path, "neither a checkpoint of avnb", load_heads)
    del content["model"]["audio_encoder.stem.0.weight"]
    refused(content, path, "audio_encoder.stem.0.weight", load_encoders)


def test_a_video_encoder_that_only_the_file_names_is_not_run(own):
    """`os.abort` would end this process."""
    path, metadata, model = own
    spec = "os:abort"
    checkpoint.save(path, replace(metadata, config={**metadata.config, "backbone": spec}), model)
    said = r"video encoder of its own, 'os:abort', whose code is not run on a file's word"
    for allowed in ("", "os:getcwd"):
        with pytest.raises(CheckpointError, match=said):
            load_encoders(path, backbone=allowed)
    assert checkpoint.load(path, "pretraining")[0].pretrain.backbone == spec and not load_heads(
        path
    )
    encoder = {"method": "xid", "backbone": spec, "width": 8, "weights": ""}
    tuned = replace(metadata, kind="finetuning", config=Finetune().flat(), encoder=encoder)
    checkpoint.save(path, tuned, model)
    with pytest.raises(CheckpointError, match=said):
        load_classifier(path)


def test_what_is_no_checkpoint_at_all_or_half_of_one_is_named(own):
    path, *_ = own
    for held in (b"", b"not a checkpoint", b"PK\x03\x04 truncated zip", b"\x80\x02K\x01K",
                 path.read_bytes()[:-1000]):  # fmt: skip
        path.write_bytes(held)
        with pytest.raises(CheckpointError, match=r"last\.pt is not a checkpoint, is damaged"):
            checkpoint.load(path)


def test_code_in_a_file_is_not_run(content, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    refused({**content("xid"), "train_criterion": Trap()}, tmp_path / "x", "not run")
    assert not (tmp_path / "sprung").exists()
