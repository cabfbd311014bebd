"""The draw of training videos: balanced, then random, disjoint from validation, always the same."""

import collections
from dataclasses import replace

import pytest

from avnb.config import Pretrain, Subset, digest
from avnb.data.manifest import Manifest
from avnb.data.subsets import draw_subset, training_and_validation
from tests.data.test_clip_times import video_of


def run_of(videos, validation):
    return Pretrain.from_flat(subset_videos=videos, validation_videos=validation)


def a_manifest(tmp_path, **counts) -> Manifest:
    """So many training videos of each class, and a test video."""
    names = [(f"{label}{i}", label) for label, count in counts.items() for i in range(count)]
    videos = tuple(
        replace(video_of(10.0, 25.0), id=i, path=f"{i}.mp4", label=label, split=split)
        for i, label, split in [*((*name, "train") for name in names), ("tested", "a", "test")]
    )
    known = {"classes": tuple(sorted(counts)), "listed": len(videos), "form": ""}
    return Manifest(name="vggsound", folder=tmp_path, where=tmp_path, videos=videos, **known)


@pytest.fixture
def videos(tmp_path):
    return a_manifest(tmp_path, a=100, b=20, c=60).videos


def test_first_as_many_of_each_class_as_the_smallest_has_then_any(videos):
    train, rest = draw_subset(videos, Subset(subset_videos=90, validation_videos=30))
    assert len(train) == len(set(train)) == 90 and len(rest) == 30 and not set(train) & set(rest)
    assert "tested" not in {*train, *rest}
    by_class = collections.Counter(i[0] for i in train)
    assert by_class["b"] == 20  # all there are
    assert by_class["a"] > by_class["c"] > 20  # the 30 others come from a and c as they lie there
    train, _ = draw_subset(videos, Subset(subset_videos=31, validation_videos=0))
    assert sorted(collections.Counter(i[0] for i in train).values()) == [10, 10, 11]
    few, none = draw_subset([v for v in videos if v.id in ("a1", "b2", "c3")], Subset())
    assert sorted(few) == ["a1", "b2", "c3"] and none == []


def test_the_draw_never_changes(videos):
    """Ids of runs depend on it; the order of the list does not matter, and the seed does."""
    config = Subset(subset_videos=90, validation_videos=30)
    assert digest(list(draw_subset(reversed(videos), config))) == "6576610e"
    config = Subset(subset_videos=30, validation_videos=10, subset_seed=3)
    assert digest(list(draw_subset(videos, config))) == "209c09bc"


@pytest.mark.parametrize("wanted", [30, 90])
def test_each_unusable_id_is_replaced_by_one_other(videos, wanted):
    config = Subset(subset_videos=wanted, validation_videos=30)
    label, unusable = {v.id: v.label for v in videos if v.split == "train"}, set()
    train, rest = draw_subset(videos, config)
    for _ in range(60):  # b is used up, and the others are not
        unusable.add(train[0] if len(unusable) % 2 else rest[-1])
        now, others = draw_subset(videos, config, unusable)
        assert (len(now), len(others)) == (wanted, 30) and not unusable & {*now, *others}
        assert len({*now, *others} - {*train, *rest}) == 1
        counts = collections.Counter(label[i] for i in now)
        usable_b = sum(label[i] == "b" for i in label.keys() - unusable)
        if wanted == 30 and usable_b >= 10:
            assert set(counts.values()) == {10}
        train, rest = now, others
    few = draw_subset(videos, config, label.keys() - {"a1", "c2"})
    assert sorted(few[0]) == ["a1", "c2"] and few[1] == []


def test_a_run_uses_its_draw_in_the_order_of_ids(tmp_path):
    manifest, run = a_manifest(tmp_path, a=9, b=9), run_of(6, 4)
    train, validation = training_and_validation(manifest, run)
    ids = [[video.id for video in part.videos] for part in (train, validation)]
    assert ids == [sorted(part) for part in draw_subset(manifest.videos, run.subset)]
    assert [len(part) for part in ids] == [6, 4] and not {*ids[0]} & {*ids[1]}
    with pytest.raises(ValueError, match="has no training video"):
        training_and_validation(manifest.split("test"), run)


def test_a_manifest_of_a_draw_alone_gives_no_other(tmp_path):
    drawn = {"values": [3, 2, 0], "ids": [["a1", "a2", "a3"], ["a7", "a8"]]}
    manifest = replace(a_manifest(tmp_path, a=9), drawn=drawn)
    train, validation = training_and_validation(manifest, run_of(3, 2))
    assert [v.id for v in train.videos] == ["a1", "a2", "a3"]
    assert [v.id for v in validation.videos] == ["a7", "a8"]
    with pytest.raises(ValueError, match=r"subset \[3, 2, 0\] .* cannot give \[4, 2, 0\]"):
        training_and_validation(manifest, run_of(4, 2))
