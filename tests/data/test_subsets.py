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


def test_a_draw_from_the_drawn_alone_gives_all_of_them_again(videos):
    config = Subset(subset_videos=90, validation_videos=30)
    train, rest = draw_subset(videos, config)
    again = draw_subset([v for v in videos if v.id in {*train, *rest}], config)
    assert sorted(again[0] + again[1]) == sorted(train + rest) and len(again[0]) == 90


def test_a_run_uses_its_draw_in_the_order_of_ids(tmp_path):
    manifest, run = a_manifest(tmp_path, a=9, b=9), run_of(6, 4)
    train, validation = training_and_validation(manifest, run)
    ids = [[video.id for video in part.videos] for part in (train, validation)]
    assert ids == [sorted(part) for part in draw_subset(manifest.videos, run.subset)]
    assert [len(part) for part in ids] == [6, 4] and not {*ids[0]} & {*ids[1]}
    with pytest.raises(ValueError, match="has no training video"):
        training_and_validation(manifest.split("test"), run)
