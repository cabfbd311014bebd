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

from avnb.data.catalogue import open_manifest
from avnb.data.manifest import Manifest
from avnb.data.synthetic.scenes import Scene
from avnb.data.synthetic.world import causes, read_scenes
from avnb.evaluation import probe, probe_features, results, retrieval
from avnb.evaluation.encoder_source import EncoderSource, source_of_run
from avnb.evaluation.features import Features
from avnb.evaluation.results import Row, percent_row
from avnb.training import runs
from avnb.training.pretraining import PretrainingRun, pretraining_runs
from avnb.training.resources import Resources
from avnb.values import unknown_name
from avnb.workspace import Workspace

METHODS = ("random", "supervised", "vicreg_av", "vicreg_v", "xid")
HUBER = {"huber_delta": 0.5}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One run of a study, by its differences to the profile's."""

    method: str
    values: Mapping[str, Any] = field(default_factory=dict)  # of pre-training
    world: Mapping[str, Any] = field(default_factory=dict)  # of the synthetic world
    seed: int = 0

    @property
    def changes(self) -> str:
        """What differs, as rows say it in `space`."""
        return json.dumps({**self.world, **self.values}, sort_keys=True)


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
    # What short runs need: each of the values that they have and the thesis's long ones do not.
    "recipe": tuple(
        Variant(method=method, values=values)
        for method, own in (
            (
                "xid",
                (
                    {"residual_scale": 1.0}, {"projector_batch_norm": False},
                    {"projector_batch_norm": False, "residual_scale": 1.0}, {"width": 8},
                ),
            ),
            (
                "vicreg_av",
                (
                    {"covariance_weight": 1.0, "invariance_weight": 25.0}, {"expander_dim": 256},
                    {"residual_scale": 1.0},
                ),
            ),
        )
        for values in ({}, *own, {"lr": 5e-4}, {"lr": 5e-3}, {"crop_area_min": 0.08})
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
    """The rows beside the stored ones of the same measurement, and whether intervals overlap."""
    same = ["task", "metric", "method", "level", "space", "seed"]
    ends = ["value", "low", "high"]
    both = rows[same + ends].merge(stored()[same + ends], on=same, suffixes=("", " stored"))
    both = both.dropna(ignore_index=True)  # ranks have no interval
    overlap = (both["low"] <= both["high stored"]) & (both["low stored"] <= both["high"])
    return both.assign(agrees=overlap)


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
    mine = list(unique.items())[part[0] - 1 :: part[1]]
    there = results.read(out)
    done = set(zip(there["method"], there["space"], there["seed"], strict=True))
    target = open_manifest(work, "ucf101")
    for key, variant in mine:
        if key not in done:
            run = trained(work, variant)
            results.append(out, variant_rows(variant, run, target, work))
    return results.read(out)


def trained(work: Workspace, variant: Variant) -> PretrainingRun:
    """The variant's run, finished."""
    world = {**work.values["world"], **variant.world}
    of_world = replace(work, values={**work.values, "world": world})
    manifest = open_manifest(of_world, "")
    found = pretraining_runs(
        of_world, manifest, (variant.method,), seed=variant.seed, values=dict(variant.values)
    )
    title = f"{variant.method} {variant.changes}, seed {variant.seed}"
    runs.train(list(found.values()), Resources(processes=1), title)
    return found[variant.method]


def variant_rows(
    variant: Variant, run: PretrainingRun, target: Manifest, work: Workspace
) -> list[Row]:
    """Probe, retrieval and, for plain runs, what else the studies ask of an encoder."""
    encoder = Encoder(source_of_run(run), variant, target, work)
    rows = [*encoder.probe_rows(), *encoder.retrieval_rows(), *encoder.rank_rows(run)]
    if variant.changes == "{}" and variant.seed == 0:
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
    def config(self) -> Any:
        """The values of the evaluation; its seed stays, so that all share their clips."""
        return self.work.evaluation()

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """What all rows say of themselves."""
        return probe_features.row_metadata(self.source, self.target, self.work, self.config)

    def row(self, scores: Tensor, **about: Any) -> Row:
        """A row of per-video scores in [0, 1]."""
        row = percent_row(scores.cpu().numpy(), self.config, **self.metadata, **about)
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
        chance = 100 / len(self.target.classes)
        return [self.row(self.right, task="probe", metric="top1", level="video", chance=chance)]

    @cached_property
    def both(self) -> tuple[Features, Features]:
        """Query and gallery of retrieval, with audio."""
        sources = {self.source.method: self.source}
        found = retrieval.extract_each(sources, self.target, self.config, self.work.features)
        return found[self.source.method]

    def retrieval_rows(self) -> list[Row]:
        """Recall@1 within and across modalities."""
        query, gallery = self.both
        measured = retrieval.measure(query, gallery, self.config, **self.metadata)
        return [
            self.marked(row)
            for row in measured
            if row.metric == "R@1" and row.level in ("v->v", "a->a", "v->a", "a->v")
        ]

    def rank_rows(self, run: PretrainingRun) -> list[Row]:
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
        mask, chance = is_seen(self.target), 100 / len(self.target.classes)
        about: dict[str, Any] = {"task": "probe", "metric": "top1", "chance": chance}
        return [
            self.row(self.right[mask if level == "seen" else ~mask], level=level, **about)
            for level in ("seen", "unseen")
        ]

    def drifting_rows(self) -> list[Row]:
        """The probe with BatchNorm frozen and drifting, a fresh clip in each epoch of both."""
        rows, chance = [], 100 / len(self.target.classes)
        for norm in ("eval", "train"):
            config = replace(self.config, probe_clips="fresh", probe_batch_norm=norm)
            config = replace(config, probe_epochs=min(20, config.probe_epochs))
            (layer, _), tested = probe.fit_probe(self.source, self.target, self.features, config)
            right = probe.video_level(layer, tested.video.video, tested.video.label, 1)
            rows.append(
                self.row(right, task="batch norm", metric="top1", level=norm, chance=chance)
            )
        return rows

    def cause_rows(self) -> list[Row]:
        """How well a linear layer reads each known cause from either modality's features."""
        query, gallery = self.both
        rows = []
        for (cause, (count, known)), modality in itertools.product(
            known_causes(self.target).items(), ("video", "audio")
        ):
            train, test = (torch.tensor(known[split]) for split in ("train", "test"))
            x, y = getattr(gallery, modality), getattr(query, modality)
            if not x.shape[2]:
                continue
            layer, _ = probe.fit(x, train, count, self.config)
            right = probe.video_level(layer, y, test, 1)
            about = {"metric": cause, "level": modality, "chance": 100 / count}
            rows.append(self.row(right, task="read-out", **about))
        return rows


def scenes_of(videos: Manifest) -> list[Scene]:
    """The scene of each video, in order."""
    scenes = {path.resolve(): scene for path, scene in read_scenes(videos.folder).items()}
    return [scenes[videos.original(video).resolve()] for video in videos.videos]


def is_seen(target: Manifest) -> Tensor:
    """[V] whether pre-training has each test video's object with its motion."""
    all_scenes = read_scenes(target.folder).values()
    known = {(s.thing, s.motion) for s in all_scenes if s.path.startswith("vggsound/")}
    return torch.tensor([(s.thing, s.motion) in known for s in scenes_of(target.split("test"))])


def known_causes(target: Manifest) -> dict[str, tuple[int, dict[str, np.ndarray]]]:
    """By cause, the number of its values and each video's, by split; those with audio, in order.

    Names stay as they are; numbers are cut into thirds of the training videos.
    """
    parts = {split: target.split(split).with_audio() for split in ("train", "test")}
    tables = {
        split: pd.DataFrame([causes(scene) for scene in scenes_of(videos)])
        for split, videos in parts.items()
    }
    found = {}
    for cause, column in tables["train"].items():
        if pd.api.types.is_numeric_dtype(column):
            thirds = column.quantile([1 / 3, 2 / 3])
            values = {s: np.searchsorted(thirds, t[cause]) for s, t in tables.items()}
            found[str(cause)] = 3, values
        else:
            names = sorted(set(column))
            values = {s: t[cause].map(names.index).to_numpy() for s, t in tables.items()}
            found[str(cause)] = len(names), values
    return found
