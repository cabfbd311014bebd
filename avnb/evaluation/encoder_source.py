"""What is evaluated: encoders of runs of this workspace, or of a checkpoint from anywhere."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from avnb.config import Pretrain, parse_methods
from avnb.files import locked
from avnb.models.methods import build
from avnb.training import checkpoint, released
from avnb.training.pretraining import pretrained, run_name
from avnb.values import parse_values
from avnb.workspace import Workspace


class Source(Protocol):
    """A checkpoint, the values it was trained with, and the id under which rows name it."""

    @property
    def run(self) -> Pretrain: ...  # noqa: D102

    @property
    def checkpoint(self) -> Path: ...  # noqa: D102

    @property
    def name(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class Given:
    """A checkpoint that lies anywhere; also a `Source`."""

    name: str
    checkpoint: Path
    run: Pretrain


def given(file: Path | str) -> Given:
    """The source that a checkpoint of this package, or a released one, describes.

    Its id is that of the run which wrote it, wherever the file lies now. A released file does
    not say what it was trained on: its id is made of its content.

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is neither.
    """
    path = Path(file).expanduser().resolve()
    _, _, metadata = released.encoders(path)
    run = Pretrain.from_flat(**metadata["run"])
    if metadata["data"] is None:
        with path.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256").hexdigest()[:8]
        return Given(name=f"{run.method}-released-{content}", checkpoint=path, run=run)
    return Given(name=run_name(run, metadata["data"]), checkpoint=path, run=run)


def untrained(run: Pretrain, runs: Path) -> Given:
    """The encoders of `run` before pre-training, of the same size and with the same clips.

    They know no data set, so the statistics of their mel bands are those of the videos that
    they are evaluated on.
    """
    random = Pretrain.from_flat(**{**run.flat(), "method": "random"})
    name = run_name(random, "")
    path = runs / name / "last.pt"
    with locked(path.parent):
        if not path.exists():
            metadata: dict[str, Any] = {
                "run": random.flat(),
                "data": "",
                "data_set": "",
                "videos": 2,
                "without_audio": None,
                "classes": [],
                "mel_statistics": None,
            }
            checkpoint.save(path, metadata, build(random, 2, 0), log=[])
    return Given(name=name, checkpoint=path, run=random)


def sources(
    work: Workspace,
    methods: str,
    checkpoint_file: str = "",
    *,
    data: str = "",
    values: str = "{}",
    seed: int = 0,
    processes: int = 0,
) -> dict[str, Source]:
    """What a notebook evaluates, by method: runs of the workspace, or one checkpoint and `random`.

    Args:
        work: where runs lie; those that are missing are done now.
        methods: names of methods divided by commas.
        checkpoint_file: a file of ours or a released one, evaluated instead of all `methods`
            beside the same encoders without pre-training; '' for none.
        data: folder of VGGSound, '' for synthetic videos.
        values: of the runs, where they differ from the workspace's, as JSON.
        seed: of the runs.
        processes: for pre-training; 0 for one a GPU, or else one a core.

    Raises:
        ValueError: for a method that does not exist, or values that are not JSON.
        FileNotFoundError: when the file is not there.
        CheckpointError: when it is no checkpoint.
    """
    wanted = parse_methods(methods)
    if not checkpoint_file:
        return dict(
            pretrained(
                work,
                wanted,
                data=data,
                seed=seed,
                processes=processes,
                changes=parse_values(values),
            )
        )
    one = given(checkpoint_file)
    return {"random": untrained(one.run, work.runs), one.run.method: one}
