"""Tables 4.1 and 4.2 of the thesis, shape by shape."""

import pytest
import torch

from avnb.encoders import AudioEncoder, Projector, VideoEncoder

TABLE_4_1 = {  # layer: frames, side, channels for 8 x 224 x 224
    "stem": (8, 112, 64), "pool": (8, 56, 64),
    "stages.0.0": (8, 56, 64), "stages.0.1": (8, 56, 64),
    "stages.1.0": (4, 28, 128), "stages.1.1": (4, 28, 128),
    "stages.2.0": (2, 14, 256), "stages.2.1": (2, 14, 256),
    "stages.3.0": (1, 7, 512), "stages.3.1": (1, 7, 512),
}  # fmt: skip
TABLE_4_2 = {  # layer: mel bands, frames, channels for 128 x 100
    "stem": (64, 50, 64), "stages.0.0": (32, 25, 64), "stages.0.1": (32, 25, 64),
    "stages.1.0": (16, 13, 128), "stages.1.1": (16, 13, 128),
    "stages.2.0": (8, 7, 256), "stages.2.1": (8, 7, 256),
    "stages.3.0": (8, 7, 512), "stages.3.1": (8, 7, 512),
}  # fmt: skip


def shapes(encoder, x, layers):
    seen = {}
    for name in layers:
        encoder.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: seen.__setitem__(name, tuple(out.shape[1:]))
        )
    with torch.inference_mode():
        seen["features"] = tuple(encoder.eval()(x).shape)
    for name, shape in seen.items():
        print(f"{name:12s} {shape}")
    return seen


def test_table_4_1():
    seen = shapes(VideoEncoder(), torch.zeros(1, 3, 8, 224, 224), TABLE_4_1)
    expected = {name: (c, t, s, s) for name, (t, s, c) in TABLE_4_1.items()}
    assert seen == {**expected, "features": (1, 512)}


def test_table_4_2():
    seen = shapes(AudioEncoder(), torch.zeros(1, 1, 128, 100), TABLE_4_2)
    expected = {name: (c, f, t) for name, (f, t, c) in TABLE_4_2.items()}
    assert seen == {**expected, "features": (1, 512)}


def test_the_video_encoder_has_15_379_136_parameters():
    assert sum(p.numel() for p in VideoEncoder().parameters()) == 15_379_136


def test_the_video_encoder_takes_24_3_gmac_for_a_training_clip():
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        VideoEncoder()(torch.zeros(1, 3, 16, 224, 224))
    assert counter.get_total_flops() / 2e9 == pytest.approx(24.3, abs=0.1)


@pytest.mark.parametrize("width", [8, 16])
def test_features_have_eight_times_the_width_and_one_clip_keeps_its_axis(width):
    assert VideoEncoder(width=width)(torch.zeros(2, 3, 4, 32, 32)).shape == (2, 8 * width)
    assert AudioEncoder(width=width).eval()(torch.zeros(1, 1, 64, 62)).shape == (1, 8 * width)


def test_the_projector_ends_without_relu():
    out = Projector(512, 128)(torch.randn(64, 512))
    assert out.shape == (64, 128) and (out < 0).any()
