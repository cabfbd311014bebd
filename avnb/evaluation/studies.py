"""Studies: the thesis's explanations as experiments in a world whose causes are known.

Each study is a set of short pre-training runs that differ in one thing. An hour on two cores is too
long for a book that is built in minutes, so `avnb study` makes the rows once and they are stored
with the package; their `space` says what differs, and their `run` is the id of the run.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from avnb.config import Evaluation, unknown_name
from avnb.data.manifest import Manifest
from avnb.data.prepare import load_dataset
from avnb.data.synthetic.world import causes, read_scenes, scenes_of
from avnb.evaluation import probe, results, retrieval
from avnb.evaluation.features import EncoderSource, row_metadata, source_of_run
from avnb.evaluation.results import Row, percent_row
from avnb.profiles import Workspace
from avnb.training import runs
from avnb.training.launch import Resources
from avnb.training.runs import TrainingRun, pretraining_runs

METHODS = ("random", "supervised", "vicreg_av", "vicreg_v", "xid")
HUBER = {"huber_delta": 0.5}
RETRIEVAL = ("v->v", "a->a", "v->a", "a->v")
Known = Mapping[str, np.ndarray]  # the number of a cause's value in each video [V], by split


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One run of a study, by its differences to the profile's."""

    method: str
    values: Mapping[str, Any] = field(default_factory=dict)  # of pre-training
    world: Mapping[str, Any] = field(default_factory=dict)  # of the synthetic world
    world_seed: int = 0
    seed: int = 0

    @property
    def changes(self) -> str:
        """What differs, as rows say it in `space`."""
        seed = {"world_seed": self.world_seed} if self.world_seed else {}
        return json.dumps({**self.world, **self.values, **seed}, sort_keys=True)

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from other variants: method, changes and seed, as in its rows."""
        return self.method, self.changes, self.seed


def noise(world: Mapping[str, Any]) -> list[Variant]:
    """Four losses in a world that may have more videos with another sound than usual."""
    losses: list[tuple[str, dict[str, Any]]] = [("xid", {}), ("xid", {"xid_loss": "info_nce"})]
    losses += [("vicreg_av", {}), ("vicreg_av", HUBER)]
    return [Variant(method=method, values=values, world=world) for method, values in losses]


STUDIES: dict[str, tuple[Variant, ...]] = {
    # The five methods, each from three seeds: of weights, clips and batches.
    "methods": tuple(Variant(method=m, seed=s) for s in range(3) for m in METHODS),
    # And in a second world, with other videos to train and to test on.
    "second world": tuple(Variant(method=m, world_seed=1) for m in METHODS),
    # Is RINCE the more robust loss (thesis 3.1, Table 4.3)?
    "noise": tuple(
        itertools.chain(
            noise({}), *(noise({"dubbed_fraction": share}) for share in (0.0, 0.25, 0.5, 0.8))
        )
    ),
    # Does the audio path disturb VICReg-AV (thesis 4.2.3)?
    "audio path": tuple(
        Variant(method=method, values=values)
        for method, values in (
            ("vicreg_v", {}), ("vicreg_av", {}), ("vicreg_av", HUBER),
            ("vicreg_av", {"audio_rest_prob": 0.5}),
        )
    ),
    # What RINCE's values do.
    "rince": tuple(
        Variant(method="xid", values=values)
        for values in (
            {}, {"q_first": 0.01, "q_last": 0.01}, {"lam": 0.1}, {"negatives": 512},
            {"temperature": 0.2},
        )
    ),
    # What short runs need, and what else was tried for them.
    "recipe": (
        Variant(method="xid"),
        Variant(method="xid", values={"residual_scale": 1.0}),
        Variant(method="xid", values={"projector_batch_norm": False, "residual_scale": 1.0}),
        Variant(method="vicreg_av"),
        *(
            Variant(method="vicreg_av", values=values)
            for values in (
                {"covariance_weight": 1.0, "invariance_weight": 25.0}, {"expander_dim": 256},
                {"lr": 5e-3},
            )
        ),
    ),
}  # fmt: skip


# ---- rows ---------------------------------------------------------------------------------------


def stored() -> pd.DataFrame:
    """The rows that come with the package."""
    return results.read(str(resources.files("avnb.evaluation") / "studies.jsonl"))


def of_study(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of a study's variants in their order, with a column for each value that differs."""
    places = {variant.key: i for i, variant in enumerate(STUDIES[name])}
    keys = zip(rows["method"], rows["space"], rows["seed"], strict=True)
    place = pd.Series([places.get(key) for key in keys], index=rows.index, dtype=float)
    chosen = rows.loc[place.dropna().sort_values(kind="stable").index].reset_index(drop=True)
    return chosen.join(pd.DataFrame(list(map(json.loads, chosen["space"]))))


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows beside the stored ones of the same measurement: equal, or overlapping at least?"""
    same = ["task", "metric", "method", "level", "space", "seed", "profile"]
    ends = ["value", "low", "high"]
    both = rows[same + ends].merge(stored()[same + ends], on=same, suffixes=("", " stored"))
    both = both.dropna(ignore_index=True)  # ranks have no interval
    overlap = (both["low"] <= both["high stored"]) & (both["low stored"] <= both["high"])
    return both.assign(equal=both["value"] == both["value stored"], agrees=overlap)


def agreement(both: pd.DataFrame) -> str:
    """How many of the compared rows come out again, and a table of those that do not.

    Only the same kind of processor rounds alike; on another, training ends as from another seed.
    """
    text = f"{both['equal'].sum()} of {len(both)} rows equal the stored ones"
    text += f", the intervals of {both['agrees'].sum()} overlap"
    apart = both[~both["agrees"]].drop(columns=["equal", "agrees", "profile"])
    return text if apart.empty else f"{text}; apart are\n{apart.round(1).to_string(index=False)}"


# ---- measuring ----------------------------------------------------------------------------------


def measure(
    work: Workspace,
    names: Iterable[str],
    out: Path,
    *,
    seeds: Iterable[int] = (0, 1, 2),
    part: tuple[int, int] = (1, 1),
) -> pd.DataFrame:
    """Train and measure what is missing of these studies; rows are appended to `out` as they come.

    Everything resumes: runs from their checkpoints, and variants whose rows are there are left out.
    Small networks gain little from a second process, so each run has one; instead the k-th of n
    processes may make `part` (k, n). ValueError for a study that does not exist.
    """
    names, seeds = list(names), set(seeds)
    for name in names:
        if name not in STUDIES:
            raise ValueError(unknown_name("study", name, STUDIES))
    wanted = {v.key: v for name in names for v in STUDIES[name] if v.seed in seeds}
    for variant in list(wanted.values())[part[0] - 1 :: part[1]]:
        run, target = run_of(work, variant), tested_on(work, variant)
        there = results.read(out)
        if not ((there["run"] == run.name) & (there["data"] == target.origin)).any():
            title = f"{variant.method} {variant.changes}, seed {variant.seed}"
            runs.train([run], Resources(processes=1), title)
            results.append(out, variant_rows(variant, run, target, work))
    return results.read(out)


def in_world(work: Workspace, **changes: Any) -> Workspace:
    """The workspace with another synthetic world."""
    world = {**work.values["world"], **changes}
    return replace(work, values={**work.values, "world": world})


def tested_on(work: Workspace, variant: Variant) -> Manifest:
    """The test videos: other changes of a world than its seed are of the pre-training videos."""
    return load_dataset(in_world(work, seed=variant.world_seed), "ucf101")


def run_of(work: Workspace, variant: Variant) -> TrainingRun:
    """The variant's run, which may not have been trained yet."""
    of_world, method = in_world(work, seed=variant.world_seed, **variant.world), variant.method
    options: dict[str, Any] = {"seed": variant.seed, "values": dict(variant.values)}
    manifest = load_dataset(of_world, "")
    return pretraining_runs(of_world, manifest, (method,), **options)[method]


def variant_rows(
    variant: Variant, run: TrainingRun, target: Manifest, work: Workspace
) -> list[Row]:
    """Probe, retrieval and ranks, and for plain runs what else the studies ask of an encoder.

    The seed of the evaluation stays, so that all share their clips.
    """
    source, config = source_of_run(run), work.evaluation()
    one, known = {source.method: source}, row_metadata(source, target, work, config)
    features = probe.extract_each(one, target, config, work.features)[source.method]
    query, gallery = retrieval.extract_each(one, target, config, work.features)[source.method]
    accuracy = partial(accuracy_row, config, **known, chance=100 / len(target.classes))
    (layer, _), _ = probe.fit_probe(source, target, features, config)
    right = probe.video_level(layer, features.video.video, features.video.label, 1)
    rows = [accuracy(right, task="probe", level="video")]
    rows += [
        row
        for row in retrieval.measure(query, gallery, config, **known)
        if row.metric == "R@1" and row.level in RETRIEVAL
    ]
    rows += rank_rows(run, known)
    if variant.key == (variant.method, "{}", 0):
        mask = is_seen(target)
        parts = {"seen": right[mask], "unseen": right[~mask]}
        rows += [accuracy(part, task="probe", level=name) for name, part in parts.items()]
        rows += drifting_rows(source, target, features, config, accuracy)
        read_outs = {"video": (features.train, features.video, target)}
        read_outs["audio"] = (gallery, query, target.with_audio())
        for modality, (train, test, videos) in read_outs.items():
            clips = [getattr(part, modality) for part in (train, test)]
            rows += cause_rows(*clips, videos, config, level=modality, **known)
    return [replace(row, space=variant.changes, seed=variant.seed) for row in rows]


def accuracy_row(config: Evaluation, right: Tensor, **known: Any) -> Row:
    """A row of top-1 accuracy, of whether each video is classified correctly [V]."""
    return percent_row(right.numpy(), config, **{"metric": "top1", **known})


def rank_rows(run: TrainingRun, known: Mapping[str, Any]) -> list[Row]:
    """Effective rank of the embeddings in the last epoch, as the run's log has it."""
    last = run.log[-1] if run.log else {}
    ranks = {name.removesuffix("_rank"): last[name] for name in last if name.endswith("_rank")}
    return [
        Row(task="embeddings", metric="rank", level=view, value=rank, **known)
        for view, rank in ranks.items()
    ]


def drifting_rows(
    source: EncoderSource,
    target: Manifest,
    features: probe.ProbeFeatures,
    config: Evaluation,
    accuracy: Callable[..., Row],
) -> Iterator[Row]:
    """The probe with BatchNorm frozen and drifting, a fresh clip in each epoch of both."""
    for norm in ("eval", "train"):
        values = {"probe_clips": "fresh", "probe_batch_norm": norm}
        fresh = config.changed(**values, probe_epochs=min(20, config.probe_epochs))
        (layer, _), tested = probe.fit_probe(source, target, features, fresh)
        right = probe.video_level(layer, tested.video.video, tested.video.label, 1)
        yield accuracy(right, task="batch norm", level=norm, protocol=fresh.protocol_title)


def cause_rows(
    train: Tensor, test: Tensor, videos: Manifest, config: Evaluation, **known: Any
) -> Iterator[Row]:
    """How well a linear layer reads each known cause from features [V, C, F].

    `chance` is the share of the most frequent value among the test videos.
    """
    for cause, numbers in known_causes(videos).items() if train.shape[2] else ():
        values = {split: torch.tensor(found) for split, found in numbers.items()}
        count = 1 + int(max(x.max() for x in values.values()))
        layer, _ = probe.fit(train, values["train"], count, config)
        right = probe.video_level(layer, test, values["test"], 1)
        chance = 100 * float(values["test"].bincount().max()) / len(test)
        about: dict[str, Any] = {"task": "read-out", "metric": cause, "chance": chance}
        yield accuracy_row(config, right, **known, **about)


def is_seen(target: Manifest) -> Tensor:
    """[V] whether pre-training has each test video's object with its motion."""
    all_scenes = read_scenes(target.folder).values()
    known = {(s.thing, s.motion) for s in all_scenes if s.path.startswith("vggsound/")}
    test, scenes = target.split("test"), scenes_of(target)
    shown = [scenes[video.id] for video in test.videos]
    return torch.tensor([(scene.thing, scene.motion) in known for scene in shown])


def known_causes(target: Manifest) -> dict[str, Known]:
    """By cause, the number of its value in each video, in order, by split.

    Names are numbered in alphabetic order; numbers are cut into thirds of the training videos.
    """
    scenes = scenes_of(target)
    tables = {
        split: pd.DataFrame([causes(scenes[video.id]) for video in target.split(split).videos])
        for split in ("train", "test")
    }
    found = dict[str, Known]()
    for cause, column in tables["train"].items():
        if pd.api.types.is_numeric_dtype(column):
            thirds = column.quantile([1 / 3, 2 / 3])
            found[str(cause)] = {s: np.searchsorted(thirds, t[cause]) for s, t in tables.items()}
        else:
            names = sorted(set(column))
            found[str(cause)] = {s: t[cause].map(names.index).to_numpy() for s, t in tables.items()}
    return found
