"""Videos of the user's own: a plain folder, with and without a list or groups."""

import collections
import os

import pytest

from avnb import __main__ as commands
from avnb.data import catalogue
from avnb.data.audit import audit
from avnb.data.datasets import DATA_SETS, detect, listing
from avnb.data.folder import draw_split
from avnb.data.manifest import Manifest
from avnb.profiles import Workspace

NAMES = ["#1 [a]&;.mp4", "two words@b.mp4", "deep/er/c(1)!.mp4", "$(d) 'e'.MP4", "-f.mp4"]


@pytest.fixture
def own(manifests, tmp_path):
    """Ten links to videos of the world, in two classes."""
    manifest = Manifest.load(manifests / "vggsound")
    sources = map(manifest.path, manifest.videos)
    for label in ("Tai Chi; #2", "juggling"):
        for name in NAMES:
            path = tmp_path / "My Videos (2024)" / label / name
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(next(sources), path)
    return tmp_path / "My Videos (2024)"


def splits(listed):
    return {e.path: e.split for e in listed.entries}


def touch(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"")
    return folder


def test_class_folders_with_odd_names_are_read_and_audited(own, tmp_path):
    touch(own, "juggling/.hidden.mp4", ".cache/x.mp4", "notes.txt", "juggling/cover.jpg")
    assert detect(own) == detect(str(own)) == "folder"
    found = listing("folder", own)
    assert found.name == "my-videos-2024"
    assert found.classes == ("Tai Chi; #2", "juggling")
    assert {e.path for e in found.entries} == {f"{c}/{n}" for c in found.classes for n in NAMES}
    for label in found.classes:  # a quarter of five files, at least one
        counts = collections.Counter(e.split for e in found.entries if e.label == label)
        assert counts == {"train": 4, "test": 1}
    manifest, ledger = audit(found, tmp_path / "out")
    assert len(manifest) == 10 and not ledger
    assert Manifest.load(str(tmp_path / "out")) == manifest and manifest.name == "my-videos-2024"


def test_the_draw_depends_on_paths_and_fold_alone(tmp_path):
    labels = {f"{c}/{i}.mp4": c for c in ("a", "b") for i in range(40)}
    groups = {path: path for path in labels}
    one = draw_split(labels, groups, 1)
    assert one == draw_split(dict(reversed(labels.items())), groups, 1)
    counts = collections.Counter((e.label, e.split) for e in one)
    assert counts["a", "test"] == counts["b", "test"] == 10
    assert len({str(draw_split(labels, groups, fold)) for fold in (1, 2, 3, 99)}) == 4
    first, second = (touch(tmp_path / place, *labels) for place in ("here", "there"))
    assert splits(listing("", first)) == splits(listing("", second)) == splits(listing("", first))


@pytest.mark.parametrize("count, tested", [(1, 0), (2, 1), (3, 1), (5, 1), (6, 2), (100, 25)])
def test_a_quarter_is_tested_and_at_least_one_of_two(count, tested):
    labels = {f"a/{i}.mp4": "a" for i in range(count)}
    drawn = draw_split(labels, {path: path for path in labels}, 1)
    assert sum(e.split == "test" for e in drawn) == tested


def test_groups_stay_on_one_side_in_every_class(tmp_path):
    files = [f"{c}/p{p:02d}_{i}.mkv" for c in ("a", "b") for p in range(8) for i in range(3)]
    touch(tmp_path, *files)
    (tmp_path / "groups.txt").write_text("^(p\\d+)_\r\n")
    found = listing("", tmp_path)
    sides = collections.defaultdict(set)
    for e in found.entries:
        sides[e.path.split("/")[1].split("_")[0]].add(e.split)
    assert all(len(side) == 1 for side in sides.values())
    assert sum(e.split == "test" for e in found.entries) == 12  # two of eight, in both classes


@pytest.mark.parametrize(
    "text, message",
    [
        ("(p\\d+", r"groups\.txt: expected one line.*unterminated"),
        ("p\\d+", "it has 0 capture groups"),
        ("(p)(\\d+)", "it has 2 capture groups"),
        ("", "expected one line"),
        ("(p)\n(q)\n", "expected one line"),
        ("^(x)", r"finds no group in 1 of 1 file names:\n  a/p1\.mov"),
        ("p1|(x)", "finds no group"),
    ],
)
def test_a_bad_group_pattern_is_a_clear_error(tmp_path, text, message):
    touch(tmp_path, "a/p1.mov")
    (tmp_path / "groups.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        listing("folder", tmp_path)


def test_videos_without_class_folders_are_unlabelled(tmp_path):
    names = [f"clip {i}{s}" for i, s in enumerate((".mp4", ".avi", ".mkv", ".webm", ".MOV"))]
    found = listing("", touch(tmp_path / "holiday", *names))
    assert found.classes == ("unlabelled",) and sorted(splits(found)) == sorted(names)
    assert sorted(splits(found).values()) == ["test", *["train"] * 4]
    touch(tmp_path / "holiday", "class/x.mp4")
    with pytest.raises(ValueError, match=r"5 videos in none of them:\n  clip 0(.|\n)*split\.csv"):
        listing("", tmp_path / "holiday")


def write_split(folder, *rows, header="path,label,split"):
    lines = "\r\n".join([header, *rows, ""])
    (folder / "split.csv").write_bytes(b"\xef\xbb\xbf" + lines.encode())


def test_a_split_file_is_the_list(own):
    odd = 'Tai Chi; #2/#1 [a]&;.mp4,"x, y",test'
    untidy = "./juggling//deep/er/c(1)!.mp4,b,test"
    write_split(own, "juggling/-f.mp4,juggling,train", "", odd, untidy)
    (own / "groups.txt").write_text("(")  # not used
    found = listing("", own, fold=7)
    assert found.classes == ("b", "juggling", "x, y") and len(found.unlisted) == 7
    assert [(e.path, e.label, e.split) for e in found.entries] == [
        ("juggling/-f.mp4", "juggling", "train"),
        ("Tai Chi; #2/#1 [a]&;.mp4", "x, y", "test"),
        ("juggling/deep/er/c(1)!.mp4", "b", "test"),
    ]
    write_split(own, odd, "gone.mp4,juggling,train")
    with pytest.raises(FileNotFoundError, match=r"1 of the 2 videos(.|\n)*gone\.mp4"):
        listing("", own)
    assert listing("", own, allow_missing=True).missing == ("gone.mp4",)


@pytest.mark.parametrize(
    "row, message",
    [
        ("a/1.mp4,a,validation", "line 3: expected a path, a label, and 'train' or 'test'"),
        ("a/1.mp4,,train", "line 3: expected a path"),
        ("a/1.mp4;a;train", "line 3: expected a path"),
        ("a/1.mp4,a,train,1", "line 3: expected a path"),
        ("../1.mp4,a,train", r"line 3: '\.\./1\.mp4' is not inside the folder"),
        ("a/../../1.mp4,a,train", "line 3: .* is not inside the folder"),
        ("/etc/1.mp4,a,train", "line 3: '/etc/1.mp4' is not inside the folder"),
        ("a//0.mp4,b,test", r"line 3: 'a/0\.mp4' is listed twice"),
    ],
)
def test_a_bad_row_of_the_split_file_is_named_with_its_line(tmp_path, row, message):
    write_split(touch(tmp_path, "a/0.mp4", "a/1.mp4"), "a/0.mp4,a,train", row)
    with pytest.raises(ValueError, match=rf"split\.csv, {message}"):
        listing("", tmp_path)


def test_a_split_file_needs_its_header(tmp_path):
    write_split(touch(tmp_path, "a/0.mp4"), header="a/0.mp4,a,train")
    with pytest.raises(ValueError, match=r"split\.csv, line 1: expected 'path,label,split'"):
        listing("", tmp_path)


def test_a_name_that_cannot_be_written_on_one_line_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds 'a/1\\n2\.mp4': rename it"):
        listing("", touch(tmp_path, "a/1\n2.mp4"))


def test_the_layout_is_detected_and_errors_list_what_is_known(world, tmp_path):
    for name in (n for n, data_set in DATA_SETS.items() if data_set.marker):
        assert detect(world / name) == name and listing("", world / name).name == name
    touch(tmp_path, "a/readme.txt")
    with pytest.raises(FileNotFoundError, match=r"no data set; of its 1 files(.|\n)*a/readme") as e:
        detect(tmp_path)
    assert all(d.title in str(e.value) for d in DATA_SETS.values())
    with pytest.raises(FileNotFoundError, match="holds no video; expected <class>/<any name>"):
        listing("folder", tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere is missing"):
        listing("", tmp_path / "nowhere")


def test_an_official_name_for_another_layout_is_an_error_with_a_hint(world, own):
    with pytest.raises(FileNotFoundError, match=r"vggsound\.csv is missing(.|\n)*like 'hmdb51'"):
        listing("vggsound", world / "hmdb51")
    with pytest.raises(FileNotFoundError, match=r"ucfTrainTestlist is missing(.|\n)*like 'folder'"):
        listing("ucf101", own)


def test_folds_are_those_of_the_data_set(world, own):
    for name, fold in (("vggsound", 2), ("hmdb51", 4), ("ucf101", 0)):
        with pytest.raises(ValueError, match=f"has no fold {fold}; allowed: 1"):
            listing(name, world / name, fold)
    with pytest.raises(ValueError, match="Own videos has no fold 0"):
        listing("folder", own, 0)


def test_a_plain_folder_never_bears_an_official_name(tmp_path):
    for given, shown in (("UCF_101", "ucf-101"), ("ucf101", "ucf101-own"), ("((", "folder")):
        assert listing("", touch(tmp_path / given, "a/1.mp4")).name == shown


def test_a_workspace_opens_own_videos_and_the_synthetic_world(own, tmp_path, monkeypatch):
    monkeypatch.setenv("AVNB_BUILD", str(tmp_path / "build"))
    work = Workspace.open("smoke")
    manifest = catalogue.load_dataset(work, "", str(own), fold=2)
    assert (manifest.name, len(manifest)) == ("my-videos-2024", 10)
    assert manifest.where.name == "fold2" and manifest.origin.startswith("real:")
    assert catalogue.load_dataset(work, "folder", str(own), fold=2) == manifest
    with pytest.raises(ValueError, match="your own videos: give their folder"):
        catalogue.load_dataset(work, "folder")
    monkeypatch.setattr(catalogue, "synthetic_world", lambda _: tmp_path / "world")
    with pytest.raises(FileNotFoundError, match="world/vggsound is missing"):
        catalogue.load_dataset(work, "")


def test_what_the_command_finds_is_kept_for_the_chapters(own, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AVNB_BUILD", str(tmp_path / "build"))
    command = ["audit", "folder", str(own), "--fold", "5", "--profile", "smoke", "--subset"]
    assert commands.main(command) == 0
    assert str(tmp_path / "build" / "smoke" / "manifests") in capsys.readouterr().out
    monkeypatch.setattr("avnb.data.audit.in_parallel", None)  # would fail if it were used
    found = catalogue.load_dataset(Workspace.open("smoke"), "folder", str(own), fold=5)
    assert len(found) == 10


def test_the_command_audits_own_videos(own, tmp_path, capsys):
    command = ["audit", "folder", str(own), str(tmp_path / "out"), "--fold", "5"]
    assert commands.main(command) == 0
    assert "10 usable videos of 2 classes" in capsys.readouterr().out
