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
from avnb.data.audit import audit
from avnb.data.datasets import listing
from tests.conftest import ROOT

AUDIT = """
import sys
from pathlib import Path
from avnb.data.audit import audit
from avnb.data.datasets import listing
if __name__ == "__main__":
    audit(listing("hmdb51", Path(sys.argv[1])), Path(sys.argv[2]))
"""


@pytest.fixture
def hmdb(world, tmp_path) -> Path:
    """A copy of the HMDB-like data set that a test may damage."""
    return Path(shutil.copytree(world / "hmdb51", tmp_path / "hmdb51"))


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
def test_a_killed_audit_goes_on_where_it_was(hmdb, world, tmp_path, looked_at):
    entries = listing("hmdb51", hmdb).entries
    blocking, out = hmdb / entries[2].path, tmp_path / "out"
    blocking.unlink()
    os.mkfifo(blocking)  # whoever opens it waits for ever: the audit cannot end by itself
    command = [sys.executable, "-c", AUDIT, str(hmdb), str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    diary = out / "decoded.jsonl"
    wait_until(lambda: len(lines(diary)) >= 5)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: all(map(gone, workers)))

    whole = lines(diary)
    diary.write_text("\n".join(whole)[:-9])  # torn by a power cut
    blocking.unlink()
    shutil.copy(world / "hmdb51" / entries[2].path, blocking)
    manifest, bad = audit(listing("hmdb51", hmdb), out)
    kept = {json.loads(line)[0] for line in whole[:-1]}
    assert set(looked_at) == {e.path for e in entries} - kept and len(kept) >= 4
    assert not bad and (manifest, bad) == audit(listing("hmdb51", hmdb), out)
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


def test_a_worker_that_dies_is_an_error_that_names_what_it_was_at():
    results = files.in_parallel(os._exit, [7, 8], workers=1, title="crashes")
    with pytest.raises(ChildProcessError, match=r"crashes: a worker died.*\n  7\n  8"):
        next(results)
