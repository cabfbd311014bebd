"""ESC-50: files of sound alone, in a made folder of its layout."""

import wave

import numpy as np
import pandas as pd
import pytest

from avnb.config import Evaluation, Pretrain
from avnb.data import datasets, prepare, store
from avnb.data.store import Form
from avnb.evaluation.features import untrained_source
from avnb.evaluation.retrieval import query_and_gallery
from avnb.profiles import PROFILES
from tests.data.films import strength, tones

HEADER = "filename,fold,target,category,esc10,src_file,take"
NAMES = {0: "dog", 14: "chirping birds"}


def sound(path, hertz, seconds=1.0, hz=44_100):
    """A wav file of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, hz, 0, "NONE", ""))
        file.writeframes((tones([hertz], seconds, hz) * 32_767).astype("<i2").tobytes())


@pytest.fixture
def esc50(tmp_path):
    """Two classes, a clip in each fold; dogs bark at 400 Hz, birds sing at 1 200 Hz."""
    folder, lines = tmp_path / "ESC-50-master", [HEADER]
    (folder / "audio").mkdir(parents=True)
    (folder / "meta").mkdir()
    for fold in range(1, 6):
        for target, name in NAMES.items():
            file = f"{fold}-100{fold}-A-{target}.wav"
            sound(folder / "audio" / file, 400 if target == 0 else 1200)
            lines.append(f"{file},{fold},{target},{name},False,100{fold},A")
    (folder / "meta/esc50.csv").write_text("\n".join(lines))
    return folder


def prepared(folder, **options):
    listing = datasets.listing("", folder, **options)
    return prepare.prepare(listing, folder.parent / "store", folder.parent / "out", form=Form())


def test_the_fold_of_the_number_is_tested(esc50):
    for fold in range(1, 6):
        found = datasets.listing("", esc50, fold)
        assert (found.name, found.classes) == ("esc50", ("dog", "chirping birds"))
        tested = {entry.id for entry in found.entries if entry.split == "test"}
        assert tested == {f"{fold}-100{fold}-A-0", f"{fold}-100{fold}-A-14"}
    with pytest.raises(ValueError, match="ESC-50 has no fold 6; allowed: 1 to 5"):
        datasets.listing("", esc50, 6)


def test_sound_is_stored_beside_black_frames_and_alone_is_encoded(esc50, tmp_path):
    manifest = prepared(esc50)
    video = manifest.videos[0]
    assert (video.audio, video.source_width, video.source_hz) == (True, 0, 44_100)
    assert video.seconds == pytest.approx(1.0, abs=0.07)
    assert store.read_frames(manifest.path(video), np.array([0, 8])).max() < 20
    heard = store.read_audio(manifest.path(video), 0, 16_000)
    assert strength(heard, 400) == pytest.approx(0.5, abs=0.02) and strength(heard, 1200) < 0.01
    run = Pretrain.from_flat(**{**PROFILES["smoke"]["pretrain"], "width": 2})
    config = Evaluation(video_level_clips=3, resize_px=36, video_fps=8.0)
    source = untrained_source(run, tmp_path / "runs")
    test, train = query_and_gallery(source, manifest, config, tmp_path / "features")
    assert test.video.shape == (2, 3, 0) and train.audio.shape == (8, 3, 16)


def test_a_missing_and_a_broken_file_are_named(esc50):
    files = sorted((esc50 / "audio").iterdir())
    files[0].write_bytes(b"RIFF is not enough")
    silent = files[1]
    sound(silent, 0, seconds=0.0)
    files[-1].unlink()
    with pytest.raises(FileNotFoundError, match=r"5-1005-A-14\.wav"):
        prepared(esc50)
    manifest = prepared(esc50, allow_missing=True)
    reasons = pd.read_csv(manifest.where / "rejected.csv").set_index("path")["reason"]
    assert reasons[f"audio/{files[0].name}"].startswith("Invalid data found")
    assert reasons[f"audio/{silent.name}"] == "holds no sound that can be decoded"
    assert reasons[f"audio/{files[-1].name}"] == "in the lists, but not in the folder"
    assert len(manifest) == 7


@pytest.mark.parametrize(
    "row", ["../a.wav,1,0,dog,False,1,A", "a.wav,6,0,dog,False,1,A", "a.wav,1"]
)
def test_bad_lines_are_named(esc50, row):
    (esc50 / "meta/esc50.csv").write_text(f"{HEADER}\n{row}\n")
    with pytest.raises(ValueError, match=r"esc50\.csv, line 2: expected filename,fold"):
        datasets.listing("", esc50)
