"""Real files, cached in every form, and read from there."""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import av
import numpy as np
import pytest
from test_decoding import numbered

from avnb.__main__ import main
from avnb.data import cache, decoding, media, packet_file
from avnb.data.clips import Sampling, VideoClips
from avnb.data.manifest import Manifest, Video
from avnb.data.video_frames import DecodeError

HZ = 16_000


def manifest_of(folder, *names) -> Manifest:
    videos = tuple(
        Video(id=n, path=n, label="a", split="train", **vars(media.inspect(folder / n)))
        for n in names
    )
    where = folder / "tables" / "fold1"
    return Manifest(
        name="own", folder=folder, where=where, classes=("a",), videos=videos, listed=len(videos)
    )


@pytest.fixture
def few(tmp_path) -> Manifest:
    """A video with sound, and one without."""
    numbered(tmp_path / "a.mp4")
    numbered(tmp_path / "b.mp4", audio_hz=0, frames=30)
    return manifest_of(tmp_path, "a.mp4", "b.mp4")


@pytest.mark.parametrize("form", cache.FORMS)
def test_frames_and_sound_are_those_of_the_file(few, form):
    made = cache.cached(few, form, few.where.parent)
    assert made.cache.name == f"cache-{form}" and made.folder == few.folder
    assert Manifest.load(made.where) == made
    for old, new in zip(few.videos, made.videos, strict=True):
        assert (new.start, new.width, new.height) == (0, 64, 64)
        assert bool(new.audio_hz) == bool(old.audio_hz) and new.seconds == old.seconds
        times = np.arange(0, old.seconds - 0.1, 1 / 16) + 0.001
        was, now = (
            decoding.read_frames(m.path(v), times, seconds=v.seconds, start=v.start)
            for m, v in ((few, old), (made, new))
        )
        difference = np.abs(np.stack(was).astype(float) - np.stack(now)).mean()
        assert difference < (6 if new.fps == 16 else 1e-9)  # frames are 50 ms apart, steps 62.5
        heard, kept = (
            decoding.read_soundtrack(m.path(v), HZ, seconds=v.seconds, start=v.start)
            for m, v in ((few, old), (made, new))
        )
        assert heard.shape == kept.shape and abs(heard - kept).max() < 0.05


def open_many_times(manifest):
    """Whether a cache can be opened again and again, its tables whole each time."""
    return all(
        Manifest.load(cache.cached(manifest, "frames", manifest.where.parent).where).videos
        for _ in range(40)
    )


def test_several_processes_may_open_a_cache_at_once(few):
    with ProcessPoolExecutor(3) as pool:
        assert all(pool.map(open_many_times, [few] * 3))


def test_lossy_forms_are_other_data_and_exact_ones_are_not(few):
    made = {form: cache.cached(few, form, few.where.parent) for form in cache.FORMS}
    assert made["frames"].digest == few.digest
    assert len({few.digest, made["mpeg2"].digest, made["h264"].digest}) == 3
    sampling = Sampling(
        clip=replace(Sampling.__dataclass_fields__["clip"].type(), frame_px=32),
        count=2,
        place="random",
        resize_px=40,
    )
    was, now = (VideoClips(m, sampling, seed=0).whole(0) for m in (few, made["frames"]))
    assert (was.frames == now.frames).all() and abs(was.audio - now.audio).max() < 0.05


def test_large_frames_are_scaled_and_odd_sizes_made_even(tmp_path):
    for name, size in (("wide.mp4", (640, 360)), ("odd.mkv", (61, 47))):
        with av.open(str(tmp_path / name), "w") as out:
            video = out.add_stream("libx264", rate=20)
            (video.width, video.height), video.pix_fmt = size, "yuv444p"
            for i in range(20):
                image = np.full((size[1], size[0], 3), 10 * i, np.uint8)
                out.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            out.mux(video.encode())
    manifest = manifest_of(tmp_path, "wide.mp4", "odd.mkv")
    made = cache.cached(manifest, "mpeg2", manifest.where.parent)
    assert [(v.width, v.height) for v in made.videos] == [(454, 256), (60, 46)]
    for video in made.videos:
        times = np.array([0.0, 0.26, 0.9])
        first, second, last = decoding.read_frames(made.path(video), times, seconds=1)
        assert first.shape == (video.height, video.width, 3)
        assert [round(x.mean() / 10) for x in (first, second, last)] == [0, 5, 17]


def test_a_second_call_writes_what_is_missing_or_has_changed(few, monkeypatch):
    def written():
        return [json.loads(line)[0] for line in diary.read_text().splitlines()]

    made = cache.cached(few, "mpeg2", few.where.parent)
    diary = made.cache / "written.jsonl"
    assert written() == ["a.mp4", "b.mp4"]
    cache.cached(few, "mpeg2", few.where.parent)
    assert written() == ["a.mp4", "b.mp4"]
    diary.write_text(diary.read_text() + '["torn')  # a kill can tear the last line
    made.path(made.videos[1]).unlink()
    cache.cached(few, "mpeg2", few.where.parent)
    numbered(few.folder / "a.mp4", frames=40)
    again = manifest_of(few.folder, "a.mp4", "b.mp4")
    made = cache.cached(again, "mpeg2", few.where.parent)
    with monkeypatch.context() as patch:  # a form that is written otherwise from now on
        patch.setitem(cache.FORMS, "mpeg2", replace(cache.FORMS["mpeg2"], bits_per_second=400_000))
        assert cache.unwritten(again, made, "mpeg2").keys() == {0, 1}
    names = [json.loads(line)[0] for line in diary.read_text().splitlines() if '"torn' not in line]
    assert names == ["a.mp4", "b.mp4", "b.mp4", "a.mp4"]
    packet_file.check(made.path(made.videos[0]), 32)
    with pytest.raises(DecodeError, match="has 24 frames, not 33"):
        packet_file.check(made.path(made.videos[1]), 33)
    assert not list(made.cache.glob(".*.partial"))


def test_what_cannot_be_cached_says_why(few, monkeypatch):
    with pytest.raises(ValueError, match=r"would take about 0\.0 GB, over the limit of 1e-06 GB"):
        cache.cached(few, "mpeg2", few.where.parent, limit_gb=1e-6)
    with monkeypatch.context() as patch:
        patch.setattr(cache, "size_gb", lambda *_: 0.0)  # which was too low an estimate
        with pytest.raises(ValueError, match=r"has come to 0\.0 GB, over the limit of 1e-06 GB"):
            cache.cached(few, "mpeg2", few.where.parent, limit_gb=1e-6)
    with pytest.raises(ValueError, match="form of a cache 'mpeg' is unknown; did you mean"):
        cache.cached(few, "mpeg", few.where.parent)
    path = few.folder / "b.mp4"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DecodeError, match=r"b\.mp4: "):
        cache.cached(few, "mpeg2", few.where.parent)
    assert len(list((few.where.parent / "cache-mpeg2").glob("*.safetensors"))) == 1  # a.mp4 is kept


@pytest.mark.parametrize("form", cache.FORMS)
def test_a_damaged_file_of_a_cache_is_named_and_the_next_one_is_read(few, form):
    made = cache.cached(few, form, few.where.parent)
    bad, good = (made.path(video) for video in made.videos)
    whole = bad.read_bytes()
    times, read = np.array([0.2]), decoding.read_frames
    before = read(good, times, seconds=1)[0]
    bad.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DecodeError, match=r"is damaged .*: delete it, and it is written again"):
        read(bad, times, seconds=1)
    with pytest.raises(DecodeError, match="holds audio of 16000 Hz, not 8000"):
        decoding.read_soundtrack(good, 8000, seconds=1, start=0)
    assert (read(good, times, seconds=1)[0] == before).all()


def test_the_command_writes_a_cache_that_the_chapters_use_by_themselves(
    tmp_path, monkeypatch, capsys
):
    from avnb.data import catalogue
    from avnb.profiles import Workspace

    monkeypatch.setenv("AVNB_BUILD", str(tmp_path / "build"))
    for i in range(4):
        (tmp_path / "own" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        numbered(tmp_path / "own" / "ab"[i % 2] / f"{i}.mp4", frames=20)
    own, work = str(tmp_path / "own"), Workspace.open("smoke")
    assert catalogue.load_dataset(work, "folder", own).encoding == ""
    assert main(["cache", "folder", own, "--profile", "smoke", "--form", "h264"]) == 0
    assert "4 videos of own take 0.00 GB" in capsys.readouterr().out
    found = catalogue.load_dataset(work, "folder", own)
    assert found.encoding.startswith("h264 ") and all(found.path(v).exists() for v in found.videos)
    assert found.origin.startswith("real:")
    for i in range(4, 7):  # more than were cached
        numbered(tmp_path / "own" / "ab"[i % 2] / f"{i}.mp4", frames=20)
    assert catalogue.load_dataset(work, "folder", own).encoding == ""
    said = "3 of 7 videos of own are not in the cache (h264): all are read from their own files"
    assert said in capsys.readouterr().out
    assert main(["cache", "folder", own, "--profile", "smoke", "--form", "h264"]) == 0
    assert catalogue.load_dataset(work, "folder", own).encoding == found.encoding
    choice = next((tmp_path / "build").rglob(cache.CHOICE))
    choice.write_text('{"form": "h264"}')
    with pytest.raises(ValueError, match=r"cache\.json holds .* a form and limit_gb are expected"):
        catalogue.load_dataset(work, "folder", own)
