"""Preparing data sets: once, resumable, within limits; one bad file costs one row."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from avnb.config import Subset
from avnb.data import datasets, prepare, store
from avnb.data.manifest import Manifest
from avnb.data.store import RAW, Form
from avnb.data.subsets import draw_subset
from tests.conftest import ROOT
from tests.data.films import TEN, count, film, tones
from tests.processes import processes, wait_for

SOUND = (tones([440], 1.0), 16_000, "mono", "aac")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Own videos of two classes, three each, one of them broken."""
    for label in ("cats", "dogs"):
        (tmp_path / "videos" / label).mkdir(parents=True)
        for i in range(3):
            film(tmp_path / "videos" / label / f"{i}.mp4", audio=SOUND if i else None)
    (tmp_path / "videos/dogs/2.mp4").write_bytes(b"<html>gone</html>")
    return tmp_path / "videos"


def prepared(folder, out="tables", *, allow_missing=False, **options) -> Manifest:
    listing = datasets.listing("folder", folder, allow_missing=allow_missing)
    where = folder.parent / "store"
    return prepare.prepare(listing, where, where / out, **{"form": Form(), **options})


def rejected(manifest) -> dict[str, str]:
    return dict(pd.read_csv(manifest.where / "rejected.csv")[["path", "reason"]].to_numpy())


def changes(folder) -> dict[str, int]:
    """When each file of the store was written."""
    return {p.name: p.stat().st_mtime_ns for p in (folder.parent / "store").glob("files-*/*")}


def test_tables_and_files_are_plain(folder):
    manifest = prepared(folder)
    assert rejected(manifest) == {"dogs/2.mp4": "Invalid data found when processing input"}
    table = pd.read_csv(manifest.where / "videos.csv")
    assert list(table.columns[:6]) == ["id", "label", "split", "seconds", "audio", "file"]
    paths = ["cats/0.mp4", "cats/1.mp4", "cats/2.mp4", "dogs/0.mp4", "dogs/1.mp4"]
    assert table.path.tolist() == paths
    assert table.audio.tolist() == [False, True, True, False, True]
    assert table.seconds.tolist() == [1.0] * 5 and set(table.fps) == {16.0}
    for row in table.itertuples():
        assert count(store.read_frames(manifest.where / row.file, [8])[0]) == 5
    again = Manifest.load(manifest.where)
    assert again == manifest and len(again.with_audio()) == 3


def test_a_second_call_converts_nothing_and_only_what_has_changed_is_converted_again(folder):
    first = prepared(folder)
    before = changes(folder)
    assert prepared(folder) == first and changes(folder) == before
    os.utime(folder / "cats/0.mp4")  # the same content at another date
    assert prepared(folder) == first and changes(folder) == before
    film(folder / "cats/0.mp4", times=TEN[:5])
    second = prepared(folder)
    changed = {name for name, at in changes(folder).items() if before[name] != at}
    assert changed == {Path(second.videos[0].file).name}
    assert second.videos[0].seconds == 0.5 and second.digest != first.digest
    film(folder / "dogs/2.mp4")
    assert not rejected(prepared(folder))
    second.path(second.videos[1]).unlink()
    assert prepared(folder).path(second.videos[1]).exists()


def test_other_values_make_another_store_beside_the_first(folder):
    h264, raw = prepared(folder), prepared(folder, "raw", form=RAW)
    assert h264.digest != raw.digest
    assert {v.file.rpartition(".")[2] for v in raw.videos} == {"mkv"}
    assert {v.fps for v in raw.videos} == {10.0} and h264.path(h264.videos[0]).exists()


def test_a_store_that_would_not_fit_is_refused_before_it_begins(folder):
    with pytest.raises(
        ValueError, match=r"the limit is 1e-06 GB, .* raise the limit \(--limit-gb\)"
    ):
        prepared(folder, limit_gb=1e-6)
    assert not changes(folder)


def test_a_data_set_without_a_usable_video_is_an_error(tmp_path):
    (tmp_path / "videos/a").mkdir(parents=True)
    (tmp_path / "videos/a/b.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 1 videos can be used \(a/b\.mp4: Invalid"):
        prepared(tmp_path / "videos")


def test_no_other_videos_than_those_of_a_draw_are_read(folder):
    listing = datasets.listing("folder", folder)  # two of three train
    subset = Subset(subset_videos=2, validation_videos=1)
    drawn = {*itertools.chain(*draw_subset(listing.entries, subset))}
    manifest = prepared(folder, subset=subset)
    assert len(drawn) == 3 and {v.id for v in manifest.videos} | {*rejected(manifest)} == drawn
    assert {v.split for v in manifest.videos} == {"train"} and len(changes(folder)) <= 3


def test_files_that_are_only_in_the_folder_or_only_in_the_list_have_a_row(folder, capsys):
    (folder / "birds").mkdir()
    (folder / "birds/0.gif").touch()
    (folder / "birds/1.ts").touch()
    assert rejected(prepared(folder))["birds/0.gif"].startswith("in the folder, but in no list")
    assert (
        "no file can be used, for the reasons in rejected.csv: 'birds' (2)"
        in capsys.readouterr().out
    )
    rows = ["path,label,split", "cats/1.mp4,cats,train", "gone.mp4,cats,test"]
    (folder / "split.csv").write_text("\n".join(rows))
    manifest = prepared(folder, allow_missing=True)
    assert [v.path for v in manifest.videos] == ["cats/1.mp4"]
    assert rejected(manifest)["gone.mp4"] == "in the lists, but not in the folder"


def test_other_endings_are_read_and_the_same_video_in_both_splits_is_told(folder, capsys):
    rows = ["path,label,split"]
    for ending in ("m4v", "3gp", "wmv", "mpg", "flv", "ts", "mts"):  # the last two are the same
        film(folder / f"cats/a.{ending}", codec="mpeg2video" if ending == "mpg" else "libx264")
        rows.append(f"cats/a.{ending},cats,train")
    shutil.copy(folder / "cats/a.ts", folder / "dogs/copy.ts")
    (folder / "split.csv").write_text("\n".join([*rows, "dogs/copy.ts,dogs,test"]))
    assert len(prepared(folder)) == 8
    assert "3 files in training and test have the same content" in capsys.readouterr().out


def test_sound_that_is_left_out_is_told_with_its_reason(folder, capsys):
    wrong = np.full((1, 16_000), np.nan, np.float32)
    film(folder / "cats/nan.mkv", audio=(wrong, 16_000, "mono", "pcm_f32le"))
    (video,) = (v for v in prepared(folder).videos if v.path == "cats/nan.mkv")
    assert not video.audio and "of its samples are no sound" in video.sound_lost
    assert f"left out:\n  cats/nan.mkv: {video.sound_lost}" in capsys.readouterr().out


@pytest.mark.parametrize("limit", ["CPU_SECONDS", "WALL_SECONDS"])
def test_a_conversion_ends_at_its_limits_of_time(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(prepare, limit, 1)
    still = film(tmp_path / "a.mkv", times=[0, 59.0], size=(1920, 1080))
    job = "a.mkv", tmp_path / "out.mp4", {}
    record = prepare.prepare_file(tmp_path, Form(fps=240.0, px=0), job)
    assert "took more than 1 s" in record["reason"]
    assert list(tmp_path.iterdir()) == [still]


GREEDY = """
import sys
from pathlib import Path
from avnb.data import prepare
from avnb.data.store import Form
prepare.MEMORY_GB = 0.2
folder = Path(sys.argv[1])
print(prepare.prepare_file(folder, Form(), ("a.mkv", folder / "out.mp4", {}))["reason"])
"""


def test_a_conversion_ends_at_its_limit_of_memory(tmp_path):
    """In a fresh process, as the workers are: one that has freed much may take it again."""
    still = film(tmp_path / "a.mkv", times=[0, 1.0], size=(1920, 1080))
    command = [sys.executable, "-c", GREEDY, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip()
    assert list(tmp_path.iterdir()) == [still]


FULL = """
import resource, sys
from pathlib import Path
from tests.data.test_prepare import prepared
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
prepared(Path(sys.argv[1]))
"""


def test_a_disk_that_is_full_ends_preparing_and_rejects_no_video(folder):
    command = [sys.executable, "-c", FULL, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "File too large: " in done.stderr and ".mp4" in done.stderr.splitlines()[-1]
    assert {*rejected(prepared(folder))} == {"dogs/2.mp4"}


SCRIPT = """
import sys
from pathlib import Path
from tests.data.test_prepare import prepared
print("begun", flush=True)
prepared(Path(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_what_is_interrupted_resumes_and_leaves_nobody(tmp_path, sent):
    (tmp_path / "videos/a").mkdir(parents=True)
    still = film(tmp_path / "still.mkv", times=[0, 20.0], size=(320, 240))
    for i in range(24):
        shutil.copy(still, tmp_path / f"videos/a/{i}.mkv")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "videos")]
    named = {**os.environ, "AVNB_BUILD": str(tmp_path)}
    process = subprocess.Popen(command, cwd=ROOT, env=named, stderr=subprocess.DEVNULL)
    files = tmp_path / "store"
    wait_for(lambda: len(list(files.glob("files-*/*.mp4"))) >= 5, pause=0.02)
    process.send_signal(sent)
    process.wait()
    wait_for(lambda: not processes(tmp_path), seconds=20)
    (journal,) = files.glob("prepared-*.jsonl")
    done = [json.loads(line)["path"] for line in journal.read_text().splitlines()]
    assert 0 < len(done) < 24
    before = changes(tmp_path / "videos")
    manifest = prepared(tmp_path / "videos")
    assert len(manifest) == 24
    kept = {prepare_name(manifest, path) for path in done}
    assert all(changes(tmp_path / "videos")[name] == before[name] for name in kept)
    assert not list(files.glob("files-*/.*.partial"))


def prepare_name(manifest, path):
    return next(Path(v.file).name for v in manifest.videos if v.path == path)
