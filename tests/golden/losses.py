"""The first 20 losses of each method, as a text file to hold later code against.

The videos are scenes of the smoke world, but stored without loss: the numbers then do not hang
on how some build of x264 or of the AAC encoder rounds. All else is the pipeline as it is: files
are decoded, cut, cropped, augmented and embedded, and weights, banks, rate and q move on.
"""

import tempfile
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from avnb import decode, synth
from avnb.batches import VideoClips, training_epochs
from avnb.config import PROFILES, Pretrain, World
from avnb.files import write_aside
from avnb.methods import METHODS, build
from avnb.pretrain import describe
from avnb.scenes import SOUND_HZ, Scene, frames, move, soundtrack
from avnb.train import fit, sampling_of
from avnb.videos import Manifest, Video
from tests.job_gradient import Doubled

FILE = Path(__file__).with_suffix(".txt")
HEAD = """\
# Loss of each method's first 20 steps; made anew by: python -m tests.golden.losses
# Only together with a change that is meant to change these numbers, and says so in its message.
"""
TRAINED = [name for name in METHODS if name != "random"]
VIDEOS, SECONDS, FPS = 16, 3, 10  # with 5 clips each and batches of 8: 10 steps an epoch
RUN = {
    **PROFILES["smoke"]["pretrain"], "frame_px": 16, "width": 4, "mels": 16, "sound_seconds": 0.5,
    "sound_hz": SOUND_HZ, "batch": 8, "clips_per_video": 5, "epochs": 2, "lr": 5e-4,
    "lr_decay": 0.5, "lr_decay_every_epochs": 1,
}  # fmt: skip


def store(scene: Scene, path: Path) -> None:
    """Write the scene as FFV1 in RGB and floating-point sound; what is read is what was drawn."""
    rng = np.random.default_rng([scene.seed, 0])
    way = move(scene.motion, np.arange(SECONDS * FPS) / FPS, rng)
    width, height = [(40, 30), (30, 40), (36, 36)][rng.integers(3)]
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=FPS)
        video.width, video.height, video.pix_fmt = width, height, "bgr0"
        sound = None
        if scene.flaw != "silent":
            sound = container.add_stream("pcm_f32le", rate=SOUND_HZ, layout="mono")
        for i, picture in enumerate(frames(scene, way, height, width)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if sound is not None:
            heard = soundtrack(scene, way, SECONDS)[None]
            wave = av.AudioFrame.from_ndarray(heard, format="flt", layout="mono")
            wave.sample_rate, wave.pts, wave.time_base = SOUND_HZ, 0, Fraction(1, SOUND_HZ)
            container.mux(sound.encode(wave))
            container.mux(sound.encode())


def stored_world(folder: Path) -> Manifest:
    """The smoke world's first videos that are not broken, silent and dubbed ones among them."""
    scenes, _ = synth.vggsound(World.from_flat(**PROFILES["smoke"]["world"]))
    classes = tuple(sorted(synth.VGGSOUND))
    videos = []
    for i, scene in enumerate([s for s in scenes if s.flaw != "broken"][:VIDEOS]):
        path = folder / f"{i}.mkv"
        store(scene, path)
        label = next(k for k, v in synth.VGGSOUND.items() if v == (scene.thing, scene.motion))
        videos.append(Video(
            id=str(i), path=path.name, label=label, split="train", **asdict(decode.inspect(path))
        ))  # fmt: skip
    return Manifest(
        name="vggsound", folder=folder, where=folder, classes=classes, videos=tuple(videos),
        listed=len(videos),
    )  # fmt: skip


def losses(manifest: Manifest, name: str, out: Path, **changes: float) -> list[float]:
    """Loss of each step of a run from its beginning to its end."""
    run = Pretrain.from_flat(**{**RUN, "method": name, **changes})
    clips = VideoClips(manifest, sampling_of(run), seed=run.seed)
    bands = ([-2.5] * run.spectrogram.mels, [1.0] * run.spectrogram.mels)
    method, found = build(run, len(manifest), len(manifest.classes)).double(), []
    method.register_forward_hook(lambda _, given, terms: found.append(terms["loss"].item()))
    fit(
        method, Doubled(run, bands),
        lambda done: training_epochs(clips, run, done, rank=0, processes=1, workers=0),
        run.optim, run.compute, out, describe(run, manifest, bands), torch.device("cpu"),
        lambda done, note: None,
    )  # fmt: skip
    return found


def written(found: dict[str, list[float]]) -> str:
    """One line a step, one column a method."""
    lines = ["step" + "".join(f"{name:>14}" for name in found)]
    for step, row in enumerate(zip(*found.values(), strict=True)):
        lines.append(f"{step:>4}" + "".join(f"{value:>14.8g}" for value in row))
    return HEAD + "\n".join(lines) + "\n"


def read() -> dict[str, list[float]]:
    """What is written, by method."""
    head, *rows = [line.split() for line in FILE.read_text().splitlines() if line[0] != "#"]
    columns = list(zip(*rows, strict=True))[1:]
    return {name: list(map(float, c)) for name, c in zip(head[1:], columns, strict=True)}


def main() -> None:
    """Write the file anew."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        manifest = stored_world(Path(folder))
        found = {name: losses(manifest, name, Path(folder) / name) for name in TRAINED}
    write_aside(FILE, written(found))


if __name__ == "__main__":
    main()
