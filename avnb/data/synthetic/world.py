"""A synthetic world: three data sets of short videos, in the official folders and lists.

A class is a thing that moves in one way (`scenes`): `ball bouncing`. The files are real: H.264
with AAC in mp4 for VGGSound, MPEG-4 with MP3 in avi for UCF-101 and HMDB-51, as in the originals.
Length, resolution and frame rate vary; some videos are silent, dubbed or broken.
"""

import csv
import io
import json
import re
import typing
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from avnb.config import Config, digest, within
from avnb.data.manifest import Manifest
from avnb.data.synthetic import scenes as looks
from avnb.data.synthetic.scenes import AUDIO_HZ, Flaw, Nuisances, Path2d, Scene
from avnb.files import in_parallel, locked, read_json, write_text

FORMAT = 3  # raised whenever the same World gives other videos


@dataclass(frozen=True, kw_only=True)
class World(Config):
    """The synthetic world: videos per class, and how noisy they are."""

    seed: int = 0
    vggsound_per_class: int = within(2, 10_000, 52)
    ucf101_train_per_class: int = within(2, 10_000, 16)
    ucf101_test_per_class: int = within(2, 10_000, 20)
    hmdb51_train_per_class: int = within(2, 10_000, 10)
    hmdb51_test_per_class: int = within(2, 10_000, 6)
    silent_fraction: float = within(0, 1, 0.04)  # of the VGGSound-like videos: no audio stream
    dubbed_fraction: float = within(0, 1, 0.08)  # audio of another object, or music
    off_screen_fraction: float = within(0, 1, 0.02)  # the object is heard and not seen
    broken_fraction: float = within(0, 1, 0.01)  # files that cannot be decoded
    nuisances: Nuisances = field(default_factory=Nuisances)

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [f"{flaw}_fraction" for flaw in typing.get_args(Flaw) if flaw]
        if (total := sum(getattr(self, name) for name in names)) > 1:
            raise ValueError(f"{', '.join(names)} sum up to {total:.3g}; at most 1")


def classes(text: str) -> dict[str, tuple[str, str]]:
    """Each class's thing and motion, from `<class>: <thing> <motion>; ...`."""
    rows = (re.fullmatch(r"(.+): (\w+) (\w+)", row) for row in text.split("; "))
    return {row[1]: (row[2], row[3]) for row in rows if row}


# Half of the UCF- and HMDB-like classes are VGGSound-like classes as well.
VGGSOUND = classes(
    "ball bouncing: ball bouncing; ball rolling: ball rolling; "
    "bell swinging, ringing: bell swinging; bell shaking: bell shaking; "
    "box falling, bouncing: box bouncing; box spinning: box spinning; "
    "star spinning: star spinning; star pulsing: star pulsing; wheel rolling: wheel rolling; "
    "wheel swinging: wheel swinging; cross shaking: cross shaking; cross pulsing: cross pulsing"
)
UCF101 = classes(
    "BallBouncing: ball bouncing; BallShaking: ball shaking; BellRinging: bell swinging; "
    "BellPulsing: bell pulsing; BoxSpinning: box spinning; BoxSwinging: box swinging; "
    "CrossBouncing: cross bouncing; CrossShaking: cross shaking; StarPulsing: star pulsing; "
    "StarRolling: star rolling; WheelRolling: wheel rolling; WheelSpinning: wheel spinning"
)
UCF101_SILENT = ("BoxSwinging", "CrossBouncing", "StarRolling", "WheelSpinning")
HMDB51 = classes(
    "bounce_box: box bouncing; pulse_ball: ball pulsing; roll_ball: ball rolling; "
    "roll_bell: bell rolling; shake_cross: cross shaking; shake_wheel: wheel shaking; "
    "spin_star: star spinning; swing_star: star swinging"
)


# ---- files ------------------------------------------------------------------------------------


class Form(NamedTuple):
    """How a file is encoded: container and codecs by FFmpeg's names."""

    container: str
    video: str
    options: Mapping[str, str]  # of the video codec
    audio: str


AVI = Form("avi", "mpeg4", {"qscale": "3"}, "libmp3lame")
# No mb-tree, whose look-ahead races: the same bytes every time.
X264 = {"crf": "23", "preset": "veryfast", "g": "24", "x264-params": "mbtree=0"}
MP4 = Form("mp4", "libx264", X264, "aac")


def encode(
    path: Path,
    images: Iterable[np.ndarray],
    fps: int,
    audio: np.ndarray | None,
    hz: int,
    form: Form,
) -> None:
    """Write frames [H, W, 3] uint8 of even size, and mono audio [samples] in [-1, 1], if any.

    The same bytes every time on one machine.
    """
    images = list(images)
    with av.open(str(path), "w", form.container) as container:
        video: Any = container.add_stream(form.video, rate=fps, options=dict(form.options))
        video.height, video.width, _ = images[0].shape
        video.pix_fmt, video.time_base = "yuv420p", Fraction(1, fps)
        video.codec_context.thread_count = 1
        sound: Any = None
        if audio is not None:
            sound = container.add_stream(form.audio, rate=hz, layout="mono", bit_rate=64_000)
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None:
            wave = av.AudioFrame.from_ndarray(audio[None], format="fltp", layout="mono")
            wave.sample_rate, wave.pts, wave.time_base = hz, 0, Fraction(1, hz)
            container.mux([*sound.encode(wave), *sound.encode()])


def filmed(scene: Scene) -> tuple[Path2d, int, int, int, np.random.Generator]:
    """The object's path, frames a second, height, width, and the rest of the randomness."""
    rng = np.random.default_rng([scene.seed, 0])
    fps = int(rng.choice([15, 24, 25, 30]))
    if scene.path.endswith(".avi"):
        fps, (width, height) = (25, (80, 60)) if scene.path.startswith("ucf101") else (30, (84, 60))
        seconds = rng.uniform(1.2, 3.0)
    else:
        width, height = [(80, 60), (88, 56), (60, 80), (72, 72)][rng.integers(4)]
        seconds = rng.uniform(2.6, 4.0)
    path = looks.move(scene.motion, np.arange(int(seconds * fps)) / fps, rng)
    return path, fps, height, width, rng


def object_boxes(scene: Scene, times: np.ndarray) -> np.ndarray:
    """Where the object is at times in seconds: [T, 4] left, top, right, bottom in [0, 1].

    A square around the object, cut off at the borders of the frame.
    """
    path, fps, height, width, _ = filmed(scene)
    rng = np.random.default_rng([scene.seed, 1])
    at = looks.place(path, height, width, rng, scene.nuisances.camera_shake)
    row = np.clip((times * fps).astype(int), 0, len(path.x) - 1)
    x, y, size = at.x[row], at.y[row], at.size[row]
    corners = np.stack([x - size, y - size, x + size, y + size], axis=1)
    return np.clip(corners / [width, height, width, height], 0, 1)


def causes(scene: Scene) -> dict[str, Any]:
    """What made the video: names of the class's causes, numbers of the others."""
    box = object_boxes(scene, np.arange(0, 1, 0.1)).mean(axis=0)
    rng = np.random.default_rng(scene.look_seed)
    backgrounds = [looks.draw_look(8, 8, rng)[0].mean(axis=(0, 1)) for _ in range(2)]
    return {
        "shape": scene.thing,
        "motion": scene.motion,
        "size": box[2] - box[0],
        "place": (box[0] + box[2]) / 2,
        "colour": np.mean([red - blue for red, _, blue in backgrounds]),
        "pitch": looks.pitch_octaves(scene),
        "noise": looks.noise_db(scene),
    }


def scenes_of(manifest: Manifest) -> dict[str, Scene]:
    """The scene of each video by the video's id; {} for real videos."""
    scenes = {path.resolve(): scene for path, scene in read_scenes(manifest.folder).items()}
    files = {video.id: manifest.original(video).resolve() for video in manifest.videos}
    return {name: scenes[path] for name, path in files.items() if path in scenes}


def read_scenes(folder: Path) -> dict[Path, Scene]:
    """The scenes of the world that a data set's folder is in, by file; {} for real videos."""
    table = folder.parent / "scenes.json"
    if not table.exists():
        return {}
    rows = read_json(table, "the scenes of a synthetic world")
    for row in rows:
        row["nuisances"] = Nuisances(**row["nuisances"])
    return {folder.parent / row["path"]: Scene(**row) for row in rows}


def render(root: Path, scene: Scene) -> None:
    """Make one video file; written aside and renamed, so that what exists is whole."""
    out = root / scene.path
    out.parent.mkdir(parents=True, exist_ok=True)
    path, fps, height, width, rng = filmed(scene)
    audio = None
    if scene.audio and scene.flaw != "silent":
        audio = looks.soundtrack(scene, path, len(path.x) / fps)
    aside = out.with_name(f".{out.stem}.partial{out.suffix}")
    form = AVI if out.suffix == ".avi" else MP4
    encode(aside, looks.frames(scene, path, height, width), fps, audio, AUDIO_HZ, form)
    if scene.flaw == "broken":
        damage(aside, rng)
    aside.replace(out)


def damage(path: Path, rng: np.random.Generator) -> None:
    """Replace a file by an empty one, by its first half, or by a web page that says it is gone."""
    whole = path.read_bytes()
    page = b"<html><body>This video is no longer available.</body></html>\n"
    path.write_bytes([b"", whole[: len(whole) // 2], page][rng.integers(3)])


def derive_seed(*parts: object) -> int:
    """A seed that depends on the words alone, the same in every process."""
    return zlib.crc32("/".join(map(str, parts)).encode())


# ---- data sets: scenes, and the lists by their paths -------------------------------------------

Contents = tuple[list[Scene], dict[str, str]]


def vggsound(world: World) -> Contents:
    """VGGSound's form: `vggsound.csv`, `train/`, `test/`; flaws in the training videos."""
    scenes, rows = [], []
    for label, pair in VGGSOUND.items():
        for i in range(world.vggsound_per_class):
            seed = derive_seed(world.seed, "vggsound", label, i)
            name, start = f"{'-_'[seed % 2]}{seed:08x}{i % 100:02d}", seed % 300
            split = "test" if i % 13 == 12 else "train"
            rows.append([name, start, label, split])
            file = f"vggsound/{split}/{name}_{start:06d}.mp4"
            scenes.append(Scene(file, *pair, seed, seed, nuisances=world.nuisances))
    order = np.random.default_rng(world.seed).permutation(len(scenes))
    scenes, rows = [scenes[i] for i in order], [rows[i] for i in order]
    training = [i for i, row in enumerate(rows) if row[3] == "train"]
    flaws = list[Flaw]()
    for flaw in typing.get_args(Flaw)[1:]:
        flaws += [flaw] * round(getattr(world, f"{flaw}_fraction") * len(training))
    for i, flaw in zip(training, flaws, strict=False):
        scenes[i] = replace(scenes[i], flaw=flaw)
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(rows)
    return scenes, {"vggsound/vggsound.csv": table.getvalue()}


def ucf101(world: World) -> Contents:
    """UCF-101's form: three folds, groups of four, CRLF in one list."""
    scenes, base = [], "ucf101/ucfTrainTestlist"
    total = world.ucf101_train_per_class + world.ucf101_test_per_class
    size = 4 if total >= 16 else 1  # videos a group
    groups, test_groups = -(-total // size), -(-world.ucf101_test_per_class // size)
    lists = {"classInd.txt": [f"{i} {name}" for i, name in enumerate(UCF101, 1)]}
    for number, (name, pair) in enumerate(UCF101.items(), 1):
        for i in range(total):
            group, clip = i // size + 1, i % size + 1
            file = f"{name}/v_{name}_g{group:02d}_c{clip:02d}.avi"
            seeds = derive_seed(world.seed, "ucf101", file), derive_seed(world.seed, name, group)
            path, audio = f"ucf101/UCF-101/{file}", name not in UCF101_SILENT
            nuisances = world.nuisances.of_test_videos
            scenes.append(Scene(path, *pair, *seeds, audio=audio, nuisances=nuisances))
            for fold in (1, 2, 3):
                test = (group - 1 + (fold - 1) * test_groups) % groups < test_groups
                line = file if test else f"{file} {number}"
                lists.setdefault(f"{'test' if test else 'train'}list0{fold}.txt", []).append(line)
    ends = {"trainlist01.txt": "\r\n"}
    texts = {f"{base}/{k}": ends.get(k, "\n").join([*v, ""]) for k, v in lists.items()}
    return scenes, texts


def hmdb51(world: World) -> Contents:
    """HMDB-51's form: three split files a class, odd file names."""
    scenes, texts = [], {}
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
            path, audio = f"hmdb51/{name}/{file}", seed % 2 == 0
            nuisances = world.nuisances.of_test_videos
            scenes.append(Scene(path, *pair, seed, seed, audio=audio, nuisances=nuisances))
    return scenes, texts


def make(world: World, root: str | Path, *, workers: int = 2) -> Path:
    """Write the three data sets below `root`; what exists is kept, so an interruption resumes.

    Deterministic by `world.seed` on one machine. `root/scenes.json` describes each video (its
    thing, motion, seeds and flaw) and `root/world.json` is written last.

    Raises:
        ValueError: when `root` holds a world made from other values.
    """
    root = Path(root)
    values, stamp = {"format": FORMAT, **world.flat()}, root / "world.json"
    with locked(root):
        if stamp.exists():
            stored = read_json(stamp, "the mark of a synthetic world")
            if stored != values:
                raise ValueError(f"{root} holds a world made from other values: {stored}")
            return root
        scenes, texts = list[Scene](), dict[str, str]()
        for contents in (vggsound, ucf101, hmdb51):
            more, lists = contents(world)
            scenes, texts = scenes + more, texts | lists
        for name, text in texts.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(text.encode())
        write_text(root / "scenes.json", json.dumps([asdict(s) for s in scenes], indent=0))
        todo, title = [s for s in scenes if not (root / s.path).exists()], "synthetic videos"
        done = len(scenes) - len(todo)
        for _ in in_parallel(partial(render, root), todo, workers=workers, title=title, done=done):
            pass
        write_text(stamp, json.dumps(values, indent=1))
    return root


def world_id(world: World) -> str:
    """Name of a folder for this world: it changes with any of the world's values."""
    return digest({"format": FORMAT, **world.flat()})
