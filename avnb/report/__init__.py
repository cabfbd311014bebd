"""What people see: figures, tables and sentences by subject, and the book they stand in.

style                names and colours of the methods, the look of all figures
wording              numbers and comparisons as sentences write them
data                 data sets, clips and their augmentation
encoders             layers, parameters and cost of the encoders
losses               landscapes of the losses, toy experiments
pretraining          training curves and what they show
accuracy             probes and fine-tuning beside the published numbers
retrieval            galleries
concepts             seen concepts, by class names
few_shot             few-shot probes on seen and unseen classes
notebook_parameters  typed parameters of a notebook; a misspelt one is an error
book                 running the notebooks, staging and building the pages

Every figure (`plot_...`), table (`..._table`) and reading (`describe_...`) can be taken from here:
`report.plot_bars(rows, panels)`. A subject is imported when something of it is first asked for.
"""

from importlib import import_module
from typing import Any

_SUBJECTS = (
    "style",
    "wording",
    "data",
    "encoders",
    "losses",
    "pretraining",
    "accuracy",
    "retrieval",
    "concepts",
    "few_shot",
)


def __getattr__(name: str) -> Any:
    for subject in _SUBJECTS:
        module = import_module(f"{__name__}.{subject}")
        found = getattr(module, name, None)
        if getattr(found, "__module__", module.__name__) == module.__name__ and found is not None:
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
