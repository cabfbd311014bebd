"""The first 20 losses of each method, in a text file that later code is compared with.

Networks as small as these turn a difference of 1e-7 in a pixel or weight into one of several
percent within ten steps, and processors differ by as much when they draw normal numbers, resize
or take logarithms. To make the losses independent of the machine,

- the scenes are the smoke world's, but stored without loss, at the size of the networks' input;
- initial weights and banks are drawn by numpy, and frames and waveforms are used as they are;
- networks compute in double precision.

Everything else is the pipeline as it is: plan, clip times, decoding, encoders, heads, losses,
banks, negatives, Adam, the schedules of learning rate and q. What is left out (crops,
augmentation, spectrograms, random initial weights) has tests of its own.
"""

import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from avnb.config import Pretrain
from avnb.data.clips import Batch, VideoClips
from avnb.data.manifest import Manifest, Video
from avnb.data.synthetic import world
from avnb.data.synthetic.scenes import AUDIO_HZ, Scene, frames, move, soundtrack
from avnb.data.synthetic.world import World
from avnb.files import write_text
from avnb.models.methods import METHODS, Method, build_method
from avnb.profiles import PROFILES
from avnb.training.loop import fit
from avnb.training.runs import describe, training_sampling

FILE = Path(__file__).with_suffix(".txt")
HEAD = """\
# Loss of each method's first 20 steps; made anew by: python -m tests.golden.losses
# Only together with a change that is meant to change these numbers, and says so in its message.
"""
TRAINED = [name for name, method in METHODS.items() if method.is_trained]
VIDEOS = 16  # with 5 clips each and batches of 8: 10 steps per epoch
SECONDS, FPS, SIDE, MELS = 3, 10, 16, 16
VALUES = {
    **PROFILES["smoke"]["pretrain"], "frame_px": SIDE, "crop_area_min": 1.0,
    "crop_aspect_max": 1.0, "width": 4, "mels": MELS, "audio_hz": AUDIO_HZ,
    "audio_seconds": MELS * 32 / AUDIO_HZ, "batch": 8, "clips_per_video": 5, "epochs": 2,
    "lr": 5e-4, "lr_decay": 0.5, "lr_decay_every_epochs": 1,
    "positives": 3, "clusters": 4, "projector_batch_norm": False,
    "invariance_weight": 25.0, "covariance_weight": 1.0,
}  # fmt: skip


class PlainTransform(nn.Module):
    """Frames between -1/2 and 1/2, the waveform folded into rows; float64."""

    def forward(self, batch: Batch) -> Batch:
        """Frames [B, 3, T, S, S], audio [B, 1, MELS, t]."""
        second_view, audio = batch.second_view, batch.audio.double()
        audio = audio[:, : audio.shape[1] // MELS * MELS]
        return replace(
            batch, params=None, second_params=None, frames=batch.frames.double() / 255 - 0.5,
            second_view=None if second_view is None else second_view.double() / 255 - 0.5,
            audio=audio.unflatten(1, (1, MELS, -1)) if audio.shape[1] else audio,
        )  # fmt: skip


def reinitialised(method: Method) -> Method:
    """The method in double precision, its weights and banks drawn by numpy."""
    rng = np.random.default_rng(0)
    for name, x in method.double().state_dict().items():
        if x.ndim > 1:
            normal = torch.from_numpy(rng.normal(size=x.shape))
            bank = name.endswith("rows")
            x.copy_(F.normalize(normal) if bank else normal * (2 / x[0].numel()) ** 0.5)
    return method


def scenes() -> list[Scene]:
    """The first scenes of the smoke world that are not broken; some are silent or dubbed."""
    every, _ = world.vggsound(World.from_flat(**PROFILES["smoke"]["world"]))
    return [scene for scene in every if scene.flaw != "broken"][:VIDEOS]


def rendered(scene: Scene) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames [SIDE, SIDE, 3] uint8 and audio [samples] float32."""
    rng = np.random.default_rng([scene.seed, 0])
    path = move(scene.motion, np.arange(SECONDS * FPS) / FPS, rng)
    return list(frames(scene, [path], SIDE, SIDE)), soundtrack(scene, path, SECONDS)


def store(scene: Scene, path: Path) -> None:
    """Write the scene as FFV1 in RGB and floating-point audio, so that nothing is lost."""
    images, waveform = rendered(scene)
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=FPS)
        video.width, video.height, video.pix_fmt = SIDE, SIDE, "bgr0"
        if scene.flaw != "silent":
            audio = container.add_stream("pcm_f32le", rate=AUDIO_HZ, layout="mono")
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if scene.flaw != "silent":
            wave = av.AudioFrame.from_ndarray(waveform[None], format="flt", layout="mono")
            wave.sample_rate, wave.pts, wave.time_base = AUDIO_HZ, 0, Fraction(1, AUDIO_HZ)
            container.mux(audio.encode(wave))
            container.mux(audio.encode())


def stored_world(folder: Path) -> Manifest:
    """All scenes as files in `folder`."""
    label, videos = {v: k for k, v in world.VGGSOUND.items()}, []
    for i, scene in enumerate(scenes()):
        name, heard = f"{i}.mkv", scene.flaw != "silent"
        store(scene, folder / name)
        shown = {"frames": SECONDS * FPS, "fps": float(FPS), "width": SIDE, "height": SIDE}
        source = {"source_fps": FPS, "source_width": SIDE, "source_height": SIDE}
        videos.append(Video(
            id=str(i), path=name, label=label[scene.thing, scene.motion], split="train",
            **shown, **source, audio=heard, source_hz=heard * AUDIO_HZ,
            seconds=float(SECONDS), file=name, content=name,
        ))  # fmt: skip
    return Manifest(
        name="vggsound", folder=folder, where=folder, classes=tuple(sorted(world.VGGSOUND)),
        videos=tuple(videos), listed=len(videos), form="golden",
    )  # fmt: skip


def losses(manifest: Manifest, name: str, out: Path, **changes: float) -> list[float]:
    """Loss of each step of a whole run."""
    config = Pretrain.from_flat(**{**VALUES, "method": name, **changes})
    clips = VideoClips(manifest, training_sampling(config), seed=config.seed)
    statistics = ([-2.5] * config.spectrogram.mels, [1.0] * config.spectrogram.mels)
    model = reinitialised(build_method(config, len(manifest), len(manifest.classes)))
    found: list[float] = []
    model.register_forward_hook(lambda _, given, terms: found.append(terms["loss"].item()))
    metadata, device = describe(config, manifest, statistics), torch.device("cpu")
    validation = clips if model.validation_metrics else None
    fit(model, PlainTransform(), clips, metadata, out, device, validation=validation)
    return found


def written(found: dict[str, list[float]]) -> str:
    """A line per step, a column per method."""
    lines = ["step" + "".join(f"{name:>14}" for name in found)]
    for step, row in enumerate(zip(*found.values(), strict=True)):
        lines.append(f"{step:>4}" + "".join(f"{value:>14.8g}" for value in row))
    return HEAD + "\n".join(lines) + "\n"


def read() -> dict[str, list[float]]:
    """The losses in the file, by method."""
    table = pd.read_csv(FILE, sep=r"\s+", comment="#", index_col="step")
    return table.to_dict("list")


def main() -> None:
    """Write the file again."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        manifest = stored_world(Path(folder))
        found = {name: losses(manifest, name, Path(folder) / name) for name in TRAINED}
    write_text(FILE, written(found))


if __name__ == "__main__":
    main()
