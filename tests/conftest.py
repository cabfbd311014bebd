"""What many tests share: a smoke-size world made once, with its manifests."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from avnb import synth, videos
from avnb.config import PROFILES, Pretrain, World
from avnb.videos import Manifest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    values = World.from_flat(**PROFILES["smoke"]["world"])
    return synth.make(values, tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def manifests(world, tmp_path_factory) -> Path:
    """Folders with the manifests of the three data sets."""
    out = tmp_path_factory.mktemp("manifests")
    for name in videos.LISTS:
        videos.audit(videos.listing(name, world / name), out / name)
    return out


@pytest.fixture
def vggsound(manifests) -> Manifest:
    return Manifest.load(manifests / "vggsound").split("train")


@pytest.fixture
def smoke() -> Pretrain:
    return Pretrain.from_flat(**PROFILES["smoke"]["pretrain"])


@pytest.fixture
def tiny(smoke) -> Pretrain:
    """For what is true at any size."""
    return with_values(smoke, frame_px=16, width=4, mels=16, sound_seconds=0.5, batch=8)


def with_values(run: Pretrain, **changes: Any) -> Pretrain:
    """The same run but for some values, by flat name."""
    return Pretrain.from_flat(**{**run.flat(), **changes})


@pytest.fixture
def copied_world(world, tmp_path) -> Path:
    """A world that a test may damage."""
    return Path(shutil.copytree(world, tmp_path / "world"))
