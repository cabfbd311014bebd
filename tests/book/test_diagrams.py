"""Diagrams show the values of their configuration, and every text can be read."""

import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon

from avnb import book as report
from avnb.book import style
from avnb.book.diagrams import SMALL
from avnb.evaluation.class_names import ClassList
from avnb.evaluation.concepts import Matched, Pair
from avnb.evaluation.rankings import Ranking
from avnb.profiles import Workspace


@pytest.fixture(autouse=True)
def look():
    with mpl.rc_context():
        report.set_style("book")
        yield
    plt.close("all")


def texts(fig):
    """All texts that are drawn."""
    found = []
    for ax in fig.axes:
        found += ax.texts
        if ax.axison:
            found += [*ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label]
    return [t for t in found if t.get_text().strip() and t.get_visible()]


def words(fig):
    return " | ".join(t.get_text().replace("\n", " ") for t in texts(fig))


def outline(patch):
    return patch.get_transform().transform_path(patch.get_path())


def along(line):
    """Many points [N, 2] on a line or an arrow, in pixels."""
    path = outline(line)
    corners = path.vertices[: 3 if isinstance(line, FancyArrowPatch) else None]
    return np.concatenate([np.linspace(a, b, 200) for a, b in itertools.pairwise(corners)])


def check_legible(fig):
    """Texts lie in the figure and in their boxes, apart from each other and from all lines."""
    fig.canvas.draw()
    rooms = {t: t.get_window_extent() for t in texts(fig)}
    parts = [part for ax in fig.axes for part in (*ax.patches, *ax.lines)]
    boxes = [outline(p) for p in parts if isinstance(p, FancyBboxPatch | Polygon)]
    lines = [along(p) for p in parts if isinstance(p, FancyArrowPatch | Line2D)]
    for text, room in rooms.items():
        assert fig.bbox.x0 <= room.x0 and room.x1 <= fig.bbox.x1, text
        assert fig.bbox.y0 <= room.y0 and room.y1 <= fig.bbox.y1, text
        grid = np.linspace(room.x0, room.x1, 9), np.linspace(room.y0, room.y1, 9)
        points = np.stack(np.meshgrid(*grid), axis=-1).reshape(-1, 2)
        for path in boxes:
            inside = path.contains_points(points)
            assert inside.all() or not inside.any(), text
        assert not any(room.count_contains(line) for line in lines), text
    for (a, one), (b, other) in itertools.combinations(rooms.items(), 2):
        assert not one.overlaps(other), (a, b)


def matched(*, second=True, top=2, title="whaleloops/phrase-bert, as published"):
    """Three classes of pre-training and four of a test set: names 0 and 1 match, 1 is removed."""
    cosines = np.array([[0.9, 0.1, 0.0, 0.0], [0.2, 0.8, 0.1, 0.0], [0.0, 0.1, 0.2, 0.3]])
    order = np.argsort(-cosines, axis=1)
    ranking = Ranking(targets=order, cosines=cosines, title=title, report="")
    queries, targets = (
        ClassList(key, f"{key.upper()}-400", tuple(f"{key} {letter}" for letter in "abcd"[:n]))
        for key, n in (("kinetics", 3), ("hmdb", 4))
    )
    pair = Pair(queries=queries, targets=targets, threshold=0.47, outliers=("hmdb b",))
    return Matched(
        pair=pair, model="all-MiniLM-L6-v2", reports=("", ""), primary=cosines, top=top,
        second=ranking if second else None,
    )  # fmt: skip


FIGURES = {
    "xid": lambda run, _: report.plot_xid(run),
    "vicreg": lambda run, _: report.plot_vicreg(run),
    "late fusion": report.plot_late_fusion,
    "time line": lambda run, _: report.plot_clip_on_time_line(run),
    "short time line": lambda run, _: report.plot_clip_on_time_line(run, 4.0),
    "concepts": lambda *_: report.plot_concept_split(matched()),
    "concepts of one text encoder": lambda *_: report.plot_concept_split(matched(second=False)),
}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("profile", ["thesis", "demo", "smoke"])
def test_texts_lie_in_the_figure_and_apart(name, profile):
    work = Workspace.open(profile)
    for look in style.STYLES if profile == "thesis" else ("book",):
        report.set_style(look)
        fig = FIGURES[name](work.pretraining(), work.evaluation())
        assert min(t.get_fontsize() for t in texts(fig)) >= min(SMALL, 8.5)
        style.fit_to_style(fig, look)
        check_legible(fig)
        plt.close(fig)


@pytest.mark.parametrize(
    "plot, values, told",
    [
        ("xid", {"negatives": 77}, "negatives: 77 others"),
        ("xid", {"subset_videos": 1234}, "1,234 × 128"),
        ("xid", {"embedding_dim": 33}, "50,000 × 33"),
        ("xid", {"bank_momentum": 0.9}, "0.9 · row i + 0.1 · embedding"),
        ("xid", {"temperature": 0.2}, "of cosines divided by 0.2"),
        ("xid", {"q_first": 0.01, "q_last": 0.3, "lam": 0.5}, "λ = 0.5, q from 0.01 to 0.3"),
        ("xid", {"xid_loss": "info_nce"}, "InfoNCE of cosines"),
        ("xid", {"width": 8}, "64 | features"),
        ("xid", {"backbone": "own.py:Net"}, "D | features"),
        ("xid", {"video_fps": 8.0, "frame_px": 32}, "8 frames of 32 × 32"),
        ("xid", {"mels": 40, "audio_seconds": 1.0}, "1 s, log-mel 40 × 62"),
        ("vicreg", {"expander_dim": 64, "batch": 16}, "Z:  16 × 64"),
        ("vicreg", {"invariance_weight": 3.0}, "loss = 3 · invariance + 25"),
        ("vicreg", {"variance_weight": 4.0}, "variance × 4 covariance × 1"),
        ("vicreg", {"covariance_weight": 5.0}, "5 · sum of both covariances"),
        ("vicreg", {"second_view_min_seconds": 1.5}, "1.5 to 8 s apart"),
        ("vicreg", {"views_per_forward": 1}, "one after the other"),
        ("clip_on_time_line", {"video_seconds": 2.0}, "2 s: 32 frames"),
        ("clip_on_time_line", {"max_offset_seconds": 0.3}, "starts up to 0.3 s before or after"),
        ("clip_on_time_line", {"audio_window": "released"}, "1.5 s before the frames to 0.5 s"),
        ("clip_on_time_line", {"second_view_max_seconds": 6.0}, "2 to 6 s after the first"),
    ],
)
def test_the_numbers_are_those_of_the_run(plot, values, told):
    draw, work = getattr(report, f"plot_{plot}"), Workspace.open("thesis")
    assert told not in words(draw(work.pretraining()))
    fig = draw(work.pretraining(**values))
    assert told in words(fig)
    check_legible(fig)


def test_late_fusion_says_which_clips_are_compared():
    work = Workspace.open("thesis")
    usual = words(report.plot_late_fusion(work.pretraining(), work.evaluation()))
    assert "10 clips, each 8 frames of 224 × 224" in usual and "their audio 1 s" in usual
    author = work.evaluation(protocol="author", video_level_clips=4)
    fig = report.plot_late_fusion(work.pretraining(width=8), author)
    assert "4 clips, each" in words(fig) and "4 × 64" in words(fig)
    assert "1 × 64" in words(fig) and "audio of the whole video" in words(fig)
    check_legible(fig)


def test_the_clips_on_the_time_line_are_drawn_from_the_seed():
    run = Workspace.open("thesis").pretraining()
    places = []
    for seed in (0, 0, 1):
        fig = report.plot_clip_on_time_line(run, seed=seed)
        boxes = [c.get_datalim(c.axes.transData).x0 for c in fig.axes[1].collections]
        places.append(boxes)
    assert places[0] == places[1] != places[2]


def test_the_split_of_concepts_counts_what_was_matched():
    fig = report.plot_concept_split(matched())
    told = words(fig)
    assert "KINETICS-400 3 classes of pre-training" in told
    assert "HMDB-400 4 classes of the test set" in told
    assert "the 2 nearest test classes" in told and "above 0.47 (2 classes)" in told
    seen = len(matched().seen()[1])
    removed = len(matched().seen(struck=False)[1]) - seen
    assert removed == 1 and f"{removed} removed by hand" in told
    assert f"{seen} seen classes" in told and f"{4 - seen} unseen classes" in told
    alone = words(report.plot_concept_split(matched(second=False)))
    assert "the first decides alone" in alone and "on its lists" in alone


def test_long_names_stay_in_their_boxes():
    fig = report.plot_concept_split(matched(title="/home/somebody/encoders/" + 9 * "$ long name "))
    assert "…" in words(fig)
    check_legible(fig)


def test_a_figure_as_svg_is_shown_once():
    def shown():
        return report.Svg(report.plot_xid(Workspace.open("smoke").pretraining()))._repr_svg_()

    first = shown()
    assert "<svg" in first and "<text" not in first and not plt.get_fignums()
    assert shown() == first
