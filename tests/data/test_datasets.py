"""The official formats and their traps. Only names matter here, so the videos are empty files."""

import csv
import os
from pathlib import Path

import pytest

from avnb.data.datasets import detect, listing

# In the order of classInd.txt, which is not the sorted one: HammerThrow < Hammering.
CLASSES = ("BoxingSpeedBag", "Hammering", "HammerThrow", "HandstandPushups")


def touch(folder, *paths) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def ucf101(folder, *, flat=False, end="\r\n", mark="", stem="HandStandPushups"):
    """Three groups a class, group `fold` is tested; the lists write HandStand."""
    texts = {"classInd.txt": [f"{i} {name}" for i, name in enumerate(CLASSES, 1)]}
    for number, name in enumerate(CLASSES, 1):
        shown = name.replace("Handstand", "HandStand")
        for group in (1, 2, 3):
            for clip in (1, 2):
                tail = f"_g{group:02d}_c{clip:02d}.avi"
                on_disk = f"v_{stem if shown != name else name}{tail}"
                touch(folder, f"UCF-101/{'' if flat else name}/{on_disk}")
                for fold in (1, 2, 3):
                    line, test = f"{shown}/v_{shown}{tail}", group == fold
                    table = f"{'test' if test else 'train'}list0{fold}.txt"
                    texts.setdefault(table, []).append(line if test else f"{line} {number}")
    for name, lines in texts.items():
        table = touch(folder, f"ucfTrainTestlist/{name}") / "ucfTrainTestlist" / name
        table.write_bytes((mark + end.join([*lines, ""])).encode())
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"flat": True, "stem": "HandstandPushups"},
        {"end": "\n", "stem": "HandstandPushups"},
        {"flat": True, "mark": "\ufeff"},
    ],
    ids=["official", "flat zip", "unix", "flat, byte order mark"],
)
def test_ucf101_as_it_is_in_circulation(tmp_path, options):
    ucf101(tmp_path, **options)
    for fold in (1, 2, 3):
        found = listing("ucf101", tmp_path, fold)
        assert found.classes == CLASSES
        assert not found.missing and not found.unlisted and found.listed == 24
        assert [sum(e.label == name for e in found.entries) for name in CLASSES] == [6] * 4
        assert {e.id.split("_g")[1][:2] for e in found.entries if e.split == "test"} == {f"0{fold}"}
        assert all((found.folder / e.path).exists() for e in found.entries)


@pytest.mark.parametrize(
    "table, line, said",
    [
        ("testlist02.txt", "Hammering/v_Hammering_g03_c02.avi", "line 9: group v_Hammering_g03"),
        ("trainlist02.txt", "Unheard/v_Unheard_g03_c09.avi 1", "line 17: .* no class Unheard"),
        ("testlist02.txt", "Hammering/v_Hammering_c09.avi", "line 9: expected .*Hammering_c09"),
        ("classInd.txt", "Jumping", "line 5: expected '<number> <Class>'"),
    ],
)
def test_a_line_of_ucf101_that_does_not_fit_is_named(tmp_path, table, line, said):
    path = ucf101(tmp_path) / "ucfTrainTestlist" / table
    path.write_text(path.read_text() + line)
    with pytest.raises(ValueError, match=rf"{table}(.|\n)*{said}"):
        listing("ucf101", tmp_path, 2)


ODD = ["a(b)!.avi", "#1[x].avi", "c;d&e.avi", "f+g@h.avi", "two words.avi", "*.avi", "x.y.avi"]


def hmdb51(folder):
    """Two classes with odd names; in each fold other videos are unused, trained on, tested."""
    for name in ("sword exercise", "brush_hair"):
        touch(folder, *(f"{name}/{file}" for file in ODD))
        for fold in (1, 2, 3):
            lines = [f"{file} {(i + fold) % 3} \r\n" for i, file in enumerate(ODD)]
            table = f"testTrainMulti_7030_splits/{name}_test_split{fold}.txt"
            (touch(folder, table) / table).write_bytes("".join(lines).encode())
    return folder


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_hmdb51_with_its_odd_names(tmp_path, fold):
    found = listing("hmdb51", hmdb51(tmp_path), fold)
    assert found.classes == ("brush_hair", "sword exercise")
    assert not found.missing and not found.unlisted
    role = {0: None, 1: "train", 2: "test"}
    wanted = {f"brush_hair/{f}": role[(i + fold) % 3] for i, f in enumerate(ODD)}
    splits = {e.path: e.split for e in found.entries if e.label == "brush_hair"}
    assert splits == {path: split for path, split in wanted.items() if split}


def test_lists_of_hmdb51_that_are_missing_or_malformed_are_named(tmp_path):
    lists = hmdb51(tmp_path) / "testTrainMulti_7030_splits"
    (lists / "brush_hair_test_split2.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"brush_hair_test_split2\.txt"):
        listing("hmdb51", tmp_path, 2)
    assert listing("hmdb51", tmp_path, 1).entries
    (lists / "brush_hair_test_split2.txt").write_text("*.avi 1\n../*.avi 1\n")
    with pytest.raises(ValueError, match=r"line 2: expected '<video>.avi 0\|1\|2', found '\.\./"):
        listing("hmdb51", tmp_path, 2)
    for table in lists.iterdir():
        table.unlink()
    with pytest.raises(FileNotFoundError, match="holds 0 of the 0 videos of hmdb51"):
        listing("hmdb51", tmp_path)


CLIPS = [
    ("-a_b_c-0_1x", 3, "playing harpsichord", "train"),
    ("__x12345678", 30, "sliding door, opening", "train"),
    ("AAAAAAAAAAA", 170, "dog baying", "test"),
    ("aaaaaaaaaaa", 170, 'a "quoted", label', "test"),
]


def vggsound(folder, form="{id}_{start:06d}.mp4", place="{split}"):
    folder.mkdir(exist_ok=True)
    with (folder / "vggsound.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\r\n").writerows(CLIPS)
    for name, start, _, split in CLIPS:
        ms = start * 1000
        file = form.format(id=name, start=start, ms=ms, end=ms + 10_000)
        touch(folder, f"{place.format(split=split)}/{file}".lstrip("/"))
    return folder


@pytest.mark.parametrize("place", ["{split}", "", "video"])
@pytest.mark.parametrize(
    "form", ["{id}_{start}.mp4", "{id}_{start:06d}.mp4", "{id}_{ms}_{end}.mp4"]
)
def test_vggsound_in_its_forms(tmp_path, form, place):
    found = listing("vggsound", vggsound(tmp_path, form, place))
    assert found.classes == tuple(sorted(label for _, _, label, _ in CLIPS))
    assert [(e.id, e.label, e.split) for e in found.entries] == [
        (f"{name}_{start:06d}", label, split) for name, start, label, split in CLIPS
    ]
    assert len({e.path for e in found.entries}) == 4 and not found.unlisted


def test_a_part_of_vggsound_is_normal_and_counted(tmp_path):
    (vggsound(tmp_path) / "train/-a_b_c-0_1x_000003.mp4").unlink()
    touch(tmp_path, "train/never_listed_000001.mp4", "train/.hidden.mp4", "train/notes.txt")
    touch(tmp_path, os.fsdecode(b"train/\xff\n.mp4"))
    found = listing("vggsound", tmp_path)
    assert (len(found.entries), found.listed) == (3, 4)
    assert [e.path for e in found.missing] == ["-a_b_c-0_1x_000003.mp4"]
    assert found.unlisted == ("train/never_listed_000001.mp4", "train/\\xff\n.mp4")
    assert "playing harpsichord" in found.classes  # or labels would change with the collection


@pytest.mark.parametrize(
    "content, said",
    [
        ("x,1,chien \xe0,train\n".encode("latin-1"), "is not UTF-8"),
        (b"x,1,a,train\nx,1,a\n", "line 2: expected id,start"),
        (b"x,1,a,val\n", "line 1: expected id,start"),
        ("x,\u00b2,a,train\n".encode(), "line 1: expected id,start"),
        (b"x,1,,train\n", "of '': both need a name"),
        (b"x,1,a,train\nx,1,a,train\nx,1,b,train\n", "name x_000001 twice"),
    ],
)
def test_a_list_that_cannot_be_used_is_named_with_the_line(tmp_path, content, said):
    (touch(tmp_path, "x_000001.mp4") / "vggsound.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"{tmp_path}.*{said}"):
        listing("vggsound", tmp_path)


@pytest.mark.parametrize("name, make", [("ucf101", ucf101), ("hmdb51", hmdb51)])
def test_a_missing_file_is_an_error_unless_it_is_allowed(tmp_path, name, make):
    before = listing(name, make(tmp_path))
    lost = before.entries[1].path
    (tmp_path / lost).rename(tmp_path / "elsewhere.avi")
    with pytest.raises(FileNotFoundError) as error:
        listing(name, tmp_path)
    there = f"holds {before.listed - 1} of the {before.listed} videos"
    for word in (there, lost, "elsewhere.avi", "--allow-missing"):
        assert word in str(error.value)
    found = listing(name, tmp_path, allow_missing=True)
    assert [e.path for e in found.missing] == [lost] and found.unlisted == ("elsewhere.avi",)
    assert found.listed == before.listed == len(found.entries) + 1
    assert found.classes == before.classes


def test_many_missing_files_are_named_in_part_and_none_there_is_always_an_error(tmp_path):
    for i, path in enumerate(sorted((ucf101(tmp_path) / "UCF-101").rglob("*.avi"))):
        if i == 12:
            with pytest.raises(FileNotFoundError, match=r"12 of the 24 videos (.|\n)*and 4 more"):
                listing("ucf101", tmp_path)
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"holds 0 of the 24 videos(.|\n)*UCF-101/Boxing"):
        listing("ucf101", tmp_path, allow_missing=True)


def test_links_to_folders_on_another_disk_are_followed_and_circles_are_not(tmp_path):
    folder = ucf101(tmp_path / "here")
    (folder / "UCF-101").rename(tmp_path / "disk")
    (folder / "UCF-101").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/back").symlink_to(folder)
    assert not listing("ucf101", folder).missing


def test_the_layout_is_detected_and_errors_list_what_is_known(tmp_path):
    makers = {"ucf101": ucf101, "hmdb51": hmdb51, "vggsound": vggsound}
    folders = {name: make(tmp_path / name) for name, make in makers.items()}
    for name, folder in folders.items():
        assert detect(folder) == name == listing("", folder).name
    with pytest.raises(
        FileNotFoundError, match=r"not VGGSound: it has no vggsound\.csv; .* of 'hmdb51'"
    ):
        listing("vggsound", folders["hmdb51"])
    with pytest.raises(ValueError, match="'hmdb' is unknown; did you mean 'hmdb51'"):
        listing("hmdb", folders["hmdb51"])
    with pytest.raises(FileNotFoundError, match=r"0 of the 0 videos of text(.|\n)*a/readme.txt"):
        listing("", touch(tmp_path / "text", "a/readme.txt"))
    for name in ("", "vggsound", "folder"):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            listing(name, tmp_path / "nowhere")
    for name, fold in (("vggsound", 2), ("hmdb51", 4), ("ucf101", 0)):
        with pytest.raises(ValueError, match=f"has no fold {fold}; allowed: 1 to [13]$"):
            listing(name, folders[name], fold)
