"""Audio-visual self-supervised learning from noisy videos: the package behind the book.

Packages and modules in the order of the data; each imports only from those above it:

| processes:   no process outlives its parent
| config:      every value of an experiment, and the ids that follow from them
| files:       files that survive an interruption
| profiles:    differences from the thesis's values, and the folder of each
| distributed: process groups
| data:        what is learnt from: data sets, the store, clips, augmentation, batches
| models:      what learns: encoders, losses, memory banks, methods
| training:    how it is learnt: the loop, checkpoints, runs, launchers
| evaluation:  what was learnt: features, probes, retrieval, concepts, results
| book:        what people see: plots, tables, galleries, the book
"""

import atexit
import gc

__version__ = "0.1.0"

# At exit Python's collector walks through torch's half million objects several times, for more
# than a second; frozen objects are skipped. A book is dozens of short processes.
atexit.register(gc.freeze)
