"""A run in progress, in a notebook."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from avnb.book.pretraining import plot_curves
from avnb.book.style import BLUE, ORANGE
from avnb.training.watch import RunState, find_run, follow


def plot_speed(state: RunState) -> Figure:
    """Clips a second, and the shares of arithmetic used and of time waited, by epoch."""
    table = pd.DataFrame(state.speed)
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 2.4))
    epochs = table["epoch"] + 1
    left.plot(epochs, table["clips_per_second"], "o-", ms=3, color=BLUE)
    left.set(xlabel="epoch", ylabel="clips a second", ylim=(0, None))
    right.plot(epochs, 100 * table["matmul_share"], "o-", ms=3, color=BLUE, label="arithmetic used")
    right.plot(epochs, 100 * table["waiting_share"], "o-", ms=3, color=ORANGE, label="waiting")
    right.set(xlabel="epoch", ylabel="%", ylim=(0, 100))
    right.legend(fontsize=8)
    return fig


def watch_run(run: str, every: float = 5.0) -> None:
    """Show how far a run is and its curves, until it is finished or the cell is interrupted.

    Args:
        run: its folder, its id, or how the id begins.
        every: seconds between looks.

    Raises:
        FileNotFoundError, ValueError: when there is no such run.
    """
    from IPython.display import Markdown, display

    folder = find_run(run)
    text, curves, speed = (display(Markdown(""), display_id=True) for _ in range(3))
    try:
        for state in follow(folder, every):
            text.update(Markdown(f"`{folder.name}`: {state.summary}"))
            if state.log:
                update(curves, plot_curves(pd.DataFrame(state.log)))
            if state.speed:
                update(speed, plot_speed(state))
    except KeyboardInterrupt:
        print("no longer watched; the run goes on")


def update(handle: "object", fig: Figure) -> None:
    """Put a figure where another one was."""
    handle.update(fig)  # type: ignore[attr-defined]
    plt.close(fig)
