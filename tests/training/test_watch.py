"""A run seen from elsewhere; `test_pretraining` watches one that is really trained."""

import json
import time
from pathlib import Path

import pytest

from avnb.__main__ import main
from avnb.training import event_files, watch
from avnb.training.watch import duration, find_run, follow, read_state


def write(folder: Path, done: int, *, finished=False, age=0.0, epochs=0):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text("{}")
    state = {"done": done, "total": 1000, "time": time.time() - age, "finished": finished}
    (folder / "progress.json").write_text(json.dumps(state))
    log = [{"epoch": e, "loss": 3.0 - e} for e in range(epochs)]
    speed = [{"epoch": e, "clips_per_second": 50.0, "waiting_share": 0.25, "matmul_share": 0.5}
             for e in range(epochs)]  # fmt: skip
    for name, rows in (("log", log), ("speed", speed)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def test_it_says_how_far_how_fast_and_how_long(tmp_path):
    summary = read_state(write(tmp_path, 400, epochs=2)).summary
    assert "400 of 1000 clips (40 %)" in summary and "50 clips/s" in summary
    assert "12 s left" in summary and "loss 2.000 after 2 epochs" in summary
    assert "50 % of the device" in summary and "25 % waiting" in summary
    assert "stopped" not in summary


def test_silence_is_told_and_an_end_is_not_silence(tmp_path):
    assert "no news for 10 min 0 s" in read_state(write(tmp_path, 400, age=600)).summary
    ended = read_state(write(tmp_path, 300, age=600, finished=True, epochs=1))
    assert ended.is_finished and ended.summary.startswith("finished after 300 clips")
    assert "no news" not in ended.summary and "left" not in ended.summary


def test_a_run_that_has_not_begun_and_a_torn_line_are_taken_calmly(tmp_path):
    (tmp_path / "job.json").write_text("{}")
    assert "0 of 0 clips" in read_state(tmp_path).summary
    write(tmp_path, 10, epochs=2)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"epoch": 2, "lo')
    assert len(read_state(tmp_path).log) == 2


def test_following_ends_with_the_run_and_says_nothing_twice(tmp_path, monkeypatch):
    write(tmp_path, 100)
    steps = iter([100, 400, 1000])

    def sleep(seconds):
        done = next(steps)
        write(tmp_path, done, finished=done == 1000, epochs=done // 400)

    monkeypatch.setattr(watch.time, "sleep", sleep)
    assert [state.done for state in follow(tmp_path, 1)] == [100, 400, 1000]


def test_a_run_is_found_by_folder_id_or_beginning(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AVNB_BUILD", str(tmp_path))
    one = write(tmp_path / "demo/runs/xid-1234", 1)
    write(tmp_path / "demo/runs/vicreg_av-1", 1), write(tmp_path / "demo/runs/vicreg_av-2", 1)
    assert find_run(str(one)) == find_run("xid-1234") == find_run("xid") == one
    with pytest.raises(ValueError, match="2 runs begin with 'vicreg_av'"):
        find_run("vicreg_av")
    assert main(["watch", "xidd"]) == 1
    assert "demo/runs/xid-1234" in capsys.readouterr().err
    assert main(["watch", "xid", "--once"]) == 0
    assert "1 of 1000 clips" in capsys.readouterr().out


@pytest.mark.parametrize(
    "seconds, text", [(12, "12 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (273600, "3 d 4 h")]
)
def test_durations_are_written_as_people_say_them(seconds, text):
    assert duration(seconds) == text


@pytest.mark.slow
def test_tensorboard_reads_what_was_written_and_an_epoch_again_replaces_it(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for epoch, loss in ((0, 3.0), (1, 2.0), (1, 1.5)):
        event_files.write(tmp_path, {"epoch": epoch, "loss": loss})
    events = EventAccumulator(str(tmp_path / event_files.FOLDER)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(0, 3.0), (1, 1.5)]
