"""Fine-tuned classifiers on test videos (thesis 4.2.2).

Shapes: V videos, C clips of each.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from avnb.config import Evaluation, digest
from avnb.data.clips import VideoClips
from avnb.data.loader import AUTO, video_batches
from avnb.data.manifest import Manifest
from avnb.data.transform import VideoTransform
from avnb.evaluation.features import Sources, device
from avnb.evaluation.probe import accuracies, testing
from avnb.evaluation.results import Row, record
from avnb.files import locked, replacing, tqdm
from avnb.models.methods import METHODS
from avnb.profiles import Workspace
from avnb.training import runs
from avnb.training.classifier import Classifier, load_classifier
from avnb.training.launch import Resources
from avnb.training.runs import TrainingRun, finetuning_run


def finetuning_runs(
    work: Workspace, sources: Sources, manifest: Manifest, *, seed: int = 0
) -> dict[str, TrainingRun]:
    """A run for each source, with the workspace's values; nothing is trained yet."""
    found = {}
    for name, source in sources.items():
        pretrained = source.method not in METHODS or METHODS[source.method].is_trained
        config = work.finetuning(manifest.name, pretrained=pretrained, seed=seed)
        found[name] = finetuning_run(config, source.starting_point, manifest, work.runs)
    return found


def finetuning_rows(
    work: Workspace,
    tuned: Mapping[str, TrainingRun],
    manifest: Manifest,
    config: Evaluation,
    *,
    resources: Resources | None = None,
    **metadata: str,
) -> pd.DataFrame:
    """Train what is left, test all runs, append their rows to the workspace's; the rows."""
    runs.train(list(tuned.values()), resources, f"fine-tuning on {manifest.name}")
    rows = [row for run in tuned.values() for row in measure(run, manifest, config, **metadata)]
    return record(work.results, rows)


def scores(
    run: TrainingRun, manifest: Manifest, config: Evaluation, *, workers: int = AUTO
) -> dict[str, Tensor]:
    """Logits [V, C, classes] of test videos by level, and `label` [V]; kept in the run's folder.

    StoreError when a file of the store can no longer be read.
    """
    test, samplings = manifest.split("test"), testing(run.config.clip, config)
    file = run.folder / f"test-{digest([test.digest, samplings, config.seed])}.safetensors"
    with locked(run.folder):
        if not file.exists():
            own = run.start.backbone if run.start else ""
            classifier = load_classifier(run.checkpoint, backbone=own).to(device())
            tensors = {"label": torch.tensor(test.labels)}
            for level, sampling in samplings.items():
                clips = VideoClips(test, sampling, seed=config.seed)
                title = f"{run.method} on {manifest.name}, {level}"
                tensors[level] = logits(classifier, clips, workers, title)
            with replacing(file) as partial:
                save_file(tensors, partial)
    return load_file(file)


@torch.inference_mode()
def logits(classifier: Classifier, clips: VideoClips, workers: int, title: str) -> Tensor:
    """[V, C, classes] of all clips, video by video."""
    transform, count = VideoTransform().to(device()), clips.sampling.count
    block = max(1, classifier.config.optim.batch // count)
    found, rows = [], range(len(clips))
    with tqdm(total=len(clips), desc=title, unit="video") as bar:
        for batch in video_batches(clips, rows, block, workers=workers):
            frames = transform(batch.frames.to(device()))
            found.append(classifier.logits(frames).float().cpu())
            bar.update(len(batch) // count)
    return torch.cat(found).view(len(clips), count, -1)


def measure(run: TrainingRun, manifest: Manifest, config: Evaluation, **metadata: str) -> list[Row]:
    """Result rows of both levels, top-1 and top-5; `metadata` goes into each."""
    clips = scores(run, manifest, config)
    label = clips.pop("label")
    known: dict[str, Any] = {"task": "finetune", "method": run.method, "run": run.name}
    known |= {"dataset": manifest.name, "data": manifest.origin, "classes": len(manifest.classes)}
    known |= {"protocol": config.protocol_title, **metadata}
    clips = {level: clips[level] for level in ("clip", "video")}
    return accuracies(torch.nn.Identity(), clips, label, config, **known)
