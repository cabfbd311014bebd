"""What many tests share: a smoke-size world made once, with its manifests."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from avnb.config import Pretrain
from avnb.data import datasets, prepare
from avnb.data.manifest import Manifest
from avnb.data.store import RAW
from avnb.files import locked
from avnb.profiles import PROFILES, Workspace

ROOT = Path(__file__).parents[1]
# A shell's background job ignores Ctrl-C, and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The book first, which takes longest; short files fill the gaps at the end."""
    places = {"test_book.py": 0, "test_pretraining.py": 1, "test_trainer.py": 1, "training": 2}
    items.sort(key=lambda i: places.get(i.path.name, places.get(i.path.parent.name, 3)))


@pytest.fixture(scope="session")
def common(tmp_path_factory) -> Path:
    """A folder of this session, the same in all of its processes (`pytest -n`)."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def world(common) -> Path:
    work = Workspace("smoke", common / "worlds", PROFILES["smoke"])
    return prepare.synthetic_folder(work, "").parent


@pytest.fixture(scope="session")
def manifests(world, common) -> Path:
    """Folders with the tables of the prepared data sets."""
    out = common / "manifests"
    with locked(out):
        for name in ("vggsound", "ucf101", "hmdb51", "located"):
            listing = datasets.listing(name, world / name)
            prepare.prepare(listing, common / "stores" / name, out / name, form=RAW)
    return out


@pytest.fixture(scope="session")
def vggsound(manifests) -> Manifest:
    return Manifest.load(manifests / "vggsound").split("train")


@pytest.fixture(scope="session")
def smoke() -> Pretrain:
    return Pretrain.from_flat(**PROFILES["smoke"]["pretrain"])


@pytest.fixture(scope="session")
def tiny(smoke) -> Pretrain:
    """For what is true at any size."""
    return with_values(smoke, frame_px=16, width=4, mels=16, audio_seconds=0.5, batch=8)


def with_values(run: Pretrain, **changes: Any) -> Pretrain:
    """The same run but for some values, by flat name."""
    return Pretrain.from_flat(**{**run.flat(), **changes})


@pytest.fixture
def copied_world(world, tmp_path) -> Path:
    """A world that a test may damage."""
    return Path(shutil.copytree(world, tmp_path / "world"))
