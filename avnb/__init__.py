"""Audio-visual self-supervised learning from noisy videos: the package behind the book.

The modules, in the order of the data; each imports only from those to its left:

    config -> parameters -> guard -> files -> progress -> scenes -> synth -> decode -> videos
    -> subsets -> workspace -> clips -> views -> batches -> encoders -> losses -> health -> toys
    -> dist -> bank -> methods -> checkpoint -> train -> classifier -> worker -> launch -> cluster
    -> pretrain -> cost -> sources -> tensors -> features -> results -> probe -> finetune
    -> retrieval -> names -> language -> concepts -> splits -> fewshot -> figures -> tables
    -> book -> __main__
"""

import atexit
import gc

__version__ = "0.1.0"

# At its end Python looks through torch's half million objects several times, for more than a
# second; what is frozen is passed over. A book is dozens of short processes.
atexit.register(gc.freeze)
