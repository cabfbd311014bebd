"""TensorBoard event files of a run."""

from collections.abc import Mapping
from pathlib import Path

FOLDER = "tensorboard"


def write(folder: Path, row: Mapping[str, float]) -> None:
    """Append one epoch of a run's log; an epoch that is trained again replaces what it wrote."""
    from torch.utils.tensorboard import SummaryWriter  # takes a second to import

    epoch = int(row["epoch"])
    with SummaryWriter(str(folder / FOLDER), purge_step=epoch) as events:
        for name, value in row.items():
            if name != "epoch":
                events.add_scalar(name, value, epoch)
