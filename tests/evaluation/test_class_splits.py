"""Seen and unseen classes: the published lists, names matched by a rule, or a list of one's own."""

from types import SimpleNamespace

import numpy as np
import pytest

from avnb.config import Evaluation
from avnb.data.synthetic import world
from avnb.evaluation import concepts
from avnb.evaluation.class_names import ClassList, class_list

OFFICIAL = class_list("vggsound")
SYNTHETIC = ClassList("vggsound", "VGGSound", tuple(world.VGGSOUND))


def split(pretraining, name, classes, **values):
    """The split of a data set of these classes; its videos do not matter."""
    sources = {"xid": SimpleNamespace(trained_on=pretraining)}
    target = SimpleNamespace(name=name, classes=tuple(classes))
    return concepts.split_classes(sources, target, Evaluation.from_flat(**values))


@pytest.mark.parametrize("key, unseen, count", [("ucf101", 47, 101), ("hmdb51", 29, 51)])
def test_on_real_data_the_published_lists_are_the_default(key, unseen, count):
    rule, classes = split(OFFICIAL, key, class_list(key).names)
    assert rule == "published" and len(classes["unseen"]) == unseen
    assert len({*classes["unseen"], *classes["seen"]}) == count


def test_some_of_the_classes_and_other_spellings_are_still_those_of_the_data_set():
    some = ["handstand_pushups", *class_list("ucf101").names[30:36]]
    rule, classes = split(ClassList("vggsound", "", OFFICIAL.names[:100]), "ucf101", some)
    assert rule == "published" and "handstand_pushups" in classes["unseen"]


def test_half_of_the_synthetic_classes_are_seen_those_that_mean_the_same():
    rule, found = split(SYNTHETIC, "hmdb51", world.HMDB51)
    assert rule == "synthetic" and len(found["unseen"]) == 4
    assert found["seen"] == ["bounce_bell", "bounce_box", "spin_bell", "spin_box"]


def test_a_list_of_ones_own_decides_whatever_the_names_are(tmp_path):
    file, classes = tmp_path / "unseen.txt", class_list("ucf101").names
    file.write_text("yo yo\ntai chi\n")
    for known in (OFFICIAL, None):
        rule, found = split(known, "ucf101", classes, unseen_classes=str(file))
        assert rule == "file" and found["unseen"] == ["TaiChi", "YoYo"]
    file.write_text("yoyo\n")
    with pytest.raises(ValueError, match="'yoyo' is unknown; did you mean 'yo yo'"):
        split(OFFICIAL, "ucf101", classes, unseen_classes=str(file))


class Apart:
    """A model under which a name resembles no other."""

    def encode(self, texts, **options):
        known = ("yoga", "drums", *class_list("ucf101").plain)
        return np.array([[float(text == name) for name in known] for text in texts])


def test_any_other_names_are_matched_by_the_rule_of_the_thesis(monkeypatch):
    monkeypatch.setattr(concepts, "load", lambda name: Apart())
    known, ucf101 = ClassList("mine", "mine", ("yoga", "drums")), class_list("ucf101").names
    rule, classes = split(known, "own", ["drums", "archery", "biking", "diving"])
    assert rule == "thesis" and "drums" in classes["seen"] and "diving" in classes["unseen"]
    said = r"no class of own is seen: .* `overrides`, as {\"unseen_classes\""
    with pytest.raises(ValueError, match=said):
        split(known, "own", ["archery", "biking", "diving"])
    with pytest.raises(ValueError, match="'same names' no class of own is unseen"):
        split(known, "own", ["drums"])  # without a text encoder
    other = ["BrushHair", "Billiards", *ucf101[1:]]
    assert split(OFFICIAL, "ucf101", other)[0] == "thesis"
    assert split(OFFICIAL, "kitchen", ucf101)[0] == "thesis"
    assert split(class_list("audioset"), "ucf101", ucf101)[0] == "thesis"
    assert split(OFFICIAL, "ucf101", ucf101, class_split="thesis")[0] == "thesis"


@pytest.mark.slow
@pytest.mark.parametrize("key", ["ucf101", "hmdb51"])
def test_the_rule_of_the_thesis_gives_the_published_lists(key):
    classes = class_list(key).names
    rule, ruled = split(OFFICIAL, key, classes, class_split="thesis")
    assert rule == "thesis" and ruled == split(OFFICIAL, key, classes)[1]


def test_the_encoders_were_trained_on_the_same_known_classes_or_there_is_no_split():
    target = SimpleNamespace(name="ucf101", classes=tuple(class_list("ucf101").names))
    says, others, silent = (SimpleNamespace(trained_on=c) for c in (OFFICIAL, SYNTHETIC, None))

    def rule(**sources):
        return concepts.split_classes(sources, target, Evaluation())[0]

    assert rule(xid=says, own=silent, vicreg=says) == "published"
    with pytest.raises(ValueError, match=r"encoders own were not .* \(none is known\)"):
        rule(own=silent)
    with pytest.raises(ValueError, match=r"\d+ of VGGSound, \d+ of VGGSound"):
        rule(xid=says, vicreg=others)
