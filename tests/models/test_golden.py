"""The first losses of each method are those that are written down."""

import numpy as np
import pytest
import torch

from avnb.data import decoding
from tests.golden import losses as golden

# Found when it was written: two threads, or no vector instructions (ATEN_CPU_CAPABILITY=default),
# change no loss by more than 6e-8 of it; a weight, rate, temperature, q or momentum that is 1 %
# off changes some loss by 1e-3 or more.
RELATIVE = 1e-5


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return golden.stored_world(tmp_path_factory.mktemp("golden"))


def test_what_is_read_is_what_was_drawn(manifest):
    assert {v.audio_hz for v in manifest.videos} == {0, golden.AUDIO_HZ}
    video = next(v for v in manifest.videos if v.audio_hz)
    drawn, audio = golden.drawn(golden.scenes()[int(video.id)])
    seen = decoding.stills(
        manifest.path(video), (np.arange(len(drawn)) + 0.5) / golden.FPS,
        seconds=video.seconds,
    )  # fmt: skip
    assert (np.stack(seen) == np.stack(drawn)).all()
    assert (decoding.decode_audio(manifest.path(video), golden.AUDIO_HZ) == audio).all()


@pytest.mark.parametrize("name", golden.TRAINED)
def test_the_first_losses_are_those_written_down(manifest, tmp_path, name):
    found, written = golden.losses(manifest, name, tmp_path), golden.read()[name]
    assert len(found) == 20
    assert found == pytest.approx(written, rel=RELATIVE), "see the head of tests/golden/losses.txt"


@pytest.mark.parametrize(
    "name, change", [("xid", {"temperature": 0.0701}), ("vicreg_av", {"covariance_weight": 1.01})]
)
def test_a_small_change_is_noticed(manifest, tmp_path, name, change):
    found, written = golden.losses(manifest, name, tmp_path, **change), golden.read()[name]
    assert found != pytest.approx(written, rel=10 * RELATIVE)
