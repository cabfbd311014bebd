import csv
import json
from dataclasses import replace

import pytest

from avnb.data.audit import audit
from avnb.data.datasets import listing
from avnb.data.manifest import Manifest


def test_the_ledger_names_every_broken_file_and_its_reason(manifests, world):
    scenes = json.loads((world / "scenes.json").read_text())
    broken = {s["path"].removeprefix("vggsound/") for s in scenes if s["flaw"] == "broken"}
    with (manifests / "vggsound" / "ledger.csv").open(newline="") as file:
        ledger = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert set(ledger) == broken and all(ledger.values())
    usable = Manifest.load(manifests / "vggsound")
    assert not broken & {v.path for v in usable.videos}


def test_another_world_is_other_data_although_names_and_lengths_are_the_same(manifests, world):
    manifest = Manifest.load(manifests / "ucf101")
    assert manifest.world == json.loads((world / "world.json").read_text())
    assert manifest.origin == f"synthetic:{manifest.digest}"
    other = replace(manifest, world={**manifest.world, "noise_db_max": 7.0})
    real = replace(manifest, world=None, folder=manifests)
    assert len({manifest.digest, other.digest, real.digest}) == 3
    assert real.origin == f"real:{real.digest}"


@pytest.mark.parametrize("name", ["ucf101", "hmdb51"])
def test_every_listed_video_is_found(manifests, world, name):
    listed = listing(name, world / name)
    manifest = Manifest.load(manifests / name)
    assert len(manifest) == len(listed.entries) > 0
    assert {v.split for v in manifest.videos} == {"train", "test"}


def test_ucf_labels_are_numbered_by_class_index_and_groups_do_not_cross_the_split(manifests):
    manifest = Manifest.load(manifests / "ucf101")
    for video, label in zip(manifest.videos, manifest.labels, strict=True):
        assert manifest.classes[label] == video.label
    groups = [{v.id.rsplit("_", 1)[0] for v in manifest.split(s).videos} for s in ("train", "test")]
    assert groups[0] and groups[1] and not groups[0] & groups[1]


def test_the_handstand_class_is_matched_without_case_and_a_zip_may_be_flat(copied_world):
    folder = copied_world / "ucf101"
    lists = folder / "ucfTrainTestlist"
    for table in lists.iterdir():
        text = table.read_bytes().replace(b"StarPulsing", b"HandStandPushups")
        if table.name == "classInd.txt":
            text = text.replace(b"HandStand", b"Handstand")
        table.write_bytes(text)
    for old in (folder / "UCF-101/StarPulsing").iterdir():  # flat, and the zip's own spelling
        old.rename(folder / "UCF-101" / old.name.replace("StarPulsing", "HandstandPushups"))
    found = listing("ucf101", folder)
    assert "HandstandPushups" in found.classes
    assert sum(e.label == "HandstandPushups" for e in found.entries) == 5


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_all_three_folds_can_be_read_and_differ(world, fold):
    for name in ("ucf101", "hmdb51"):
        one, other = listing(name, world / name, fold), listing(name, world / name, fold % 3 + 1)
        assert {e.split for e in one.entries} == {"train", "test"}
        assert one.entries != other.entries


@pytest.mark.parametrize(
    "form", ["{id}_{start}.mp4", "{id}_{start:06d}.mp4", "{id}_{ms}_{end}.mp4"]
)
def test_the_three_vggsound_name_forms_are_read_in_folders_or_flat(copied_world, form):
    folder = copied_world / "vggsound"
    before = listing("vggsound", folder)
    for path in [*folder.glob("train/*.mp4"), *folder.glob("test/*.mp4")]:
        name, start = path.stem.rsplit("_", 1)
        ms = int(start) * 1000
        new = form.format(id=name, start=int(start), ms=ms, end=ms + 10_000)
        path.rename(folder / new)
    after = listing("vggsound", folder)
    assert [(e.id, e.label, e.split) for e in after.entries] == [
        (e.id, e.label, e.split) for e in before.entries
    ]
    assert list(before.classes) == sorted(before.classes)


def test_missing_things_are_named(tmp_path, copied_world):
    with pytest.raises(FileNotFoundError, match="the folder of ucf101"):
        listing("ucf101", tmp_path / "nowhere")
    (copied_world / "ucf101/ucfTrainTestlist/testlist01.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"testlist01.txt is missing.*\n.*classInd.txt"):
        listing("ucf101", copied_world / "ucf101")
    with pytest.raises(ValueError, match="did you mean 'hmdb51'"):
        listing("hmdb", copied_world / "hmdb51")


def test_nonsense_in_a_list_is_named_with_its_line(copied_world):
    table = copied_world / "vggsound/vggsound.csv"
    table.write_text(table.read_text() + "abc,not a number,label,train\n")
    lines = len(table.read_text().splitlines())
    with pytest.raises(ValueError, match=f"line {lines}: expected id,start,label,split"):
        listing("vggsound", copied_world / "vggsound")
    table = copied_world / "hmdb51/testTrainMulti_7030_splits/roll_bell_test_split1.txt"
    table.write_text("../../etc/passwd.avi 1\n")
    with pytest.raises(ValueError, match=r"expected '<video>\.avi 0"):
        listing("hmdb51", copied_world / "hmdb51")


def test_a_second_audit_reads_the_first_ones_tables(world, tmp_path, monkeypatch):
    first = audit(listing("hmdb51", world / "hmdb51"), tmp_path)
    monkeypatch.setattr("avnb.data.audit.in_parallel", None)  # would fail if it were used
    assert audit(listing("hmdb51", world / "hmdb51"), tmp_path) == first


def test_a_repaired_file_is_looked_at_again(copied_world, tmp_path):
    folder = copied_world / "vggsound"
    _, bad = audit(listing("vggsound", folder), tmp_path)
    good = next(
        e for e in listing("vggsound", folder).entries if e.path not in {b.path for b in bad}
    )
    (folder / bad[0].path).write_bytes((folder / good.path).read_bytes())
    _, now = audit(listing("vggsound", folder), tmp_path)
    assert {b.path for b in bad} - {b.path for b in now} == {bad[0].path}


@pytest.mark.parametrize(
    "data_set, table, line",
    [
        ("hmdb51", "testTrainMulti_7030_splits/roll_bell_test_split1.txt", "no_role.avi"),
        ("ucf101", "ucfTrainTestlist/trainlist01.txt", "v_StarRolling_g01_c01.avi 3"),
        ("ucf101", "ucfTrainTestlist/classInd.txt", "lonely"),
    ],
)
def test_a_line_of_another_form_is_named_with_its_place(copied_world, data_set, table, line):
    path = copied_world / data_set / table
    path.write_text(path.read_text() + line + "\n")
    number = len(path.read_text().splitlines())
    with pytest.raises(ValueError, match=rf"{path.name}, line {number}: expected .*{line}"):
        listing(data_set, copied_world / data_set)


def test_a_digest_changes_with_labels_and_videos(manifests):
    manifest = Manifest.load(manifests / "ucf101")
    fewer = manifest.only(manifest.videos[1:])
    assert manifest.digest == Manifest.load(manifests / "ucf101").digest != fewer.digest
