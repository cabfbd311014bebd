"""Seen and unseen classes: the published lists, names matched by a rule, or a list of one's own."""

from pathlib import Path

import pytest

from avnb import book as report
from avnb.config import Evaluation
from avnb.data.manifest import Manifest
from avnb.evaluation import class_splits, concepts
from avnb.evaluation.class_names import ClassList, class_list
from avnb.evaluation.encoder_source import EncoderSource

NAMES = Evaluation()


def listed(name, classes):
    """A data set of these classes without videos."""
    folder = Path("x")
    return Manifest(
        name=name, folder=folder, where=folder, classes=tuple(classes), videos=(), listed=0
    )


def names(key, classes):
    return ClassList(key, key, tuple(classes))


def split(tmp_path, pretraining, target, **values):
    return class_splits.split_classes(tmp_path, pretraining, target, Evaluation.from_flat(**values))


@pytest.mark.parametrize("key, unseen, count", [("ucf101", 47, 101), ("hmdb51", 29, 51)])
def test_on_real_data_the_published_lists_are_the_default(tmp_path, key, unseen, count):
    target = listed(key, class_list(key).names)
    found = split(tmp_path, class_list("vggsound"), target)
    assert found.rule == "published" and found.matched is None
    assert len(found.classes["unseen"]) == unseen
    assert len(found.classes["unseen"]) + len(found.classes["seen"]) == count
    files = {file.stem: file.read_text().splitlines() for file in tmp_path.rglob("*.txt")}
    assert files == found.classes
    assert "the lists of the thesis's code" in report.describe_split(found)


def test_some_of_the_classes_and_other_spellings_are_still_those_of_the_data_set(tmp_path):
    official = class_list("ucf101").names
    some = ["handstand_pushups" if n == "HandstandPushups" else n for n in official[30:60]]
    found = split(
        tmp_path, names("vggsound", class_list("vggsound").names[:100]), listed("ucf101", some)
    )
    assert (
        found.rule == "published"
        and "handstand_pushups" in found.classes["unseen"] + found.classes["seen"]
    )
    everything = split(tmp_path, class_list("vggsound"), listed("ucf101", official))
    assert {*found.classes["unseen"]} - {"handstand_pushups"} <= {*everything.classes["unseen"]}


@pytest.mark.slow
@pytest.mark.parametrize("key", ["ucf101", "hmdb51"])
def test_the_rule_of_the_thesis_gives_the_published_lists(tmp_path, key):
    target = listed(key, class_list(key).names)
    ruled = split(tmp_path, class_list("vggsound"), target, class_split="thesis")
    listed_split = split(tmp_path, class_list("vggsound"), target)
    assert ruled.rule == "thesis" and ruled.matched.pair.threshold == concepts.THRESHOLDS[key]
    assert ruled.classes == listed_split.classes


@pytest.mark.parametrize("name", ["ucf101", "hmdb51"])
def test_half_of_the_synthetic_classes_are_seen_those_that_mean_the_same(name, manifests, tmp_path):
    known, target = (Manifest.load(manifests / n) for n in ("vggsound", name))
    found = split(tmp_path, names("vggsound", known.classes), target)
    assert found.rule == "synthetic" and found.matched is None
    assert set(found.classes["seen"]) == {
        "ucf101": {"BallBouncing", "BellRinging", "BoxSpinning", "CrossShaking", "StarPulsing",
                   "WheelRolling"},
        "hmdb51": {"bounce_box", "roll_ball", "shake_cross", "spin_star"},
    }[name]  # fmt: skip
    assert len(found.classes["unseen"]) == len(found.classes["seen"])
    assert "the object and the motion" in report.describe_split(found)


@pytest.mark.slow
def test_names_of_ones_own_get_the_rule_of_the_thesis_and_the_page_says_so(tmp_path):
    kitchen = listed("kitchen", ("frying_eggs", "zebra braying", "yoga"))
    for known in (class_list("vggsound"), names("eggs", ("eggs frying", "zebra braying"))):
        found = split(tmp_path, known, kitchen, name_top=1)
        assert found.rule == "thesis" and "zebra braying" in found.classes["seen"]
        assert found.matched.pair.threshold == concepts.DEFAULT_THRESHOLD
        assert "the rule of the thesis" in report.describe_split(found)
    misspelt = ["BrushHair", *class_list("ucf101").names[1:]]
    rule = class_splits.rule_for(class_list("vggsound"), names("ucf101", misspelt), NAMES)
    assert rule == "thesis"  # never that of the synthetic world


def test_a_list_of_ones_own_decides_whatever_the_names_are(tmp_path):
    target = listed("ucf101", class_list("ucf101").names)
    file = tmp_path / "unseen.txt"
    file.write_text("yo yo\ntai chi\n")
    found = split(tmp_path, class_list("vggsound"), target, unseen_classes=str(file))
    assert found.rule == "file" and found.classes["unseen"] == ["TaiChi", "YoYo"]
    file.write_text("yoyo\n")
    with pytest.raises(ValueError, match="'yoyo' is unknown; did you mean 'yo yo'"):
        split(tmp_path, class_list("vggsound"), target, unseen_classes=str(file))
    with pytest.raises(ValueError, match="the list leaves no class that is seen"):
        split(tmp_path, class_list("vggsound"), listed("ucf101", ("ApplyLipstick",)))


@pytest.mark.slow
def test_outliers_of_ones_own_replace_the_thesiss(tmp_path):
    (tmp_path / "out.txt").write_text("archery\nno such class\n")
    config = Evaluation(outliers=str(tmp_path / "out.txt"))
    pair, _ = class_splits.name_pair(class_list("vggsound"), class_list("ucf101"), config)
    assert pair.outliers == ("archery",)
    pair, _ = class_splits.name_pair(class_list("vggsound"), class_list("hmdb51"), NAMES)
    assert len(pair.outliers) == 8 and pair == concepts.pairs("", "", concepts.THRESHOLDS, 0.5)[3]


def test_what_cannot_be_is_an_error_that_says_what_can(tmp_path, manifests):
    known, target = (Manifest.load(manifests / n) for n in ("vggsound", "ucf101"))
    with pytest.raises(ValueError, match="the synthetic world has no class 'Archery'"):
        split(
            tmp_path,
            names("vggsound", known.classes),
            listed("ucf101", ("Archery",)),
            class_split="synthetic",
        )
    with pytest.raises(ValueError, match="published for VGGSound with UCF-101 and HMDB-51"):
        split(tmp_path, names("vggsound", known.classes), target, class_split="published")
    for setting, said in (
        ({"name_top": 12}, "no class is unseen at threshold 0.47, top 12; raise the threshold or"),
        ({"name_threshold": 1.0}, "no class is seen at threshold 1, top 3; lower the threshold or"),
    ):
        with pytest.raises(ValueError, match=said):
            split(tmp_path, names("vggsound", known.classes), target, **setting)


def test_the_classes_of_pre_training_are_the_encoders_own_or_named(tmp_path, tiny):
    own = EncoderSource(method="own", name="own-1", config=tiny, checkpoint=None)
    with pytest.raises(ValueError, match=r"none of the encoders \(own\) says"):
        class_splits.pretraining_classes({"own": own}, NAMES)
    named = Evaluation(pretraining_classes="vggsound")
    assert class_splits.pretraining_classes({"own": own}, named) == class_list("vggsound")
    (tmp_path / "mine.txt").write_text("a\nb\n")
    named = Evaluation(pretraining_classes=str(tmp_path / "mine.txt"))
    assert class_splits.pretraining_classes({}, named).names == ("a", "b")
