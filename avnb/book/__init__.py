"""What readers see: figures, tables and widgets of the notebooks, and the book that holds them.

plots       the look of all figures, and what more than one notebook draws
tables      what more than one notebook tabulates
galleries   retrieved videos, to look at and to listen to
explore     widgets of the notebook for exploring
parameters  typed parameters of a notebook; a misspelt one is an error
build       running notebooks, staging what they left behind, building the pages
"""

# Until all notebooks import what they use: names of the subjects, as before.
from importlib import import_module
from typing import Any

_SUBJECTS = (
    "style diagrams wording comparisons approaches literature schemes time_lines findings data"
    " encoders losses pretraining accuracy choices retrieval galleries localisation concepts"
    " few_shot speed full_size studies"
)


def __getattr__(name: str) -> Any:
    if name in f"{_SUBJECTS} parameters explore build plots tables nuisances".split():
        return import_module(f"{__name__}.{name}")
    if name == "notebook_parameters":
        return import_module(f"{__name__}.parameters")
    for subject in () if name.startswith("_") else _SUBJECTS.split():
        module = import_module(f"{__name__}.{subject}")
        value = getattr(module, name, None)
        if value is not None and getattr(value, "__module__", "") == module.__name__:
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
