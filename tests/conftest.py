"""What many tests share: a smoke-size world made once, with its manifests."""

import shutil
from pathlib import Path

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
def copied_world(world, tmp_path) -> Path:
    """A world that a test may damage."""
    return Path(shutil.copytree(world, tmp_path / "world"))
