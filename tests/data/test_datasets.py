"""The official formats and their traps. Only names matter here, so the videos are empty files."""

import csv

import pytest

from avnb import __main__ as commands
from avnb.data.datasets import listing
from avnb.data.manifest import Manifest

# In the order of classInd.txt, which is not the sorted one: HammerThrow < Hammering.
CLASSES = ("BoxingSpeedBag", "Hammering", "HammerThrow", "HandstandPushups")


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def ucf101(folder, *, flat=False, end="\r\n", mark="", stem="HandStandPushups", folds=(1, 2, 3)):
    """Three groups a class, group `fold` is tested; the lists write HandStand."""
    lists = folder / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    texts = {"classInd.txt": [f"{i} {name}" for i, name in enumerate(CLASSES, 1)]}
    for number, name in enumerate(CLASSES, 1):
        shown = name.replace("Handstand", "HandStand")
        for group in (1, 2, 3):
            for clip in (1, 2):
                tail = f"_g{group:02d}_c{clip:02d}.avi"
                on_disk = f"v_{stem if shown != name else name}{tail}"
                touch(folder / "UCF-101" / ("" if flat else name) / on_disk)
                for fold in folds:
                    line = f"{shown}/v_{shown}{tail}"
                    test = group == fold
                    table = f"{'test' if test else 'train'}list0{fold}.txt"
                    texts.setdefault(table, []).append(line if test else f"{line} {number}")
    for name, some in texts.items():
        (lists / name).write_bytes((mark + end.join([*some, ""])).encode())
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
    for fold in (1, 2, 3):
        found = listing("ucf101", ucf101(tmp_path / str(fold), **options), fold)
        assert found.classes == CLASSES
        assert not found.missing and not found.unlisted and found.listed == 24
        assert [sum(e.label == name for e in found.entries) for name in CLASSES] == [6] * 4
        tests = {e.id.split("_g")[1][:2] for e in found.entries if e.split == "test"}
        assert tests == {f"0{fold}"}
        assert all((found.folder / e.path).exists() for e in found.entries)


def test_a_group_in_both_splits_is_an_error_that_names_it(tmp_path):
    folder = ucf101(tmp_path)
    table = folder / "ucfTrainTestlist/testlist02.txt"
    table.write_text(table.read_text() + "Hammering/v_Hammering_g03_c02.avi\n")
    with pytest.raises(
        ValueError, match=r"testlist02.txt, line 9: group v_Hammering_g03 is in the training"
    ):
        listing("ucf101", folder, 2)
    assert listing("ucf101", folder, 1).entries


@pytest.mark.parametrize(
    "table, line",
    [
        ("trainlist01.txt", "Hammering/v_Hammering_g03_c09.avi 3"),  # HammerThrow's number
        ("trainlist01.txt", "Unheard/v_Unheard_g03_c09.avi 1"),
        ("testlist01.txt", "Hammering/v_Hammering_c09.avi"),
        ("classInd.txt", "6 Jumping"),
    ],
)
def test_a_line_of_ucf101_that_does_not_fit_is_named(tmp_path, table, line):
    path = ucf101(tmp_path) / "ucfTrainTestlist" / table
    path.write_text(path.read_text() + line)
    with pytest.raises(ValueError, match=rf"{table}, line \d+: expected .*{line}"):
        listing("ucf101", tmp_path)


ODD = ["a(b)!.avi", "#1[x].avi", "c;d&e.avi", "f+g@h.avi", "two words.avi", "*.avi", "x.y.avi"]


def hmdb51(folder):
    """Two classes with odd names; in each fold other videos are unused, trained on, tested."""
    for name in ("sword exercise", "brush_hair"):
        touch(*(folder / name / file for file in ODD))
        for fold in (1, 2, 3):
            lines = [f"{file} {(i + fold) % 3} \r\n" for i, file in enumerate(ODD)]
            table = folder / "testTrainMulti_7030_splits" / f"{name}_test_split{fold}.txt"
            touch(table)
            table.write_bytes("".join(lines).encode())
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


def test_a_class_of_hmdb51_without_its_split_file_is_named(tmp_path):
    (hmdb51(tmp_path) / "testTrainMulti_7030_splits/brush_hair_test_split2.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"brush_hair_test_split2\.txt is missing"):
        listing("hmdb51", tmp_path, 2)
    assert listing("hmdb51", tmp_path, 1).entries


CLIPS = [
    ("-a_b_c-0_1x", 3, "playing harpsichord", "train"),
    ("__x12345678", 30, "sliding door, opening", "train"),
    ("AAAAAAAAAAA", 170, "dog baying", "test"),
    ("aaaaaaaaaaa", 170, 'a "quoted", label', "test"),
]


def vggsound(folder, form="{id}_{start:06d}.mp4", place="{split}", end="\r\n"):
    folder.mkdir(exist_ok=True)
    with (folder / "vggsound.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator=end).writerows(CLIPS)
    for name, start, _, split in CLIPS:
        ms = start * 1000
        file = form.format(id=name, start=start, ms=ms, end=ms + 10_000)
        touch(folder / place.format(split=split) / file)
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
    folder = vggsound(tmp_path)
    (folder / "train/-a_b_c-0_1x_000003.mp4").unlink()
    touch(folder / "train/never_listed_000001.mp4")
    found = listing("vggsound", folder)
    assert (len(found.entries), found.listed) == (3, 4)
    assert found.missing == ("-a_b_c-0_1x_000003.mp4",)
    assert found.unlisted == ("train/never_listed_000001.mp4",)
    assert "playing harpsichord" in found.classes  # or labels would change with the collection


def test_a_clip_with_two_labels_is_an_error(tmp_path):
    with (vggsound(tmp_path) / "vggsound.csv").open("a") as file:
        file.write("AAAAAAAAAAA,170,dog baying,test\n")  # the same again does no harm
    assert len(listing("vggsound", tmp_path).entries) == 4
    with (tmp_path / "vggsound.csv").open("a") as file:
        file.write("AAAAAAAAAAA,170,cat purring,train\n")
    with pytest.raises(ValueError, match="name AAAAAAAAAAA_000170 twice"):
        listing("vggsound", tmp_path)


@pytest.mark.parametrize("name, make", [("ucf101", ucf101), ("hmdb51", hmdb51)])
def test_a_missing_file_is_an_error_unless_it_is_allowed(tmp_path, name, make):
    before = listing(name, make(tmp_path))
    lost = before.entries[1].path
    (tmp_path / lost).rename(tmp_path / "elsewhere.avi")
    with pytest.raises(FileNotFoundError) as error:
        listing(name, tmp_path)
    for word in (f"1 of the {before.listed} videos", lost, "elsewhere.avi", "--allow-missing"):
        assert word in str(error.value)
    found = listing(name, tmp_path, allow_missing=True)
    assert found.missing == (lost,) and found.unlisted == ("elsewhere.avi",)
    assert found.listed == before.listed == len(found.entries) + 1
    assert found.classes == before.classes


def test_many_missing_files_are_named_in_part_and_none_there_is_always_an_error(tmp_path):
    for i, path in enumerate(sorted((ucf101(tmp_path) / "UCF-101").rglob("*.avi"))):
        if i == 12:
            with pytest.raises(FileNotFoundError, match=r"12 of the 24 videos (.|\n)*and 4 more"):
                listing("ucf101", tmp_path)
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"none of their videos, as\n  UCF-101/Boxing"):
        listing("ucf101", tmp_path, allow_missing=True)


def test_links_to_folders_on_another_disk_are_followed_and_circles_are_not(tmp_path):
    folder = ucf101(tmp_path / "here")
    (folder / "UCF-101").rename(tmp_path / "disk")
    (folder / "UCF-101").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/back").symlink_to(folder)
    assert not listing("ucf101", folder).missing


@pytest.mark.slow
def test_the_command_counts_and_names_what_does_not_match(copied_world, tmp_path, capsys):
    folder, out = copied_world / "hmdb51", tmp_path / "out"
    first, second, *rest = listing("hmdb51", folder).entries
    (folder / first.path).rename(folder / "stray.avi")
    (folder / second.path).write_bytes(b"")
    command = ["audit", "hmdb51", str(folder), str(out)]
    assert commands.main(command) == 1
    assert "--allow-missing" in capsys.readouterr().err
    assert commands.main([*command, "--allow-missing"]) == 0
    said, count = capsys.readouterr().out, len(rest) + 2
    assert f"{count - 1} of {count} listed files are there, and 1 that no list names" in said
    assert "1 cannot be decoded" in said
    with (out / "mismatches.csv").open(newline="") as file:
        rows = {row["path"]: row["what"] for row in csv.DictReader(file)}
    assert rows == {first.path: "listed, but not there", "stray.avi": "there, but in no list"}
    assert (len(Manifest.load(out)), Manifest.load(out).listed) == (count - 2, count)
