"""Studies: the thesis's explanations as experiments in a world whose causes are known.

Each study is a set of short pre-training runs that differ in one thing. An hour on two cores is too
long for a book that is built in minutes, so `avnb study` makes the rows once and they are stored
with the package; their `space` says what differs, and their `run` is the id of the run.
"""

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from avnb.config import Evaluation, unknown_name
from avnb.data.catalogue import load_dataset
from avnb.data.manifest import Manifest
from avnb.data.synthetic.world import causes, read_scenes, scenes_of
from avnb.evaluation import probe, probe_features, results, retrieval
from avnb.evaluation.encoder_source import EncoderSource, source_of_run
from avnb.evaluation.features import Features
from avnb.evaluation.results import Row, percent_row
from avnb.profiles import Workspace
from avnb.training import runs
from avnb.training.launch import Resources
from avnb.training.runs import TrainingRun, pretraining_runs

METHODS = ("random", "supervised", "vicreg_av", "vicreg_v", "xid")
HUBER = {"huber_delta": 0.5}
Known = Mapping[str, np.ndarray]  # the number of a cause's value in each video [V], by split


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One run of a study, by its differences to the profile's."""

    method: str
    values: Mapping[str, Any] = field(default_factory=dict)  # of pre-training
    world: Mapping[str, Any] = field(default_factory=dict)  # of the synthetic world
    world_seed: int = 0
    cache: str = ""  # form of the cache that training reads; empty: exact frames
    seed: int = 0

    @property
    def changes(self) -> str:
        """What differs, as rows say it in `space`."""
        others = {"world_seed": self.world_seed, "cache": self.cache}
        others = {name: value for name, value in others.items() if value}
        return json.dumps({**self.world, **self.values, **others}, sort_keys=True)

    @property
    def is_plain(self) -> bool:
        """Whether nothing differs, the seed neither."""
        return self.changes == "{}" and self.seed == 0


def noise(world: Mapping[str, Any]) -> list[Variant]:
    """Four losses in a world that may have more videos with another sound than usual."""
    losses: tuple[tuple[str, dict[str, Any]], ...] = (
        ("xid", {}),
        ("xid", {"xid_loss": "info_nce"}),
        ("vicreg_av", {}),
        ("vicreg_av", HUBER),
    )
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
    # What a bounded shuffle costs, with which one pass over a file serves all its clips.
    "shuffle": tuple(
        Variant(method=method, values=values)
        for method in ("xid", "vicreg_av")
        for values in ({}, {"shuffle_steps": 24}, {"shuffle_steps": 8})
    ),
    # What it costs to learn from a cache, whose pictures are compressed once more.
    "cache": tuple(
        Variant(method=method, cache=form)
        for method in ("supervised", "vicreg_av")
        for form in ("", "h264", "mpeg2")
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


def stored() -> pd.DataFrame:
    """The rows that come with the package."""
    return results.read(str(resources.files("avnb.evaluation") / "studies.jsonl"))


def of_study(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of a study's variants in their order, with a column for each value that differs."""
    places = {(v.method, v.changes, v.seed): i for i, v in enumerate(STUDIES[name])}
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
    """How many of the compared rows come out again, and a table of those that do not."""
    text = f"{both['equal'].sum()} of {len(both)} rows equal the stored ones"
    if both["equal"].all():
        return text
    apart = both[~both["agrees"]].drop(columns=["equal", "agrees", "profile"])
    return (
        f"{text}, the intervals of {both['agrees'].sum()} overlap. Only the same kind of processor "
        "rounds alike; on another, training ends elsewhere, as from another seed, "
        "which intervals over test videos do not contain."
        + (f" Apart are:\n{apart.round(1).to_string(index=False)}" if len(apart) else "")
    )


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError for a study that does not exist."""
    for name in names:
        if name not in STUDIES:
            raise ValueError(unknown_name("study", name, STUDIES))


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
    Small networks gain little from a second process, so each run has one; several parts can be
    made at once.

    Args:
        work: the workspace, of the profile `study` or a smaller one.
        names: of the studies.
        out: file of the rows.
        seeds: of pre-training, where a study has several.
        part: the k-th of n, to be made by this process.

    Raises:
        ValueError: for a study that does not exist.
    """
    names, seeds = list(names), set(seeds)
    check_names(names)
    wanted = [v for name in names for v in STUDIES[name] if v.seed in seeds]
    unique = {(v.method, v.changes, v.seed): v for v in wanted}
    mine = list(unique.values())[part[0] - 1 :: part[1]]
    for variant in mine:
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
    """The videos that a variant's encoders are tested on: the usual world's, or those of its seed.

    Other changes of a world are of the pre-training videos, and all their encoders share one test.
    """
    return load_dataset(in_world(work, seed=variant.world_seed), "ucf101")


def run_of(work: Workspace, variant: Variant) -> TrainingRun:
    """The variant's run, which may not have been trained yet."""
    of_world = in_world(work, seed=variant.world_seed, **variant.world)
    manifest = load_dataset(of_world, "", form=variant.cache)
    found = pretraining_runs(
        of_world, manifest, (variant.method,), seed=variant.seed, values=dict(variant.values)
    )
    return found[variant.method]


def variant_rows(
    variant: Variant, run: TrainingRun, target: Manifest, work: Workspace
) -> list[Row]:
    """Probe, retrieval and, for plain runs, what else the studies ask of an encoder."""
    encoder = Encoder(source_of_run(run), variant, target, work)
    rows = [*encoder.probe_rows(), *encoder.retrieval_rows(), *encoder.rank_rows(run)]
    if variant.is_plain:
        rows += [*encoder.seen_rows(), *encoder.drifting_rows(), *encoder.cause_rows()]
    return rows


@dataclass(frozen=True)
class Encoder:
    """A variant's frozen encoders, and all that is measured of them."""

    source: EncoderSource
    variant: Variant
    target: Manifest
    work: Workspace

    @cached_property
    def config(self) -> Evaluation:
        """The values of the evaluation; its seed stays, so that all share their clips."""
        return self.work.evaluation()

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """What all rows say of themselves."""
        return probe_features.row_metadata(self.source, self.target, self.work, self.config)

    @property
    def chance(self) -> float:
        """Top-1 accuracy of guessing, in percent."""
        return 100 / len(self.target.classes)

    def row(self, scores: Tensor, **about: Any) -> Row:
        """A row of per-video scores in [0, 1]; `about` may replace what all rows say."""
        row = percent_row(scores.cpu().numpy(), self.config, **{**self.metadata, **about})
        return self.marked(row)

    def marked(self, row: Row) -> Row:
        """The row as one of this variant."""
        return replace(row, space=self.variant.changes, seed=self.variant.seed)

    @cached_property
    def features(self) -> probe_features.ProbeFeatures:
        """Of the clips that probes are trained and tested on."""
        cache, sources = self.work.features, {self.source.method: self.source}
        extracted = probe_features.extract_each(sources, self.target, self.config, cache)
        return extracted[self.source.method]

    @cached_property
    def right(self) -> Tensor:
        """[V] whether the probe knows each test video."""
        train, tested = self.features.train, self.features.video
        layer, _ = probe.fit(train.video, train.label, len(self.target.classes), self.config)
        return probe.video_level(layer, tested.video, tested.label, 1)

    def probe_rows(self) -> list[Row]:
        """Top-1 accuracy of the linear probe, of whole videos."""
        about: dict[str, Any] = {"task": "probe", "metric": "top1", "chance": self.chance}
        return [self.row(self.right, level="video", **about)]

    @cached_property
    def query_and_gallery(self) -> tuple[Features, Features]:
        """Query and gallery of retrieval, with audio."""
        sources = {self.source.method: self.source}
        found = retrieval.extract_each(sources, self.target, self.config, self.work.features)
        return found[self.source.method]

    def retrieval_rows(self) -> list[Row]:
        """Recall@1 within and across modalities."""
        query, gallery = self.query_and_gallery
        measured = retrieval.measure(query, gallery, self.config, **self.metadata)
        return [
            self.marked(row)
            for row in measured
            if row.metric == "R@1" and row.level in ("v->v", "a->a", "v->a", "a->v")
        ]

    def rank_rows(self, run: TrainingRun) -> list[Row]:
        """Effective rank of the embeddings in the last epoch, as the run's log has it."""
        last = run.log[-1] if run.log else {}
        found = {name.removesuffix("_rank"): last[name] for name in last if name.endswith("_rank")}
        return [
            self.marked(
                Row(task="embeddings", metric="rank", level=view, value=rank, **self.metadata)
            )
            for view, rank in found.items()
        ]

    def seen_rows(self) -> list[Row]:
        """The probe's accuracy on classes that pre-training has and has not."""
        mask = is_seen(self.target)
        about: dict[str, Any] = {"task": "probe", "metric": "top1", "chance": self.chance}
        return [
            self.row(self.right[mask if level == "seen" else ~mask], level=level, **about)
            for level in ("seen", "unseen")
        ]

    def drifting_rows(self) -> list[Row]:
        """The probe with BatchNorm frozen and drifting, a fresh clip in each epoch of both."""
        rows, about = [], {"task": "batch norm", "metric": "top1", "chance": self.chance}
        for norm in ("eval", "train"):
            config = replace(self.config, probe_clips="fresh", probe_batch_norm=norm)
            config = replace(config, probe_epochs=min(20, config.probe_epochs))
            (layer, _), tested = probe.fit_probe(self.source, self.target, self.features, config)
            right = probe.video_level(layer, tested.video.video, tested.video.label, 1)
            rows.append(self.row(right, level=norm, protocol=config.protocol_title, **about))
        return rows

    def cause_rows(self) -> list[Row]:
        """How well a linear layer reads each known cause from either modality's features.

        From video of all videos; from audio of those that have any. `chance` is the share of the
        most frequent value among the test videos.
        """
        video, (query, gallery) = self.features, self.query_and_gallery
        sides = {
            "video": (video.train.video, video.video.video, self.target),
            "audio": (gallery.audio, query.audio, self.target.with_audio()),
        }
        return [
            self.cause_row(cause, modality, known, train, test)
            for modality, (train, test, videos) in sides.items()
            if train.shape[2]
            for cause, known in known_causes(videos).items()
        ]

    def cause_row(self, cause: str, level: str, known: Known, train: Tensor, test: Tensor) -> Row:
        """One cause, read from features [V, C, F] of training and test videos."""
        values = {split: torch.tensor(found) for split, found in known.items()}
        count = 1 + int(max(x.max() for x in values.values()))
        layer, _ = probe.fit(train, values["train"], count, self.config)
        right = probe.video_level(layer, test, values["test"], 1)
        most = float(values["test"].bincount().max()) / len(test)
        return self.row(right, task="read-out", metric=cause, level=level, chance=100 * most)


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
