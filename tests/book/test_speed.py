"""The chapter on speed: figures and sentences of the bench's rows."""

import json

import matplotlib.pyplot as plt
import pytest

from avnb import book as report
from avnb.bench import rows as bench_rows
from avnb.bench import stages

MACHINE = {"cpu": "a processor", "cores": 2}


def row(stage, what, way, ratio=None, ms=2.0, **more):
    base = {"stage": stage, "what": what, "way": way, "against": "2022 recipe", "ms": ms}
    base |= {"limit_ms": None, "note": "", "machine": MACHINE} | more
    if ratio:
        low, middle, high = ratio
        base |= {"ratio_low": low, "ratio": middle, "ratio_high": high}
        base |= {"against_ms": ms * middle}
    return base


ROWS = [
    row("clip", "340x256 g30", "ours", (1.8, 2.0, 2.2)),
    row("clip", "340x256 g250", "ours", (0.9, 1.0, 1.2)),
    row("clip", "340x256 g30", "torchcodec", note="not installed"),
    row("parts", "340x256 g30", "video", ms=6.0, against_ms=8.0),
    row("parts", "340x256 g30", "audio", ms=2.0, against_ms=8.0),
    row("bank", "B 128", "ours", (0.4, 0.5, 0.6), limit_ms=0.5),
]


def test_a_ratio_is_claimed_only_where_its_quartiles_are_apart_from_one():
    assert report.describe_speed(ROWS) == (
        "Against the 2022 recipe, clips are 2.0 times as fast and neither faster nor slower in "
        "one of two cases. The other stages (memory banks) are slower (0.50 times as fast). The "
        "largest part of a clip's time is now video (75 %)."
    )
    others = [
        row("clip", "340x256 g30", "ours, 1 clip a reading, h264 cache", (8.0, 9.0, 9.5)),
        row("clip", "340x256 g30", "torchcodec", (1.1, 1.5, 1.6)),
    ]
    assert "; from a cache, 9.0 times as fast; by torchcodec, 1.5 times as fast." in (
        report.describe_speed([ROWS[0], *others])
    )
    said = report.measured_on(ROWS)
    assert said == "measured on a processor, 2 cores, without torchcodec (not installed)"


def test_the_limit_the_loader_and_the_soak_are_read_aloud():
    floors = [
        row("clip", what, f"ours, {way}", (2, 3, 4), ms=ms, limit_ms=10.0)
        for what, way, ms in (
            ("340x256 g30", "1 clip a reading", 11.0),
            ("340x256 g250", "1 clip a reading", 15.0),
            ("340x256 g30", "all clips in one reading", 20.0),
            ("340x256 g30", "1 clip a reading, h264 cache", 2.0),
        )
    ]
    assert (
        "it takes 1.1 to 1.5 times as long with 1 clip a reading and 2.0 times as long with all "
        "clips in one reading."
    ) in report.describe_speed(floors)
    speed = {"clips_per_second": 37.1, "scaling": 0.961, "parent_ms_per_clip": 0.13}
    read = [
        row("loader", "340x256 g250", "2 workers", workers=2, **speed),
        row("soak", "a", "b", clips=1000, parent_mb=500.0, worker_mb=90.0),
        row("soak", "a", "b", clips=9000, parent_mb=505.0, worker_mb=89.0),
        row("soak", "a", "b", clips=20_000, parent_mb=503.2, worker_mb=89.0),
    ]
    assert report.describe_speed(read) == (
        "Two decoding workers bring 37.1 clips a second, 96 % of what so many times one would; "
        "the training process itself spends 0.13 ms on a clip. From clip 1000 to clip 20000, the "
        "memory of the training process changed by +3 MB (-2 in its second half), that of the "
        "largest worker by -1 MB (+0 in its second half)."
    )


def test_tables_and_figures_hold_every_comparison():
    table = report.speed_table(ROWS)
    assert len(table) == 3
    assert table.loc[("bank", "B 128", "ours", "2022 recipe"), "limit, ms"] == "0.5"
    clips, parts, bank = (
        report.plot_clip_ratios(ROWS),
        report.plot_clip_parts(ROWS),
        report.plot_stage_ratios(ROWS, "bank"),
    )
    assert [t.get_text() for t in clips.axes[0].get_yticklabels()] == [
        "340x256 g30",
        "340x256 g250",
    ]
    assert sum(patch.get_width() for patch in parts.axes[0].patches) == 8
    assert len(bank.axes) == 1
    plt.close("all")


def test_of_rows_on_the_same_thing_the_latest_is_read_and_a_torn_line_is_skipped(tmp_path):
    file = tmp_path / "rows.jsonl"
    lines = [json.dumps(row("bank", "B", "ours", ms=ms)) for ms in (1.0, 3.0)]
    file.write_text("\n".join([*lines, '{"stage": "ba']))
    (found,) = stages.read_or_measure(str(file), tmp_path, 1)
    assert found["ms"] == 3.0
    with pytest.raises(FileNotFoundError, match="avnb bench --out"):
        bench_rows.read(tmp_path / "nothing.jsonl")


def test_memory_is_drawn_only_where_a_soak_was_measured():
    rate = {"stage": "loader", "workers": 1, "clips_per_second": 19.0}
    soak = [{"stage": "soak", "clips": n, "parent_mb": 90, "worker_mb": 60} for n in (1, 2)]
    assert len(report.plot_loader([rate]).axes) == 1
    _, memory = report.plot_loader([rate, *soak]).axes
    assert [line.get_label() for line in memory.lines] == ["training process", "largest worker"]
