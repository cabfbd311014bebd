"""The look of the book: names and colours of the methods."""

import matplotlib.pyplot as plt
import seaborn as sns

METHOD_TITLES = {
    "random": "Random",
    "supervised": "Supervised",
    "vicreg_av": "VICReg-AV",
    "vicreg_v": "VICReg-V",
    "xid": "xID",
}


# Told apart with any colour vision, and in print (Okabe & Ito 2008).
SHADES = ("#8a8f98", "#d55e00", "#cc79a7", "#009e73", "#0b6e99")


METHOD_COLOURS = dict(zip(METHOD_TITLES, SHADES, strict=True))


def set_style() -> None:
    """Set the book's look; once a notebook."""
    sns.set_theme(context="notebook", style="ticks", font_scale=0.95)
    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.constrained_layout.use": True,
            "legend.frameon": False,
        }
    )


LINES = ("#0b6e99", "#d55e00", "#009e73", "#cc79a7", "#8a8f98")
