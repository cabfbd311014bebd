"""What the thesis's experiments take at full size: clips, arithmetic, hours, disk, cores.

Operations are counted on the encoders alone. Heads, losses and decoding come on top.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pandas as pd
import torch

from avnb.book.speed import BenchRow, compared
from avnb.book.style import method_title
from avnb.book.wording import bullets
from avnb.config import Pretrain
from avnb.data.batch_plan import steps_per_epoch
from avnb.data.cache import FORMS
from avnb.evaluation.class_names import TITLES
from avnb.models.architecture import layers
from avnb.models.encoders import AudioEncoder, VideoEncoder
from avnb.models.methods import build_method, find_method
from avnb.profiles import Workspace
from avnb.training.speed import training_flops

METHODS = ("xid", "vicreg_av", "vicreg_v", "supervised")  # and `random`, which is not trained
THESIS_DAYS = {"xid": 11.5, "vicreg_av": 13.5, "vicreg_v": 13.5}  # thesis 4.1.3
THESIS_GPUS = 8  # Tesla K40m
FOLD_1 = {"ucf101": (9537, 3783), "hmdb51": (3570, 1530)}  # train and test in the official lists
AUDIBLE = (4797, 1916)  # the same of UCF-101's classes with audio (thesis A.1)
VGGSOUND_CLASSES, VGGSOUND_SECONDS = 309, 10.0  # Chen et al. 2020
UCF101_SECONDS = 7.21  # mean, Soomro et al. 2012
FLOP_PER_MAC, FLOAT_BYTES = 2, 4


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Clips that pass the encoders in one experiment, and the operations they take in all."""

    name: str
    chapter: int
    clips: int
    flop: float


@dataclass(frozen=True, kw_only=True)
class ClipCost:
    """Floating-point operations of one clip in the encoders, looked at or trained on."""

    forward: int
    training: int

    @classmethod
    def of(cls, run: Pretrain, frames: int, audio_seconds: float = 0.0) -> Self:
        """A clip of so many frames, with its audio if there is some; nothing is computed."""
        px, forward = run.clip.frame_px, 0
        inputs: dict[Any, tuple[int, ...]] = {VideoEncoder(run.width): (3, frames, px, px)}
        if audio_seconds:
            columns = run.spectrogram.frames(round(audio_seconds * run.clip.audio_hz))
            inputs[AudioEncoder(run.width)] = (1, run.spectrogram.mels, columns)
        training = 0
        for encoder, shape in inputs.items():
            forward += FLOP_PER_MAC * sum(layer.macs for layer in layers(encoder, shape))
            training += training_flops(encoder.to("meta"), torch.empty(1, *shape, device="meta"))
        return cls(forward=forward, training=training)


def pretraining_stage(work: Workspace, method: str) -> Stage:
    """All epochs of a method; two clips without audio where it compares moments of a video."""
    run, kind = work.pretraining(method=method), find_method(method)
    clips = steps_per_epoch(run.subset.subset_videos, run) * run.optim.batch * run.optim.epochs
    cost = ClipCost.of(run, run.clip.frames, run.clip.audio_seconds if kind.uses_audio else 0)
    flop = (1 + kind.uses_second_view) * cost.training * clips
    most = " (at most)" if kind.validation_metrics else ""  # it may stop early
    name = f"Pre-training, {method_title(method)}{most}"
    return Stage(name=name, chapter=6, clips=clips, flop=flop)


def tested_clips(work: Workspace, videos: int) -> int:
    """Clips of the test videos at both levels."""
    choices = work.evaluation()
    return videos * (choices.clip_level_clips + choices.video_level_clips)


def evaluation_stages(work: Workspace, dataset: str) -> list[Stage]:
    """Probes and fine-tuning of all five encoders on a data set."""
    train, test = FOLD_1[dataset]
    cost = ClipCost.of(work.pretraining(), work.finetuning(dataset).clip.frames)
    encoders, tested = len(METHODS) + 1, tested_clips(work, test)
    probed = encoders * (train * work.evaluation().train_clips + tested)
    clips, flop = encoders * tested, encoders * tested * cost.forward
    for pretrained in [True] * len(METHODS) + [False]:
        run = work.finetuning(dataset, pretrained=pretrained)
        epoch = train * run.clips_per_video
        warm, tuned = run.optim.warmup_epochs, run.optim.tuned_epochs
        clips += epoch * (warm + tuned)
        flop += epoch * (warm * cost.forward + tuned * cost.training)
    title = TITLES[dataset]
    return [
        Stage(name=f"Probes, {title}", chapter=7, clips=probed, flop=cost.forward * probed),
        Stage(name=f"Fine-tuning, {title}", chapter=9, clips=clips, flop=flop),
    ]


def retrieval_stage(work: Workspace) -> Stage:
    """Videos with audio, as seen and heard by all five encoders."""
    choices, frames = work.evaluation(), work.finetuning("ucf101").clip.frames
    clips = (len(METHODS) + 1) * sum(AUDIBLE) * choices.video_level_clips
    cost = ClipCost.of(work.pretraining(), frames, choices.retrieval_audio_seconds)
    flop = cost.forward * clips
    return Stage(name="Retrieval, UCF-101", chapter=12, clips=clips, flop=flop)


def full_size_stages(work: Workspace) -> list[Stage]:
    """Every experiment of the thesis that encodes clips; few-shot probes reuse the probes'."""
    stages = [pretraining_stage(work, method) for method in METHODS]
    for dataset in FOLD_1:
        stages += evaluation_stages(work, dataset)
    return [*stages, retrieval_stage(work)]


def thesis_clips_per_second(stages: Sequence[Stage]) -> float:
    """xID's clips over the days that the thesis gives for it, all eight GPUs together."""
    return stages[0].clips / (THESIS_DAYS["xid"] * 86_400)


def stage_hours(stages: Sequence[Stage], clips_per_second: float) -> list[float]:
    """Hours of each stage at the operations per second that xID reaches at this rate."""
    xid = stages[0]
    return [stage.flop / (xid.flop / xid.clips * clips_per_second) / 3600 for stage in stages]


def full_size_table(
    stages: Sequence[Stage], clips_per_second: float, gpus: int, price: float = 0.0
) -> pd.DataFrame:
    """Clips, operations, hours and GPU hours of each stage and of all, and what they cost.

    Args:
        stages: xID's pre-training first.
        clips_per_second: of xID's pre-training, over all GPUs.
        gpus: how many work together.
        price: of an hour of one GPU, in any currency; 0 leaves the column out.
    """
    table = pd.DataFrame(
        {
            "chapter": [str(stage.chapter) for stage in stages],
            "million clips": [stage.clips / 1e6 for stage in stages],
            "PFLOP": [stage.flop / 1e15 for stage in stages],
            "hours": stage_hours(stages, clips_per_second),
        },
        index=[stage.name for stage in stages],
    )
    table["GPU hours"] = table["hours"] * gpus
    if price:
        table["cost"] = table["GPU hours"] * price
    table.loc["All"] = table.sum(numeric_only=True)
    table["chapter"] = table["chapter"].fillna("")
    return table


def checkpoint_bytes(work: Workspace, method: str) -> int:
    """Weights, Adam's two moments of each, buffers such as xID's banks; without the overhead."""
    run = work.pretraining(method=method)
    model = build_method(run, run.subset.subset_videos, VGGSOUND_CLASSES)
    weights = sum(p.numel() for p in model.parameters())
    return FLOAT_BYTES * (3 * weights + sum(b.numel() for b in model.buffers()))


def disk_table(work: Workspace) -> pd.DataFrame:
    """What runs, features and caches take, in GB."""
    run, choices = work.pretraining(), work.evaluation()
    videos = run.subset.subset_videos + run.subset.validation_videos
    gigabytes = {
        f"Checkpoint, {method_title(method)}, twice while written": 2
        * checkpoint_bytes(work, method)
        for method in METHODS
    }
    for dataset, (train, test) in FOLD_1.items():
        clips = train * choices.train_clips + tested_clips(work, test)
        size = (len(METHODS) + 1) * clips * 8 * run.width * FLOAT_BYTES
        gigabytes[f"Features of five encoders, {TITLES[dataset]}"] = size
    for name in ("mpeg2", "h264"):
        rate = FORMS[name].expected
        gigabytes[f"Cache {name}, {videos:,} videos of VGGSound"] = round(
            videos * VGGSOUND_SECONDS * rate
        )
        seconds = sum(FOLD_1["ucf101"]) * UCF101_SECONDS
        gigabytes[f"Cache {name}, UCF-101"] = round(seconds * rate)
    return pd.DataFrame({"GB": pd.Series(gigabytes) / 1e9})


def cores_table(rows: Iterable[BenchRow], clips_per_second: float) -> pd.DataFrame:
    """Processor cores that deliver so many clips a second, by kind of file and way of reading."""
    ms: dict[str, dict[str, float]] = {}
    for row in compared(rows, "clip"):
        if row["against"] == "2022 recipe":
            kind = ms.setdefault(row["what"], {"2022 recipe": row["against_ms"]})
            kind[row["way"].removeprefix("ours, ")] = row["ms"]
    table = pd.DataFrame.from_dict(ms, orient="index") / 1e3 * clips_per_second
    return table


def describe_full_size(stages: Sequence[Stage], table: pd.DataFrame, cores: pd.DataFrame) -> str:
    """The largest items, the estimate beside the published days, and what the files demand."""
    every, trained = table.loc["All"], table["hours"].iloc[: len(METHODS)].sum()
    hours = stage_hours(stages, thesis_clips_per_second(stages))
    expected = dict(zip(METHODS, hours, strict=False))
    beside = " and ".join(
        f"{method_title(name)} {expected[name] / 24:.1f} (published: {days})"
        for name, days in THESIS_DAYS.items()
        if name != "xid"
    )
    kind, need = cores.index[0], cores.iloc[0]
    sentences = [
        f"In all, {every['million clips']:.0f} million clips and {every['PFLOP']:,.0f} PFLOP, "
        f"{every['hours'] / 24:.1f} days at this rate. Pre-training takes "
        f"{100 * trained / every['hours']:.0f} % of the hours.",
        f"Training on one clip takes xID {stages[0].flop / stages[0].clips / 1e9:.1f} GFLOP.",
        "Hours follow xID's rate by operations alone. For the thesis's GPUs, whose xID took "
        f"{THESIS_DAYS['xid']} days, that gives in days: {beside}. Where the two differ, "
        "operations did not decide how long training took.",
        f"With files of the kind {kind}, this rate needs {need.max():.2g} cores by the slowest "
        f"way of reading measured ({need.idxmax()}) and {need.min():.2g} by the fastest "
        f"({need.idxmin()}).",
    ]
    return bullets(sentences)
