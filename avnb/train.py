"""Training: one loop for every method, one process of a job of any size."""

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing.errors import record
from torch.nn.parallel import DistributedDataParallel

from avnb import checkpoint, dist, progress
from avnb.batches import Batch, Sampling, VideoClips, steps_per_epoch, training_epochs
from avnb.config import Optim, Pretrain
from avnb.files import write_aside
from avnb.methods import build
from avnb.videos import Manifest
from avnb.views import PictureView, SoundView

Epochs = Callable[[int], Iterator[tuple[int, Iterator[Batch]]]]


class Views(nn.Module):
    """Looks at a raw batch: frames normalised, sound as a spectrogram, both augmented if drawn."""

    def __init__(self, run: Pretrain, bands: tuple[list[float], list[float]]):
        super().__init__()
        self.picture, self.sound = PictureView(), SoundView(run.clip, run.spectrogram, bands)

    @torch.no_grad()
    def forward(self, batch: Batch) -> Batch:
        """Frames [B, 3, T, S, S] float and sound [B, 1, M, t]."""
        return Batch(
            frames=self.picture(batch.frames, batch.draws),
            sound=self.sound(batch.sound, batch.draws),
            video=batch.video, label=batch.label, step=batch.step,
        )  # fmt: skip


def resume(last: Path, about: dict[str, Any], method: nn.Module, adam: Any) -> list[dict[str, Any]]:
    """Put method and optimiser back where `last` left them; the log so far, empty at the start."""
    if not last.exists():
        return []
    found = checkpoint.load(last)
    checkpoint.check_same(last, found["about"], about)
    method.load_state_dict(found["method"])
    adam.load_state_dict(found["optimiser"])
    return list(found["log"])


def fit(
    method: nn.Module, views: nn.Module, epochs: Epochs, optim: Optim, out: Path,
    about: dict[str, Any], device: torch.device, report: Callable[[float, str], None],
) -> Path:  # fmt: skip
    """Train `method` to its last epoch; return the last checkpoint's path.

    Gradients are averaged over processes and the first one writes. Goes on from `out/last.pt`
    when the same run wrote it. `method(batch, progress)` returns named scalars, of which `loss`
    is minimised; their means over an epoch are a line of `out/log.jsonl`.

    Raises:
        FloatingPointError: when a term is not finite; the last good checkpoint stays.
        CheckpointError: when `out` holds another run's checkpoint.
    """
    last = out / "last.pt"
    method.to(device), views.to(device)
    adam = torch.optim.Adam(method.parameters(), lr=optim.lr, weight_decay=optim.weight_decay)
    log = resume(last, about, method, adam)
    if dist.rank() == 0:
        write_log(out / "log.jsonl", log)  # an interruption may have come before this line's turn
    # Banks are kept equal by gathered updates; broadcasting 50 000 rows a step would be waste.
    model = (
        DistributedDataParallel(method, broadcast_buffers=False)
        if dist.world_size() > 1
        else method
    )
    method.train()
    one = torch.ones((), device=device)
    for epoch, batches in epochs(len(log)):
        for group in adam.param_groups:
            group["lr"] = optim.lr_at(epoch)
        sums: dict[str, Tensor] = {}
        for batch in batches:
            terms = model(views(batch.to(device)), optim.progress_at(epoch))
            adam.zero_grad(set_to_none=True)
            terms["loss"].backward()
            adam.step()
            # Summed on the device: the loop waits for no number.
            sums = {k: sums.get(k, 0) + v.detach() for k, v in {**terms, "steps": one}.items()}
            report(batch.step + 1, f"loss {log[-1]['loss']:.3f}" if log else "first epoch")
        steps = sums.pop("steps")
        means = dist.mean_over_processes(torch.stack(list(sums.values())) / steps).tolist()
        row = {"epoch": epoch, "lr": optim.lr_at(epoch), **dict(zip(sums, means, strict=True))}
        if not all(map(math.isfinite, row.values())):
            raise FloatingPointError(
                f"epoch {epoch} gave {row}; the last good weights are in {last}"
            )
        log.append(row)
        if dist.rank() == 0:
            checkpoint.save(last, about, method, optimiser=adam.state_dict(), log=log)
            write_log(out / "log.jsonl", log)
    return last


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
    try:
        yield device
    finally:
        torch.distributed.destroy_process_group()


def training_videos(manifest: Manifest, run: Pretrain) -> Manifest:
    """The training split, with the videos without sound treated as the run says.

    Raises:
        ValueError: when there are some and `missing_sound` is `error`.
    """
    train = manifest.split("train")
    silent = len(train) - len(train.with_sound())
    if silent and run.missing_sound == "error":
        raise ValueError(
            f"{silent} of {len(train)} training videos of {manifest.folder} have no audio stream; "
            "`missing_sound` may be 'silence' (they are heard as zeros) or 'drop'"
        )
    return train.with_sound() if run.missing_sound == "drop" else train


@record
def main(out: Path) -> None:
    """One process of the job described by `out/job.json`; started by torchrun, or alone."""
    job = json.loads((out / "job.json").read_text())
    run, manifest = Pretrain.from_flat(**job["about"]["run"]), Manifest.load(Path(job["manifest"]))
    manifest = training_videos(manifest, run)
    if manifest.digest != job["about"]["data"]:
        raise ValueError(f"{job['manifest']} has changed since {out / 'job.json'} was written")
    sampling = Sampling(
        clip=run.clip, count=run.clips_per_video, place="random", augment=run.augment
    )
    clips = VideoClips(manifest, sampling, seed=run.seed)
    total = steps_per_epoch(len(manifest), run) * run.optim.epochs
    with process_group() as device:

        def epochs(first: int) -> Iterator[tuple[int, Iterator[Batch]]]:
            return training_epochs(
                clips, run, first, rank=dist.rank(), processes=dist.world_size(),
                workers=job["workers"],
            )  # fmt: skip

        report = progress.reporter(total) if dist.rank() == 0 else progress.silent
        method = build(run, len(manifest))
        views = Views(run, job["about"]["bands"])
        fit(method, views, epochs, run.optim, out, job["about"], device, report)
