"""The frames and the audio of a synthetic video: an object that moves in one way.

The object decides shape, pattern and timbre, the motion decides path and rhythm, and every event
of the motion (an impact, a turning point) is audible when it is visible. All else varies freely:
size, place and tempo, and what `Nuisances` gives the strength of.

Arrays: a frame is [H, W, 3] uint8; audio is [samples] float32 at `AUDIO_HZ`, mono.
"""

import colorsys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from avnb.config import Group, within

AUDIO_HZ = 22_050  # unlike the 16 kHz of the models, so that resampling is always exercised
Rng = np.random.Generator
MARGIN = 6  # pixels that the camera shakes at most
# In the order in which they are dealt: another share of one leaves those before it as they are.
Flaw = Literal["", "silent", "off_screen", "broken", "dubbed"]
MOTIONS = ("bouncing", "pulsing", "rolling", "shaking", "spinning", "swinging")


@dataclass(frozen=True, kw_only=True)
class Nuisances(Group):
    """What varies in a synthetic video without saying anything of its class, each by its strength.

    Levels are relative to the object's own sound, and drawn for every video between the two that
    are given; those of `shifted` are for the test set that is noisier than pre-training.
    """

    colour_drift: float = within(0, 1, 1.0)  # how far all colours turn into others in a video
    light_drift: float = within(0, 0.9, 0.25)  # how much brighter and darker a video gets
    texture: float = within(0, 100, 0.0)  # of the background, at most, in grey levels
    camera_shake: float = within(0, 5, 0.5)  # pixels a frame
    pitch_octaves: float = within(0, 3, 0.4)  # up or down
    room: float = within(0, 2, 0.3)  # level of the reverberation, at most
    other_sounds: float = within(0, 1, 0.15)  # probability of another object's sounds
    noise_db_min: float = within(-100, 60, -20.0)
    noise_db_max: float = within(-100, 60, 8.0)
    shifted_noise_db_min: float = within(-100, 60, -2.0)
    shifted_noise_db_max: float = within(-100, 60, 12.0)
    loudness_db: float = within(0, 60, 16.0)  # between the softest and the loudest video


@dataclass(frozen=True)
class Scene:
    """One video to be made; `path` is relative to the world's folder."""

    path: str
    thing: str
    motion: str
    seed: int
    audio: bool = True
    flaw: Flaw = ""
    silent_thing: str = ""  # moves in the other half of the frame and is not heard; both are small
    silent_motion: str = ""
    nuisances: Nuisances = field(default_factory=Nuisances)


Field = Callable[[np.ndarray, np.ndarray], np.ndarray]  # x, y in the object's own frame, y down

# Distance-like, negative inside.
SHAPES: dict[str, Field] = {
    "ball": lambda x, y: np.hypot(x, y) - 0.95,
    "bell": lambda x, y: np.maximum(abs(x) - 0.7 - 0.42 * y, abs(y) - 0.95),
    "box": lambda x, y: np.maximum(abs(x), abs(y)) - 0.85,
    "cross": lambda x, y: np.minimum(bar(x, y), bar(y, x)) - 1.0,
    "star": lambda x, y: np.hypot(x, y) - 0.85 - 0.35 * np.cos(5 * np.arctan2(y, x) + np.pi / 2),
    "wheel": lambda x, y: np.minimum(abs(np.hypot(x, y) - 0.85) - 0.2, spokes(x, y)),
}
THINGS = tuple(SHAPES)
# Those of pre-training; all others are neither seen nor heard in it.
SHOWN_THINGS = ("ball", "bell", "box", "wheel")
SHOWN_MOTIONS = ("bouncing", "rolling", "spinning")

# Where a thing has its second colour, bool.
PATTERNS: dict[str, Field] = {
    "ball": lambda x, y: np.hypot(x - 0.4, y) % 0.5 < 0.25,  # rings, off centre: turns are seen
    "bell": lambda x, y: np.sin(9 * y) > 0,  # bands
    "box": lambda x, y: np.sin(6 * x) * np.sin(6 * y) > 0,  # a chessboard
    "cross": lambda x, y: np.hypot(x, y) < 0.35,  # a knob
    "star": lambda x, y: np.cos(5 * np.arctan2(y, x) + np.pi / 2) > 0.3,  # rays
    "wheel": lambda x, y: np.hypot(x, y) > 0.8,  # a tyre
}


def bar(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """One bar of the cross."""
    return np.maximum(abs(x) / 0.36, abs(y))


def spokes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Four spokes of the wheel."""
    return np.maximum(np.minimum(abs(x), abs(y)) - 0.13, np.hypot(x, y) - 0.9)


class Path2d(NamedTuple):
    """A motion, frame by frame: place in [-1, 1], rotation in radians, relative size."""

    x: np.ndarray
    y: np.ndarray
    turn: np.ndarray
    size: np.ndarray
    t: np.ndarray  # seconds of the frames
    events: np.ndarray  # seconds of the audible events
    force: np.ndarray  # of each event, in (0, 1]


def move(motion: str, t: np.ndarray, rng: Rng) -> Path2d:
    """The path of a motion over the times `t` [frames] in seconds; tempo, reach, start vary.

    Each motion has a rhythm of its own.
    """
    still = np.zeros_like(t)
    x, y = still + rng.uniform(-0.35, 0.35), still + rng.uniform(-0.2, 0.2)
    turn, size = still + rng.uniform(-0.25, 0.25), still + 1.0
    period, start, end = rng.uniform(0.5, 0.9), rng.uniform(-0.5, 0.0), t[-1] + 0.5
    if motion == "bouncing":
        y, events, force = bounce(t, rng)
        return Path2d(x, y, turn, size, t, events, force)
    beats = start + period * np.arange(int((end - start) / period) + 2)
    phase = (t - start) / period  # whole at every beat
    reach, within_beat, loudness = rng.uniform(0.45, 0.65), [0.0], np.ones(len(beats))
    if motion == "rolling":  # side to side, audible at both ends
        place = np.abs((phase % 2) - 1) * 2 - 1
        x, turn = reach * place, turn + 2.5 * place
    elif motion == "swinging":  # from a pivot above, audible at both ends, louder at the farther
        angle = rng.uniform(0.6, 0.9) * np.cos(np.pi * phase) + 0.2
        x, y, turn = x + reach * np.sin(angle), y - 0.4 + reach * np.cos(angle), turn - angle
        loudness[1::2] = 0.4
    elif motion == "spinning":  # on the spot, audible six times a turn
        turn, within_beat = turn + np.pi * phase * rng.choice([-1, 1]), [0, 1 / 3, 2 / 3]
    elif motion == "pulsing":  # grows twice, like a heart, then rests; audible when largest
        within_beat = [0.0, 0.3]
        gone = [np.abs((phase - at + 0.5) % 1 - 0.5) for at in within_beat]
        size = 0.75 + 0.65 * np.exp(-((np.minimum(*gone) / 0.1) ** 2))
    else:  # shaking: bursts of quick jerks, each audible
        within_beat = [k / 6 for k in range(4)]
        jerk = ((phase % 1) < 4 / 6) * np.cos(6 * np.pi * phase)
        x, turn = x + 0.16 * jerk, turn + 0.35 * jerk
    events = (beats[:, None] + period * np.array(within_beat)).ravel()
    force = np.repeat(loudness, len(within_beat)) * rng.uniform(0.7, 1.0, len(events))
    return Path2d(x, y, turn, size, t, events, force)


def paths(scene: Scene, t: np.ndarray, rng: Rng) -> list[Path2d]:
    """The path of the object that is heard, and of the silent one if there is one.

    Two objects are small, move little, and stay apart, one in the left half and one in the right.
    """
    heard = move(scene.motion, t, rng)
    if not scene.silent_thing:
        return [heard]
    side = rng.choice([-1, 1]) * rng.uniform(0.12, 0.88)
    both = heard, move(scene.silent_motion, t, rng)
    places = (side, side - np.sign(side)), rng.uniform(-0.7, 0.7, 2)
    return [
        path._replace(x=x + 0.25 * path.x, y=y + 0.25 * path.y, size=0.36 * path.size)
        for path, x, y in zip(both, *places, strict=True)
    ]


def bounce(t: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Height of an object that is dropped again after five bounces; impacts and their force."""
    ground, height = rng.uniform(0.35, 0.6), rng.uniform(0.8, 1.1)
    full, events, force = rng.uniform(0.55, 0.8), [], []
    y, time = np.full_like(t, ground), rng.uniform(-0.6, 0.0)
    while time < t[-1] + 0.5:
        flight = full
        for _ in range(5):
            inside = (t >= time) & (t < time + flight)
            along = (t[inside] - time) / flight
            y[inside] = ground - height * (flight / full) ** 2 * 4 * along * (1 - along)
            time += flight
            events.append(time)
            force.append(flight / full)
            flight *= 0.78
    return y, np.array(events), np.array(force)


def draw_look(height: int, width: int, rng: Rng) -> list[np.ndarray]:
    """Colours of a video, of whatever class: its background, a gradient with faint blotches
    [H, W, 3], and the pale and the dark colour [3] of its object; float.
    """

    def colour(low: float, high: float) -> np.ndarray:
        """Any hue, muted or strong, with a value in the given range; [3] in [0, 255]."""
        hsv = rng.uniform(0, 1), rng.uniform(0.1, 0.7), rng.uniform(low, high)
        return 255 * np.array(colorsys.hsv_to_rgb(*hsv))

    yy, xx = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    slope = (np.cos(angle) * xx + np.sin(angle) * yy) * rng.uniform(0, 40)
    image = colour(0.35, 0.75) + slope[..., None]
    for _ in range(3):
        fx, fy, shift = rng.uniform(2, 9), rng.uniform(2, 9), rng.uniform(0, 6)
        image = image + rng.uniform(1, 6) * np.sin(fx * xx + fy * yy + shift)[..., None]
    return [image, colour(0.9, 1.0), colour(0.0, 0.25)]


def texture(height: int, width: int, rng: Rng) -> np.ndarray:
    """Noise with a spectrum of random slope and direction, [H, W] float of deviation 1."""
    fy, fx = np.meshgrid(np.fft.fftfreq(height), np.fft.rfftfreq(width), indexing="ij")
    angle = np.arctan2(fy, fx) - rng.uniform(0, np.pi)
    spectrum = (np.hypot(fx, fy) + 1e-3) ** -rng.uniform(0.4, 1.8)
    spectrum = spectrum * np.exp(rng.uniform(0, 2) * np.cos(2 * angle))
    phases = rng.normal(0, 1, fx.shape) + 1j * rng.normal(0, 1, fx.shape)
    image = np.fft.irfft2(phases * spectrum, (height, width))
    return (image - image.mean()) / image.std()


def place(
    scene: Scene, moves: list[Path2d], height: int, width: int, rng: Rng
) -> tuple[list[Path2d], np.ndarray]:
    """The paths in pixels, their sizes half a side of the object, and the camera's shake.

    The shake [frames, 2] is down and to the right, in whole pixels.
    """
    radius, deviation = rng.uniform(0.48, 0.68), scene.nuisances.camera_shake
    shake = np.cumsum(rng.normal(0, deviation, (len(moves[0].x), 2)), axis=0)
    shake = np.clip(shake - shake.mean(axis=0), -MARGIN, MARGIN).round().astype(int)
    placed, (down, right) = list[Path2d](), shake.T
    for path in moves:
        x, y = width * (0.5 + 0.4 * path.x) - right, height * (0.5 + 0.4 * path.y) - down
        placed.append(path._replace(x=x, y=y, size=radius / 2 * path.size * min(height, width)))
    return placed, shake


def draw(frame: np.ndarray, thing: str, at: Sequence[float], look: tuple[Any, ...]) -> None:
    """Draw a thing into a frame [H, W, 3] float: `at` x, y in pixels, a turn, and half its side.

    Its look is two colours [3], and by how much the first gets brighter downwards.
    """
    (x, y, turn, size), (body, mark, shade) = at, look
    yy, xx = np.mgrid[: frame.shape[0], : frame.shape[1]]
    x0, y0 = (xx - x) / size, (yy - y) / size
    near = np.maximum(abs(x0), abs(y0)) < 1.5
    cos, sin = np.cos(turn), np.sin(turn)  # into the object's own frame
    right, down = cos * x0[near] + sin * y0[near], cos * y0[near] - sin * x0[near]
    cover = np.clip(0.5 - SHAPES[thing](right, down) * size, 0, 1)[:, None]
    paint = np.where(PATTERNS[thing](right, down)[:, None], mark, body)
    frame[near] += cover * (paint + shade * down[:, None] - frame[near])


def frames(scene: Scene, moves: list[Path2d], height: int, width: int) -> Iterator[np.ndarray]:
    """Draw the scene, frame by frame, [H, W, 3] uint8; `moves` are those of `paths`."""
    rng, look = (np.random.default_rng([scene.seed, i]) for i in (1, 5))
    n, large = scene.nuisances, (height + 2 * MARGIN, width + 2 * MARGIN)
    first, last = draw_look(*large, look), draw_look(*large, look)
    relief = n.texture * look.random() * texture(*large, look)[..., None]
    pale_body = look.random() < 0.5
    placed, shake = place(scene, moves, height, width, rng)
    shade, t = rng.uniform(-25, 25), moves[0].t
    things = () if scene.flaw == "off_screen" else (scene.thing, scene.silent_thing)

    def swing(low: float, high: float) -> np.ndarray:
        """A slow sine of random period and phase, [frames] in [-1, 1]."""
        return np.sin(2 * np.pi * (t / rng.uniform(low, high) + rng.random()))

    drift = n.colour_drift * (1 + swing(3, 6)) / 2
    light = 1 + n.light_drift * swing(2, 6)
    for i, (dy, dx) in enumerate(shake):
        now = [a + drift[i] * (b - a) for a, b in zip(first, last, strict=True)]
        background, body, mark = now if pale_body else (now[0], now[2], now[1])
        frame = (background + relief)[MARGIN + dy :, MARGIN + dx :][:height, :width].copy()
        for thing, path in zip(things, placed, strict=False):
            draw(frame, thing, [values[i] for values in path[:4]], (body, mark, shade))
        frame = frame * light[i] + rng.normal(0, 4, (height, width, 1))
        yield np.clip(frame, 0, 255).astype(np.uint8)


def rms(audio: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(audio**2)))


def grain(thing: str, rng: Rng, pitch: float) -> np.ndarray:
    """The audio of one event, [samples] float; `pitch` is a factor near 1."""
    t = np.arange(int(0.35 * AUDIO_HZ)) / AUDIO_HZ

    def tone(hz: float, decay: float) -> np.ndarray:
        return np.sin(2 * np.pi * hz * pitch * t) * np.exp(-decay * t)

    if thing == "ball":  # a thud
        return np.sin(2 * np.pi * 140 * pitch * (t - 0.02 * np.exp(-40 * t))) * np.exp(-16 * t)
    if thing == "box":  # a knock on wood
        return tone(520, 45) + 0.7 * tone(870, 60) + 0.5 * tone(1240, 70)
    if thing == "bell":
        return tone(1100, 7) + 0.6 * tone(2760 * 1.1, 10) + 0.3 * tone(5400, 15)
    if thing == "star":  # a chirp upwards
        return np.sin(2 * np.pi * pitch * (900 * t + 4200 * t**2)) * np.exp(-12 * t)
    if thing == "wheel":  # a squeak
        wobble = 2600 * t + 3 * np.sin(2 * np.pi * 35 * t)
        return np.sin(2 * np.pi * pitch * wobble) * np.sin(np.pi * np.minimum(t / 0.22, 1)) ** 2
    return np.diff(rng.normal(0, 0.7, len(t) + 1)) * np.exp(-22 * t)  # cross: a hiss


def music(samples: int, rng: Rng) -> np.ndarray:
    """A tune that is unrelated to the frames, [samples] of level 1."""
    t, beat = np.arange(samples) / AUDIO_HZ, rng.uniform(0.2, 0.4)
    steps = rng.choice([0, 2, 4, 7, 9, 12], size=samples)[(t / beat).astype(int)]
    hz = rng.uniform(180, 400) * 2 ** (steps / 12)
    audio = np.sin(2 * np.pi * np.cumsum(hz) / AUDIO_HZ) * np.exp(-3 * (t % beat))
    return audio / rms(audio)


def noise(samples: int, rng: Rng) -> np.ndarray:
    """Steady noise with a random smooth spectrum over 40 Hz to 11 kHz, [samples], of level 1."""
    octaves = np.log2(np.maximum(np.fft.rfftfreq(samples, 1 / AUDIO_HZ), 40) / 40)
    knots = 1.2 * rng.normal(0, 1, 10)
    log_gain = np.interp(octaves, np.linspace(0, 8.2, 10), knots) - 0.35 * octaves
    audio = np.fft.irfft(np.fft.rfft(rng.normal(0, 1, samples)) * np.exp(log_gain), samples)
    return audio / rms(audio)


def reverberated(audio: np.ndarray, level: float, rng: Rng) -> np.ndarray:
    """The audio and, at `level`, what a room sends back of it, [samples]."""
    from scipy.signal import fftconvolve  # takes a second to import

    t = np.arange(AUDIO_HZ // 4) / AUDIO_HZ
    room = rng.normal(0, 1, len(t)) * np.exp(-t / rng.uniform(0.03, 0.12))
    back = fftconvolve(audio, room)[: len(audio)]
    return audio + level / np.linalg.norm(room) * back


def drawn(scene: Scene, what: Literal["octaves", "noise_db"]) -> float:
    """How far above its own pitch the object sounds, or the noise's level relative to the rest."""
    n = scene.nuisances
    if what == "octaves":
        return np.random.default_rng([scene.seed, 3]).uniform(-n.pitch_octaves, n.pitch_octaves)
    return np.random.default_rng([scene.seed, 4]).uniform(n.noise_db_min, n.noise_db_max)


def strokes(thing: str, events: np.ndarray, seconds: float, octaves: float, rng: Rng) -> np.ndarray:
    """The sounds of events [n, 2], seconds and force; [samples] of level 1, at a thing's pitch."""
    samples = int(seconds * AUDIO_HZ)
    audio, pitch = np.zeros(samples + AUDIO_HZ), 2**octaves
    for at, strength in events:
        if 0 <= at < seconds:
            piece = strength * grain(thing, rng, pitch * 2 ** rng.uniform(-0.03, 0.03))
            begin = int(at * AUDIO_HZ)
            audio[begin : begin + len(piece)] += piece
    return audio[:samples] / max(rms(audio[:samples]), 1e-3)


def soundtrack(scene: Scene, path: Path2d, seconds: float) -> np.ndarray:
    """The audio of a scene, [samples] float32 in [-1, 1]; its loudness is free of the class."""
    rng, n = np.random.default_rng([scene.seed, 2]), scene.nuisances
    events, force, samples = path.events, path.force, int(seconds * AUDIO_HZ)
    # Nothing that is held out from pre-training may be heard in its videos either.
    things = SHOWN_THINGS if scene.path.startswith("vggsound") else THINGS
    others = [thing for thing in things if thing != scene.thing]
    if scene.flaw == "dubbed" and rng.random() < 0.5:
        audio = music(samples, rng)
    else:
        thing = scene.thing
        if scene.flaw == "dubbed":  # another thing's, at other times
            thing = str(rng.choice(others))
            events, force = np.sort(rng.uniform(0, seconds, len(events))), force[::-1]
        audio = strokes(thing, np.c_[events, force], seconds, drawn(scene, "octaves"), rng)
    if rng.random() < n.other_sounds:
        times = np.sort(rng.uniform(0, seconds, max(1, len(events) // 2)))
        other = str(rng.choice(others))
        octaves = rng.uniform(-n.pitch_octaves, n.pitch_octaves)
        heard = strokes(other, np.c_[times, np.ones_like(times)], seconds, octaves, rng)
        audio = audio + 0.5 * rng.random() * heard
    audio = reverberated(audio, n.room * rng.random(), rng)
    level = 10 ** (drawn(scene, "noise_db") / 20)
    audio = audio / max(rms(audio), 1e-3) + level * noise(samples, rng)
    loudness = rng.uniform(-26 - n.loudness_db / 2, -26 + n.loudness_db / 2)
    return np.tanh(audio / rms(audio) * 10 ** (loudness / 20)).astype(np.float32)
