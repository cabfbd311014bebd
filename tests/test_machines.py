"""Machines as they are: containers, disks without locks, fewer GPUs than processes."""

import errno
import fcntl
from unittest.mock import Mock

import pytest
import torch

from avnb import distributed
from avnb.files import locked


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (1, "cuda:0"), (4, "cuda:2")])
def test_a_process_has_a_gpu_of_its_own_where_there_are_any(monkeypatch, gpus, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert distributed.own_device() == torch.device(device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    with pytest.raises(RuntimeError, match=r"3 GPUs of .* are visible to 4 processes"):
        distributed.own_device()


def test_a_disk_without_locks_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(errno.ENOTSUP, "no")))
    with pytest.raises(OSError, match=f"cannot lock files in {tmp_path}"), locked(tmp_path):
        pass
