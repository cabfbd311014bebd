"""The draw of training videos: balanced, then random, disjoint from validation, always the same."""

import collections

import pytest

from avnb.config import Subset, digest
from avnb.data import subsets
from avnb.data.manifest import Manifest, Video
from avnb.data.subsets import draw_subset

SHAPE = {"start": 0.0, "seconds": 10.0, "fps": 25.0, "width": 320, "height": 240}


def a_manifest(tmp_path, **counts) -> Manifest:
    """So many training videos of each class, and a test video."""
    names = [(f"{label}{i}", label) for label, count in counts.items() for i in range(count)]
    videos = tuple(
        Video(id=i, path=f"{i}.mp4", label=label, split=split, audio_hz=16_000, **SHAPE)
        for i, label, split in [*((*name, "train") for name in names), ("tested", "a", "test")]
    )
    places = {"folder": tmp_path, "where": tmp_path}
    classes = tuple(sorted(counts))
    return Manifest(name="vggsound", classes=classes, videos=videos, listed=len(videos), **places)


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


def test_the_files_are_drawn_once_and_an_edited_one_is_named(tmp_path):
    manifest, config = a_manifest(tmp_path, a=9, b=9), Subset(subset_videos=6, validation_videos=4)
    train, validation = subsets.subset_files(manifest, config)
    assert len(train.read_text().splitlines()) == 6 and len(validation.read_text().split()) == 4
    stamp = train.stat().st_mtime_ns
    assert subsets.subset_files(manifest, config) == (train, validation)
    assert train.stat().st_mtime_ns == stamp
    drawn = [v.id for v in subsets.load_subset(manifest, train).videos]
    assert drawn == train.read_text().split() == sorted(drawn)
    for text in (train.read_text() + "a0\n", train.read_text()[3:]):
        train.write_text(text)
        with pytest.raises(ValueError, match=r"train\.txt was changed since it was drawn"):
            subsets.load_subset(manifest, train)
    with pytest.raises(ValueError, match=r"validation\.txt was changed since .* videos of .* were"):
        subsets.load_subset(manifest.only(manifest.videos[:2]), validation)
    with pytest.raises(ValueError, match="has no training video"):
        subsets.subset_files(manifest.split("test"), Subset())


def test_a_manifest_of_a_subset_alone_gives_no_other(tmp_path):
    manifest, config = a_manifest(tmp_path, a=9), Subset(subset_videos=3, validation_videos=2)
    subsets.write_drawn(tmp_path, config, (["a3", "a1", "a2"], ["a8", "a7"]))
    train, validation = subsets.subset_files(manifest, config)
    assert train.read_text() == "a1\na2\na3\n" and validation.read_text() == "a7\na8\n"
    with pytest.raises(ValueError, match=r"subset \[3, 2, 0\] .* cannot give \[4, 2, 0\]"):
        subsets.subset_files(manifest, Subset(subset_videos=4, validation_videos=2))


def ids_file(path, *ids):
    path.write_text("".join(f"{i}\r\n\n" for i in ids))
    return str(path)


def test_a_file_of_ids_takes_the_place_of_the_draw(tmp_path):
    manifest = a_manifest(tmp_path, a=20, b=20)
    mine = ids_file(tmp_path / "mine.txt", "b7", "a3", "b1")
    config = Subset(subset_ids=mine, validation_videos=4)
    train, validation = draw_subset(manifest.videos, config)
    assert train == ["b7", "a3", "b1"] and validation == ["a1", "b19", "b11", "a13"]
    assert draw_subset(manifest.videos, config, {"a3"})[0] == ["b7", "b1"]
    theirs = ids_file(tmp_path / "validation.txt", "a0", "b0")
    both = Subset(subset_ids=mine, validation_ids=theirs)
    assert draw_subset(manifest.videos, both, {"a0"}) == (["b7", "a3", "b1"], ["b0"])
    train, validation = draw_subset(manifest.videos, Subset(validation_ids=theirs, subset_videos=6))
    assert train == ["a11", "a19", "a12", "b13", "b14", "b9"] and validation == ["a0", "b0"]
    files = subsets.subset_files(manifest, both)
    assert files[0].read_text() == "a3\nb1\nb7\n" and files[1].read_text() == "a0\nb0\n"
    ids_file(tmp_path / "mine.txt", "b7")  # another content is another draw
    assert subsets.subset_files(manifest, both)[0] != files[0]


@pytest.mark.parametrize(
    "ids, said",
    [
        (["a0", "a9", "tested"], "names 'a9', no training video .* such as 'a0'"),
        (["a0", "a1", "a0"], "mine.txt holds 'a0' 2 times"),
        ([], "mine.txt holds no id"),
        (["a0"], "both name 'a0'"),
    ],
)
def test_a_file_of_ids_that_does_not_fit_is_refused(tmp_path, ids, said):
    manifest, mine = a_manifest(tmp_path, a=3), ids_file(tmp_path / "mine.txt", *ids)
    with pytest.raises(ValueError, match=said):
        draw_subset(manifest.videos, Subset(subset_ids=mine, validation_ids=mine))
    with pytest.raises(FileNotFoundError, match=r"none\.txt is missing; its folder holds"):
        draw_subset(manifest.videos, Subset(subset_ids=str(tmp_path / "none.txt")))
