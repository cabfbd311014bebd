"""What each choice of the released code does to a linear probe."""

import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from avnb.config import PROTOCOLS, Evaluation
from avnb.data.loader import AUTO
from avnb.data.manifest import Manifest
from avnb.evaluation.encoder_source import EncoderSource
from avnb.evaluation.probe import fit_probe, scored
from avnb.evaluation.probe_features import (
    Sources,
    extract_each,
    extract_parts,
    row_metadata,
    samplings,
)
from avnb.evaluation.results import Row, record, stored
from avnb.profiles import Workspace

# Each choice that the released code makes otherwise than the thesis, alone and all together.
CHOICES: dict[str, dict[str, Any]] = {
    "thesis": {},
    "fresh clips": {"probe_clips": "fresh"},
    "moving BatchNorm": {"probe_clips": "fresh", "probe_batch_norm": "train"},
    "mirrored clips": {"flip_prob": 0.5},
    "nearest neighbour": {"interpolation": "nearest"},
    "author": {"protocol": "author", **PROTOCOLS["author"]},
}


def choice_rows(
    sources: Sources, manifest: Manifest, config: Evaluation, work: Workspace, *, split: str
) -> pd.DataFrame:
    """Probes of several encoders under each of `CHOICES`; their rows, appended as well.

    `seconds` are those of training a layer, the encoding of its training clips included, whatever
    the cache holds.
    """
    values = {"split": split, "seed": config.seed, "profile": work.name, "data": manifest.origin}
    values["protocol"] = [config.changed(**changes).protocol_title for changes in CHOICES.values()]
    runs = [source.name for source in sources.values()]
    if (kept := stored(work.results, run=runs, task="protocol", **values)) is not None:
        return kept
    rows = []
    for changes in CHOICES.values():
        changed = config.changed(**changes)
        features = extract_each(sources, manifest, changed, work.features)
        for method, source in sources.items():
            metadata = {"split": split, **row_metadata(source, manifest, work, changed)}
            begin = time.monotonic()
            if changed.probe_clips == "cached":
                extract_uncached(source, manifest, changed)
            trained, tested = fit_probe(source, manifest, features[method], changed)
            seconds = time.monotonic() - begin
            accuracy = scored(trained[0], tested, changed, **metadata)
            rows += [replace(row, task="protocol") for row in accuracy]  # shorter than the probe's
            timed: dict[str, Any] = {"task": "protocol", "metric": "seconds", "seed": config.seed}
            rows.append(Row(value=seconds, **timed, **metadata))
    return record(work.results, rows)


def extract_uncached(source: EncoderSource, manifest: Manifest, config: Evaluation) -> None:
    """Encode the training clips into a folder that is deleted, to see how long it takes."""
    train, sampling_of = {"train": manifest.split("train")}, partial(samplings, config=config)
    with tempfile.TemporaryDirectory() as cache:
        extract_parts({"": source}, train, sampling_of, config, Path(cache), AUTO)
