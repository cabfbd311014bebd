"""Clips on the time line of their video, to scale."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from avnb.book.diagrams import AUDIO, GREEN, INK, SMALL, TEXT, VIDEO, WIDTH, note, tint
from avnb.book.style import GREY
from avnb.config import Clip, Pretrain
from avnb.data import clip_times

SAMPLED = 3  # random clips with their audio, and as many pairs of two clips


def plot_clip_on_time_line(config: Pretrain, seconds: float = 10.0, seed: int = 0) -> Figure:
    """Where a clip may lie in a video of so many seconds (top), and random clips (bottom)."""
    fig, (top, bottom) = plt.subplots(
        2, 1, figsize=(WIDTH, 5.2), sharex=True, height_ratios=(1.25, 1), layout="none"
    )
    fig.subplots_adjust(left=0.13, right=0.98, top=1.0, bottom=0.115, hspace=0.02)
    draw_windows(top, config, seconds)
    draw_sampled(bottom, config, seconds, np.random.default_rng(seed))
    for ax in (top, bottom):
        ax.set(yticks=[], xlim=(0, seconds))
        ax.spines["left"].set_visible(False)
    top.spines["bottom"].set_visible(False)
    top.tick_params(bottom=False, labelbottom=False)
    bottom.tick_params(labelsize=SMALL)
    bottom.set_xlabel("seconds of the video", fontsize=TEXT)
    return fig


def bar(ax: Axes, start: float, length: float, y: float, colour: str, **style: Any) -> None:
    """A stretch of time, from its start in seconds, on a line of height 1 around y."""
    height = style.pop("height", 0.34)
    usual: dict[str, Any] = {"fc": tint(colour, 0.5), "ec": colour, "lw": 1.2}
    ax.broken_barh([(start, length)], (y - height / 2, height), **{**usual, **style})


def row_label(ax: Axes, y: float, text: str) -> None:
    """What lies on a line, left of the axis."""
    note(ax, -0.14, y, text, ha="left", transform=ax.get_yaxis_transform())


def draw_windows(ax: Axes, config: Pretrain, seconds: float) -> None:
    """For one start of the frames: where the audio and the second clip may lie, pale, and do."""
    clip, c = config.clip, config.vicreg
    start = min(clip.max_offset_seconds, seconds / 4)
    low, high = (float(t) for t in clip_times.audio_start_range(np.array(start), seconds, clip))
    last = max(seconds - clip.video_seconds, 0.0)
    second = [min(start + t, last) for t in (c.second_view_min_seconds, c.second_view_max_seconds)]
    apart = f"{c.second_view_min_seconds:g} to {c.second_view_max_seconds:g} s after the first"
    lines = [
        ("frames", VIDEO, (start, start), clip.video_seconds, f"{clip.frames} frames"),
        ("audio", AUDIO, (low, high), clip.audio_seconds, offset_text(clip)),
        ("second clip,\nVICReg-V", GREEN, second, clip.video_seconds, f"starts {apart}"),
    ]
    bar(ax, 0, seconds, 3, GREY, fc="white")
    row_label(ax, 3, "video")
    note(ax, 0, 3.36, f"{seconds:.3g} s", ha="left")
    for y, (name, colour, (early, late), length, text) in zip((2, 1, 0), lines, strict=True):
        row_label(ax, y, name)
        bar(ax, early, late - early + length, y, colour, fc=tint(colour, 0.12), lw=0.6)
        bar(ax, (early + late) / 2, length, y, colour)
        note(ax, early, y + 0.36, f"{length:g} s: {text}", ha="left")
    times = clip_times.frame_times(np.array([start]), clip, seconds)[0]
    ax.vlines(times, 2 - 0.17, 2 + 0.17, color=VIDEO, lw=0.8)
    ax.set_ylim(-0.45, 3.6)


def offset_text(clip: Clip) -> str:
    """Where the audio starts, seen from the frames."""
    late = clip.max_offset_seconds
    if clip.audio_window == "around":
        return f"starts up to {late:g} s before or after the frames"
    early = max(clip.audio_seconds - late, 0.0)
    return f"starts {early:g} s before the frames to {late:g} s after"


def draw_sampled(ax: Axes, config: Pretrain, seconds: float, rng: np.random.Generator) -> None:
    """Random clips: frames with their audio, then two clips without."""
    clip, c = config.clip, config.vicreg
    length = clip_times.required_seconds(clip)
    first = clip_times.random_starts(seconds, length, SAMPLED, rng)
    audio = clip_times.audio_starts(first, seconds, clip, rng)
    for y, start, sound in zip(range(5, 2, -1), first, audio, strict=True):
        bar(ax, start, clip.video_seconds, y + 0.19, VIDEO, height=0.3)
        bar(ax, sound, clip.audio_seconds, y - 0.19, AUDIO, height=0.3)
    alone = clip_times.random_starts(seconds, clip.video_seconds, SAMPLED, rng)
    distance = c.second_view_min_seconds, c.second_view_max_seconds
    later = clip_times.second_view_starts(alone, seconds, clip.video_seconds, distance, rng)
    for y, start, second in zip(range(2, -1, -1), alone, later, strict=True):
        bar(ax, start, clip.video_seconds, y, VIDEO, height=0.3)
        bar(ax, second, clip.video_seconds, y, GREEN, height=0.3)
    ax.hlines(np.arange(5) + 0.5, 0, seconds, color=INK, lw=0.3)
    row_label(ax, 4, "random clips\nwith audio")
    row_label(ax, 1, "random clips\nof VICReg-V")
    ax.set_ylim(-0.6, 5.6)
