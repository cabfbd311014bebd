"""Videos of the user's own: a plain folder, with and without a list."""

import collections

import pytest

from avnb.config import Subset, digest
from avnb.data.datasets import VIDEO_SUFFIXES, detect, listing
from avnb.data.subsets import draw_subset
from tests.data.test_datasets import touch

NAMES = ["#1 [a]&;.mp4", "two words@b.mp4", "deep/er/c(1)!.mp4", "$(d) 'e'.MP4", "-f.mp4"]


def splits(listed):
    return {e.path: e.split for e in listed.entries}


def own(folder):
    return touch(folder, *(f"{label}/{name}" for label in ("Tai Chi; #2", "b") for name in NAMES))


def test_class_folders_with_odd_names_are_read_and_other_files_counted(tmp_path):
    folder = own(tmp_path / "My Videos (2024)")
    touch(folder, "b/.hidden.mp4", ".cache/x.mp4", "notes.txt", "c/only.rm", "loose.mp4")
    assert detect(folder) == "folder"
    found = listing("folder", folder)
    assert found.name == "my-videos-2024" and found.classes == ("Tai Chi; #2", "b")
    assert found.unlisted == ("c/only.rm", "loose.mp4", "notes.txt")
    assert [e.path for e in found.entries] == sorted(
        f"{c}/{n}" for c in found.classes for n in NAMES
    )
    assert all(e.id == e.path and e.path.startswith(f"{e.label}/") for e in found.entries)
    for label in found.classes:  # a quarter of five files, at least one
        counts = collections.Counter(e.split for e in found.entries if e.label == label)
        assert counts == {"train": 4, "test": 1}


def test_the_draw_depends_on_paths_and_fold_alone_and_never_changes(tmp_path):
    touch(tmp_path, *(f"{c}/{i}.mp4" for c in ("a", "b") for i in range(40)))
    drawn = [splits(listing("", tmp_path, fold)) for fold in (1, 2, 3, 99)]
    assert len(set(map(str, drawn))) == 4 and digest(drawn) == "37c60ccb"


@pytest.mark.parametrize("count, tested", [(1, 0), (2, 1), (3, 1), (5, 1), (6, 2), (100, 25)])
def test_a_quarter_is_tested_and_at_least_one_of_two(tmp_path, count, tested):
    drawn = splits(listing("", touch(tmp_path, *(f"a/{i}.mp4" for i in range(count)))))
    assert list(drawn.values()).count("test") == tested


def test_videos_without_class_folders_are_unlabelled_and_every_ending_is_read(tmp_path):
    names = [f"clip{i}{ending}" for i, ending in enumerate(VIDEO_SUFFIXES)]
    found = listing("", touch(tmp_path, *names, "CLIP.OGV"))
    assert found.classes == ("unlabelled",) and sorted(splits(found)) == sorted(
        [*names, "CLIP.OGV"]
    )


@pytest.mark.parametrize("below", ["cats/", ""])
def test_folders_of_train_and_test_are_a_split_and_no_classes(tmp_path, below):
    paths = [f"{split}/{below}{i}.mp4" for split in ("Train", "test") for i in range(4)]
    found = listing("", touch(tmp_path, *paths, "loose.mp4"))
    assert found.classes == (below.strip("/") or "unlabelled",)
    assert splits(found) == {path: path.partition("/")[0].lower() for path in paths}
    for others in ("", "val", "test val", "test more"):
        tops = ["train", *others.split()]
        with pytest.raises(ValueError, match=r"'train'.*expected one for each class"):
            listing("", touch(tmp_path / f"x{others}", *(f"{top}/cats/0.mp4" for top in tops)))
    assert listing("", touch(tmp_path / "rail", "train/0.mp4", "tram/0.mp4")).classes[0] == "train"


def write_split(folder, *rows, header="path,label,split"):
    lines = "\r\n".join([header, *rows, ""])
    (folder / "split.csv").write_bytes(b"\xef\xbb\xbf" + lines.encode())


def test_a_split_file_is_the_list(tmp_path):
    odd = 'Tai Chi; #2/#1 [a]&;.mp4,"x, y",test'
    write_split(own(tmp_path), "b/-f.mp4,b,train", "", odd, r"b\deep\er\c(1)!.mp4,c,test")
    found = listing("", tmp_path, fold=7)
    assert found.classes == ("b", "c", "x, y") and len(found.unlisted) == 7
    assert [(e.path, e.label, e.split) for e in found.entries] == [
        ("b/-f.mp4", "b", "train"),
        ("Tai Chi; #2/#1 [a]&;.mp4", "x, y", "test"),
        ("b/deep/er/c(1)!.mp4", "c", "test"),
    ]
    write_split(tmp_path, odd, "gone.mp4,b,train")
    with pytest.raises(FileNotFoundError, match=r"1 of the 2 videos(.|\n)*gone\.mp4"):
        listing("", tmp_path)
    lost = listing("", tmp_path, allow_missing=True).missing
    assert [entry.path for entry in lost] == ["gone.mp4"]


def test_no_group_is_divided(tmp_path):
    """Groups of a few videos over two classes; none is all of a class."""
    rows = [f"{i}.mp4,{'ab'[i % 2]},g{i * i % 16 + i % 13}" for i in range(60)]
    folder = touch(tmp_path, *(f"{i}.mp4" for i in range(60)))
    write_split(folder, *rows, header="path,label,group")
    for fold in range(1, 5):
        entries = listing("", tmp_path, fold).entries
        parts = {split: [e for e in entries if e.split == split] for split in ("train", "test")}
        drawn = draw_subset(entries, Subset(subset_videos=9))
        parts |= {i: [e for e in entries if e.id in ids] for i, ids in enumerate(drawn)}
        train, test, used, validation = ({e.group for e in part} for part in parts.values())
        assert validation and not train & test and not used & validation
        assert {"a", "b"} == {e.label for e in parts["test"]} and 14 <= len(parts["test"]) <= 20
    rows = [f"{i}.mp4,a,g{int(i == 9)}" for i in range(10)]  # a group of nine, and one of one
    write_split(tmp_path, *rows, header="path,label,group")
    for fold in range(1, 5):
        assert [e.id for e in listing("", tmp_path, fold).entries if e.split == "test"] == ["9.mp4"]
    write_split(tmp_path, "0.mp4,a,train,g", "1.mp4,a,test,g", header="path,label,split,group")
    with pytest.raises(ValueError, match="line 3: group 'g' is in both splits"):
        listing("", tmp_path)


@pytest.mark.parametrize(
    "row, message",
    [
        ("a/1.mp4,a,val", "split.csv, line 3: expected .* 'train' or 'test' .*validation videos"),
        ("a/1.mp4,,train", "'a/1.mp4' of '': both need a name"),
        ("a/1.mp4;a;train", "split.csv, line 3: expected path,label,split"),
        ("a/1.mp4,a,train,1", "split.csv, line 3: expected path,label,split"),
        ("a/0.mp4,b,test", r"name a/0\.mp4 twice"),
    ],
)
def test_a_bad_row_of_the_split_file_is_named(tmp_path, row, message):
    write_split(touch(tmp_path, "a/0.mp4", "a/1.mp4"), "a/0.mp4,a,train", row)
    with pytest.raises(ValueError, match=message):
        listing("", tmp_path)


def test_what_cannot_be_read_or_written_is_refused(tmp_path):
    write_split(touch(tmp_path / "a", "a/0.mp4"), header="a/0.mp4,a,train")
    with pytest.raises(ValueError, match=r"split\.csv, line 1: expected one of .*path,label,split"):
        listing("", tmp_path / "a")
    with pytest.raises(ValueError, match=r"holds 'a/1\\n2\.mp4' of 'a'"):
        listing("", touch(tmp_path / "b", "a/1\n2.mp4"))
    with pytest.raises(ValueError, match="holds one folder, with 'train' and 'test'"):
        listing("", touch(tmp_path / "c", "all/train/a/1.mp4", "all/test/a/2.mp4"))
    (own(tmp_path / "e") / "groups.txt").touch()
    with pytest.raises(ValueError, match=r"groups\.txt is not read"):
        listing("", tmp_path / "e")
    with pytest.raises(ValueError, match="Own videos has no fold 0"):
        listing("folder", own(tmp_path / "d"), 0)


def test_a_plain_folder_never_bears_an_official_name(tmp_path):
    for given, shown in (("UCF_101", "ucf-101"), ("ucf101", "ucf101-own"), ("((", "folder")):
        assert listing("", touch(tmp_path / given, "a/1.mp4")).name == shown
