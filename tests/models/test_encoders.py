"""Tables 4.1 and 4.2 of the thesis, shape by shape, and the heads."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from avnb.models.encoders import (
    AudioEncoder,
    Block,
    Expander,
    FrameStackConv3d,
    Projector,
    VideoEncoder,
    scale_residuals,
)

# Thesis Table 4.1 for 8 x 224 x 224: side, frames and channels after each layer.
TABLE_4_1 = """
    112 8  64
     56 8  64
     56 8  64
     56 8  64
     28 4 128
     28 4 128
     14 2 256
     14 2 256
      7 1 512
      7 1 512
"""
# Thesis Table 4.2 for 128 x 100: mel bands, frames and channels after each layer.
TABLE_4_2 = """
     64 50  64
     32 25  64
     32 25  64
     16 13 128
     16 13 128
      8  7 256
      8  7 256
      8  7 512
      8  7 512
"""


def layers(encoder):
    """The modules of a table's lines."""
    pool = [encoder.pool] if isinstance(encoder, VideoEncoder) else []
    return [encoder.stem, *pool, *(block for stage in encoder.stages for block in stage)]


@pytest.mark.parametrize(
    "encoder, shape, table",
    [(VideoEncoder(), (3, 8, 224, 224), TABLE_4_1), (AudioEncoder(), (1, 128, 100), TABLE_4_2)],
    ids=["4.1", "4.2"],
)
def test_tables_4_1_and_4_2(encoder, shape, table):
    sizes, encoder = [], encoder.to("meta")
    for module in layers(encoder):
        module.register_forward_hook(lambda _m, _x, y: sizes.append(tuple(y.shape[1:])))
    assert encoder(torch.empty(2, *shape, device="meta")).shape == (2, 512)
    video = len(shape) == 4
    found = [(s[-1], s[1], s[0]) if video else (s[1], s[2], s[0]) for s in sizes]
    assert found == [tuple(map(int, line.split())) for line in table.strip().splitlines()]


def test_the_encoders_have_as_many_parameters_as_the_thesis_says():
    assert sum(p.numel() for p in VideoEncoder().parameters()) == 15_379_136
    assert sum(p.numel() for p in AudioEncoder().parameters()) == 4_725_696


def test_a_pair_of_convolutions_looks_at_space_then_at_time():
    space, _, _, time = Block(8, 16, 2).first
    assert (space.kernel_size, space.stride, space.padding) == ((1, 3, 3), (1, 2, 2), (0, 1, 1))
    assert (time.kernel_size, time.stride, time.padding) == ((3, 1, 1), (2, 1, 1), (1, 0, 0))


@pytest.mark.parametrize("width", [8, 16])
def test_features_have_eight_times_the_width_and_one_clip_keeps_its_axis(width):
    assert VideoEncoder(width=width)(torch.zeros(2, 3, 4, 32, 32)).shape == (2, 8 * width)
    assert AudioEncoder(width=width).eval()(torch.zeros(1, 1, 64, 62)).shape == (1, 8 * width)


def test_features_are_the_maximum_over_the_last_layer():
    video, audio = VideoEncoder(4).eval(), AudioEncoder(4).eval()
    frames, mel = torch.randn(2, 3, 8, 64, 64), torch.randn(2, 1, 64, 62)
    torch.testing.assert_close(video(frames), video.feature_map(frames).flatten(2).amax(2))
    last = []
    audio.stages[-1].register_forward_hook(lambda _m, _x, y: last.append(y))
    torch.testing.assert_close(audio(mel), last[0].flatten(2).amax(2))


def test_frames_side_by_side_give_the_convolution_over_time():
    layer = FrameStackConv3d(3, 5, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
    x = torch.randn(2, 3, 4, 12, 10)
    plain = F.conv3d(x, layer.weight, stride=layer.stride, padding=layer.padding)
    torch.testing.assert_close(layer(x), plain, rtol=1e-4, atol=1e-5)


def test_weights_preserve_the_scale_of_what_relu_leaves():
    for layer, fan in (
        (VideoEncoder(32).stages[0][0].second[0], 32 * 9),
        (AudioEncoder(32).stages[0][1][0], 32 * 9),
    ):
        assert layer.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.1)


@pytest.mark.parametrize(
    "head, kinds",
    [
        (Projector(32, 16), "Linear ReLU Linear ReLU Linear"),
        (
            Projector(32, 16, batch_norm=True),
            "Linear BatchNorm1d ReLU Linear BatchNorm1d ReLU Linear BatchNorm1d",
        ),
        (Expander(32, 16), "Linear BatchNorm1d ReLU Linear BatchNorm1d ReLU Linear"),
    ],
)
def test_heads_have_three_layers_and_end_linear(head, kinds):
    assert " ".join(type(layer).__name__ for layer in head) == kinds
    out = head(torch.randn(64, 32, generator=torch.Generator().manual_seed(0)))
    assert out.shape == (64, 16) and (out < 0).any()
    sizes = [layer.out_features for layer in head if isinstance(layer, nn.Linear)]
    assert sizes == ([16, 16, 16] if isinstance(head, Expander) else [32, 32, 16])
    norms = [layer for layer in head if isinstance(layer, nn.BatchNorm1d)]
    assert [norm.affine for norm in norms] == [True, True, False][: len(norms)]
    for layer, after in itertools.pairwise([*head, None]):
        if isinstance(layer, nn.Linear):  # BatchNorm would subtract its bias again
            assert (layer.bias is None) == isinstance(after, nn.BatchNorm1d)


def test_only_the_last_convolution_of_each_residual_branch_is_scaled():
    encoder, plain = VideoEncoder(4), VideoEncoder(4)
    plain.load_state_dict(encoder.state_dict())
    scale_residuals(encoder, 0.25)
    scaled = {f"stages.{stage}.{block}.second.3.weight" for stage in range(4) for block in range(2)}
    for name, p in plain.named_parameters():
        factor = 0.25 if name in scaled else 1.0
        assert torch.equal(encoder.get_parameter(name), factor * p)
