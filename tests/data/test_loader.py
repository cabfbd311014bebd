import tempfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from avnb.config import Pretrain
from avnb.data import loader, store
from avnb.data.clips import Batch, Sampling, VideoClips, frame_numbers
from avnb.data.loader import epoch_plan, steps_per_epoch, training_epochs, video_batches
from avnb.data.store import StoreError


def test_every_clip_is_dealt_once_and_not_in_bursts():
    run = Pretrain.from_flat(batch=8, shards=2)
    plan = epoch_plan(400, run, 0)
    rows = [row for step in plan for row in step]
    assert len(plan) == 400 * 5 // 8 and set(rows) == {
        (0, v, c) for v in range(400) for c in range(5)
    }
    steps = {}
    for step, dealt in enumerate(plan):
        for _, video, _ in dealt:
            steps.setdefault(video, []).append(step)
    spread = np.mean([np.ptp(s) for s in steps.values()]) / len(plan)
    assert spread == pytest.approx(4 / 6, abs=0.03)  # five independent places in the epoch


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_any_number_of_processes_sees_the_same_batches_and_reads_a_video_once(processes):
    run = Pretrain.from_flat(batch=16, shards=4, clips_per_video=3)
    whole = epoch_plan(50, run, 1)
    size = 16 // processes
    parts = [[rows[r * size : (r + 1) * size] for rows in whole] for r in range(processes)]
    assert [[row for p in parts for row in p[s]] for s in range(len(whole))] == whole
    readers = [{v for rows in part for _, v, _ in rows} for part in parts]
    assert sum(map(len, readers)) == len(set.union(*readers))


def test_epochs_differ_and_repeat_exactly():
    run = Pretrain.from_flat(batch=16, shards=4)
    one, again, other = (epoch_plan(50, run, epoch) for epoch in (0, 0, 1))
    assert one == again and [[v for _, v, _ in s] for s in one] != [
        [v for _, v, _ in s] for s in other
    ]
    steps = steps_per_epoch(50, run)
    assert all(len(epoch_plan(50, run, e)) == steps for e in range(5))


def test_what_would_leave_clips_out_is_an_error_that_says_what_to_do():
    run = Pretrain.from_flat(batch=16, shards=2)
    with pytest.raises(ValueError, match="3 processes cannot share 2 shards"):
        next(training_epochs(range(50), run, 0, rank=0, processes=3, workers=0))
    with pytest.raises(ValueError, match="3 videos x 5 clips do not fill one batch of 128: lower"):
        steps_per_epoch(3, Pretrain())


@pytest.mark.parametrize(
    "cores, gpu, sharing, workers",
    [
        (16, True, 1, 16),  # a GPU computes: every core decodes
        (16, True, 8, 2),
        (16, False, 1, 15),  # this process computes
        (2, False, 2, 0),
        (16, False, 4, 3),
    ],
)
def test_cores_are_shared_by_the_processes_of_a_job(monkeypatch, cores, gpu, sharing, workers):
    monkeypatch.setattr(loader, "cores", lambda: cores)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(sharing))
    assert loader.spare_workers() == workers
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # as a run that is trained beside others says
    monkeypatch.setenv("AVNB_SHARING", str(sharing))
    assert loader.spare_workers() == workers


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
    alone, several = clips[[(0, 3, 1)]], clips[[(0, 5, 0), (0, 3, 1), (1, 3, 1), (0, 3, 0)]]
    assert same(alone, several[1:2])
    assert not same(alone, several[2:3])
    assert several.video_index.tolist() == [5, 3, 3, 3]


def test_the_picture_of_a_clip_is_cut_from_the_frames_on_show(vggsound, smoke):
    """Without augmentation the resized centre of frames that are read by their numbers."""
    sampling = Sampling(clip=smoke.clip, count=3, place="uniform", resize_px=36, audio=False)
    clips = VideoClips(vggsound, sampling, seed=0)
    video = vggsound.videos[2]
    starts = np.linspace(0, video.seconds - smoke.clip.video_seconds, 3)
    numbers = frame_numbers(starts, smoke.clip, video)
    crop = clips.crop(video, 0, np.random.default_rng(0))
    for clip in range(3):
        images = list(store.read_frames(vggsound.path(video), numbers[clip]))
        assert torch.equal(clips.whole(2).frames[clip], crop(images))


def test_audio_past_the_end_goes_on_at_the_beginning(vggsound, smoke):
    heard = vggsound.with_audio()
    clip = replace(smoke.clip, audio_seconds=6.0)  # longer than any
    sampling = Sampling(clip=clip, count=1, place="uniform", resize_px=36, video=False)
    video = heard.videos[0]
    whole = store.read_audio(heard.path(video), 0, round(video.seconds * 16_000))
    (audio,) = VideoClips(heard, sampling, seed=0).whole(0).audio.numpy()
    np.testing.assert_array_equal(audio, np.resize(whole, 96_000))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_read_what_the_process_itself_would_read(clips, workers, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 20)))  # for sockets
    state = torch.get_rng_state()
    batches = list(video_batches(clips, range(5), 2, workers=workers))
    assert [len(b) for b in batches] == [4, 4, 2]
    for i in range(5):
        assert same(batches[i // 2][i % 2 * 2 : i % 2 * 2 + 2], clips.whole(i))
    assert torch.equal(torch.get_rng_state(), state)  # dropout goes on as without them


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_is_gone_is_an_error_that_names_it(clips, tmp_path, workers):
    gone = VideoClips(replace(clips.manifest, where=tmp_path / "a/b/c/d"), clips.sampling, seed=0)
    with pytest.raises(StoreError, match=r"\.mkv cannot be read .* it is prepared again"):
        list(video_batches(gone, range(1), 1, workers=workers))


@pytest.mark.parametrize("workers", [0, 1])
def test_planned_batches_hold_the_planned_clips(clips, smoke, workers):
    steps = steps_per_epoch(len(clips), smoke)
    done = steps - 2  # interrupted in the middle of an epoch
    parts = {"rank": 1, "processes": 2, "workers": workers}
    for epoch, dealt in training_epochs(clips, smoke, done, **parts):
        plan, left = epoch_plan(len(clips), smoke, epoch), steps - 2 if epoch == 0 else 0
        for step, (rows, batch) in enumerate(zip(plan[left:], dealt, strict=True), left):
            assert batch.step == epoch * len(plan) + step and batch.offset == len(batch)
            own = rows[len(rows) // 2 :]
            assert batch.video_index.tolist() == [v for _, v, _ in own]
            _, video, clip = own[0]
            whole = clips.whole(video, epoch)
            assert torch.equal(batch.frames[0], whole.frames[clip])
            assert torch.equal(batch.params.masks[0], whole.params.masks[clip])
