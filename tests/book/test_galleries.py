"""Small copies of videos, their spectrograms, and the HTML that plays them."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from torchaudio.functional import melscale_fbanks

from avnb.book import galleries
from avnb.data import store

VIDEO = SimpleNamespace(label='a "<b>"', fps=8.0, frames=32, seconds=4.0, audio=True)


@pytest.fixture
def videos(tmp_path):
    """Four seconds whose frames grow brighter, 8 a second, with a tone in the second half."""
    frames = [np.full((180, 240, 3), 5 * k, np.uint8) for k in range(32)]
    t = np.arange(4 * store.HZ) / store.HZ
    tone = np.where(t > 2, 0.5 * np.sin(2 * np.pi * 1000 * t), 0).astype(np.float32)
    store.write(tmp_path / "source.mp4", frames, 8, tone, store.Form().codecs)
    return SimpleNamespace(path=lambda video: tmp_path / "source.mp4")


def test_the_frame_that_is_on_show_is_read(videos):
    frames = galleries.frames_at(videos, VIDEO, np.array([0.0, 1.0, 1.12, 1.125, 9.0]))
    assert frames.mean(axis=(1, 2, 3)) == pytest.approx([0, 40, 40, 45, 155], abs=3)


def test_a_small_copy_is_made_once(videos, tmp_path):
    media = tmp_path / "media"
    copy = galleries.small_copy(videos, VIDEO, media)
    made = copy.stat().st_mtime_ns
    assert galleries.small_copy(videos, VIDEO, media) == copy
    assert copy.stat().st_mtime_ns == made
    assert {p.suffix for p in media.iterdir()} == {".mp4", ".jpg", ".png"}
    frames = store.read_frames(copy, np.array([0, 63]))  # 16 a second
    assert frames.shape == (2, 120, 160, 3)
    assert frames.mean(axis=(1, 2, 3)) == pytest.approx([0, 155], abs=4)
    with Image.open(copy.with_suffix(".jpg")) as poster:
        assert poster.size == (160, 120) and np.mean(poster) == pytest.approx(80, abs=4)
    with Image.open(copy.with_suffix(".png")) as drawn:  # of the tone, in the second half alone
        light = np.asarray(drawn.convert("L")).astype(int)
    band = melscale_fbanks(513, 0, 8000, 128, store.HZ, None, "htk")[64].argmax().item()  # 1 kHz
    assert light[:, -20].argmax() == pytest.approx(127 - band, abs=1) and light[:, 20].max() < 60
    loud = np.abs(store.read_audio(copy, 0, 4 * store.HZ)).reshape(4, -1).mean(axis=1) > 0.1
    assert loud.tolist() == [False] * 2 + [True] * 2


def test_a_video_without_audio_has_no_spectrogram(videos, tmp_path):
    silent = SimpleNamespace(**{**vars(VIDEO), "audio": False})
    copy = galleries.small_copy(videos, silent, tmp_path / "media")
    assert not copy.with_suffix(".png").exists()
    assert "<img" not in galleries.player(copy, "a", spectrogram=True)


def test_a_gallery_names_marks_and_loads_nothing_before_it_plays(videos, tmp_path, monkeypatch):
    videos.videos, media = [VIDEO], tmp_path / "media"
    both = [SimpleNamespace(**{**vars(VIDEO), "label": "b"}), VIDEO]
    gallery = SimpleNamespace(path=videos.path, videos=both, classes=[VIDEO.label, "b"])
    page = galleries.playing_gallery(videos, gallery, [[1, 0]], media, spectrograms=True)
    assert page.index("same class") < page.index("other class")
    assert page.count("<video") == page.count('preload="none"') == page.count("<img") == 3
    assert [page.count(text) for text in ("query:", "✓", "✗", "same class", "other class")] == [
        1, 1, 1, 1, 1,
    ]  # fmt: skip
    assert "<b>" not in page and "a &quot;&lt;b&gt;&quot;" in page
    assert page.count('poster="data:image/jpeg') == 3 and "data:video" not in page
    monkeypatch.setenv("JPY_SESSION_NAME", "a.ipynb")  # a Lab, which may not serve the folder
    gallery.classes = ["b", "c"]  # that of the query is none of them
    page = galleries.playing_gallery(videos, gallery, [[1, 0]], media)
    assert "✗" not in page and "✓" not in page and page.count('src="data:video/mp4') == 3
