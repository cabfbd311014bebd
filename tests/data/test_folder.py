"""Videos of the user's own: a plain folder, with and without a list or groups."""

import collections

import pytest

from avnb.data.datasets import detect, listing
from avnb.data.layouts import VIDEO_SUFFIXES, draw_split
from tests.data.test_datasets import touch

NAMES = ["#1 [a]&;.mp4", "two words@b.mp4", "deep/er/c(1)!.mp4", "$(d) 'e'.MP4", "-f.mp4"]


def splits(listed):
    return {e.path: e.split for e in listed.entries}


def own(folder):
    return touch(folder, *(f"{label}/{name}" for label in ("Tai Chi; #2", "b") for name in NAMES))


def test_class_folders_with_odd_names_are_read_and_other_files_counted(tmp_path):
    folder = own(tmp_path / "My Videos (2024)")
    touch(folder, "b/.hidden.mp4", ".cache/x.mp4", "notes.txt", "c/only.rm", "groups.txt")
    (folder / "groups.txt").write_text("(.+)")
    assert detect(folder) == "folder"
    found = listing("folder", folder)
    assert found.name == "my-videos-2024" and found.classes == ("Tai Chi; #2", "b")
    assert found.unlisted == ("c/only.rm", "notes.txt")
    assert [e.path for e in found.entries] == sorted(
        f"{c}/{n}" for c in found.classes for n in NAMES
    )
    assert all(e.id == e.path and e.path.startswith(f"{e.label}/") for e in found.entries)
    for label in found.classes:  # a quarter of five files, at least one
        counts = collections.Counter(e.split for e in found.entries if e.label == label)
        assert counts == {"train": 4, "test": 1}


def test_the_draw_depends_on_paths_and_fold_alone_and_never_changes(tmp_path):
    labels = {f"{c}/{i}.mp4": c for c in ("a", "b") for i in range(40)}
    groups = {path: path for path in labels}
    drawn = [draw_split(labels, groups, fold) for fold in (1, 2, 3, 99)]
    assert len(set(map(str, drawn))) == 4
    assert drawn[0] == draw_split(dict(reversed(labels.items())), groups, 1)
    touch(tmp_path, *labels)
    assert [splits(listing("", tmp_path, fold)) for fold in (1, 2, 3)] == drawn[:3]
    few = dict.fromkeys("012345", "a")
    drawn = draw_split(few, {name: name for name in few}, 1)
    assert [name for name in few if drawn[name] == "test"] == ["3", "5"]


@pytest.mark.parametrize("count, tested", [(1, 0), (2, 1), (3, 1), (5, 1), (6, 2), (100, 25)])
def test_a_quarter_is_tested_and_at_least_one_of_two(count, tested):
    labels = {f"a/{i}.mp4": "a" for i in range(count)}
    drawn = draw_split(labels, {path: path for path in labels}, 1)
    assert list(drawn.values()).count("test") == tested


@pytest.mark.parametrize("fold", range(1, 9))
def test_groups_are_never_divided_even_over_classes(tmp_path, fold):
    """Of people who do several things, each is on one side; no class loses all for training."""
    people = {"run": range(0, 8), "swim": range(4, 12), "sing": (0, 11), "dive": (3,)}
    files = [f"{c}/p{p:02d}_{i}.mkv" for c, some in people.items() for p in some for i in range(3)]
    (touch(tmp_path, *files) / "groups.txt").write_text("^(p\\d+)_\r\n")
    sides = collections.defaultdict(set)
    tested = collections.defaultdict(set)
    for path, split in splits(listing("", tmp_path, fold)).items():
        label, person = path[:-6].split("/")
        sides[person].add(split)
        if split == "test":
            tested[label].add(person)
    assert all(len(side) == 1 for side in sides.values())
    assert len(tested["run"]) >= 2 and len(tested["swim"]) >= 2
    assert len(tested["sing"]) <= 1 and not tested["dive"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("(p\\d+", r"groups\.txt: expected a regular expression.*unterminated"),
        ("p\\d+", "with a capture group.*no such group"),
        ("", "with a capture group"),
        ("^(x)", r"finds no group in the names of \n  a/p1\.mov"),
        ("p1|(x)", "finds no group"),
    ],
)
def test_a_bad_group_pattern_is_a_clear_error(tmp_path, text, message):
    (touch(tmp_path, "a/p1.mov") / "groups.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        listing("folder", tmp_path)


def test_videos_without_class_folders_are_unlabelled_and_every_ending_is_read(tmp_path):
    names = [f"clip{i}{ending}" for i, ending in enumerate(VIDEO_SUFFIXES)]
    found = listing("", touch(tmp_path, *names, "CLIP.OGV"))
    assert found.classes == ("unlabelled",) and sorted(splits(found)) == sorted(
        [*names, "CLIP.OGV"]
    )
    assert {".m4v", ".mts", ".3gp", ".wmv", ".mpg", ".flv", ".ts"} < set(VIDEO_SUFFIXES)
    touch(tmp_path, "class/x.mp4")
    with pytest.raises(ValueError, match=r"15 videos in none of them: \n  CLIP(.|\n)*split\.csv"):
        listing("", tmp_path)


def test_folders_for_training_and_test_are_a_split(tmp_path):
    files = ["train/run/1.mp4", "train/swim/2.mp4", "test/run/deep/1.mp4"]
    found = listing("", touch(tmp_path, *files), fold=5)
    assert found.classes == ("run", "swim")
    assert splits(found) == dict(zip(files, ("train", "train", "test"), strict=True))
    touch(tmp_path, "train/loose.mp4")
    with pytest.raises(ValueError, match=r"1 videos in none of them: \n  train/loose"):
        listing("", tmp_path)
    touch(tmp_path, "val/run/4.mp4")
    with pytest.raises(ValueError, match=r"train/ and test/, and videos beside them: \n  val\n"):
        listing("", tmp_path)
    assert listing("", touch(tmp_path / "a", "train/1.mp4", "bus/1.mp4")).classes == (
        "bus",
        "train",
    )
    flat = listing("", touch(tmp_path / "b", "train/1.mp4", "test/1.mp4"))
    assert [(e.label, e.split) for e in flat.entries] == [
        ("unlabelled", "test"), ("unlabelled", "train"),
    ]  # fmt: skip


def write_split(folder, *rows, header="path,label,split"):
    lines = "\r\n".join([header, *rows, ""])
    (folder / "split.csv").write_bytes(b"\xef\xbb\xbf" + lines.encode())


def test_a_split_file_is_the_list(tmp_path):
    odd = 'Tai Chi; #2/#1 [a]&;.mp4,"x, y",test'
    untidy, windows = "./b//deep/er/c(1)!.mp4,c,test", "b\\two words@b.mp4,b,train"
    write_split(own(tmp_path), "b/-f.mp4,b,train", "", odd, untidy, windows, "back\\.avi,b,test")
    (touch(tmp_path, "back\\.avi") / "groups.txt").write_text("(")  # not used
    found = listing("", tmp_path, fold=7)
    assert found.classes == ("b", "c", "x, y") and len(found.unlisted) == 6
    assert [(e.path, e.label, e.split) for e in found.entries] == [
        ("b/-f.mp4", "b", "train"),
        ("Tai Chi; #2/#1 [a]&;.mp4", "x, y", "test"),
        ("b/deep/er/c(1)!.mp4", "c", "test"),
        ("b/two words@b.mp4", "b", "train"),
        ("back\\.avi", "b", "test"),
    ]
    write_split(tmp_path, odd, "gone.mp4,b,train")
    with pytest.raises(FileNotFoundError, match=r"1 of the 2 videos(.|\n)*gone\.mp4"):
        listing("", tmp_path)
    assert listing("", tmp_path, allow_missing=True).missing == ("gone.mp4",)


@pytest.mark.parametrize(
    "row, message",
    [
        ("a/1.mp4,a,val", "line 3: expected .* 'train' or 'test' .*validation videos from"),
        ("a/1.mp4,,train", "line 3: expected a path"),
        ("a/1.mp4;a;train", "line 3: expected a path"),
        ("a/1.mp4,a,train,1", "line 3: expected a path"),
        ("../1.mp4,a,train", r"line 3: '\.\./1\.mp4' is not a path relative to"),
        ("a/../../1.mp4,a,train", "line 3: .* is not a path relative"),
        ("/etc/1.mp4,a,train", "line 3: '/etc/1.mp4' is not a path relative"),
        ("C:\\a\\1.mp4,a,train", "line 3: .* is not a path relative"),
        ("a//0.mp4,b,test", r"line 3: 'a/0\.mp4' is listed twice"),
    ],
)
def test_a_bad_row_of_the_split_file_is_named_with_its_line(tmp_path, row, message):
    write_split(touch(tmp_path, "a/0.mp4", "a/1.mp4"), "a/0.mp4,a,train", row)
    with pytest.raises(ValueError, match=rf"split\.csv, {message}"):
        listing("", tmp_path)


def test_what_cannot_be_read_or_written_is_refused(tmp_path):
    write_split(touch(tmp_path / "a", "a/0.mp4"), header="a/0.mp4,a,train")
    with pytest.raises(ValueError, match=r"split\.csv, line 1: expected 'path,label,split'"):
        listing("", tmp_path / "a")
    with pytest.raises(ValueError, match=r"holds 'a/1\\n2\.mp4': rename it"):
        listing("", touch(tmp_path / "b", "a/1\n2.mp4"))
    with pytest.raises(
        FileNotFoundError, match=r"holds no video(.|\n)*\.ogv; it holds \n  a/x\.txt"
    ):
        listing("folder", touch(tmp_path / "c", "a/x.txt"))
    with pytest.raises(ValueError, match="Own videos has no fold 0"):
        listing("folder", own(tmp_path / "d"), 0)


def test_a_plain_folder_never_bears_an_official_name(tmp_path):
    for given, shown in (("UCF_101", "ucf-101"), ("ucf101", "ucf101-own"), ("((", "folder")):
        assert listing("", touch(tmp_path / given, "a/1.mp4")).name == shown
