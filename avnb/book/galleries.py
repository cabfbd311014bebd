"""Videos that play in pages, with their audio: galleries of nearest videos, and spectrograms.

A page shows small copies of the store's files, which are made once and loaded when played.
"""

import html
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

from avnb.config import digest
from avnb.data import store
from avnb.data.manifest import Manifest, Video
from avnb.files import replacing

SECONDS, HEIGHT = 3.0, 120  # of a small copy, at most
SMALL = store.Form(crf=30).codecs
MARKS = {  # sign, border, and what is read to those who do not see them
    "query": ("query:", "2px solid #444444", "query"),
    "right": ("✓", "2px solid #2e7d32", "same class"),
    "wrong": ("✗", "2px dashed #b3261e", "other class"),
    "unknown": ("", "2px solid #444444", "answer"),
}
PLAY = "this.paused ? this.play() : this.pause()"
KEYS = f"if ([' ', 'Enter'].includes(event.key)) {{ event.preventDefault(); {PLAY} }}"


def frames_at(manifest: Manifest, video: Video, seconds: np.ndarray) -> np.ndarray:
    """The frames [N, H, W, 3] uint8 that are on show at times in seconds."""
    numbers = (np.asarray(seconds) * video.fps + 1e-6).astype(int).clip(0, video.frames - 1)
    return store.read_frames(manifest.path(video), numbers)


def audio_of(manifest: Manifest, video: Video, begin: float, end: float) -> np.ndarray:
    """Audio [samples] float32 from `begin` to `end` in seconds; empty where the video has none."""
    if not video.audio:
        return np.zeros(0, np.float32)
    first, last = round(begin * store.HZ), round(end * store.HZ)
    return store.read_audio(manifest.path(video), first, last - first)


def small_copy(manifest: Manifest, video: Video, media: Path) -> Path:
    """A small mp4 of the video's middle, made once in `media`, with its pictures beside it."""
    path = manifest.path(video)
    length, stat = min(SECONDS, video.seconds), path.stat()
    begin = (video.seconds - length) / 2
    out = media / f"{digest([str(path), stat.st_size, stat.st_mtime_ns, SECONDS, HEIGHT])}.mp4"
    if not out.exists():
        times = begin + np.arange(max(1, int(length * video.fps))) / video.fps
        frames = frames_at(manifest, video, times)
        write_copy(out, frames, video.fps, audio_of(manifest, video, begin, begin + length))
    return out


def write_copy(out: Path, frames: Iterable[np.ndarray], fps: float, samples: np.ndarray) -> None:
    """Write a small mp4; before it, with its name, the middle frame (.jpg) and the audio (.png).

    The audio is drawn as a mel spectrogram of 60 dB.
    """
    images = [scaled(frame) for frame in frames]
    with replacing(out.with_suffix(".jpg")) as partial:
        Image.fromarray(images[len(images) // 2]).save(partial, "JPEG", quality=80)
    if len(samples):
        mel = MelSpectrogram(store.HZ, n_fft=1024, hop_length=256)(torch.from_numpy(samples))
        with replacing(out.with_suffix(".png")) as partial:
            levels = AmplitudeToDB(top_db=60)(mel)
            plt.imsave(partial, levels, origin="lower", format="png", cmap="magma")
    with replacing(out) as partial:
        store.write(partial, images, fps, samples, SMALL)


def scaled(frame: np.ndarray) -> np.ndarray:
    """A frame [H, W, 3] at most HEIGHT high, with even sides."""
    height, width, _ = frame.shape
    factor = min(1.0, HEIGHT / height)
    size = [max(2, 2 * round(side * factor / 2)) for side in (width, height)]
    return np.asarray(Image.fromarray(frame).resize((size[0], size[1]), Image.Resampling.BILINEAR))


def player(file: Path, title: str, *, mark: str = "unknown", spectrogram: bool = False) -> str:
    """HTML of a small copy under its title, whose picture plays when clicked, or by space bar.

    `mark` is a name in MARKS; with `spectrogram` the audio is drawn below, if there is some.
    """
    sign, border, meaning = MARKS[mark]
    stem, name, below = html.escape(os.path.relpath(file.with_suffix(""))), html.escape(title), ""
    if spectrogram and file.with_suffix(".png").exists():
        look = "width:100%;height:4rem;display:block;margin-top:2px"
        below = f'<img src="{stem}.png" alt="spectrogram of {name}" style="{look}">'
    look = f"width:100%;aspect-ratio:4/3;object-fit:contain;cursor:pointer;border:{border}"
    return (
        '<figure style="margin:0;flex:1 1 6rem;max-width:11rem">'
        f'<figcaption style="font-size:.75rem">{sign} {name}</figcaption>'
        f'<video tabindex="0" role="button" preload="none" playsinline src="{stem}.mp4" '
        f'poster="{stem}.jpg" aria-label="play {name}, {meaning}" onclick="{PLAY}" '
        f'onkeydown="{KEYS}" style="{look}"></video>{below}</figure>'
    )


def in_a_row(players: Iterable[str]) -> str:
    """Players side by side, as many as fit."""
    style = "display:flex;flex-wrap:wrap;gap:.5rem;margin-bottom:.8rem"
    return f'<div style="{style}">{"".join(players)}</div>'


def playing_gallery(
    queries: Manifest,
    gallery: Manifest,
    neighbours: Iterable[Sequence[int]],
    media: Path,
    *,
    spectrograms: bool = False,
) -> str:
    """HTML of Q queries (left) and their nearest videos, after thesis Figures A.1 to A.6.

    `neighbours` [Q, k] are rows of the gallery. A tick and a whole border mark the class of the
    query, a cross and a dashed border another one; a query of an unknown class marks nothing. Small
    copies are written into the folder `media`, which the book carries along.
    """
    lines = []
    for query, rows in zip(queries.videos, neighbours, strict=True):
        shown = [(queries, query, "query")]
        for video in [gallery.videos[row] for row in rows]:
            mark = "right" if video.label == query.label else "wrong"
            shown.append((gallery, video, mark if query.label in gallery.classes else "unknown"))
        players = [
            player(small_copy(of, video, media), video.label, mark=mark, spectrogram=spectrograms)
            for of, video, mark in shown
        ]
        lines.append(in_a_row(players))
    return f'<div role="group" aria-label="gallery">{"".join(lines)}</div>'
