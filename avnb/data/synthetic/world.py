"""A synthetic world: short videos in the folders and lists of three data sets, and a plain folder.

A class is a thing that moves in one way (`scenes`): `ball bouncing`. The files are real: H.264
with AAC in mp4 for VGGSound, MPEG-4 with MP3 in avi for UCF-101 and HMDB-51, as in the originals.
Length, resolution and frame rate vary; some videos are silent, dubbed or broken. `located` is the
plain folder: what is seen there is small, and a second object is silent.
"""

import json
import typing
import zlib
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from avnb.config import Config, within
from avnb.data.manifest import Manifest
from avnb.data.store import Codecs, write
from avnb.data.synthetic import scenes as looks
from avnb.data.synthetic.scenes import AUDIO_HZ, MOTIONS, THINGS, Flaw, Nuisances, Path2d, Scene
from avnb.files import in_parallel, locked, replacing, write_text

FORMAT = 5  # raised whenever the same World gives other videos
# No mb-tree, whose look-ahead races: the same bytes every time.
X264 = {"crf": "23", "preset": "veryfast", "g": "24", "x264-params": "mbtree=0"}
SOUND = {"bit_rate": 64_000}
CODECS = {
    "avi": Codecs("avi", "mpeg4", {"qscale": "3"}, "libmp3lame", "fltp", SOUND),
    "mp4": Codecs("mp4", "libx264", X264, "aac", "fltp", SOUND),
}


@dataclass(frozen=True, kw_only=True)
class World(Config):
    """The synthetic world: videos per class, and how noisy they are."""

    seed: int = 0
    vggsound_per_class: int = within(2, 10_000, 52)
    ucf101_train_per_class: int = within(2, 10_000, 16)
    ucf101_test_per_class: int = within(2, 10_000, 20)
    hmdb51_train_per_class: int = within(2, 10_000, 10)
    hmdb51_test_per_class: int = within(2, 10_000, 6)
    located_per_class: int = within(1, 10_000, 6)
    silent_fraction: float = within(0, 1, 0.04)  # of the VGGSound-like videos: no audio stream
    dubbed_fraction: float = within(0, 1, 0.1)  # audio of another object, or music
    off_screen_fraction: float = within(0, 1, 0.02)  # the object is heard and not seen
    broken_fraction: float = within(0, 1, 0.01)  # files that cannot be decoded
    nuisances: Nuisances = field(default_factory=Nuisances)


def meaning(name: str) -> tuple[str, str]:
    """The thing and the motion that a class's name tells."""
    thing = next(thing for thing in THINGS if thing in name.lower())
    return thing, next(motion for motion in MOTIONS if motion[:4] in name.lower())


# Half of the UCF- and HMDB-like classes are VGGSound-like ones as well; in the other half neither
# the thing nor the motion is. Each half is a grid, so that neither alone decides the class.
VGGSOUND, UCF101, HMDB51 = (
    {name: meaning(name) for name in names.split("; ")}
    for names in (
        "ball bouncing; ball rolling; ball spinning; bell bouncing; bell rolling; bell spinning; "
        "box falling, bouncing; box rolling; box spinning; wheel bouncing; wheel rolling; "
        "wheel spinning",
        "BallBouncing; BallRolling; BallSpinning; CrossPulsing; CrossShaking; CrossSwinging; "
        "StarPulsing; StarShaking; StarSwinging; WheelBouncing; WheelRolling; WheelSpinning",
        "bounce_bell; bounce_box; shake_cross; shake_star; spin_bell; spin_box; swing_cross; "
        "swing_star",
    )
)
UCF101_SILENT = ("BallSpinning", "CrossSwinging", "StarSwinging", "WheelSpinning")


def filmed(scene: Scene) -> tuple[list[Path2d], int, int, int, np.random.Generator]:
    """The objects' paths, frames a second, height, width, and the rest of the randomness."""
    rng = np.random.default_rng([scene.seed, 0])
    fps = int(rng.choice([15, 24, 25, 30]))
    if scene.path.endswith(".avi"):
        fps, (width, height) = (25, (80, 60)) if scene.path.startswith("ucf101") else (30, (84, 60))
        seconds = rng.uniform(1.2, 3.0)
    else:
        width, height = [(80, 60), (88, 56), (60, 80), (72, 72)][rng.integers(4)]
        seconds = rng.uniform(2.6, 4.0)
    paths = looks.paths(scene, np.arange(int(seconds * fps)) / fps, rng)
    return paths, fps, height, width, rng


def render(root: Path, scene: Scene) -> None:
    """Make one video file; the same bytes every time on one machine."""
    paths, fps, height, width, rng = filmed(scene)
    audio = np.zeros(0, np.float32)
    if scene.audio and scene.flaw != "silent":
        audio = looks.soundtrack(scene, paths[0], len(paths[0].x) / fps)
    with replacing(root / scene.path) as file:
        images = looks.frames(scene, paths, height, width)
        write(file, images, fps, audio, CODECS[scene.path[-3:]], AUDIO_HZ)
        if scene.flaw == "broken":  # empty, its first half, or a web page that says it is gone
            whole = file.read_bytes()
            page = b"<html><body>This video is no longer available.</body></html>\n"
            file.write_bytes([b"", whole[: len(whole) // 2], page][rng.integers(3)])


def object_boxes(scene: Scene, times: np.ndarray, *, silent: bool = False) -> np.ndarray:
    """Where the object is at times in seconds: [T, 4] left, top, right, bottom in [0, 1].

    A square around the object that is heard, or the `silent` one; cut off at the frame's borders.
    """
    paths, fps, height, width, _ = filmed(scene)
    rng = np.random.default_rng([scene.seed, 1])
    x, y, _, size, *_ = looks.place(scene, paths, height, width, rng)[0][silent]
    row = np.clip((times * fps).astype(int), 0, len(x) - 1)
    corners = np.stack([x - size, y - size, x + size, y + size], axis=1)[row]
    return np.clip(corners / [width, height, width, height], 0, 1)


def scenes_of(manifest: Manifest) -> dict[str, Scene]:
    """The scene of each video by the video's id; {} for real videos."""
    table = manifest.folder.parent / "scenes.json"
    rows = json.loads(table.read_text()) if table.exists() else []
    scenes = {r["path"]: Scene(**{**r, "nuisances": Nuisances(**r["nuisances"])}) for r in rows}
    paths = {video.id: f"{manifest.folder.name}/{video.path}" for video in manifest.videos}
    return {i: scenes[path] for i, path in paths.items() if path in scenes}


Contents = tuple[list[Scene], dict[str, str]]


def derive_seed(*parts: object) -> int:
    """A seed that depends on the words alone, the same in every process."""
    return zlib.crc32("/".join(map(str, parts)).encode())


def vggsound(world: World) -> Contents:
    """VGGSound's form: `vggsound.csv`, `train/`, `test/`; flaws in the training videos."""
    made = []
    for label, pair in VGGSOUND.items():
        for i in range(world.vggsound_per_class):
            seed = derive_seed(world.seed, "vggsound", label, i)
            name, start = f"{'-_'[seed % 2]}{seed:08x}{i % 100:02d}", seed % 300
            split = "test" if i % 13 == 12 else "train"
            file = f"vggsound/{split}/{name}_{start:06d}.mp4"
            scene = Scene(file, *pair, seed, nuisances=world.nuisances)
            made.append((scene, [name, start, label, split]))
    order = np.random.default_rng(world.seed).permutation(len(made))
    scenes, rows = map(list, zip(*(made[i] for i in order), strict=True))
    training = [i for i, row in enumerate(rows) if row[3] == "train"]
    flaws = list[Flaw]()
    for flaw in typing.get_args(Flaw)[1:]:
        flaws += [flaw] * round(getattr(world, f"{flaw}_fraction") * len(training))
    for i, flaw in zip(training, flaws, strict=False):
        scenes[i] = replace(scenes[i], flaw=flaw)
    return scenes, {"vggsound/vggsound.csv": pd.DataFrame(rows).to_csv(header=False, index=False)}


def ucf101(world: World) -> Contents:
    """UCF-101's form: three folds; every group has one video, so that none resembles another."""
    scenes, lists = [], {"classInd": [f"{i} {name}" for i, name in enumerate(UCF101, 1)]}
    tested, n = world.ucf101_test_per_class, world.nuisances
    total = world.ucf101_train_per_class + tested
    for number, (name, pair) in enumerate(UCF101.items(), 1):
        for i in range(total):
            file = f"{name}/v_{name}_g{i + 1:02d}_c01.avi"
            seed, audio = derive_seed(world.seed, "ucf101", file), name not in UCF101_SILENT
            scenes.append(Scene(f"ucf101/UCF-101/{file}", *pair, seed, audio, nuisances=n))
            for fold in (1, 2, 3):
                test = (i + (fold - 1) * tested) % total < tested
                line = file if test else f"{file} {number}"
                lists.setdefault(f"{'test' if test else 'train'}list0{fold}", []).append(line)
    base = "ucf101/ucfTrainTestlist"
    return scenes, {f"{base}/{name}.txt": "\n".join([*v, ""]) for name, v in lists.items()}


def hmdb51(world: World) -> Contents:
    """HMDB-51's form: three split files a class, odd file names; the noisier set."""
    scenes, texts, n = [], {}, world.nuisances
    shifted = {"noise_db_min": n.shifted_noise_db_min, "noise_db_max": n.shifted_noise_db_max}
    train, test = world.hmdb51_train_per_class, world.hmdb51_test_per_class
    for name, pair in HMDB51.items():
        files = [f"#{i}_({name})[x]&;+@!_{i % 4}.avi" for i in range(train + test + 1)]
        for fold in (1, 2, 3):
            roles = np.roll([0] + [2] * test + [1] * train, (fold - 1) * (test + 1))
            lines = [f"{file} {role} \n" for file, role in zip(files, roles, strict=True)]
            table = f"hmdb51/testTrainMulti_7030_splits/{name}_test_split{fold}.txt"
            texts[table] = "".join(lines)
        for file in files:
            seed = derive_seed(world.seed, "hmdb51", file)
            options: Any = {"audio": seed % 2 == 0, "nuisances": replace(n, **shifted)}
            scenes.append(Scene(f"hmdb51/{name}/{file}", *pair, seed, **options))
    return scenes, texts


def located(world: World) -> Contents:
    """A folder a thing, `<thing>/<n>.mp4`, with clean sound; the silent thing is two classes on."""
    n, scenes = world.nuisances, []
    clean = replace(n, room=0.0, other_sounds=0.0, noise_db_max=n.noise_db_min)
    things, motions = looks.SHOWN_THINGS, looks.SHOWN_MOTIONS
    for thing, silent in zip(things, things[2:] + things[:2], strict=True):
        for i in range(world.located_per_class):
            path = f"located/{thing}/{i:02d}.mp4"
            seed = derive_seed(world.seed, path)
            second: Any = {"silent_thing": silent, "silent_motion": motions[seed // 3 % 3]}
            scenes.append(Scene(path, thing, motions[seed % 3], seed, **second, nuisances=clean))
    return scenes, {}


def make(world: World, root: Path, *, workers: int = 2) -> Path:
    """Write the four data sets below `root`; what exists is kept, so an interruption resumes.

    Deterministic by `world.seed` on one machine. `root/scenes.json`, which is written last,
    describes each video: its things, motions, seed and flaw.
    """
    with locked(root):
        if (root / "scenes.json").exists():
            return root
        scenes = list[Scene]()
        for contents in (vggsound, ucf101, hmdb51, located):
            made, lists = contents(world)
            scenes += made
            for name, text in lists.items():
                write_text(root / name, text)
        todo = [s for s in scenes if not (root / s.path).exists()]
        work, done = partial(render, root), len(scenes) - len(todo)
        list(in_parallel(work, todo, workers=workers, title="synthetic videos", done=done))
        write_text(root / "scenes.json", json.dumps([asdict(s) for s in scenes], indent=0))
    return root
