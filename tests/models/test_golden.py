"""The first losses of each method equal those in tests/golden/losses.txt."""

import numpy as np
import pytest
import torch

from avnb.data.store import stored_video
from tests.golden import losses as golden

# Measured: two threads, or no vector instructions (ATEN_CPU_CAPABILITY=default), change no loss by
# more than 6e-8 of it; a weight, learning rate, temperature, q or momentum that is 1 % off changes
# some loss by 1e-3 or more.
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


def test_stored_videos_equal_the_rendered_scenes(manifest):
    video = next(v for v in manifest.videos if v.audio)
    rendered, audio = golden.rendered(golden.scenes()[int(video.id)])
    assert {v.audio for v in manifest.videos} == {False, True}
    with stored_video(manifest.path(video)) as file:
        frames = file.frames(np.arange(video.frames))
        assert (file.audio(0, len(audio), golden.AUDIO_HZ) == audio).all()
    assert (np.stack([frames[i] for i in range(video.frames)]) == np.stack(rendered)).all()


@pytest.mark.parametrize("name", golden.TRAINED)
def test_first_losses_equal_the_stored_ones(manifest, tmp_path, name):
    found, stored = golden.losses(manifest, name, tmp_path), golden.read()[name]
    assert len(found) == 20
    assert found == pytest.approx(stored, rel=RELATIVE), "see the head of tests/golden/losses.txt"
