"""The world is as wild as it says, and its classes cannot be told from trivial statistics."""

import hashlib
import itertools
import json
from dataclasses import asdict, replace

import av
import numpy as np
import pytest

from avnb.data.synthetic import scenes as looks
from avnb.data.synthetic import world
from avnb.data.synthetic.scenes import AUDIO_HZ, THINGS, Nuisances, Scene
from avnb.data.synthetic.world import World
from avnb.profiles import PROFILES

NONE = Nuisances(
    **dict.fromkeys(("colour_drift", "light_drift", "camera_shake", "pitch_octaves", "room"), 0),
    **{"other_sounds": 0, "noise_db_min": -100, "noise_db_max": -100, "loudness_db": 0},
)

PARTS = (world.vggsound, world.ucf101, world.hmdb51, world.located)


@pytest.fixture(scope="module")
def scenes():
    values = World.from_flat(**PROFILES["smoke"]["world"])
    return [scene for build in PARTS for scene in build(values)[0]]


def streams(path):
    """Codecs, size, rate, and seconds of a file."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        codecs = [stream.codec_context.name for stream in container.streams]
        return codecs, (video.width, video.height), video.average_rate, container.duration / 1e6


def test_the_files_are_what_each_data_set_has(world, scenes):
    for name, codecs in (("vggsound", ["h264", "aac"]), ("ucf101", ["mpeg4", "mp3float"])):
        scene = next(s for s in scenes if s.path.startswith(name) and s.audio and not s.flaw)
        assert streams(world / scene.path)[0] == codecs
    whole = [s for s in scenes if s.path.startswith("vggsound") and s.flaw != "broken"]
    _, sizes, rates, seconds = zip(*(streams(world / s.path) for s in whole), strict=True)
    assert len(set(sizes)) >= 3 and len(set(rates)) >= 3 and np.ptp(seconds) > 0.8


def test_the_wild_shares_are_kept(world, scenes):
    train = [s for s in scenes if s.path.startswith("vggsound/train")]
    values = PROFILES["smoke"]["world"]
    for flaw in ("silent", "dubbed", "off_screen", "broken"):
        found = sum(s.flaw == flaw for s in train)
        assert found == round(values[f"{flaw}_fraction"] * len(train)) > 0
    assert not any(s.flaw for s in scenes if s not in train)
    for scene in (s for s in train if s.flaw == "silent"):
        assert streams(world / scene.path)[0] == ["h264"]
    for scene in (s for s in train if s.flaw == "broken"):
        with pytest.raises(av.FFmpegError):
            streams(world / scene.path)


def test_another_share_of_wrong_pairs_changes_nothing_else():
    few, many = (
        world.vggsound(World(vggsound_per_class=9, dubbed_fraction=x))[0] for x in (0.0, 0.3)
    )
    assert sum(a != b for a, b in zip(few, many, strict=True)) == round(0.3 * len(few))
    for a, b in zip(few, many, strict=True):
        assert a == b or (a == replace(b, flaw="") and b.flaw == "dubbed")


def test_classes_of_pretraining_and_targets(scenes):
    """Unseen halves share nothing with pre-training; a half is a grid, its audible part as well."""
    shown = [{*part} for part in zip(*world.VGGSOUND.values(), strict=True)]
    assert {*world.VGGSOUND.values()} == {*itertools.product(*shown)}
    audible = {k: v for k, v in world.UCF101.items() if k not in world.UCF101_SILENT}
    for target in (world.UCF101, audible, world.HMDB51):
        halves = [[v for v in target.values() if (v[0] in shown[0]) == seen] for seen in (0, 1)]
        assert len(halves[0]) == len(halves[1])
        for half in halves:
            parts = [{*part} for part in zip(*half, strict=True)]
            assert {*half} == {*itertools.product(*parts)} and min(map(len, parts)) > 1
        assert not any(motion in shown[1] for _, motion in halves[0])
    for scene in scenes:
        assert (scene.nuisances.noise_db_max > 10) == scene.path.startswith("hmdb51")
        if not scene.path.startswith(("ucf101", "hmdb51")):
            assert (scene.thing, scene.motion) in world.VGGSOUND.values()
    assert len({scene.seed for scene in scenes}) == len(scenes)


def test_what_is_held_out_is_not_heard_in_pretraining(monkeypatch):
    heard, grain = set(), looks.grain
    monkeypatch.setattr(looks, "grain", lambda thing, *x: heard.add(thing) or grain(thing, *x))
    path = looks.move("rolling", np.arange(24) / 8, np.random.default_rng(0))
    for seed in range(24):
        scene = Scene("vggsound/train/x.mp4", "bell", "rolling", seed, flaw="dubbed")
        looks.soundtrack(scene, path, 1.0)
    assert heard == {"ball", "box", "wheel"}


def digest(values):
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def test_the_scenes_and_the_lists_never_change():
    """Stored rows are of this world; other scenes need another FORMAT."""
    made = [build(World.from_flat(**PROFILES["smoke"]["world"])) for build in PARTS]
    assert digest([[[asdict(s) for s in scenes], lists] for scenes, lists in made]) == "59a6fa60"


@pytest.mark.parametrize("path", ["vggsound/train/x.mp4", "ucf101/UCF-101/x.avi"])
def test_the_same_seed_makes_the_same_bytes(tmp_path, path):
    scene = Scene(path=path, thing="bell", motion="swinging", seed=5)
    made = set()
    for i in range(6):  # encoders with threads differ once in a while only
        world.render(tmp_path / str(i), scene)
        made.add((tmp_path / str(i) / path).read_bytes())
    assert len(made) == 1


@pytest.mark.parametrize("thing", THINGS)
def test_an_event_is_heard_when_it_is_seen(thing):
    scene = Scene("x.mp4", thing, "bouncing", seed=11, nuisances=NONE)
    path = looks.move("bouncing", np.arange(120) / 30, np.random.default_rng(3))
    audio = abs(looks.soundtrack(scene, path, 4.0))
    window = int(0.03 * AUDIO_HZ)
    for at in path.events[(path.events > 0.1) & (path.events < 3.7)]:
        begin = int(at * AUDIO_HZ)
        after, before = audio[begin:][: 4 * window], audio[begin - window : begin - window // 3]
        assert after.mean() > 1.2 * before.mean(), f"silence at {at:.2f} s"
        lowest = path.y[max(0, round(at * 30) - 3) : round(at * 30) + 3].max()
        assert lowest > path.y.max() - 0.35  # it is near the ground then


@pytest.mark.parametrize("silent", [{}, {"silent_thing": "bell", "silent_motion": "bouncing"}])
def test_the_objects_are_where_the_boxes_say_and_apart(silent):
    scene = Scene("x.mp4", "ball", "rolling", seed=4, nuisances=NONE, **silent)
    paths, fps, height, width, _ = world.filmed(scene)
    seen, empty = (
        np.stack(list(looks.frames(each, paths, height, width))).astype(float)
        for each in (scene, replace(scene, flaw="off_screen"))
    )
    times = np.arange(len(seen)) / fps + 1e-6
    boxes = [world.object_boxes(scene, times, silent=i > 0) for i in range(len(paths))]
    for differs, *both in zip(abs(seen - empty).max(-1) > 40, *boxes, strict=True):
        (y, x), found = np.nonzero(differs), 0
        for left, top, right, bottom in both * np.array([width, height, width, height]):
            inside = (left - 2 < x) & (x < right + 2) & (top - 2 < y) & (y < bottom + 2)
            assert np.ptp(x[inside]) > 0.6 * (right - left)
            found += inside.sum()
        assert found == len(x)


def drawn(nuisances, seed=3, flaw=""):
    """The frames [24, 60, 80, 3] and the audio of three seconds of a bell that spins."""
    scene = Scene("x.mp4", "bell", "spinning", seed, flaw=flaw, nuisances=nuisances)
    path = looks.move("spinning", np.arange(24) / 8, np.random.default_rng(seed))
    pictures = np.stack(list(looks.frames(scene, [path], 60, 80))).astype(float)
    return pictures, looks.soundtrack(scene, path, 3.0)


def test_each_nuisance_of_the_frames_is_seen_in_the_background():
    def corner(**changes):
        return drawn(replace(NONE, **changes))[0][:, :6, :6].mean(3)

    still = corner()
    assert np.ptp(still.mean((1, 2))) < 4
    assert np.ptp(corner(colour_drift=1.0).mean((1, 2))) > 14
    assert np.ptp(corner(light_drift=0.5).mean((1, 2))) > 14
    assert corner(texture=60).mean(0).std() > still.mean(0).std() + 3
    assert corner(texture=60, camera_shake=2).std(0).mean() > still.std(0).mean() + 3


def test_an_object_off_screen_is_heard_and_not_seen_and_a_dubbed_one_sounds_otherwise():
    for seed in range(4):
        (seen, heard), (empty, same) = drawn(NONE, seed), drawn(NONE, seed, "off_screen")
        assert np.array_equal(heard, same) and abs(seen - empty).max() > 50
        also, other = drawn(NONE, seed, "dubbed")
        assert np.array_equal(seen, also) and abs(np.corrcoef(heard, other)[0, 1]) < 0.3


def statistics(seed, thing, motion):
    """What gives nothing away: mean colour, and mean loudness."""
    scene = Scene(path="x.mp4", thing=thing, motion=motion, seed=seed)
    path = looks.move(motion, np.arange(8) * 3 / 8, np.random.default_rng([seed, 9]))
    pictures = np.stack(list(looks.frames(scene, [path], 30, 30))).astype(float)
    return [*pictures.mean((0, 1, 2)), looks.rms(looks.soundtrack(scene, path, 3.0))]


def accuracy_of_a_linear_classifier(x, y, classes):
    """Least squares on one-hot targets, trained on one half and tested on the other."""
    x = np.c_[(x - x.mean(0)) / x.std(0), np.ones(len(x))]
    half = len(x) // 2
    weights = np.linalg.lstsq(x[:half], np.eye(classes)[y[:half]], rcond=None)[0]
    return np.mean((x[half:] @ weights).argmax(1) == y[half:])


@pytest.mark.slow
def test_mean_colour_and_mean_loudness_do_not_give_the_class_away():
    pairs = list(world.VGGSOUND.values())
    each = 30
    x = np.array([statistics(1000 * k + i, *pairs[k]) for i in range(each) for k in range(12)])
    y = np.tile(np.arange(12), each)
    # chance is 8.3 %, and 180 test videos make 2.1 points of standard error
    assert accuracy_of_a_linear_classifier(x[:, :3], y, 12) < 0.16
    assert accuracy_of_a_linear_classifier(x[:, 3:], y, 12) < 0.16
    # the test can fail: the same classifier finds the class in statistics that do hold it
    telling = x[:, :3] + 80 * np.c_[y % 3, y // 3 % 2, y // 6]
    assert accuracy_of_a_linear_classifier(telling, y, 12) > 0.3


def test_making_it_again_keeps_what_is_there(copied_world):
    (copied_world / "scenes.json").unlink()  # as after an interruption
    path = next((copied_world / "vggsound" / "train").glob("*.mp4"))
    others = {p: p.stat().st_mtime_ns for p in copied_world.rglob("*.mp4") if p != path}
    before = path.read_bytes()
    path.unlink()
    world.make(World.from_flat(**PROFILES["smoke"]["world"]), copied_world)
    assert path.read_bytes() == before
    assert all(p.stat().st_mtime_ns == at for p, at in others.items())
