"""The nuisances of the synthetic world, to look at and to listen to, one at a time."""

import wave
from dataclasses import fields, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from avnb.book.style import set_style
from avnb.data.synthetic.scenes import AUDIO_HZ, Nuisances, Scene, frames, move, soundtrack

# Those of a video without any; the noise is 40 dB below the sound.
ABSENT = Nuisances(**{f.name: -40.0 if "noise_db" in f.name else 0.0 for f in fields(Nuisances)})
SEEN = {
    "colour_drift": ("All colours turn into others within a video.", {"colour_drift": 1.0}),
    "light_drift": ("The light grows and fades.", {"light_drift": 0.5}),
    "texture": ("The background is rough.", {"texture": 60.0}),
    "camera_shake": ("The camera wanders; the texture makes it visible.",
                     {"camera_shake": 2.0, "texture": 60.0}),
}  # fmt: skip
HEARD = {
    "": ("None of the nuisances: a bell that swings.", {}),
    "pitch_octaves": ("The object sounds lower or higher.", {"pitch_octaves": 1.0}),
    "room": ("A room sends the sound back.", {"room": 2.0}),
    "other_sounds": ("Something else sounds at other times.", {"other_sounds": 1.0}),
    "noise_db_max": ("Steady noise with a spectrum of its own, here as loud as the sound.",
                     {"noise_db_min": 0.0, "noise_db_max": 0.0}),
    "loudness_db": ("The recording is softer or louder.", {"loudness_db": 30.0}),
}  # fmt: skip
SECONDS, FPS = 2.5, 8


def drawn(**strengths: float) -> tuple[np.ndarray, np.ndarray]:
    """Frames [T, 60, 80, 3] and audio [samples] of the same bell under these nuisances."""
    scene = Scene("", "bell", "swinging", 8, 8, nuisances=replace(ABSENT, **strengths))
    path = move("swinging", np.arange(int(SECONDS * FPS)) / FPS, np.random.default_rng(5))
    return np.stack(list(frames(scene, path, 60, 80))), soundtrack(scene, path, SECONDS)


def plot_frames(**strengths: float) -> Figure:
    """Six moments of a video without the nuisance, above the same ones with it."""
    moments = np.linspace(0, int(SECONDS * FPS) - 1, 6).astype(int)
    fig, axes = plt.subplots(2, 6, figsize=(8, 2.3))
    for line, pictures in zip(axes, (drawn()[0], drawn(**strengths)[0]), strict=True):
        for ax, picture in zip(line, pictures[moments], strict=True):
            ax.imshow(picture)
            ax.axis("off")
    return fig


def plot_audio(**strengths: float) -> Figure:
    """The spectrogram of the sound, from silence (white) to loud."""
    audio = drawn(**strengths)[1] + 1e-6 * np.random.default_rng(0).normal(
        size=int(SECONDS * AUDIO_HZ)
    )
    fig, ax = plt.subplots(figsize=(4.2, 1.5))
    ax.specgram(audio, NFFT=512, Fs=AUDIO_HZ, noverlap=256, cmap="Blues", vmin=-120, vmax=-40)
    ax.set(xlabel="seconds", ylabel="Hz")
    ax.grid(False)
    return fig


def write_audio(path: Path, audio: np.ndarray) -> None:
    """The audio as a WAV file of 16 bits, as loud as it goes."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(AUDIO_HZ)
        file.writeframes((audio * 32_767).astype("<i2").tobytes())


def named(name: str) -> str:
    """A nuisance with its strength in the world of this book."""
    return f"**`{name}` = {getattr(Nuisances(), name):g}.** " if name else ""


def draw(folder: Path) -> str:
    """Write pictures and sounds to `folder` in the book's assets; returns what shows them."""
    folder.mkdir(parents=True, exist_ok=True)
    said = []
    with plt.rc_context():
        set_style("book")
        for name, (text, strengths) in SEEN.items():
            save(plot_frames(**strengths), folder / f"{name}.png")
            said.append(
                f"{named(name)}{text} Above without, below strong.\n\n"
                + image(name, text, "pictures")
            )
        for name, (text, strengths) in HEARD.items():
            file = name or "none"
            save(plot_audio(**strengths), folder / f"{file}.png")
            write_audio(folder / f"{file}.wav", drawn(**strengths)[1])
            player = (
                f'<audio controls src="_static/nuisances/{file}.wav" aria-label="{text}"></audio>'
            )
            said.append(f"{named(name)}{text}\n\n{image(file, text, 'plot')}\n\n{player}")
    return "\n\n".join(said)


def save(fig: Figure, path: Path) -> None:
    """Write a figure and close it."""
    fig.savefig(path, dpi=110)
    plt.close(fig)


def image(name: str, text: str, kind: str) -> str:
    """The picture of a nuisance as a block of a page; `kind` says how it looks in the dark."""
    return f"```{{image}} assets/nuisances/{name}.png\n:class: {kind}\n:alt: {text}\n```"
