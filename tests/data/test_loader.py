import os
import shutil
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from avnb.config import Pretrain
from avnb.data import batch_plan, loader, readers
from avnb.data.batch import Batch
from avnb.data.batch_plan import epoch_plan, steps_per_epoch
from avnb.data.clips import Sampling, VideoClips
from avnb.data.loader import ClipLoader, training_epochs, video_blocks
from avnb.data.replacements import Replacements, read_ledger
from avnb.data.video_frames import DecodeError


def test_every_clip_is_dealt_once_and_not_in_bursts():
    run = Pretrain.from_flat(batch=8, shards=2)
    plan = epoch_plan(400, run, 0)
    rows = [row for step in plan for row in step]
    assert len(plan) == 400 * 5 // 8 and set(rows) == {(v, c) for v in range(400) for c in range(5)}
    steps = {}
    for step, dealt in enumerate(plan):
        for video, _ in dealt:
            steps.setdefault(video, []).append(step)
    spread = np.mean([np.ptp(s) for s in steps.values()]) / len(plan)
    assert spread == pytest.approx(4 / 6, abs=0.03)  # five independent places in the epoch


def test_a_bounded_shuffle_keeps_a_videos_clips_near_and_apart():
    run = Pretrain.from_flat(batch=8, shards=2, shuffle_steps=20)
    plan = epoch_plan(400, run, 0)
    rows = [row for step in plan for row in step]
    assert len(plan) == 250 and set(rows) == {(v, c) for v in range(400) for c in range(5)}
    steps = {}
    for step, dealt in enumerate(plan):
        for video, _ in dealt:
            steps.setdefault(video, []).append(step)
    reach = np.array([np.ptp(s) for s in steps.values()])
    assert reach.max() <= 25 and reach.mean() == pytest.approx(20 * 4 / 6, rel=0.15)
    readings = batch_plan.readings_by_step(plan, 25)
    assert sum(map(len, readings)) == 400  # every file is opened once
    assert plan != epoch_plan(400, run, 1)


def test_too_little_memory_for_a_bounded_shuffle_is_told(vggsound):
    run = Pretrain.from_flat(shuffle_steps=20)
    clips = VideoClips(vggsound, Sampling(clip=run.clip, count=5, place="random"), seed=0)

    def note(size=128, gb=2.0, steps=20, workers=0):
        loader = ClipLoader(clips, [], size=size, workers=workers, read_ahead_gb=gb)
        return loader.memory_note(steps)

    assert "takes `read_ahead_gb` 7.5 in each process: with 2 its file" in note()
    assert "takes `read_ahead_gb` 1.3 in" in note(size=16, gb=1.0, workers=15)  # that have more
    assert note(size=32) == ""  # of each of four processes
    assert note(gb=7.6) == note(steps=0) == ""
    # More than MOST_BATCHES serve nothing.
    assert "takes `read_ahead_gb` 42 in" in note(steps=1000) and note(gb=50.0, steps=1000) == ""


@pytest.mark.parametrize("window", [0, 7, 10_000])
def test_readings_give_every_clip_when_it_is_due_and_hold_it_no_longer_than_the_window(window):
    plan = epoch_plan(60, Pretrain.from_flat(batch=4, shards=1), 0)
    step_of = {row: step for step, rows in enumerate(plan) for row in rows}
    seen = []
    readings = batch_plan.readings_by_step(plan, window)
    for step, begun in enumerate(readings):
        for video, places in begun:
            assert places[0][1] == step and places[-1][1] <= step + window
            assert all(plan[at][row] == (video, clip) for clip, at, row in places)
            seen += [(video, clip) for clip, _, _ in places]
    assert sorted(seen) == sorted(step_of)
    if window == 10_000:  # the file is opened once
        assert sum(map(len, readings)) == 60


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_any_number_of_processes_sees_the_same_batches_and_reads_a_video_once(processes):
    run = Pretrain.from_flat(batch=16, shards=4, clips_per_video=3)
    whole = epoch_plan(50, run, 1)
    size = 16 // processes
    parts = [[rows[r * size : (r + 1) * size] for rows in whole] for r in range(processes)]
    assert [[row for p in parts for row in p[s]] for s in range(len(whole))] == whole
    readers = [{v for rows in part for v, _ in rows} for part in parts]
    assert sum(map(len, readers)) == len(set.union(*readers))


def test_epochs_differ_and_repeat_exactly():
    run = Pretrain.from_flat(batch=16, shards=4)
    assert epoch_plan(50, run, 0) == epoch_plan(50, run, 0) != epoch_plan(50, run, 1)
    steps = batch_plan.steps_per_epoch(50, run)
    assert all(len(epoch_plan(50, run, e)) == steps for e in range(5))


def test_too_few_videos_for_a_batch_are_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match="3 videos x 5 clips do not fill one batch of 128: lower"):
        batch_plan.steps_per_epoch(3, Pretrain())


@pytest.fixture
def clips(vggsound, smoke) -> VideoClips:
    sampling = Sampling(clip=smoke.clip, count=2, place="random", augment=smoke.augment)
    return VideoClips(vggsound, sampling, seed=0)


def same(a: Batch, b: Batch) -> bool:
    tensors = [[], []]
    a.apply(lambda x: tensors[0].append(x) or x)
    b.apply(lambda x: tensors[1].append(x) or x)
    return all(torch.equal(x, y) for x, y in zip(*tensors, strict=True))


def test_an_item_depends_on_seed_epoch_and_video_alone(clips):
    assert same(clips.whole(3), clips.whole(3))
    assert not same(clips.whole(3), clips.whole(3, epoch=1))
    one = clips.whole(3)
    assert one.frames.shape == (2, 3, 8, 32, 32) and one.frames.dtype == torch.uint8
    assert one.audio.shape == (2, 32_000)


def test_a_clip_is_the_same_whichever_others_are_read_with_it(clips):
    alone, both = clips[0, 3, (1,)], clips.whole(3)
    assert torch.equal(alone.frames[0], both.frames[1])
    assert torch.equal(alone.audio[0], both.audio[1])
    assert torch.equal(alone.params.masks[0], both.params.masks[1])


@pytest.mark.parametrize(
    "cores, gpu, sharing, seconds, workers",
    [
        (16, True, 1, 1e4, 16),  # a GPU computes: every core decodes
        (16, True, 8, 1e4, 2),
        (16, False, 1, 1e4, 15),  # this process computes
        (2, False, 2, 1e4, 0),
        (16, False, 4, 1e4, 3),
        (16, True, 1, 35, 3),  # more would not have started before it is done
        (16, True, 1, 5, 0),
    ],
)
def test_cores_are_shared_by_the_processes_of_a_job(
    monkeypatch, cores, gpu, sharing, seconds, workers
):
    monkeypatch.setattr(loader, "cores", lambda: cores)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(sharing))
    assert loader.spare_workers(seconds) == workers
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # as a run that is trained beside others says
    monkeypatch.setenv("AVNB_SHARING", str(sharing))
    assert loader.spare_workers(seconds) == workers


def test_reading_takes_longer_with_larger_frames_and_more_clips(clips):
    few = loader.reading_seconds(clips)
    larger = replace(clips.sampling, clip=replace(clips.sampling.clip, frame_px=224))
    more = replace(clips.sampling, count=2 * clips.sampling.count)
    heard = replace(clips.sampling, video=False)
    for sampling, way in ((larger, 1), (more, 1), (heard, -1)):
        other = loader.reading_seconds(VideoClips(clips.manifest, sampling, seed=0))
        assert (other > few) == (way > 0) and other != few


@pytest.mark.slow
def test_workers_read_what_the_process_itself_would_read(clips):
    plans = [(epoch, video_blocks(range(6), 2, 2)) for epoch in range(3)]
    for memory in (0, 0.01):
        here, there = (
            ClipLoader(clips, plans, size=4, workers=workers, read_ahead_gb=memory)
            for workers in (0, 2)
        )
        assert len(there.readers.readers) == 2
        for _ in range(2):  # passes
            pairs = zip(here, there, strict=True)
            assert sum(same(a, b) and len(a) == 4 for a, b in pairs) == 9


@pytest.mark.parametrize("workers", [0, 1, 16])
def test_enough_is_asked_for_ahead_to_keep_all_workers_busy(clips, workers):
    for size in (1, 2, 64):
        one = ClipLoader(clips, [], size=size, workers=workers)
        readings = (one.lead - 2) * size / clips.sampling.count  # beside those in use and complete
        assert one.lead >= 3 and readings >= 2 * workers
        assert one.batches == one.lead and one.window == 0
        more = ClipLoader(clips, [], size=size, workers=workers, read_ahead_gb=1)
        assert more.lead == one.lead and more.window == more.batches - one.lead > 0


@pytest.mark.slow
def test_an_abandoned_pass_leaves_nothing_behind(clips):
    plans = [(0, video_blocks(range(6), 2, 1))]
    batches = ClipLoader(clips, plans, size=2, workers=2, read_ahead_gb=0)
    next(iter(batches))
    assert [b.video_index.tolist() for b in batches] == [[i, i] for i in range(6)]


@pytest.mark.slow
def test_what_ends_a_reader_is_told_with_the_file(clips, monkeypatch):
    monkeypatch.setattr(readers, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(readers, "GRACE_SECONDS", 0.5)
    plans = [(0, video_blocks(range(6), 2, 1))]

    def begun(workers=1):
        batches = ClipLoader(clips, plans, size=2, workers=workers, read_ahead_gb=0)
        process = batches.readers.readers[0].process
        for i in range(workers):
            batches.readers.ask(readers.Reading(0, i, (0,), (i,)))
        for reader in batches.readers.readers:  # until they have started
            batches.readers.hear(reader)
        return batches, process

    batches, process = begun()
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(ChildProcessError, match=r"said nothing for 1 s; it was at .*mp4\. Is"):
        list(batches)
    assert not process.is_alive()
    batches, process = begun(2)
    os.kill(process.pid, signal.SIGSTOP)  # the other one goes on
    with pytest.raises(ChildProcessError, match=r"said nothing for 1 s; it was at \S*mp4\. Is"):
        list(batches)
    batches, process = begun()
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(ChildProcessError, match=r"died \(exit code -9\); it was at .*mp4\. Is"):
        list(batches)


@pytest.mark.slow
def test_an_unreadable_file_is_the_same_error_from_a_worker(clips, tmp_path):
    gone = VideoClips(replace(clips.manifest, folder=tmp_path), clips.sampling, seed=0)
    for workers in (0, 1):
        with pytest.raises(DecodeError, match="No such file"):
            list(ClipLoader(gone, [(0, [[(0, 0)]])], size=1, workers=workers))


def with_missing(clips, folder, missing):
    """The same clips from a copy of the videos without some of them."""
    shutil.copytree(clips.manifest.folder, folder, dirs_exist_ok=True)
    for row in missing:
        (folder / clips.manifest.videos[row].path).unlink()
    manifest = replace(clips.manifest, folder=folder, cache=None)
    return VideoClips(manifest, clips.sampling, seed=clips.seed)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_clip_that_cannot_be_read_is_replaced_by_the_next_of_its_batch(clips, tmp_path, workers):
    whole = VideoClips(replace(clips.manifest, cache=None), clips.sampling, seed=clips.seed)
    broken, ledger = with_missing(clips, tmp_path / "videos", [3]), tmp_path / "unreadable.jsonl"
    plan = [[(0, 0), (3, 1), (1, 0)], [(2, 0), (5, 1), (3, 0)], [(4, 0), (5, 0)]]
    expected = [b.apply(torch.clone) for b in ClipLoader(whole, [(7, plan)], size=3, workers=0)]
    replacements = Replacements(ledger, broken)
    batches = ClipLoader(broken, [(7, plan)], size=3, workers=workers, replacements=replacements)
    donors = [[0, 2, 2], [0, 1, 0], [0, 1]]
    for want, got, rows in zip(expected, batches, donors, strict=True):
        for field in ("frames", "audio", "label", "video_index"):
            assert torch.equal(getattr(got, field), getattr(want, field)[rows])
    lines = list(read_ledger(tmp_path))
    videos = [v.path for v in broken.manifest.videos]
    assert [(x["epoch"], x["video"], x["clip"], x["replaced_by"]) for x in lines] == [
        (7, videos[3], 1, videos[1]), (7, videos[3], 0, videos[2]),
    ]  # fmt: skip
    assert all("No such file" in x["reason"] for x in lines)
    new = Replacements(ledger, broken)
    again = ClipLoader(broken, [(7, plan)], size=3, workers=0, replacements=new)
    assert len(list(again)) == 3 and list(read_ledger(tmp_path)) == lines  # each once


def test_more_than_one_in_a_hundred_videos_or_a_whole_batch_is_an_error(clips, tmp_path):
    broken = with_missing(clips, tmp_path / "videos", [1, 3])
    ledger = tmp_path / "unreadable.jsonl"
    many = [[(1, 0), (0, 0)], [(3, 0), (2, 0)]]
    with pytest.raises(DecodeError, match=r"It is number 2 of \d+ videos .* \(1 may be\)"):
        list(ClipLoader(broken, [(0, many)], size=2, workers=0,
                        replacements=Replacements(ledger, broken)))  # fmt: skip
    alone = [[(3, 0), (3, 1)]]
    with pytest.raises(DecodeError, match="No such file"):
        list(ClipLoader(broken, [(0, alone)], size=2, workers=0,
                        replacements=Replacements(ledger, broken)))  # fmt: skip


def test_shared_memory_that_is_too_small_is_told_before_it_is_used(clips, monkeypatch):
    monkeypatch.setattr(readers.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    batches = ClipLoader(clips, [(0, [[(0, 0)]])], size=8, workers=1)
    with pytest.raises(MemoryError, match=r"MB of shared memory .* has 1 MB left: make it larger"):
        list(batches)


@pytest.mark.slow
def test_planned_batches_hold_the_planned_clips(clips, smoke):
    steps = steps_per_epoch(len(clips), smoke)
    done = steps - 2  # interrupted in the middle of an epoch
    for epoch, dealt in training_epochs(clips, smoke, done, rank=0, processes=1, workers=0):
        plan, left = epoch_plan(len(clips), smoke, epoch), steps - 2 if epoch == 0 else 0
        for step, (rows, batch) in enumerate(zip(plan[left:], dealt, strict=True), left):
            assert batch.step == epoch * len(plan) + step
            assert batch.video_index.tolist() == [v for v, _ in rows]
            video, clip = rows[0]
            whole = clips.whole(video, epoch)
            assert torch.equal(batch.frames[0], whole.frames[clip])
            assert torch.equal(batch.params.masks[0], whole.params.masks[clip])


def test_a_batch_whose_parts_do_not_fit_is_refused():
    with pytest.raises(ValueError, match="a batch of"):
        two, frames = torch.zeros(2), torch.zeros(2, 3, 1, 4, 4)
        Batch(frames=frames, audio=torch.zeros(3, 0), video_index=two, label=two)
