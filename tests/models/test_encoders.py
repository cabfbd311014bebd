"""Tables 4.1 and 4.2 of the thesis, shape by shape."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from avnb.book.encoders import architecture_table, clip_cost_table
from avnb.config import Pretrain
from avnb.models.architecture import layers, pair_weights
from avnb.models.encoders import AudioEncoder, VideoEncoder, scale_residuals
from avnb.models.heads import Projector

BLOCKS = [f"block{stage}.{number}" for stage in (2, 3, 4, 5) for number in (1, 2)]
# Thesis Table 4.1 for 8 x 224 x 224: side, frames, channels; kernel and stride in space, in time.
TABLE_4_1 = """
    112 8  64 7 3 2 1
     56 8  64 3 1 2 1
     56 8  64 3 3 1 1
     56 8  64 3 3 1 1
     28 4 128 3 3 2 2
     28 4 128 3 3 1 1
     14 2 256 3 3 2 2
     14 2 256 3 3 1 1
      7 1 512 3 3 2 2
      7 1 512 3 3 1 1
      1 1 512 7 1 1 1
"""
# Thesis Table 4.2 for 128 x 100: mel bands, frames, channels; kernel and stride along both.
TABLE_4_2 = """
     64 50  64 7 7 2 2
     32 25  64 3 3 2 2
     32 25  64 3 3 1 1
     16 13 128 3 3 2 2
     16 13 128 3 3 1 1
      8  7 256 3 3 2 2
      8  7 256 3 3 1 1
      8  7 512 3 3 1 1
      8  7 512 3 3 1 1
      1  1 512 8 7 1 1
"""


@pytest.mark.parametrize(
    "encoder, shape, table",
    [(VideoEncoder(), (3, 8, 224, 224), TABLE_4_1), (AudioEncoder(), (1, 128, 100), TABLE_4_2)],
    ids=["4.1", "4.2"],
)
def test_tables_4_1_and_4_2(encoder, shape, table):
    rows = architecture_table(layers(encoder, shape), shape)
    pool = ["max-pool"] if isinstance(encoder, VideoEncoder) else []
    assert [*rows.index] == ["input", "conv1", *pool, *BLOCKS, "max-pool"]
    expected = [tuple(map(int, line.split())) for line in table.strip().splitlines()]
    assert [row[:7] for row in rows.itertuples(index=False, name=None)][1:] == expected


def test_layers_match_a_forward_pass_and_leave_the_encoder_unchanged():
    encoder = AudioEncoder(width=8)
    before = copy.deepcopy(encoder.state_dict())
    rows = layers(encoder, (1, 64, 62))
    assert encoder.training and not encoder._forward_hooks and not encoder.stem._forward_hooks
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    x = encoder.eval().stem(torch.zeros(1, 1, 64, 62))
    assert rows[0].shape == tuple(x.shape[1:])
    assert rows[4].shape == tuple(encoder.stages[1](encoder.stages[0](x)).shape[1:])


@pytest.mark.parametrize("encoder", [VideoEncoder(width=8), AudioEncoder(width=8)])
def test_layers_add_up_to_the_whole_encoder(encoder):
    shape = (3, 8, 32, 32) if isinstance(encoder, VideoEncoder) else (1, 64, 62)
    rows = layers(encoder, shape)
    assert sum(x.parameters for x in rows) == sum(p.numel() for p in encoder.parameters())
    # by hand: kernel x input channels x output channels x output positions
    convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
    for m in convolutions:
        m.register_forward_hook(lambda m, _, out: macs.append(m.weight.numel() * out[0, 0].numel()))
    macs = []
    encoder(torch.zeros(2, *shape))
    assert sum(x.macs for x in rows) == sum(macs) and len(macs) == len(convolutions)


def test_a_pair_has_twelve_weights_where_a_3d_kernel_has_27():
    first, second = VideoEncoder(width=8).stages[1]
    assert pair_weights(first.first) == (9 * 8 * 16 + 3 * 16 * 16, 27 * 8 * 16)
    assert pair_weights(second.first) == (12 * 16 * 16, 27 * 16 * 16)


def test_the_video_encoder_has_15_379_136_parameters():
    assert sum(p.numel() for p in VideoEncoder().parameters()) == 15_379_136


def test_the_video_encoder_takes_24_3_gmac_for_a_training_clip():
    macs = sum(layer.macs for layer in layers(VideoEncoder(), (3, 16, 224, 224)))
    assert macs / 1e9 == pytest.approx(24.3, abs=0.1)


@pytest.mark.parametrize("width", [8, 16])
def test_features_have_eight_times_the_width_and_one_clip_keeps_its_axis(width):
    assert VideoEncoder(width=width)(torch.zeros(2, 3, 4, 32, 32)).shape == (2, 8 * width)
    assert AudioEncoder(width=width).eval()(torch.zeros(1, 1, 64, 62)).shape == (1, 8 * width)


def test_the_projector_ends_without_relu():
    out = Projector(512, 128)(torch.randn(64, 512))
    assert out.shape == (64, 128) and (out < 0).any()


def test_a_projector_with_batch_norm_centres_its_embeddings_from_the_start():
    features = 3 + 0.1 * torch.randn(64, 32)  # nearly parallel, as pooled features are
    cosines = {}
    for batch_norm in (False, True):
        z = F.normalize(Projector(32, 16, batch_norm=batch_norm)(features), dim=1)
        cosines[batch_norm] = (z @ z.T).mean().item()
    assert cosines[False] > 0.9 and abs(cosines[True]) < 0.05


def test_scaled_residuals_keep_more_of_how_alike_clips_are():
    """Two clips of one video differ less than those of two videos, and more so in the features."""
    torch.manual_seed(0)
    videos = torch.randn(16, 3, 1, 32, 32).expand(-1, -1, 4, -1, -1)
    clips = [videos + torch.randn(16, 3, 4, 32, 32) for _ in range(2)]
    apart = {}
    for scale in (1.0, 0.1):
        torch.manual_seed(1)
        encoder = VideoEncoder(8)
        scale_residuals(encoder, scale)
        x, y = (F.normalize(z - z.mean(0), dim=1) for z in map(encoder, clips))
        apart[scale] = ((x * y).sum(1).mean() - (x @ y.T).mean()).item()
    assert apart[0.1] > 1.5 * apart[1.0]


def test_a_clip_costs_what_its_encoders_take():
    runs = {"thesis": Pretrain(), "small": Pretrain.from_flat(width=8, frame_px=32, mels=64)}
    table = clip_cost_table(runs)
    assert table.loc["thesis", "parameters"] == 15_379_136 + 4_725_696
    assert table.loc["thesis", "video"] == "16 x 224 x 224"
    assert table.loc["small", "audio"] == "64 x 125"
    assert table.loc["thesis", "GMAC"] > 100 * table.loc["small", "GMAC"] > 0
