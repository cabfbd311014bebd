"""The world is as wild as it says, and its classes cannot be told from trivial statistics."""

import csv
import json

import av
import numpy as np
import pytest

from avnb.data.manifest import Manifest
from avnb.data.media import inspect
from avnb.data.synthetic import scenes as looks
from avnb.data.synthetic import world
from avnb.data.synthetic.scenes import MOTIONS, THINGS, Scene
from avnb.protocols import World


@pytest.fixture(scope="module")
def scenes(world):
    return [Scene(**s) for s in json.loads((world / "scenes.json").read_text())]


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
    for flaw in ("silent", "dubbed", "broken"):
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
    scene = Scene(path="x.mp4", thing=thing, motion="bouncing", seed=11, look_seed=11)
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


def statistics(seed, thing, motion):
    """What gives nothing away: mean colour and its spread, mean loudness and peak."""
    scene = Scene(path="x.mp4", thing=thing, motion=motion, seed=seed, look_seed=seed)
    path = looks.move(motion, np.arange(24) / 8, np.random.default_rng([seed, 9]))
    pictures = np.stack(list(looks.frames(scene, path, 40, 40))).astype(float)
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
    each = 40
    x = np.array([statistics(1000 * k + i, *pairs[k]) for i in range(each) for k in range(12)])
    y = np.tile(np.arange(12), each)
    # chance is 8.3 %, and 240 test videos make 1.8 points of standard error
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
