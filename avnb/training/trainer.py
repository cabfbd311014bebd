"""Training: one loop for every method, one process of a job of any size."""

import contextlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from avnb import distributed, progress
from avnb.config import Compute, Pretrain
from avnb.data import subsets
from avnb.data.batch import Batch
from avnb.data.batch_plan import steps_per_epoch
from avnb.data.clips import Sampling, VideoClips
from avnb.data.loader import ClipLoader, grouped, training_epochs
from avnb.data.manifest import Manifest
from avnb.data.transforms import AudioTransform, VideoTransform
from avnb.files import write_aside
from avnb.models import collapse
from avnb.models.methods import Method, TrainableModule, build
from avnb.training import checkpoint

Epochs = Callable[[int], Iterator[tuple[int, Iterator[Batch]]]]
Row = dict[str, float]
Validate = Callable[[Callable[[str], None]], Row]  # given what shows a word beside the bar


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training leaves in its folder."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """The last one."""
        return self.folder / "last.pt"

    @property
    def name(self) -> str:
        """The run's id, as result rows have it."""
        return self.folder.name

    @property
    def log(self) -> list[Row]:
        """One dictionary an epoch: means of all terms, health, validation."""
        lines = (self.folder / "log.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def begun(self) -> bool:
        """Whether something has been written."""
        return self.checkpoint.exists() and (self.folder / "log.jsonl").exists()


class Schedule(Protocol):
    """Rate and progress of a training; epochs count from 0."""

    @property
    def weight_decay(self) -> float:
        """Of Adam, in the gradient."""

    def lr_at(self, epoch: int) -> float:
        """Rate in an epoch."""

    def progress_at(self, epoch: int) -> float:
        """From 0 in the first epoch to 1 in the last."""


class Views(nn.Module):
    """Looks at a raw batch: frames normalised, sound as a spectrogram, both augmented if drawn."""

    def __init__(self, run: Pretrain, mel_statistics: tuple[list[float], list[float]] | None):
        super().__init__()
        self.picture, self.audio = VideoTransform(), None
        if (
            mel_statistics is not None
        ):  # as where no video has sound, which only `vicreg_v` can take
            self.audio = AudioTransform(run.clip, run.spectrogram, mel_statistics)

    @torch.no_grad()
    def forward(self, batch: Batch) -> Batch:
        """Frames [B, 3, T, S, S] float and sound [B, 1, M, t]."""
        return Batch(
            frames=self.picture(batch.frames, batch.params),
            audio=self.audio(batch.audio, batch.params)
            if self.audio and batch.audio.shape[1]
            else batch.audio,
            second_view=None
            if batch.second_view is None
            else self.picture(batch.second_view, batch.second_params),
            video=batch.video,
            label=batch.label,
            step=batch.step,
            first=batch.first,
        )


class RunningMeans:
    """Sums of terms over the steps of an epoch; kept on the device, so that no step waits."""

    def __init__(self, sums: dict[str, Tensor] | None = None):
        self.sums = dict(sums or {})

    def add(self, terms: dict[str, Tensor]) -> None:
        """Count one step's terms."""
        one = torch.ones((), device=terms["loss"].device)
        for name, value in {**terms, "steps": one}.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach().float()

    def means(self) -> Row:
        """Mean of each term over the epoch's steps and over processes."""
        names = [name for name in self.sums if name != "steps"]
        values = torch.stack([self.sums[name] for name in names]) / self.sums["steps"]
        found = distributed.mean_over_processes(values).tolist()
        return dict(zip(names, found, strict=True))

    def saved(self) -> dict[str, Tensor]:
        """The sums of all processes, [processes] each."""
        return {
            name: distributed.gather_rows(value[None]).cpu() for name, value in self.sums.items()
        }

    @classmethod
    def restored(cls, saved: dict[str, Tensor], device: torch.device) -> "RunningMeans":
        """This process's sums; their mean when another number of processes saved them."""
        same = all(len(value) == distributed.world_size() for value in saved.values())
        mine = {k: v[distributed.rank()] if same else v.mean() for k, v in saved.items()}
        return cls({name: value.to(device) for name, value in mine.items()})


def gradients(
    model: nn.Module,
    views: nn.Module,
    batch: Batch,
    progress: float,
    micro: int,
    device: torch.device,
) -> dict[str, Tensor]:
    """Leave the gradient of the batch's mean loss in the weights; the mean terms.

    A part of `micro` clips at a time when that is not 0; processes speak once, after the last.
    """
    parts = batch.split(micro) if micro else [batch]
    sums: dict[str, Tensor] = {}
    for part in parts:
        apart = part is not parts[-1] and isinstance(model, DistributedDataParallel)
        with model.no_sync() if apart else contextlib.nullcontext():  # type: ignore[operator]
            terms = model(views(part.to(device)), progress)
            share = len(part) / len(batch)
            (terms["loss"] * share).backward()
        sums = {k: sums.get(k, 0) + v.detach() * share for k, v in terms.items()}
    return sums


@dataclass(kw_only=True)
class State:
    """All that a run consists of between two steps."""

    method: TrainableModule
    adam: torch.optim.Adam
    log: list[Row]  # of whole epochs
    tally: RunningMeans  # of the epoch that has begun
    steps: int  # done

    def close(self, epoch: int, validate: Callable[[], Row]) -> None:
        """End an epoch: its line goes into the log."""
        means = {"epoch": epoch, "lr": self.adam.param_groups[0]["lr"], **self.tally.means()}
        self.log.append({**means, **collapse_metrics(self.method), **validate()})
        self.tally = RunningMeans()

    def save(self, last: Path, metadata: dict[str, Any]) -> None:
        """Write the checkpoint and the log; every process must call it, the first one writes.

        Raises:
            FloatingPointError: when a term or a weight is not finite; the last good checkpoint
                stays.
            CheckpointError: when the file cannot be written; likewise.
        """
        sums = self.tally.saved()
        row = self.log[-1] if not sums else {k: v.sum().item() for k, v in sums.items()}
        bad: dict[str, Any] = {k: v for k, v in row.items() if not math.isfinite(v)}
        if not bad and not finite(self.method):
            bad = {"weights": "that are not finite"}  # they would not show before the next loss
        if bad:
            good = f"the last good weights are in {last}" if last.exists() else "nothing was saved"
            raise FloatingPointError(
                f"step {self.steps} (epoch {len(self.log) - (not sums)}) gave {bad}; {good}"
            )
        if distributed.rank() == 0:
            checkpoint.save(
                last,
                metadata,
                self.method,
                optimiser=self.adam.state_dict(),
                log=self.log,
                sums=sums,
                steps=self.steps,
            )
            write_log(last.with_name("log.jsonl"), self.log)

    def restore(self, last: Path, metadata: dict[str, Any], device: torch.device) -> None:
        """Go back to where `last` was written, if it is there.

        Raises:
            CheckpointError: when it is another run's, or not the same for all processes.
        """
        if last.exists():
            found = checkpoint.load(last)
            checkpoint.check_same(last, found["about"], metadata)
            self.method.load_state_dict(found["method"])
            self.adam.load_state_dict(found["optimiser"])
            self.log, self.steps = list(found["log"]), found["steps"]
            self.tally = RunningMeans.restored(found["sums"], device)
        steps = distributed.gather_rows(torch.tensor([self.steps], device=device)).tolist()
        if len(set(steps)) > 1:  # a shared disk may be slow to show a file everywhere
            raise checkpoint.CheckpointError(
                f"the processes found {last} after {steps} steps: wait until all nodes see the "
                "same file, and start again"
            )


def finite(module: nn.Module) -> bool:
    """Whether all weights and buffers are."""
    values = [v.isfinite().all() for v in module.state_dict().values() if v.is_floating_point()]
    return bool(torch.stack(values).all())


def parallel(method: TrainableModule) -> nn.Module:
    """`method` with gradients that are means over the processes of the job."""
    if distributed.world_size() == 1:
        return method
    # Banks are kept equal by gathered updates; broadcasting 50 000 rows a step would be waste.
    return DistributedDataParallel(
        method, broadcast_buffers=False, find_unused_parameters=method.has_unused_parameters
    )


def fit(
    method: TrainableModule,
    views: nn.Module,
    epochs: Epochs,
    optim: Schedule,
    compute: Compute,
    out: Path,
    metadata: dict[str, Any],
    device: torch.device,
    report: Callable[[int, str], None],
    validate: Validate = lambda tell: {},
    ended: Callable[[list[Row]], bool] = lambda log: False,
) -> Path:
    """Train `method` to its last epoch; return the last checkpoint's path.

    Gradients are averaged over processes and the first one writes. Goes on from `out/last.pt`
    when the same run wrote it, from any step. `method(batch, progress)` returns named scalars,
    of which `loss` is minimised; their means over an epoch, the health of the embeddings and
    what `validate` finds are a line of `out/log.jsonl`.

    Args:
        epochs: from a number of steps done, each epoch that is left and its batches.
        report: called after each step with the number of steps done and a word on the loss.
        validate: measures after each epoch, the same on every process. What it says meanwhile
            is a sign of life.
        ended: whether the log so far says that enough is enough.

    Raises:
        FloatingPointError: as `State.save`.
        CheckpointError: when `out` holds another run's checkpoint, or cannot be written.
    """
    last = out / "last.pt"
    method.to(device), views.to(device)
    trained = [p for p in method.parameters() if p.requires_grad]
    adam = torch.optim.Adam(trained, lr=optim.lr_at(0), weight_decay=optim.weight_decay)
    state = State(method=method, adam=adam, log=[], tally=RunningMeans(), steps=0)
    state.restore(last, metadata, device)
    begun = state.steps
    if distributed.rank() == 0:
        write_log(out / "log.jsonl", state.log)  # an interruption may have come before its turn
    model = parallel(method)

    def step(batch: Batch, progress: float) -> None:
        middle = state.tally.sums and state.steps > begun  # of an epoch, and not just read
        if middle and state.steps % compute.save_every_steps == 0:
            state.save(last, metadata)
        adam.zero_grad(set_to_none=True)
        method.embedded.clear()
        terms = gradients(model, views, batch, progress, compute.micro_batch, device)
        method.before_step(batch.step)
        adam.step()
        method.after_step()
        state.tally.add(terms)
        state.steps = batch.step + 1
        report(state.steps, note(state.log))

    for epoch, batches in epochs(state.steps):
        if ended(state.log):
            break
        method.train()
        adam.param_groups[0]["lr"] = optim.lr_at(epoch)
        for batch in batches:
            step(batch, optim.progress_at(epoch))
        state.close(epoch, lambda: validate(lambda word: report(state.steps, word)))
        state.save(last, metadata)
        if distributed.rank() == 0 and (wrong := collapse.collapse_warning(state.log[-1])):
            progress.announce(wrong)
    return last


def note(log: list[Row]) -> str:
    """What stands beside the bar."""
    if not log:
        return "first epoch"
    row = log[-1]
    found = f"loss {row['loss']:.3f}"
    if "validation_accuracy" in row:
        found += f", validation {100 * row['validation_accuracy']:.1f} %"
    return found


def collapse_metrics(method: TrainableModule) -> Row:
    """Health of the last embeddings of all processes."""
    embedded = {name: distributed.gather_rows(torch.cat(z)) for name, z in method.embedded.items()}
    return {name: value.item() for name, value in collapse.measure(embedded).items()}


def write_log(path: Path, log: list[dict[str, Any]]) -> None:
    """One line an epoch."""
    write_aside(path, "".join(json.dumps(row) + "\n" for row in log))


@contextlib.contextmanager
def process_group() -> Iterator[torch.device]:
    """Join the job this process was started for (none: alone); NCCL on GPUs, else gloo."""
    processes, local, beside = (
        int(os.environ.get(name, other))
        for name, other in (("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"))
    )
    cuda = torch.cuda.device_count() >= beside  # the same answer in every process
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if processes == 1:
        yield device
        return
    torch.distributed.init_process_group("nccl" if cuda else "gloo")
    yield device
    # Not after an error: the other processes wait elsewhere, and the error would never be told.
    torch.distributed.destroy_process_group()


def validation(
    method: Method,
    views: nn.Module,
    manifest: Manifest,
    run: Pretrain,
    device: torch.device,
    workers: int,
) -> Validate:
    """A function that measures `method` on one clip of each video, dealt over the processes."""
    sampling = Sampling(clip=run.clip, count=1, place="random", resize_px=run.clip.resized_px)
    rows = range(distributed.rank(), len(manifest), distributed.world_size())
    clips = ClipLoader(
        VideoClips(manifest, sampling, seed=run.seed),
        [(0, row, (0,)) for row in rows],
        workers=workers,
    )

    @torch.no_grad()
    def measure(tell: Callable[[str], None]) -> Row:
        method.eval()
        distributed.share_statistics(method)  # all measure what the first one saves
        sums, done = torch.zeros(len(method.measures), device=device), 0
        for batch in grouped(clips, 16):
            found = method.validate(views(batch.to(device)))
            sums += torch.stack([found[name].float().sum() for name in method.measures])
            done += len(batch)
            tell(f"validation, {done} of {len(rows)} videos")
        means = distributed.mean_over_processes(sums) * distributed.world_size() / len(manifest)
        return dict(zip(method.measures, means.tolist(), strict=True))

    return measure


def stagnant(log: list[Row], patience: int) -> bool:
    """Whether the best validation accuracy lies `patience` epochs or more back."""
    seen = [row["validation_accuracy"] for row in log]
    return bool(seen) and len(seen) - 1 - seen.index(max(seen)) >= patience


def ended(run: Pretrain, log: list[Row]) -> bool:
    """Whether a run with this log has come to its end."""
    if run.method == "random":
        return True
    early = run.method == "supervised" and stagnant(log, run.subset.patience_epochs)
    return early or len(log) == run.optim.epochs


def sampling_of(run: Pretrain) -> Sampling:
    """How a run's training clips are cut."""
    v = run.vicreg
    return Sampling(
        clip=run.clip,
        count=run.clips_per_video,
        place="random",
        augment=run.augment,
        audio=run.uses_audio,
        second_view_seconds=(v.second_view_min_seconds, v.second_view_max_seconds)
        if run.method == "vicreg_v"
        else None,
    )


def limited(
    epochs: Iterator[tuple[int, Iterator[Batch]]], steps: int
) -> Iterator[tuple[int, Iterator[Batch]]]:
    """The first steps, as if they were one epoch."""
    yield 0, itertools.islice((batch for _, batches in epochs for batch in batches), steps)


def pretraining(out: Path, job: dict[str, Any], device: torch.device) -> None:
    """This process's part of pre-training as `job` says, in the folder `out`."""
    run, manifest = Pretrain.from_flat(**job["about"]["run"]), Manifest.load(Path(job["manifest"]))
    train, rest = (
        subsets.heard(subsets.chosen(manifest, Path(job[ids])), run)
        for ids in ("train_ids", "validation_ids")
    )
    if train.digest != job["about"]["data"]:
        raise ValueError(f"{job['manifest']} has changed since {out / 'job.json'} was written")
    clips = VideoClips(train, sampling_of(run), seed=run.seed)
    measured = job.get("steps", 0)
    total = measured or steps_per_epoch(len(train), run) * run.optim.epochs

    def epochs(done: int) -> Iterator[tuple[int, Iterator[Batch]]]:
        every = training_epochs(
            clips,
            run,
            done,
            rank=distributed.rank(),
            processes=distributed.world_size(),
            workers=job["workers"],
        )
        return limited(every, measured) if measured else every

    size = run.optim.batch
    bar = progress.reporter(total * size) if distributed.rank() == 0 else progress.silent
    settle = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    pace = progress.StepTimer(measured, settle)

    def report(steps: int, note: str) -> None:
        bar(steps * size, f"{run.method}, {note}")
        pace(steps)

    method = build(run, len(train), len(train.classes))
    if run.synchronised and distributed.world_size() > 1:
        distributed.synchronise_batch_norm(method, device)
    if run.compute.compile_encoders:
        method.video_encoder.compile()
        method.audio_encoder.compile()
    views = Views(run, job["about"]["mel_statistics"])
    validate: Validate = lambda tell: {}  # noqa: E731
    if run.method == "supervised" and not measured:
        validate = validation(method, views, rest, run, device, job["workers"])
    fit(
        method,
        views,
        epochs,
        run.optim,
        run.compute,
        out,
        job["about"],
        device,
        report,
        validate,
        lambda log: ended(run, log),
    )
    if measured and distributed.rank() == 0:
        write_aside(out / "pace.json", json.dumps({"step_seconds": pace.step_seconds}))
