import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tvf

from avnb.config import Augment, Clip, Spectrogram
from avnb.data import transforms
from avnb.data.transforms import AudioTransform, VideoTransform, sample_params

RNG = np.random.default_rng
CLIP, FORM = Clip(), Spectrogram()
FLAT = ([0.0] * 128, [1.0] * 128)


def test_each_clip_is_jittered_as_torchvision_would_in_its_own_order():
    x = torch.rand(6, 3, 2, 9, 9)
    params = sample_params(Augment(hue=0.5), 6, RNG(0))
    kinds = [tvf.adjust_brightness, tvf.adjust_contrast, tvf.adjust_saturation, tvf.adjust_hue]
    got = transforms.jitter(x.clone(), params)
    for i in range(6):
        clip = x[i].transpose(0, 1)  # [T, 3, S, S]
        for kind in params.order[i].tolist():
            clip = kinds[kind](clip, params.factors[i, kind].item())
        torch.testing.assert_close(got[i].transpose(0, 1), clip, atol=2e-4, rtol=0)


def test_draws_have_the_thesis_ranges():
    d = sample_params(Augment(), 20_000, RNG(0))
    for kind, (low, high) in enumerate([(0.6, 1.4)] * 3 + [(-0.2, 0.2)]):
        factor = d.factors[:, kind]
        assert low <= factor.min() < low + 0.01 and high - 0.01 < factor.max() <= high
    assert d.flip.float().mean() == pytest.approx(0.5, abs=0.02)
    assert 0.7 <= d.gain.min() < 0.71 and 0.99 < d.gain.max() <= 1
    assert d.masks[..., 1].max() <= 0.2 and d.masks.sum(-1).max() <= 1
    assert len(d.order.unique(dim=0)) == 24


def test_without_draws_a_picture_is_only_normalised():
    frames = torch.randint(0, 256, (2, 3, 4, 8, 8), dtype=torch.uint8)
    expected = tvf.normalize(
        frames.transpose(1, 2).float() / 255,
        list(transforms.IMAGENET_MEAN),
        list(transforms.IMAGENET_STD),
    )
    torch.testing.assert_close(VideoTransform()(frames), expected.transpose(1, 2))


def test_a_clip_looks_the_same_in_any_batch():
    frames = torch.randint(0, 256, (5, 3, 4, 8, 8), dtype=torch.uint8)
    params, view = sample_params(Augment(), 5, RNG(1)), VideoTransform()
    torch.testing.assert_close(view(frames, params)[2:4], view(frames[2:4], params[2:4]))


def test_random_crops_have_the_drawn_areas_and_aspects():
    rng, boxes = RNG(0), []
    for _ in range(4000):
        crop = transforms.random_resized_crop(240, 320, 224, Augment(), rng)
        top, left, h, w = crop.box
        assert 0 <= top <= 240 - h and 0 <= left <= 320 - w
        boxes.append((h * w / (240 * 320), w / h))
    area, aspect = np.array(boxes).T
    assert 0.07 < area.min() < 0.1 and area.max() <= 1 and area.mean() > 0.4
    assert 0.73 < aspect.min() < 0.78 and 1.3 < aspect.max() < 1.36


def test_an_extreme_frame_still_gives_a_crop():
    crop = transforms.random_resized_crop(4, 600, 32, Augment(crop_area_min=1.0), RNG(0))
    part = torch.from_numpy(crop.cut(np.zeros((4, 600, 3), np.uint8))).permute(2, 0, 1)
    assert crop.fit(part).shape == (3, 32, 32)


def test_downstream_crops_resize_the_whole_frame_to_a_square_first():
    frame = torch.arange(300, dtype=torch.float)[None, None].expand(3, 120, 300).to(torch.uint8)
    whole = tvf.resize(frame, [256, 256], antialias=True)
    centre = transforms.square_crop(256, 224, None).fit(frame)
    assert torch.equal(centre, whole[:, 16:240, 16:240])
    places = {transforms.square_crop(256, 224, RNG(i)).box[:2] for i in range(400)}
    assert min(min(p) for p in places) == 0 and max(max(p) for p in places) == 32


def test_a_two_second_spectrogram_is_128_by_125_and_one_second_gives_62():
    view = AudioTransform(CLIP, FORM, FLAT)
    assert view(torch.randn(3, 32_000)).shape == (3, 1, 128, 125)
    assert view(torch.randn(3, 16_000)).shape == (3, 1, 128, 62)


def test_it_is_the_log_of_the_mel_magnitude():
    wave = torch.randn(1, 16_000)
    wave /= wave.abs().max()
    spectrum = torch.stft(
        wave, 512, 256, window=torch.hann_window(512), return_complex=True, pad_mode="reflect"
    ).abs()
    view = AudioTransform(CLIP, FORM, FLAT)
    mel = torch.einsum("bft,fm->bmt", spectrum, view.mel.mel_scale.fb)[..., :62]
    torch.testing.assert_close(view.log_mel(wave), mel.clamp_min(1e-5).log10())


def test_loudness_is_taken_away_and_silence_stays_silent():
    view, wave = AudioTransform(CLIP, FORM, FLAT), torch.randn(1, 16_000)
    torch.testing.assert_close(view.log_mel(wave), view.log_mel(wave * 1e-3), atol=1e-4, rtol=0)
    torch.testing.assert_close(view.log_mel(torch.zeros(1, 16_000)), torch.full((1, 128, 62), -5.0))
    quieter = view.log_mel(wave, torch.tensor([0.7]))
    assert (view.log_mel(wave) - quieter).median().item() == pytest.approx(-np.log10(0.7), abs=1e-3)


def test_masks_cover_at_most_a_fifth_of_each_axis():
    view, wave = AudioTransform(CLIP, FORM, FLAT), torch.randn(200, 32_000)
    params = sample_params(Augment(), 200, RNG(2))
    masked = (view(wave, params) == 0)[:, 0]
    rows, columns = masked.all(dim=2).sum(1), masked.all(dim=1).sum(1)
    assert 0 < rows.max() <= 0.2 * 128 and 0 < columns.max() <= 0.2 * 125
    assert rows.float().mean() > 8 and columns.float().mean() > 8


def test_bands_are_standardised_with_the_given_statistics():
    wave = torch.randn(1, 32_000)
    plain = AudioTransform(CLIP, FORM, FLAT)(wave)
    mean, std = torch.arange(128.0), torch.arange(1.0, 129)
    got = AudioTransform(CLIP, FORM, (mean.tolist(), std.tolist()))(wave)
    torch.testing.assert_close(got, (plain - mean[:, None]) / std[:, None])
