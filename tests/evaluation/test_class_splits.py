"""Seen and unseen classes: the published lists, names matched by a rule, or a list of one's own."""

from types import SimpleNamespace

import pytest

from avnb.config import Evaluation
from avnb.data.synthetic import world
from avnb.evaluation import concepts
from avnb.evaluation.class_names import ClassList, class_list

OFFICIAL = class_list("vggsound")
SYNTHETIC = ClassList("vggsound", "VGGSound", tuple(world.VGGSOUND))


def data_set(name, classes):
    """A data set of these classes; its videos do not matter."""
    return SimpleNamespace(name=name, classes=tuple(classes))


def split(folder, pretraining, name, classes, **values):
    config = Evaluation.from_flat(**values)
    return concepts.split_classes(folder, pretraining, data_set(name, classes), config)


@pytest.mark.parametrize("key, unseen, count", [("ucf101", 47, 101), ("hmdb51", 29, 51)])
def test_on_real_data_the_published_lists_are_the_default(tmp_path, key, unseen, count):
    found = split(tmp_path, OFFICIAL, key, class_list(key).names)
    assert found.rule == "published" and found.matched is None
    assert len(found.classes["unseen"]) == unseen
    assert len({*found.classes["unseen"], *found.classes["seen"]}) == count
    files = {file.stem: file.read_text().splitlines() for file in tmp_path.rglob("*.txt")}
    assert files == found.classes


def test_some_of_the_classes_and_other_spellings_are_still_those_of_the_data_set(tmp_path):
    some = ["handstand_pushups", *class_list("ucf101").names[30:36]]
    few = ClassList("vggsound", "VGGSound", OFFICIAL.names[:100])
    found = split(tmp_path, few, "ucf101", some)
    everything = split(tmp_path, OFFICIAL, "ucf101", class_list("ucf101").names)
    assert found.rule == "published" and "handstand_pushups" in found.classes["unseen"]
    assert {*found.classes["seen"]} <= {*everything.classes["seen"]}


@pytest.mark.parametrize(
    "name, classes, seen",
    [
        ("ucf101", world.UCF101, {"BallBouncing", "BellRinging", "BoxSpinning", "CrossShaking",
                                  "StarPulsing", "WheelRolling"}),
        ("hmdb51", world.HMDB51, {"bounce_box", "roll_ball", "shake_cross", "spin_star"}),
    ],
)  # fmt: skip
def test_half_of_the_synthetic_classes_are_seen_those_that_mean_the_same(
    name, classes, seen, tmp_path
):
    found = split(tmp_path, SYNTHETIC, name, classes)
    assert found.rule == "synthetic" and set(found.classes["seen"]) == seen
    assert len(found.classes["unseen"]) == len(seen)


def test_a_list_of_ones_own_decides_whatever_the_names_are(tmp_path):
    file, classes = tmp_path / "unseen.txt", class_list("ucf101").names
    file.write_text("yo yo\ntai chi\n")
    found = split(tmp_path, OFFICIAL, "ucf101", classes, unseen_classes=str(file))
    assert found.rule == "file" and found.classes["unseen"] == ["TaiChi", "YoYo"]
    file.write_text("yoyo\n")
    with pytest.raises(ValueError, match="'yoyo' is unknown; did you mean 'yo yo'"):
        split(tmp_path, OFFICIAL, "ucf101", classes, unseen_classes=str(file))


def test_the_rule_is_named_or_asked_for_by_the_names():
    def rule(pretraining, key, classes, **values):
        target, config = ClassList(key, key, tuple(classes)), Evaluation.from_flat(**values)
        return concepts.rule_for(pretraining, target, config)

    ucf101 = class_list("ucf101").names
    assert rule(OFFICIAL, "ucf101", ucf101) == "published"
    assert rule(OFFICIAL, "ucf101", ucf101, class_split="thesis") == "thesis"
    assert rule(OFFICIAL, "ucf101", ucf101, name_top=2) == "thesis"
    assert rule(OFFICIAL, "ucf101", ucf101, name_threshold=0.4) == "thesis"
    assert rule(OFFICIAL, "ucf101", ["BrushHair", *ucf101[1:]]) == "thesis"
    assert rule(OFFICIAL, "kitchen", ucf101) == "thesis"
    assert rule(class_list("audioset"), "ucf101", ucf101) == "thesis"
    with pytest.raises(ValueError, match="no class 'Archery' in the synthetic world"):
        rule(SYNTHETIC, "ucf101", ["Archery"], class_split="synthetic")
    with pytest.raises(ValueError, match="published for VGGSound with UCF-101 and HMDB-51"):
        rule(SYNTHETIC, "ucf101", world.UCF101, class_split="published")


class Apart:
    """A model under which a name resembles no other."""

    def encode(self, texts, **options):
        return [[float(text == name) for name in ("yoga", "drums", "archery")] for text in texts]


def test_matched_names_take_the_values_of_the_config(tmp_path, monkeypatch):
    encoder = concepts.TextEncoder("apart", "here", Apart())
    monkeypatch.setattr(concepts, "load_pair", lambda text: (encoder, encoder))
    known, classes = ClassList("mine", "mine", ("yoga", "drums")), ["drums", "archery"]
    found = split(tmp_path, known, "own", classes, name_top=1)
    assert found.rule == "thesis" and found.title == "mine → own"
    assert found.classes == {"seen": ["drums"], "unseen": ["archery"]}
    assert found.matched.pair.threshold == 0.47 and found.matched.top == 1
    (tmp_path / "out.txt").write_text("drums\n")
    for values, message in (
        ({"name_top": 2}, "no class is unseen at threshold 0.47, top 2"),
        ({}, "no class is unseen at threshold 0.47, top 3"),
        ({"name_threshold": 1.0}, "no class is seen at threshold 1, top 3"),
        ({"name_top": 1, "outliers": str(tmp_path / "out.txt")}, "no class is seen at"),
    ):
        with pytest.raises(ValueError, match=message):
            split(tmp_path, known, "own", classes, **values)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["ucf101", "hmdb51"])
def test_the_rule_of_the_thesis_gives_the_published_lists(tmp_path, key):
    classes = class_list(key).names
    ruled = split(tmp_path, OFFICIAL, key, classes, class_split="thesis")
    assert ruled.rule == "thesis" and ruled.matched.pair.threshold == concepts.THRESHOLDS[key]
    assert ruled.classes == split(tmp_path, OFFICIAL, key, classes).classes


def test_the_classes_of_pre_training_are_the_encoders_own_or_named(tmp_path):
    says, others, silent = (
        SimpleNamespace(trained_on=classes) for classes in (OFFICIAL, SYNTHETIC, None)
    )
    default = Evaluation()
    found = concepts.pretraining_classes({"xid": says, "own": silent}, default)
    assert found == OFFICIAL
    with pytest.raises(ValueError, match=r"none of the encoders \(own\) says"):
        concepts.pretraining_classes({"own": silent}, default)
    with pytest.raises(ValueError, match=r"different classes \(xid: 309 of VGGSound, vicreg: 12"):
        concepts.pretraining_classes({"xid": says, "vicreg": others}, default)
    named = Evaluation(pretraining_classes="ucf101")
    assert concepts.pretraining_classes({"xid": says}, named) == class_list("ucf101")
    (tmp_path / "mine.txt").write_text("a\nb\n")
    named = Evaluation(pretraining_classes=str(tmp_path / "mine.txt"))
    assert concepts.pretraining_classes({}, named).names == ("a", "b")
