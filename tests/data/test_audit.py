"""The audit survives interruption: what was decoded stays decoded, and nothing false is written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avnb import files
from avnb.config import Subset
from avnb.data import catalogue, subsets
from avnb.data.audit import audit
from avnb.data.datasets import listing
from avnb.data.manifest import Manifest
from avnb.data.media import inspect
from avnb.data.subsets import draw_subset
from avnb.profiles import PROFILES, Workspace
from tests.conftest import ROOT, with_values
from tests.data.test_decoding import numbered, repeated, with_noise

AUDIT = """
import sys
from pathlib import Path
from avnb.config import Subset
from avnb.data.audit import audit
from avnb.data.datasets import listing
if __name__ == "__main__":
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    subset = None
    if sys.argv[3:]:
        subset = Subset(subset_videos=int(sys.argv[3]), validation_videos=int(sys.argv[4]))
    audit(listing("", folder), out, diary=out.parent / "decoded.jsonl", subset=subset)
"""
FEW = Subset(subset_videos=14, validation_videos=4)


@pytest.fixture
def hmdb(world, tmp_path) -> Path:
    """A copy of the HMDB-like data set that a test may damage."""
    return Path(shutil.copytree(world / "hmdb51", tmp_path / "hmdb51"))


@pytest.fixture(scope="module")
def long_video(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    return repeated(numbered(folder / "a.mp4", audio_hz=0), folder / "long.mp4", 1500)


@pytest.fixture
def intact(world, tmp_path) -> Path:
    """A copy of the VGGSound-like data set in which every file can be used."""
    folder = Path(shutil.copytree(world / "vggsound", tmp_path / "vggsound"))
    scenes = json.loads((world / "scenes.json").read_text())
    flaws = {s["path"]: s["flaw"] for s in scenes if s["path"].startswith("vggsound/")}
    whole = next(path for path, flaw in flaws.items() if not flaw)
    for path in (path for path, flaw in flaws.items() if flaw == "broken"):
        shutil.copy(world / whole, folder.parent / path)
    return folder


@pytest.fixture
def looked_at(monkeypatch) -> list[str]:
    """The files that the audit hands out to be decoded."""
    seen, real = [], files.in_parallel
    monkeypatch.setattr(
        "avnb.data.audit.in_parallel",
        lambda work, items, **kw: seen.extend(items) or real(work, items, **kw),
    )
    return seen


def wait_until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_a_killed_audit_goes_on_where_it_was(hmdb, world, tmp_path, looked_at, long_video):
    entries = listing("hmdb51", hmdb).entries
    blocking, out = hmdb / entries[2].path, tmp_path / "out"
    shutil.copy(long_video, blocking)  # it keeps a worker for seconds
    command = [sys.executable, "-c", AUDIT, str(hmdb), str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    diary = tmp_path / "decoded.jsonl"
    wait_until(lambda: len(lines(diary)) >= 5)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: all(map(gone, workers)))

    whole = lines(diary)
    diary.write_text("\n".join(whole)[:-9])  # torn by a power cut
    shutil.copy(world / "hmdb51" / entries[2].path, blocking)
    manifest, bad = audit(listing("hmdb51", hmdb), out, diary=diary)
    kept = {json.loads(line)[0] for line in whole[:-1]}
    assert set(looked_at) == {e.path for e in entries} - kept and len(kept) >= 4
    assert not bad and (manifest, bad) == audit(listing("hmdb51", hmdb), out, diary=diary)
    again, _ = audit(listing("hmdb51", hmdb), tmp_path / "from the beginning")
    assert again.videos == manifest.videos


def test_an_interrupt_keeps_what_is_done(hmdb, tmp_path, monkeypatch, looked_at):
    recording = sys.modules["avnb.data.audit"].in_parallel  # that `looked_at` listens to

    def interrupted(*args, **options):
        results = recording(*args, **options)
        for _ in range(4):
            yield next(results)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("avnb.data.audit.in_parallel", interrupted)
        audit(listing("hmdb51", hmdb), tmp_path / "out")
    assert not (tmp_path / "out/manifest.csv").exists()
    first = looked_at.copy()
    looked_at.clear()
    audit(listing("hmdb51", hmdb), tmp_path / "out")
    assert len(looked_at) == len(first) - 4


def test_new_and_changed_files_alone_are_looked_at(hmdb, tmp_path, looked_at):
    first, second = listing("hmdb51", hmdb).entries[:2]
    shutil.move(hmdb / first.path, tmp_path / "kept.avi")
    audit(listing("hmdb51", hmdb, allow_missing=True), tmp_path / "out")
    looked_at.clear()
    shutil.move(tmp_path / "kept.avi", hmdb / first.path)
    (hmdb / second.path).write_bytes(b"overwritten")
    _, bad = audit(listing("hmdb51", hmdb), tmp_path / "out")
    assert looked_at == [first.path, second.path]
    assert [row.path for row in bad] == [second.path]


def test_folds_share_what_was_decoded(hmdb, tmp_path, looked_at):
    diary = tmp_path / "decoded.jsonl"
    manifests = [
        audit(listing("hmdb51", hmdb, fold), tmp_path / f"fold{fold}", diary=diary)[0]
        for fold in (1, 2)
    ]
    assert len(looked_at) == len(set(looked_at))
    splits = [{v.id: v.split for v in manifest.videos} for manifest in manifests]
    assert splits[0] != splits[1]


def test_a_folder_that_vanishes_is_one_clear_error(hmdb, tmp_path, monkeypatch):
    found, away, out = listing("hmdb51", hmdb), tmp_path / "away", tmp_path / "out"
    with monkeypatch.context() as patch:  # moved as soon as the audit has noted sizes and dates
        patch.setattr("avnb.data.audit.read_diary", lambda *_: hmdb.rename(away) and {})
        with pytest.raises(FileNotFoundError, match=r"a folder moved.*\n.*the same call resumes"):
            audit(found, out)
    assert not (out / "ledger.csv").exists() and not lines(out / "decoded.jsonl")
    away.rename(hmdb)
    manifest, bad = audit(found, out)
    assert len(manifest) == len(found.entries) and not bad


def test_a_long_list_is_handed_out_little_by_little():
    class Items(list):
        taken = 0

        def __iter__(self):
            for item in super().__iter__():
                self.taken += 1
                yield item

    items = Items(range(100_000))
    results = files.in_parallel(abs, items, workers=1, title="numbers")
    number, value = next(results)
    results.close()
    assert number == value < files.ITEMS_AHEAD
    assert items.taken <= files.ITEMS_AHEAD


def test_results_come_in_the_order_of_their_items():
    late_first = [(2, "c"), (0, "a"), (3, "d"), (1, "b")]
    assert list(files.in_order(late_first)) == ["a", "b", "c", "d"]
    for workers in (0, 2):
        results = files.in_parallel(abs, range(-20, 0), workers=workers, title="numbers")
        assert list(files.in_order(results)) == list(range(20, 0, -1))


def test_a_worker_that_dies_is_an_error_that_names_what_it_was_at():
    results = files.in_parallel(os._exit, [7, 8], workers=1, title="crashes")
    with pytest.raises(ChildProcessError, match=r"crashes: a worker died.*\n  7\n  8"):
        next(results)


# ---- a subset -----------------------------------------------------------------------------------


def ids(where) -> list[set[str]]:
    return [set(lines(where / name)) for name in ("train.txt", "validation.txt")]


@pytest.mark.slow
def test_a_subset_looks_at_what_it_draws_and_at_replacements(intact, tmp_path, looked_at):
    found, out = listing("vggsound", intact), tmp_path / "out"
    paths = {e.id: e.path for e in found.entries}
    drawn = draw_subset(found.entries, FEW)
    first = {*drawn[0], *drawn[1]}
    broken = {drawn[0][0], drawn[0][-1], drawn[1][2]}
    broken |= {next(i for i in draw_subset(found.entries, FEW, broken)[1] if i not in first)}
    for i in broken:  # three of those drawn, and one of their replacements
        (intact / paths[i]).write_bytes(b"broken")
    manifest, ledger = audit(found, out, subset=FEW)
    train, validation = ids(out)
    assert (len(train), len(validation)) == (14, 4) and not train & validation
    assert {v.id for v in manifest.videos} == train | validation and not broken & (
        train | validation
    )
    assert {row.path for row in ledger} == {paths[i] for i in broken}
    assert sorted(looked_at) == sorted(paths[i] for i in train | validation | broken)
    assert len(looked_at) == 18 + 4 < len(found.entries) == manifest.listed
    assert [set(d) for d in draw_subset(found.entries, FEW, broken)] == [train, validation]

    looked_at.clear()
    assert audit(found, out, subset=FEW) == (manifest, ledger) and not looked_at
    assert len(audit(found, out)[0]) == len(found.entries) - 4  # a whole one goes on from there
    assert len(looked_at) == len(found.entries) - 18 - 4


@pytest.mark.slow
def test_where_all_can_be_used_a_part_gives_the_draw_of_the_whole(intact, tmp_path, smoke):
    work = Workspace("smoke", tmp_path / "work", PROFILES["smoke"])
    few = with_values(smoke, subset_videos=14, validation_videos=4)
    part = catalogue.load_dataset(work, "", str(intact), subset=few.subset)
    whole = catalogue.load_dataset(work, "", str(intact))
    assert (len(part), part.listed) == (18, len(whole)) and part.where != whole.where
    both = [subsets.training_and_validation(manifest, few) for manifest in (part, whole)]
    for one, other in zip(*both, strict=True):
        assert one.digest == other.digest and len(one) > 0
    with pytest.raises(ValueError, match=r"the subset \[14, 4, 0\] .* cannot give \[32, 8, 0\]"):
        subsets.training_and_validation(part, smoke)


@pytest.mark.slow
def test_what_is_used_whole_is_looked_at_whole(intact, world, tmp_path, monkeypatch, smoke):
    work = Workspace("smoke", tmp_path / "work", PROFILES["smoke"])
    most = Subset(subset_videos=len(listing("vggsound", intact).entries), validation_videos=0)
    whole = catalogue.load_dataset(work, "", str(intact))
    assert catalogue.load_dataset(work, "", str(intact), subset=most) == whole
    monkeypatch.setattr(catalogue, "synthetic_world", lambda _: world)
    synthetic = catalogue.load_dataset(work, "", subset=FEW)
    assert len(synthetic) > 18 and synthetic.where.name == "fold1-frames"


@pytest.mark.slow
def test_a_larger_subset_or_another_seed_looks_at_new_videos_alone(intact, tmp_path, looked_at):
    found, diary = listing("vggsound", intact), tmp_path / "decoded.jsonl"
    seen: set[str] = set()
    others = Subset(subset_videos=14, validation_videos=4, subset_seed=1)
    for i, subset in enumerate((FEW, Subset(subset_videos=20, validation_videos=4), others, FEW)):
        looked_at.clear()
        out = tmp_path / f"{i}"
        manifest, _ = audit(found, out, diary=diary, subset=subset)
        drawn = {v.path for v in manifest.videos}
        assert set(looked_at) == drawn - seen and len(looked_at) == len(set(looked_at))
        assert drawn & seen or not seen
        seen |= drawn
    assert not looked_at and len(seen) < len(found.entries)


def started(intact, out, *subset):
    command = [sys.executable, "-c", AUDIT, intact, out, *subset]
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_killed_audit_of_a_subset_goes_on_where_it_was(intact, tmp_path, looked_at, long_video):
    found, out, diary = listing("", intact), tmp_path / "out", tmp_path / "decoded.jsonl"
    paths = {e.id: e.path for e in found.entries}
    train, validation = draw_subset(found.entries, FEW)
    broken, blocking = intact / paths[train[1]], intact / paths[train[0]]
    broken.write_bytes(b"broken")
    contents = blocking.read_bytes()
    shutil.copy(long_video, blocking)  # it keeps a worker for seconds
    process = started(intact, out, 14, 4)
    wait_until(lambda: len(lines(diary)) == 17)  # all but one
    process.kill()
    process.wait()
    assert not (out / "train.txt").exists()
    blocking.write_bytes(contents)
    manifest, ledger = audit(found, out, diary=diary, subset=FEW)
    (replacement,) = {v.id for v in manifest.videos} - {*train, *validation}
    assert looked_at == [paths[train[0]], paths[replacement]]
    assert [row.path for row in ledger] == [paths[train[1]]] and len(manifest) == 18


@pytest.mark.slow
def test_two_audits_at_once_decode_each_file_once(intact, tmp_path):
    found, diary = listing("", intact), tmp_path / "decoded.jsonl"
    wanted = {"a": (14, 4), "b": (20, 6), "c": (14, 4)}
    outs = [tmp_path / "a", tmp_path / "b", tmp_path / "a"]
    processes = [started(intact, o, *wanted[o.name]) for o in outs]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    records = [json.loads(line)[0] for line in lines(diary)]
    for out in outs:
        n, m = wanted[out.name]
        subset = Subset(subset_videos=n, validation_videos=m)
        assert ids(out) == [set(part) for part in draw_subset(found.entries, subset)]
        assert len(lines(out / "manifest.csv")) == n + m + 1
    drawn = set.union(*ids(outs[0]), *ids(outs[1]))
    assert len(records) == len(set(records)) == len(drawn) < len(found.entries)


def test_damage_within_a_limit_is_in_the_manifest_and_beyond_it_in_the_ledger(
    copied_world, tmp_path
):
    found = listing("hmdb51", copied_world / "hmdb51")
    file = copied_world / "hmdb51" / found.entries[0].path
    with_noise(file, file, [5])
    share = inspect(file).damaged
    assert 0 < share < 0.05
    manifest, ledger = audit(found, tmp_path / "out", workers=1)
    (row,) = [v for v in manifest.videos if v.damaged]
    assert (row.path, row.damaged) == (found.entries[0].path, share) and not ledger
    assert Manifest.load(tmp_path / "out") == manifest
    manifest, ledger = audit(found, tmp_path / "out", workers=1, max_damaged=share / 2)
    assert [u.path for u in ledger] == [row.path]
    assert "% of its packets cannot be decoded; " in ledger[0].reason
    assert row.path not in {v.path for v in manifest.videos}
