"""The world is as wild as it says, and its classes cannot be told from trivial statistics."""

import csv
import json
from dataclasses import replace

import av
import numpy as np
import pytest

from avnb.data.manifest import Manifest
from avnb.data.media import inspect
from avnb.data.synthetic import scenes as looks
from avnb.data.synthetic import world
from avnb.data.synthetic.scenes import AUDIO_HZ, MOTIONS, THINGS, Nuisances, Scene
from avnb.data.synthetic.world import World, read_scenes

NONE = Nuisances(
    colour_drift=0,
    light_drift=0,
    camera_shake=0,
    pitch_octaves=0,
    room=0,
    other_sounds=0,
    noise_db_min=-100,
    noise_db_max=-100,
    loudness_db=0,
)


@pytest.fixture(scope="module")
def scenes(world):
    return list(read_scenes(world / "vggsound").values())


def all_frames(path):
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def all_sound(path):
    with av.open(str(path)) as container:
        return np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])


def test_the_files_are_what_each_data_set_has(world, scenes):
    for name, video, audio in (("vggsound", "h264", "aac"), ("ucf101", "mpeg4", "mp3float")):
        scene = next(s for s in scenes if s.path.startswith(name) and s.audio and not s.flaw)
        with av.open(str(world / scene.path)) as container:
            assert container.streams.video[0].codec_context.name == video
            assert container.streams.audio[0].codec_context.name == audio


def test_the_wild_shares_are_kept(world, scenes):
    train = [s for s in scenes if s.path.startswith("vggsound/train")]
    values = json.loads((world / "world.json").read_text())
    for flaw in ("silent", "dubbed", "off_screen", "broken"):
        found = sum(s.flaw == flaw for s in train)
        assert found == round(values[f"{flaw}_fraction"] * len(train)) > 0
    for scene in (s for s in train if s.flaw == "silent"):
        assert inspect(world / scene.path).audio_hz == 0


def test_length_resolution_and_rate_vary(manifests):
    videos = Manifest.load(manifests / "vggsound").videos
    assert len({(v.width, v.height) for v in videos}) >= 3
    assert len({v.fps for v in videos}) >= 3
    assert np.ptp([v.seconds for v in videos]) > 0.8


def test_half_of_the_target_classes_are_pretraining_classes():
    known = set(world.VGGSOUND.values())
    for target in (world.UCF101, world.HMDB51):
        share = np.mean([pair in known for pair in target.values()])
        assert share == pytest.approx(0.5, abs=0.15)


def test_each_thing_and_each_motion_occurs_in_two_pretraining_classes():
    for part, names in enumerate((THINGS, MOTIONS)):
        found = sorted(pair[part] for pair in world.VGGSOUND.values())
        assert found == sorted([*names, *names])


@pytest.mark.parametrize("path", ["vggsound/train/x.mp4", "ucf101/UCF-101/x.avi"])
def test_the_same_seed_makes_the_same_bytes(tmp_path, path):
    scene = Scene(path=path, thing="bell", motion="swinging", seed=5, look_seed=7)
    made = set()
    for i in range(6):  # encoders with threads differ once in a while only
        world.render(tmp_path / str(i), scene)
        made.add((tmp_path / str(i) / path).read_bytes())
    assert len(made) == 1


@pytest.mark.parametrize("thing", THINGS)
def test_an_event_is_heard_when_it_is_seen(thing):
    scene = Scene("x.mp4", thing, "bouncing", seed=11, look_seed=11, nuisances=NONE)
    path = looks.move("bouncing", np.arange(120) / 30, np.random.default_rng(3))
    audio = abs(looks.soundtrack(scene, path, 4.0))
    window = int(0.03 * looks.AUDIO_HZ)
    for at in path.events[(path.events > 0.1) & (path.events < 3.7)]:
        begin = int(at * looks.AUDIO_HZ)
        after, before = (
            audio[begin : begin + 4 * window],
            audio[begin - window : begin - window // 3],
        )
        assert after.mean() > 1.2 * before.mean(), f"silence at {at:.2f} s"
        lowest = path.y[max(0, round(at * 30) - 3) : round(at * 30) + 3].max()
        assert lowest > path.y.max() - 0.35  # it is near the ground then


def drawn(nuisances, seed=3, flaw=""):
    """The frames [24, 60, 80, 3] and the audio of three seconds of a bell that spins."""
    scene = Scene("x.mp4", "bell", "spinning", seed, seed, flaw=flaw, nuisances=nuisances)
    path = looks.move("spinning", np.arange(24) / 8, np.random.default_rng(seed))
    pictures = np.stack(list(looks.frames(scene, path, 60, 80))).astype(float)
    return pictures, looks.soundtrack(scene, path, 3.0)


def test_without_nuisances_the_background_stands_still_and_each_drift_moves_it():
    def motion_of_a_corner(**changes):
        return np.ptp(drawn(replace(NONE, **changes))[0][:, :6, :6].mean((1, 2, 3)))

    still = motion_of_a_corner()
    assert still < 4
    assert motion_of_a_corner(colour_drift=1.0) > still + 10
    assert motion_of_a_corner(light_drift=0.5) > still + 10


def test_texture_roughens_the_background_and_a_shaking_camera_shifts_it():
    def roughness(**changes):
        corner = drawn(replace(NONE, **changes))[0][:, :6, :6].mean(3)
        return corner.mean(0).std(), corner.std(0).mean()

    smooth, still = roughness()
    assert roughness(texture=60)[0] > smooth + 3
    assert roughness(texture=60, camera_shake=2)[1] > still + 3


def test_noise_other_sounds_rooms_pitch_and_loudness_are_heard():
    def heard(seed=3, **changes):
        return drawn(replace(NONE, **changes), seed)[1]

    def level(audio):
        return 20 * np.log10(looks.rms(audio))

    def between_events(audio):
        return np.quantile(abs(audio), 0.1) / looks.rms(audio)

    plain = heard()
    assert between_events(heard(noise_db_min=0, noise_db_max=0)) > 2 * between_events(plain)
    assert between_events(heard(room=2)) > 1.2 * between_events(plain)
    assert abs(heard(other_sounds=1) - plain).max() > 0.01
    assert np.ptp([level(heard(seed)) for seed in range(8)]) < 0.5
    assert np.ptp([level(heard(seed, loudness_db=30)) for seed in range(8)]) > 8

    def peak_hz(audio):
        return abs(np.fft.rfft(audio)).argmax() * AUDIO_HZ / len(audio)

    octaves = [
        np.log2(peak_hz(heard(seed, pitch_octaves=1)) / peak_hz(heard(seed))) for seed in range(8)
    ]
    assert np.ptp(octaves) > 0.5 and max(map(abs, octaves)) < 1.2


def test_an_object_off_screen_is_heard_and_not_seen():
    (seen, heard), (empty, same) = drawn(NONE), drawn(NONE, flaw="off_screen")
    middle = np.s_[:, 15:45, 20:60]
    assert np.array_equal(heard, same)
    assert seen[middle].std() > 2 * empty[middle].std()


def test_noise_levels_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match=r"test_noise_db_min is 3\.0, above"):
        World.from_flat(test_noise_db_min=3.0, test_noise_db_max=2.0)


def statistics(seed, thing, motion):
    """What gives nothing away: mean colour and its spread, mean loudness and peak."""
    scene = Scene(path="x.mp4", thing=thing, motion=motion, seed=seed, look_seed=seed)
    path = looks.move(motion, np.arange(8) * 3 / 8, np.random.default_rng([seed, 9]))
    pictures = np.stack(list(looks.frames(scene, path, 30, 30))).astype(float)
    audio = looks.soundtrack(scene, path, 3.0)
    return [*pictures.mean((0, 1, 2)), looks.rms(audio), abs(audio).mean()]


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
    assert accuracy_of_a_linear_classifier(x[:, 3:4], y, 12) < 0.16
    # the test can fail: the same classifier finds the class in statistics that do hold it
    telling = x[:, :3] + 80 * np.c_[y % 3, y // 3 % 2, y // 6]
    assert accuracy_of_a_linear_classifier(telling, y, 12) > 0.3


def test_making_it_again_keeps_what_is_there_and_other_values_are_refused(copied_world, capfd):
    values = {
        k: v
        for k, v in json.loads((copied_world / "world.json").read_text()).items()
        if k != "format"
    }
    (copied_world / "world.json").unlink()  # as after an interruption
    path = next((copied_world / "vggsound" / "train").glob("*.mp4"))
    others = {p: p.stat().st_mtime_ns for p in copied_world.rglob("*.mp4") if p != path}
    before = path.read_bytes()
    path.unlink()
    world.make(World.from_flat(**values), copied_world)
    assert path.read_bytes() == before
    assert all(p.stat().st_mtime_ns == at for p, at in others.items())
    with pytest.raises(ValueError, match="made from other values"):
        world.make(World.from_flat(**{**values, "seed": 8}), copied_world)


def test_lists_have_the_official_form(world):
    with (world / "vggsound/vggsound.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert all(len(r) == 4 and r[3] in ("train", "test") and r[1].isdigit() for r in rows)
    assert any("," in r[2] for r in rows) and any(r[0].startswith("-") for r in rows)
    lists = world / "ucf101/ucfTrainTestlist"
    assert (lists / "classInd.txt").read_text().splitlines()[0] == "1 BallBouncing"
    assert b"\r\n" in (lists / "trainlist01.txt").read_bytes()
    assert (lists / "testlist02.txt").read_text().splitlines()[0].endswith(".avi")
    for fold in (1, 2, 3):
        line = (
            world / f"hmdb51/testTrainMulti_7030_splits/roll_bell_test_split{fold}.txt"
        ).read_text()
        assert {row.rsplit(maxsplit=1)[1] for row in line.splitlines()} == {"0", "1", "2"}
