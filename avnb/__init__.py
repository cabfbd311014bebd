"""Audio-visual self-supervised learning from noisy videos: the package behind the book.

Six packages in the order of the data. Each imports only from those above it, and the foundations
only from each other:

foundations  bars, values, config, processes, files, protocols, profiles, workspace, distributed
data         what is learnt from: data sets, audit, decoding, clips, transforms, batches
models       what learns: encoders, losses, memory banks, methods
training     how it is learnt: trainer, checkpoints, runs, launchers
evaluation   what was learnt: features, probes, retrieval, concepts, results
bench        how fast it is: every stage beside the 2022 recipe
report       what people see: figures, tables, readings, the book
"""

import atexit
import gc

__version__ = "0.1.0"

# At exit Python's collector walks through torch's half million objects several times, for more
# than a second; frozen objects are skipped. A book is dozens of short processes.
atexit.register(gc.freeze)
