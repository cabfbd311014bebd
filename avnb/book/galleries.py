"""Videos that play in pages, with their audio: galleries of nearest videos, and spectrograms.

A page shows small copies of the store's files, which are made once and loaded when played.
"""

import base64
import html
import mimetypes
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

SMALL = store.Form(px=120, crf=30)  # a copy
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


def audio_of(manifest: Manifest, video: Video) -> np.ndarray:
    """All audio [samples] float32; empty where the video has none."""
    samples = round(video.seconds * store.HZ) if video.audio else 0
    return store.read_audio(manifest.path(video), 0, samples)


def small_copy(manifest: Manifest, video: Video, media: Path) -> Path:
    """A small mp4, made once in the folder `media`, with its pictures beside it."""
    path, stat = manifest.path(video), manifest.path(video).stat()
    out = media / f"{digest([str(path), stat.st_size, stat.st_mtime_ns, SMALL])}.mp4"
    if not out.exists():
        (middle,) = frames_at(manifest, video, np.array([video.seconds / 2]))
        write_pictures(out, middle, audio_of(manifest, video))
        with replacing(out) as partial:
            store.convert(path, partial, SMALL)
    return out


def write_pictures(out: Path, frame: np.ndarray, samples: np.ndarray) -> None:
    """Write, with the name of a video, a small frame (.jpg) and the audio (.png).

    The audio is drawn as a mel spectrogram of 60 dB.
    """
    image = Image.fromarray(frame)
    image.thumbnail((4 * SMALL.px, SMALL.px))
    with replacing(out.with_suffix(".jpg")) as partial:
        image.save(partial, "JPEG", quality=80)
    if len(samples):
        mel = MelSpectrogram(store.HZ, n_fft=1024, hop_length=256)(torch.from_numpy(samples))
        with replacing(out.with_suffix(".png")) as partial:
            levels = AmplitudeToDB(top_db=60)(mel)
            plt.imsave(partial, levels, origin="lower", format="png", cmap="magma")


def link(file: Path, *, embedded: bool) -> str:
    """The address of a file from a page, or a data URL of its content."""
    if not embedded:
        return html.escape(os.path.relpath(file))
    content = base64.b64encode(file.read_bytes()).decode()
    return f"data:{mimetypes.guess_type(file.name)[0]};base64,{content}"


def player(file: Path, title: str, *, mark: str = "unknown", spectrogram: bool = False) -> str:
    """HTML of a small copy under its title, whose picture plays when clicked, or by space bar.

    `mark` is a name in MARKS; with `spectrogram` the audio is drawn below, if there is some.
    """
    sign, border, meaning = MARKS[mark]
    name, poster, below = html.escape(title), link(file.with_suffix(".jpg"), embedded=True), ""
    lab = "JPY_SESSION_NAME" in os.environ  # which serves one folder, and does not say which
    if spectrogram and (image := file.with_suffix(".png")).exists():
        look = "width:100%;height:4rem;display:block;margin-top:2px"
        drawn = link(image, embedded=lab)
        below = f'<img src="{drawn}" alt="spectrogram of {name}" style="{look}">'
    look = f"width:100%;aspect-ratio:4/3;object-fit:contain;cursor:pointer;border:{border}"
    return (
        '<figure style="margin:0;padding:0;max-width:11rem">'
        f'<figcaption style="font-size:.7rem;overflow-wrap:anywhere">{sign} {name}</figcaption>'
        f'<video tabindex="0" role="button" preload="none" playsinline onclick="{PLAY}" '
        f'src="{link(file, embedded=lab)}" poster="{poster}" aria-label="play {name}, {meaning}" '
        f'onkeydown="{KEYS}" style="{look}"></video>{below}</figure>'
    )


def in_a_row(players: Iterable[str]) -> str:
    """Players side by side, as many as fit."""
    style = "display:grid;grid:auto/repeat(auto-fit,minmax(6rem,1fr));gap:.3rem;align-items:end"
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
