"""The draw of training videos: balanced, then random, disjoint from validation, always the same."""

import collections

import pytest

from avnb.config import Subset
from avnb.data import subsets
from avnb.data.manifest import Manifest, Video


def a_manifest(tmp_path, **counts) -> Manifest:
    shared = {"split": "train", "start": 0.0, "seconds": 10.0, "fps": 25.0}
    shared |= {"width": 320, "height": 240, "audio_hz": 16_000}
    videos = tuple(
        Video(id=f"{label}{i}", path=f"{label}{i}.mp4", label=label, **shared)
        for label, count in counts.items()
        for i in range(count)
    )
    places = {"folder": tmp_path, "where": tmp_path}
    classes = tuple(sorted(counts))
    return Manifest(name="vggsound", classes=classes, videos=videos, listed=len(videos), **places)


def test_first_as_many_of_each_class_as_the_smallest_has_then_any(tmp_path):
    manifest = a_manifest(tmp_path, a=100, b=20, c=60)
    train, rest = subsets.draw_subset(manifest, Subset(subset_videos=90, validation_videos=30))
    assert len(train) == len(set(train)) == 90 and len(rest) == 30 and not set(train) & set(rest)
    by_class = collections.Counter(i[0] for i in train)
    assert by_class["b"] == 20  # all there are
    assert by_class["a"] > by_class["c"] > 20  # the 30 others come from a and c as they lie there
    assert len({i for i in train if i[0] == "a"}) == by_class["a"]


def test_few_wanted_are_balanced_as_far_as_they_go(tmp_path):
    manifest = a_manifest(tmp_path, a=100, b=20, c=60)
    train, _ = subsets.draw_subset(manifest, Subset(subset_videos=30, validation_videos=0))
    assert set(collections.Counter(i[0] for i in train).values()) == {10}


def test_another_seed_draws_others_and_the_order_of_the_list_does_not_matter(tmp_path):
    manifest = a_manifest(tmp_path, a=50, b=50)
    config = Subset(subset_videos=20, validation_videos=10)
    turned = manifest.only(reversed(manifest.videos))
    assert subsets.draw_subset(manifest, config) == subsets.draw_subset(turned, config)
    other = Subset(subset_videos=20, validation_videos=10, subset_seed=1)
    assert set(subsets.draw_subset(manifest, config)[0]) != set(
        subsets.draw_subset(manifest, other)[0]
    )


def test_fewer_than_wanted_are_all_taken(tmp_path):
    manifest = a_manifest(tmp_path, a=5, b=3)
    train, rest = subsets.draw_subset(manifest, Subset())
    assert len(train) == 8 and rest == []


def test_the_files_are_drawn_once_and_an_edited_one_is_named(tmp_path):
    manifest = a_manifest(tmp_path, a=9, b=9)
    config = Subset(subset_videos=6, validation_videos=4)
    train, validation = subsets.subset_files(manifest, config)
    assert len(train.read_text().splitlines()) == 6 and len(validation.read_text().split()) == 4
    stamp = train.stat().st_mtime_ns
    assert subsets.subset_files(manifest, config) == (train, validation)
    assert train.stat().st_mtime_ns == stamp
    assert [v.id for v in subsets.load_subset(manifest, train).videos] == train.read_text().split()
    train.write_text(train.read_text() + "nobody\n")
    with pytest.raises(ValueError, match=r"train\.txt names 1 videos, 'nobody' first"):
        subsets.load_subset(manifest, train)


def test_without_a_training_video_there_is_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="has no training video"):
        subsets.draw_subset(a_manifest(tmp_path), Subset())
