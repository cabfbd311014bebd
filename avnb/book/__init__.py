"""What readers see: figures, tables and readings by subject, and the book that holds them.

style                titles, colours and order of the methods; the look of all figures
diagrams             boxes, encoders, banks and arrows; pages show SVG
wording              numbers and lists in tables and sentences
comparisons          sentences on who leads, and on what cannot be told apart
approaches           families of self-supervised methods, drawn
literature           accuracy of other works, beside the thesis
schemes              what is computed, drawn with the values it is computed with
time_lines           clips on the time line of their video
data                 data sets, clips and their augmentation
encoders             layers, parameters and cost of the encoders
losses               landscapes of the losses, toy experiments
pretraining          training curves and what they show
live                 a run in progress
accuracy             probes and fine-tuning beside the published numbers
choices              what each choice of the released code does to a probe
retrieval            retrieval in every direction and space
galleries            retrieved videos, to look at and to listen to
localisation         where the video resembles the audio
concepts             seen concepts, by class names
few_shot             few-shot probes on seen and unseen classes
speed                how fast every stage is, beside the 2022 recipe
full_size            what the thesis's experiments take: operations, hours, disk, cores
findings             the thesis's claims, and what the rows say to them
studies              the thesis's explanations, tried where causes are known
explore              widgets of the notebook for exploring
cover                the cover and the icon, from rows
nuisances            what varies in the synthetic world, to look at and to listen to
glossary             links from the first mention of a term on a page
numbering            numbers and captions of figures and tables
parts                pages that open a part of the book with what its chapters found
notebook_parameters  typed parameters of a notebook; a misspelt one is an error
reference            signatures and docstrings of the package, as pages
figures              every figure and table as files, redrawn in a style
execution            running notebooks
book                 staging what they left behind, and building the pages
pdf                  the pages as one PDF, printed by Chromium

Figures (`plot_...`), tables (`..._table`) and readings (`describe_...`) of all subjects can be
called from here: `report.plot_bars(rows, panels)`. Subjects are imported on first use, because
running a notebook or checking its parameters needs neither torch nor matplotlib.
"""

from importlib import import_module
from typing import Any

_SUBJECTS = (
    "style diagrams wording comparisons approaches literature schemes time_lines findings data"
    " encoders losses pretraining live accuracy choices retrieval galleries localisation concepts"
    " few_shot speed full_size studies explore"
)
_PAGES = "cover nuisances glossary numbering parts reference figures execution book pdf"


def __getattr__(name: str) -> Any:
    # `from avnb.book import book` asks here first: it must not import every subject.
    if name in f"{_SUBJECTS} {_PAGES} notebook_parameters".split():
        return import_module(f"{__name__}.{name}")
    for subject in () if name.startswith("_") else _SUBJECTS.split():
        module = import_module(f"{__name__}.{subject}")
        value = getattr(module, name, None)
        if value is not None and getattr(value, "__module__", "") == module.__name__:
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
