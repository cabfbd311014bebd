"""The draw of training videos: balanced, then random, disjoint from validation, always the same."""

import collections

import pytest

from avnb.config import Subset, digest
from avnb.data import subsets
from avnb.data.listing import draw_subset
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
    train, rest = draw_subset(manifest.videos, Subset(subset_videos=90, validation_videos=30))
    assert len(train) == len(set(train)) == 90 and len(rest) == 30 and not set(train) & set(rest)
    by_class = collections.Counter(i[0] for i in train)
    assert by_class["b"] == 20  # all there are
    assert by_class["a"] > by_class["c"] > 20  # the 30 others come from a and c as they lie there
    assert len({i for i in train if i[0] == "a"}) == by_class["a"]


def test_few_wanted_are_balanced_as_far_as_they_go(tmp_path):
    manifest = a_manifest(tmp_path, a=100, b=20, c=60)
    train, _ = draw_subset(manifest.videos, Subset(subset_videos=30, validation_videos=0))
    assert set(collections.Counter(i[0] for i in train).values()) == {10}


def test_another_seed_draws_others_and_the_order_of_the_list_does_not_matter(tmp_path):
    manifest = a_manifest(tmp_path, a=50, b=50)
    config = Subset(subset_videos=20, validation_videos=10)
    turned = manifest.only(reversed(manifest.videos))
    assert draw_subset(manifest.videos, config) == draw_subset(turned.videos, config)
    other = Subset(subset_videos=20, validation_videos=10, subset_seed=1)
    assert set(draw_subset(manifest.videos, config)[0]) != set(
        draw_subset(manifest.videos, other)[0]
    )


def test_fewer_than_wanted_are_all_taken(tmp_path):
    manifest = a_manifest(tmp_path, a=5, b=3)
    train, rest = draw_subset(manifest.videos, Subset())
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
    with pytest.raises(ValueError, match=r"train\.txt was cut or changed since it was drawn"):
        subsets.load_subset(manifest, train)


def test_without_a_training_video_there_is_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="has no training video"):
        subsets.subset_files(a_manifest(tmp_path), Subset())


def test_the_draw_never_changes(tmp_path):
    """Ids of runs depend on it, so that checkpoints would no longer be found."""
    videos = a_manifest(tmp_path, a=100, b=20, c=60).videos
    config = Subset(subset_videos=90, validation_videos=30)
    assert digest(list(draw_subset(videos, config))) == "6576610e"
    config = Subset(subset_videos=30, validation_videos=10, subset_seed=3)
    assert digest(list(draw_subset(videos, config))) == "209c09bc"


@pytest.mark.parametrize("wanted", [30, 90])
def test_each_unusable_id_is_replaced_by_one_other(tmp_path, wanted):
    videos = a_manifest(tmp_path, a=100, b=20, c=60).videos
    config = Subset(subset_videos=wanted, validation_videos=30)
    label, unusable = {v.id: v.label for v in videos}, set()
    train, rest = draw_subset(videos, config)
    for _ in range(60):  # b is used up, and the others are not
        lost = train[0] if len(unusable) % 2 else rest[-1]
        unusable.add(lost)
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


def ids_file(path, ids):
    path.write_text("".join(f"{i}\n" for i in ids))
    return str(path)


def test_a_file_of_ids_takes_the_place_of_the_draw(tmp_path):
    manifest = a_manifest(tmp_path, a=20, b=20)
    mine = ids_file(tmp_path / "mine.txt", ["b7", "a3", "b1"])
    config = Subset(subset_ids=mine, validation_videos=4)
    train, validation = draw_subset(manifest.videos, config)
    assert train == ["b7", "a3", "b1"] and len(validation) == 4 and not {*train} & {*validation}
    assert draw_subset(manifest.videos, config, {"a3"})[0] == ["b7", "b1"]
    theirs = ids_file(tmp_path / "validation.txt", ["a0", "b0"])
    both = Subset(subset_ids=mine, validation_ids=theirs)
    assert draw_subset(manifest.videos, both) == (["b7", "a3", "b1"], ["a0", "b0"])
    alone = Subset(validation_ids=theirs, subset_videos=6)
    train, validation = draw_subset(manifest.videos, alone)
    assert len(train) == 6 and not {*train} & {"a0", "b0"} and validation == ["a0", "b0"]
    files = subsets.subset_files(manifest, both)
    assert files[0].read_text() == "a3\nb1\nb7\n" and files[1].read_text() == "a0\nb0\n"
    ids_file(tmp_path / "mine.txt", ["b7"])  # another content is another draw
    assert subsets.subset_files(manifest, both)[0] != files[0]


def test_a_file_of_ids_that_does_not_fit_says_where(tmp_path):
    manifest = a_manifest(tmp_path, a=3)
    for ids, said in (
        (["a0", "a9"], r"mine.txt, line 2: 'a9' is no training video .* such as 'a0'"),
        (["a0", "a1", "a0"], r"mine.txt, line 3: 'a0' stands in line 1 as well"),
        ([""], "mine.txt holds no id; write one a line"),
    ):
        mine = ids_file(tmp_path / "mine.txt", ids)
        with pytest.raises(ValueError, match=said):
            draw_subset(manifest.videos, Subset(subset_ids=mine))
    mine = ids_file(tmp_path / "mine.txt", ["a0"])
    with pytest.raises(ValueError, match="both name 'a0'"):
        draw_subset(manifest.videos, Subset(subset_ids=mine, validation_ids=mine))
    with pytest.raises(FileNotFoundError, match="the id of a training video a line"):
        draw_subset(manifest.videos, Subset(subset_ids=str(tmp_path / "none.txt")))
