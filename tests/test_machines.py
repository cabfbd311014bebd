"""Machines as they are: containers, disks without locks, fewer GPUs than processes."""

import errno
import fcntl
import os

import pytest
import torch

from avnb import distributed, profiles
from avnb.files import locked


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 64),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
    ],
)
def test_the_quota_of_a_container_bounds_its_cores(tmp_path, monkeypatch, files, most):
    monkeypatch.setattr(profiles, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(64))
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    assert profiles.cores() == most


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (1, "cuda:0"), (3, None), (4, "cuda:2")])
def test_a_process_has_a_gpu_of_its_own_where_there_are_any(monkeypatch, gpus, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    if device:
        assert distributed.own_device() == torch.device(device)
    else:
        with pytest.raises(RuntimeError, match=r"3 GPUs are visible on .* to 4 processes"):
            distributed.own_device()


def test_a_disk_without_locks_is_named(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match=r"cannot be locked .*: set AVNB_BUILD"), locked(tmp_path):
        pass
