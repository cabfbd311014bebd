import colorsys
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tvf

from avnb.config import Augment, Clip, Spectrogram
from avnb.data import augment, transform
from avnb.data.augment import Crop, sample_params
from avnb.data.clips import Sampling, VideoClips
from avnb.data.transform import AudioTransform, VideoTransform

RNG = np.random.default_rng
CLIP, FORM = Clip(), Spectrogram()
FLAT = ([0.0] * 128, [1.0] * 128)
KINDS = [tvf.adjust_brightness, tvf.adjust_contrast, tvf.adjust_saturation, tvf.adjust_hue]


def some_frames(clips, frames=4, px=8, last=False):
    """Noise [B, 3, T, S, S], its channels last in memory or not."""
    shape = (clips, frames, px, px, 3)
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x = x.permute(0, 4, 1, 2, 3)
    return x if last else x.contiguous()


def test_hue_is_that_of_the_standard_library():
    levels = [0, 0.2, 0.2 + 1e-9, 0.7, 1]  # greys, ties of channels, all orders
    pixels = list(itertools.product(levels, repeat=3))
    for turns in (-0.5, -0.2, 0, 0.1, 1 / 3, 0.5):
        x = torch.tensor(pixels, dtype=torch.double).T.reshape(1, 3, 1, 1, -1)
        got = augment.adjust_hue(x, torch.tensor([turns], dtype=torch.double))
        hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in pixels]
        expected = [colorsys.hsv_to_rgb((h + turns) % 1, s, v) for h, s, v in hsv]
        assert got.reshape(3, -1).T.tolist() == pytest.approx(np.array(expected), abs=1e-9)


def test_each_clip_is_augmented_as_torchvision_would_in_its_own_order():
    frames, params = some_frames(6, 2, 9), sample_params(Augment(hue=0.5), 6, RNG(0))
    got = VideoTransform()(frames, params)
    mean, std = list(transform.IMAGENET_MEAN), list(transform.IMAGENET_STD)
    for i in range(6):
        clip = frames[i].transpose(0, 1) / 255  # [T, 3, S, S]
        clip = clip.flip(-1) if params.flip[i] else clip
        for kind in params.order[i].tolist():
            clip = KINDS[kind](clip, params.factors[i, kind].item())
        expected = tvf.normalize(clip, mean, std)
        torch.testing.assert_close(got[i].transpose(0, 1), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("given", [False, True])
def test_the_memory_format_is_kept_and_changes_nothing(given):
    view, params = VideoTransform(), sample_params(Augment(), 5, RNG(0)) if given else None
    planar, last = (view(some_frames(5, last=last), params) for last in (False, True))
    torch.testing.assert_close(last, planar, rtol=0, atol=1e-6)
    assert planar.is_contiguous() and last.is_contiguous(memory_format=torch.channels_last_3d)


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
        list(transform.IMAGENET_MEAN),
        list(transform.IMAGENET_STD),
    )
    torch.testing.assert_close(VideoTransform()(frames), expected.transpose(1, 2))


def test_random_crops_have_the_drawn_areas_and_aspects():
    rng, boxes = RNG(0), []
    for _ in range(4000):
        crop = augment.random_resized_crop(240, 320, 224, Augment(), rng)
        top, left, h, w = crop.box
        assert 0 <= top <= 240 - h and 0 <= left <= 320 - w
        boxes.append((h * w / (240 * 320), w / h))
    area, aspect = np.array(boxes).T
    assert 0.07 < area.min() < 0.1 and area.max() <= 1 and area.mean() > 0.4
    assert 0.73 < aspect.min() < 0.78 and 1.3 < aspect.max() < 1.36


def test_a_random_crop_lies_anywhere_in_the_frame():
    boxes = [augment.random_resized_crop(40, 60, 8, Augment(), RNG(i)).box for i in range(2000)]
    tops, lefts, heights, widths = np.array(boxes).T
    assert tops.min() == lefts.min() == 0
    assert (tops + heights).max() == 40 and (lefts + widths).max() == 60


def test_an_extreme_frame_gives_the_largest_central_crop():
    crop = augment.random_resized_crop(4, 600, 32, Augment(crop_area_min=1.0), RNG(0))
    assert crop.box == (0, 297, 4, 5)
    assert crop([np.zeros((4, 600, 3), np.uint8)]).shape == (3, 1, 32, 32)


def test_downstream_crops_resize_the_whole_frame_to_a_square_first():
    frame = torch.arange(300, dtype=torch.float)[None, None].expand(3, 120, 300).to(torch.uint8)
    whole = tvf.resize(frame, [256, 256], antialias=True)
    images = [frame.permute(1, 2, 0).numpy()]
    centre = augment.square_crop(256, 224, None)(images)[:, 0]
    assert torch.equal(centre, whole[:, 16:240, 16:240])
    places = {augment.square_crop(256, 224, RNG(i)).box[:2] for i in range(400)}
    assert min(min(p) for p in places) == 0 and max(max(p) for p in places) == 32
    mirrored = dataclasses.replace(augment.square_crop(256, 224, None), mirrored=True)
    assert torch.equal(mirrored(images)[:, 0], centre.flip(-1))
    with pytest.raises(ValueError, match="resize_px must be at least frame_px, got 8 and 9"):
        augment.square_crop(8, 9, None)


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
    mel = torch.einsum("bft,fm->bmt", spectrum, view.mel.fb)[..., :62]
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


def test_clips_have_mean_0_and_deviation_1_in_each_band_by_their_statistics(vggsound, tiny):
    few, drawn = vggsound.only(vggsound.with_audio().videos[:3]), {"augment": tiny.augment}
    clip = Sampling(clip=tiny.clip, count=1, place="random", video=False, **drawn)
    wave = torch.cat([VideoClips(few, clip, seed=tiny.seed).whole(i).audio for i in range(3)])
    known = transform.measured_statistics(few, tiny)
    x = AudioTransform(tiny.clip, tiny.spectrogram, known)(wave)
    assert x.mean((0, 1, 3)).abs().max() < 1e-4
    assert (x.std((0, 1, 3), correction=0) - 1).abs().max() < 1e-4


def test_bands_are_standardised_with_the_given_statistics():
    wave = torch.randn(1, 32_000)
    plain = AudioTransform(CLIP, FORM, FLAT)(wave)
    mean, std = torch.arange(128.0), torch.arange(1.0, 129)
    got = AudioTransform(CLIP, FORM, (mean.tolist(), std.tolist()))(wave)
    torch.testing.assert_close(got, (plain - mean[:, None]) / std[:, None])


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_crops_are_those_of_pil(interpolation):
    """PIL's bilinear filter antialiases; its nearest neighbour takes single pixels."""
    resample = {"bilinear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}
    frame = RNG(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for px in (32, 64):  # as in the thesis a power of two: no place is half-way between pixels
        crop = Crop(box=(3, 5, 24, 24), px=24, resize_px=px, interpolation=interpolation)
        ours = crop([frame])[:, 0].permute(1, 2, 0).numpy().astype(int)
        whole = Image.fromarray(frame).resize((px, px), resample[interpolation])
        theirs = np.asarray(whole.crop((5, 3, 29, 27))).astype(int)
        apart = np.abs(ours - theirs)
        assert apart.max() <= (0 if interpolation == "nearest" else 2)
