"""The bench: real files, a recipe that gives what ours gives, ratios that are right, rows kept."""

import json
import time

import av
import numpy as np
import pytest
import torch
from av.video.frame import PictureType

from avnb.__main__ import main
from avnb.bench import recipe, recipe_losses, rows, stages
from avnb.bench.clip_stages import RECIPE, check_clips, check_equal, clip_stage
from avnb.bench.loss_stages import check_gradients
from avnb.bench.probe_stage import check_frames, probe_clips, with_encoder
from avnb.bench.rows import Row
from avnb.bench.timing import Timings, compare
from avnb.bench.videos import QUICK_KINDS, Kind, make, open_videos, soundtrack
from avnb.bench.workload import Workload, drawn_clips
from avnb.data.spectrograms import AudioTransform
from avnb.models.losses import rince, vicreg_terms


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def work(folder):
    return Workload(folder, 1, quick=True)


# ---- videos -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", QUICK_KINDS, ids=str)
def test_a_video_has_the_size_sound_and_key_frames_that_are_asked_for(work, kind):
    manifest = work.manifest(kind)
    (video,) = manifest.videos
    assert (video.width, video.height, video.audio_hz) == (kind.width, kind.height, 44_100)
    assert video.fps in (25, 30) and video.seconds == pytest.approx(kind.seconds, abs=0.05)
    with av.open(str(manifest.path(video))) as container:
        frames = list(container.decode(video=0))
        assert container.streams.audio[0].channels == 2
    keys = [i for i, frame in enumerate(frames) if frame.key_frame]
    assert keys == list(range(0, len(frames), kind.key_frames))
    assert {PictureType(frame.pict_type).name for frame in frames} == {"I", "P", "B"}


def test_its_scene_moves_and_has_texture(work):
    kind = QUICK_KINDS[0]
    manifest = work.manifest(kind)
    drawn = drawn_clips(work.clips(kind), 0, 0)[0]
    images = recipe.read_images(manifest.path(manifest.videos[0]), drawn.start, work.config().clip)
    first, last = (np.asarray(image, float) for image in (images[0], images[-1]))
    assert first.std() > 20 and abs(last - first).mean() > 5


def test_a_video_is_reused_and_the_same_seed_makes_the_same_one(work, tmp_path):
    kind = QUICK_KINDS[0]
    path = work.manifest(kind).path(work.manifest(kind).videos[0])
    before = path.stat().st_mtime_ns
    open_videos(work.folder, kind, 1)
    assert path.stat().st_mtime_ns == before
    make(tmp_path / "again.mp4", kind, 0)
    decoded = []
    for each in (path, tmp_path / "again.mp4"):
        with av.open(str(each)) as container:
            decoded.append(next(container.decode(video=0)).to_ndarray())
    assert np.array_equal(*decoded)


def test_the_soundtrack_is_stereo_and_within_range():
    wave = soundtrack(1.0, np.random.default_rng(0))
    assert wave.shape == (2, 44_100) and wave.std() > 0.05 and abs(wave).max() <= 1
    assert not np.allclose(*wave)


def test_a_kind_says_its_size_and_key_frames():
    assert str(Kind(width=340, height=256, key_frames=250)) == "340x256 g250"


# ---- the recipe -------------------------------------------------------------------------------


def test_the_recipe_and_ours_cut_the_same_clips(work):
    clips = work.clips(QUICK_KINDS[0])
    check_clips(work, clips, clips.whole(0, 3), 0, 3)
    with pytest.raises(ValueError, match=r"frames of .*mp4, clip 0, differ by"):
        check_clips(work, clips, clips.whole(0, 4), 0, 3)


def test_the_recipe_and_ours_cut_the_same_clips_for_a_probe(work):
    for clips in probe_clips(work):
        frames = clips.whole(0).frames
        check_frames(clips, frames, 0)
        with pytest.raises(ValueError, match="frames of the probe's clip 0 differ by"):
            check_frames(clips, frames.flip(-1), 0)


def test_the_recipe_gives_what_the_networks_take(work):
    clips, config = work.clips(QUICK_KINDS[0]), work.config()
    path = clips.manifest.path(clips.manifest.videos[0])
    drawn = drawn_clips(clips, 0, 0)[0]
    frames, mel = recipe.load(path, drawn, config.clip, config.spectrogram)
    assert frames.shape == (3, 16, 32, 32) and frames.dtype == torch.float32
    assert mel.shape == (32, 125)


def test_the_recipes_spectrogram_is_ours(work):
    config = work.config()
    mels = config.spectrogram.mels
    ours = AudioTransform(config.clip, config.spectrogram, ([0.0] * mels, [1.0] * mels))
    wave = soundtrack(config.clip.samples / 44_100, np.random.default_rng(1))[0]
    theirs = recipe.log_mel(wave, 0.8, config.clip, config.spectrogram)
    mine = ours.log_mel(torch.from_numpy(wave)[None], torch.tensor([0.8]))[0]
    torch.testing.assert_close(theirs, mine, atol=1e-4, rtol=1e-4)


def test_the_recipes_losses_are_ours():
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 12, 30, generator=rng)
    theirs, ours = recipe_losses.vicreg_as_printed(x, y), vicreg_terms(x, y)
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value)
    config = Workload(None, 1).config().xid
    z, bank = (torch.nn.functional.normalize(v, dim=1) for v in (x, torch.randn(40, 30)))
    rows_of_bank = torch.stack([torch.randperm(40)[:9] for _ in range(12)])
    cosine = torch.einsum("bd,bnd->bn", z, bank[rows_of_bank]) / config.temperature
    expected = rince(cosine[:, 0], cosine[:, 1:], q=0.4, lam=config.lam)
    found = recipe_losses.rince_as_printed(z, bank, rows_of_bank, config, 0.4)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    own = torch.arange(12)
    drawn = recipe_losses.draw(own, 40, 500, rng)
    assert not (drawn == own[:, None]).any() and drawn.max() < 40


def test_unequal_answers_are_told():
    check_equal("frames", 0.5, 0.5)
    for difference in (0.6, float("nan")):
        with pytest.raises(ValueError, match="frames differ by"):
            check_equal("frames", difference, 0.5)
    with pytest.raises(ValueError, match="gradients differ"):
        one = torch.ones(3)
        check_gradients("gradients", [one[0], one], [one[0], one * 1.01])


# ---- timing -----------------------------------------------------------------------------------


def spin(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_a_way_that_computes_three_times_as_long_has_a_ratio_of_three():
    ways = {"slow": lambda item: spin(0.015), "fast": lambda item: spin(0.005)}
    timings = compare(ways, lambda number: range(2), rounds=3, title="spin")
    row = timings.row("fast", "slow")
    assert row["ratio"] == pytest.approx(3, rel=0.1) and row["rounds"] == 3
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert row["ms"] == pytest.approx(5, rel=0.2) and row["against_ms"] == pytest.approx(
        15, rel=0.1
    )


def test_waiting_is_wall_time_and_not_processor_time():
    timings = compare({"nap": lambda _: time.sleep(0.02)}, lambda n: [0], rounds=1, title="nap")
    assert timings.row("nap", "nap")["wall_ms"] >= 20 and timings.cpu_ms["nap"][0] < 10


def test_the_first_round_is_dropped_and_what_is_counted_divides():
    seen = []
    timings = compare(
        {"a": seen.append, "b": lambda item: None}, lambda n: [n, n], rounds=2, title="", per=5
    )
    assert seen == [0, 0, 1, 1, 2, 2] and len(timings.cpu_ms["a"]) == 2
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        compare({"a": seen.append}, lambda n: [n], rounds=0, title="")


def test_what_both_ways_need_is_added_to_each_in_every_round():
    cpu = {RECIPE: [4.0, 6.0], "ours": [1.0, 2.0], "encoder": [1.0, 2.0]}
    whole = with_encoder(Timings(cpu_ms=cpu, wall_ms=cpu))
    assert whole.cpu_ms == {RECIPE: [5.0, 8.0], "ours": [2.0, 4.0]}
    assert whole.row("ours", RECIPE)["ratio"] == 2.25


def test_ratios_are_paired_by_round():
    timings = Timings(cpu_ms={"a": [1.0, 10.0], "b": [2.0, 30.0]}, wall_ms={"a": [1.0, 10.0]})
    assert timings.ratios("a", "b") == [2.0, 3.0] and timings.row("a", "b")["ratio"] == 2.5


# ---- rows and the command ---------------------------------------------------------------------


def test_rows_say_the_machine_and_survive_an_interruption(tmp_path):
    def interrupted():
        yield Row(stage="s", what="w", values={"ms": 1.5})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rows.append(tmp_path / "new" / "rows.jsonl", interrupted())
    (line,) = (tmp_path / "new" / "rows.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert row["ms"] == 1.5 and row["date"]
    assert {"cpu", "cores", "gpu", "torch", "av", "ffmpeg", "commit"} <= set(row["machine"])


def test_a_table_is_aligned_and_shows_what_is_missing():
    values = Timings(cpu_ms={"a": [1.0], "b": [2.0]}, wall_ms={"a": [1.0]}).row("a", "b")
    some = [
        Row(stage="clip", what="x", values=values, limit="the disk", limit_ms=0.25),
        Row(stage="clip", what="x", values={"way": "torchcodec"}, note="not installed"),
    ]
    head, first, second = rows.table(some).splitlines()
    assert "2.00 [2.00, 2.00]" in first and "0.25 ms: the disk" in first
    assert head.index("limit") == first.index("0.25 ms") == second.index("not installed")


@pytest.mark.slow
def test_without_torchcodec_its_row_says_so(work, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(Workload, "kinds", QUICK_KINDS[1:])
    *measured, last = clip_stage(work)
    assert last.values["way"] == "torchcodec" and last.note == "not installed"
    assert {row.values["against"] for row in measured} > {RECIPE}
    assert all(row.limit_ms > 0 for row in measured if not row.note)


def test_the_command_measures_named_stages_and_appends_rows(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AVNB_BUILD", str(tmp_path))
    threads = torch.get_num_threads()
    for _ in range(2):
        command = ["bench", "--quick", "--rounds", "1", "--stage", "vicreg", "retrieval", "bank"]
        assert main(command) == 0
    written = (tmp_path / "bench" / "rows.jsonl").read_text().splitlines()
    assert [json.loads(x)["stage"] for x in written] == 2 * ["vicreg", "retrieval", "bank"]
    shown = capsys.readouterr().out
    assert RECIPE in shown and str(tmp_path / "bench" / "rows.jsonl") in shown
    assert torch.get_num_threads() == threads


def test_an_unknown_stage_is_told_with_the_nearest_one(capsys, tmp_path):
    assert main(["bench", "--stage", "clips", "--out", str(tmp_path / "x")]) == 1
    assert "stage 'clips' is unknown; did you mean 'clip'?" in capsys.readouterr().err


def test_steps_are_measured_where_there_is_a_gpu_or_when_they_are_named():
    assert "step-xid" not in stages.chosen([], gpu=False)
    assert stages.chosen(["step-xid"], gpu=False) == ["step-xid"]
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="finds none here"):
            stages.chosen([], gpu=True)


@pytest.mark.parametrize("method", ["xid", "vicreg_v"])
def test_a_step_is_a_row_with_its_operations_and_its_limit(work, method):
    (row,) = stages.STAGES[f"step-{method}"](work)
    values = row.values
    assert values["gflop_per_clip"] > 0 and np.isfinite(values["first_loss"])
    assert values["clips_per_second"] == pytest.approx(8e3 / values["ms"])
    assert 0 < values["share_of_matmul"] < 1
