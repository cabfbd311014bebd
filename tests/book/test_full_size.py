"""What the thesis's experiments take follows from its profile, and agrees with what runs count."""

import pytest
import torch

from avnb import book as report
from avnb.book import full_size
from avnb.data.batch import Batch
from avnb.models.methods import build_method
from avnb.profiles import Workspace
from avnb.training.speed import flops_per_clip


@pytest.fixture(scope="module")
def stages():
    return report.full_size_stages(Workspace.open("thesis"))


@pytest.mark.slow
def test_the_published_days_are_those_of_the_published_clips(stages):
    xid = stages[0]
    assert xid.clips == pytest.approx(25e6, rel=1e-4)
    assert report.thesis_clips_per_second(stages) == pytest.approx(25.2, abs=0.1)
    table = report.full_size_table(stages, report.thesis_clips_per_second(stages), gpus=8, price=2)
    assert table["hours"].iloc[0] == pytest.approx(11.5 * 24)
    assert table.loc["All", "cost"] == pytest.approx(table["hours"].drop("All").sum() * 8 * 2)


@pytest.mark.parametrize("method", ["xid", "vicreg_v"])
def test_a_clip_takes_what_a_run_counts(method):
    work = Workspace.open("smoke")
    run = work.pretraining(method=method)
    frames = torch.zeros(1, 3, run.clip.frames, run.clip.frame_px, run.clip.frame_px)
    columns = run.spectrogram.frames(run.clip.samples)
    heard = method == "xid"
    batch = Batch(
        frames=frames,
        audio=torch.zeros(1, 1 if heard else 0, run.spectrogram.mels, columns),
        label=torch.zeros(1, dtype=torch.long),
        video_index=torch.zeros(1, dtype=torch.long),
        second_view=None if heard else frames,
    )
    stage = full_size.pretraining_stage(work, method)
    assert stage.flop == stage.clips * flops_per_clip(build_method(run, 32, 4), batch)


def test_cores_are_clips_a_second_times_seconds_a_clip():
    row = {"stage": "clip", "what": "g30", "way": "ours, 1 clip a reading", "ratio": 2.0}
    row |= {"against": "2022 recipe", "against_ms": 100.0, "ms": 50.0}
    other = {**row, "against": "2022 recipe, decoding and crop only"}
    cores = report.cores_table([row, other], 40.0)
    assert cores.loc["g30"].to_dict() == {"2022 recipe": 4.0, "1 clip a reading": 2.0}
