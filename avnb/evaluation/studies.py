"""Studies: the thesis's explanations as experiments in a world whose causes are known.

Each study is a set of short pre-training runs that differ in one thing. An hour on two cores is too
long for a book that is built in minutes, so `avnb study` makes the rows once and they are stored
with the package; their `space` says what differs, and their `run` is the id of the run.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from avnb.config import Evaluation, unknown_name
from avnb.data.manifest import Manifest
from avnb.data.prepare import load_dataset
from avnb.data.synthetic.world import causes, scenes_of
from avnb.evaluation import probe, results, retrieval
from avnb.evaluation.concepts import split_classes
from avnb.evaluation.features import Features, row_metadata, source_of_file
from avnb.evaluation.results import Row, percent_row
from avnb.profiles import Workspace
from avnb.training import runs
from avnb.training.launch import Resources
from avnb.training.runs import TrainingRun, pretraining_runs

# Columns study, method, seed and space: a run's differences to the profile's, as JSON.
VARIANTS = pd.read_csv(Path(__file__).with_name("studies.csv"), sep=";", comment="#")
STUDIES = VARIANTS["study"].unique().tolist()
VARIANT = ["method", "space", "seed"]  # what tells one from the others, as in its rows


def stored() -> pd.DataFrame:
    """The rows that come with the package."""
    return results.read(Path(__file__).with_name("studies.jsonl"))


def of_study(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of a study's variants in their order, with a column for each value that differs."""
    own = VARIANTS.loc[VARIANTS["study"] == name, VARIANT]
    chosen = own.merge(rows, on=VARIANT)[rows.columns]
    return chosen.join(pd.DataFrame(list(map(json.loads, chosen["space"]))))


def measure(work: Workspace, names: Iterable[str], out: Path) -> pd.DataFrame:
    """Train and measure what is missing of these studies; rows are appended to `out` as they come.

    Everything resumes: runs from their checkpoints, and variants whose rows are there are left out.
    Small networks gain little from a second process, so each run has one; another call may make
    other studies meanwhile. ValueError for a study that does not exist.
    """
    chosen = list(names)
    for name in chosen:
        if name not in STUDIES:
            raise ValueError(unknown_name("study", name, STUDIES))
    wanted = VARIANTS.loc[VARIANTS["study"].isin(chosen), VARIANT].drop_duplicates()
    for method, space, seed in wanted.itertuples(index=False):
        run, target = run_and_target(work, method, space, seed)
        there = results.read(out)
        if not ((there["run"] == run.name) & (there["data"] == target.origin)).any():
            runs.train([run], Resources(processes=1), f"{method} {space}, seed {seed}")
            rows = variant_rows(run, target, work, is_plain=space == "{}" and seed == 0)
            results.record(out, [replace(row, space=space, seed=seed) for row in rows])
    return results.read(out)


def run_and_target(
    work: Workspace, method: str, space: str, seed: int
) -> tuple[TrainingRun, Manifest]:
    """A variant's run, which may not have been trained yet, and the videos to test it on.

    Other changes of a world than its seed are of the pre-training videos alone.
    """
    values = json.loads(space)
    world = {**work.values["world"], "seed": values.pop("world_seed", 0)}
    target = load_dataset(replace(work, values={**work.values, "world": world}), "ucf101")
    world |= {name: values.pop(name) for name in ("dubbed_fraction",) if name in values}
    work = replace(work, values={**work.values, "world": world})
    made = pretraining_runs(work, load_dataset(work, ""), (method,), seed=seed, values=values)
    return made[method], target


def variant_rows(
    run: TrainingRun, target: Manifest, work: Workspace, *, is_plain: bool
) -> Iterator[Row]:
    """Probe, retrieval and ranks, and for plain runs what else the studies ask of an encoder.

    The seed of the evaluation stays, so that all share their clips.
    """
    source, config = source_of_file(run.checkpoint), work.evaluation()
    known = row_metadata(source, target, work, config)
    features = probe.probe_features(source, target, config, work.features)
    both = retrieval.query_and_gallery(source, target, config, work.features)

    def accuracy(layer: probe.Classify, test: Features, **about: Any) -> Row:
        right = probe.video_level(layer, test.video, test.label, 1).numpy()
        usual = {"metric": "top1", "chance": 100 / len(target.classes)}
        return percent_row(right, config, **{**usual, **known, **about})

    (layer, _), _ = next(probe.fit_probes(source, target, features, config))
    yield accuracy(layer, features["video"], task="probe", level="video")
    found = retrieval.measure(*both, config, **known)
    yield from (row for row in found if row.metric == "R@1" and row.level != "va->va")
    for name, value in run.log[-1].items() if run.log else ():
        if name.endswith("_rank"):  # of the embeddings in the last epoch
            level = name.removesuffix("_rank")
            yield Row(task="embeddings", metric="rank", level=level, value=value, **known)
    if not is_plain:
        return
    _, parts = split_classes({source.method: source}, target, config)
    for level, names in parts.items():
        shown = torch.tensor([video.label in names for video in target.split("test").videos])
        part = Features(**{name: x[shown] for name, x in vars(features["video"]).items()})
        yield accuracy(layer, part, task="probe", level=level)
    for norm in ("eval", "train"):  # BatchNorm frozen and drifting, fresh clips for both
        values = {"probe_clips": "fresh", "probe_batch_norm": norm}
        fresh = config.changed(**values, probe_epochs=min(20, config.probe_epochs))
        (layer, _), tested = next(probe.fit_probes(source, target, features, fresh))
        about = {"task": "batch norm", "level": norm, "protocol": fresh.protocol_title}
        yield accuracy(layer, tested["video"], **about)
    gallery, query = (replace(part, video=part.audio) for part in reversed(both))
    clips = {"video": (features["train"], features["video"], target)}
    clips["audio"] = gallery, query, target.with_audio()
    for level, (train, test, videos) in clips.items():
        for layer, labelled, about in read_outs(train, test, videos, config):
            yield accuracy(layer, labelled, task="read-out", level=level, **about)


def read_outs(
    train: Features, test: Features, videos: Manifest, config: Evaluation
) -> Iterator[tuple[probe.Classify, Features, dict[str, Any]]]:
    """For each known cause a linear layer that reads it, test features and what rows say of it.

    `chance` is the share of the most frequent value among the test videos.
    """
    for cause, number in known_causes(videos).items() if train.video.shape[2] else ():
        count = 1 + int(max(x.max() for x in number.values()))
        layer, _ = probe.fit(train.video, number["train"], count, config)
        chance = 100 * float(number["test"].bincount().max()) / len(test.label)
        yield layer, replace(test, label=number["test"]), {"metric": cause, "chance": chance}


def known_causes(target: Manifest) -> dict[str, dict[str, Tensor]]:
    """By cause and split, the number [V] of its value in each video.

    Names are numbered in alphabetic order; numbers are cut into thirds of the training videos.
    """
    scenes, tables = scenes_of(target), {}
    for split in ("train", "test"):
        shown = (scenes[video.id] for video in target.split(split).videos)
        tables[split] = pd.DataFrame([causes(scene) for scene in shown])
    found = {}
    for cause, column in tables["train"].items():
        number = pd.Index(sorted(set(column))).get_indexer
        if pd.api.types.is_numeric_dtype(column):
            number = partial(np.searchsorted, column.quantile([1 / 3, 2 / 3]))
        found[str(cause)] = {s: torch.tensor(number(t[cause])) for s, t in tables.items()}
    return found
