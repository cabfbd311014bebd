"""Fine-tuned classifiers on test videos (thesis 4.2.2).

Shapes: V videos, C clips of each.
"""

from dataclasses import replace

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from avnb.config import Evaluation, digest
from avnb.data.clips import Batch
from avnb.data.manifest import Manifest
from avnb.data.transform import VideoTransform
from avnb.evaluation.features import Features, Sources, device, encode_all
from avnb.evaluation.probe import LEVELS, samplings, scored
from avnb.evaluation.results import Row
from avnb.files import locked, replacing
from avnb.models.methods import METHODS
from avnb.profiles import Workspace
from avnb.training.classifier import load_classifier
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


def scores(run: TrainingRun, manifest: Manifest, config: Evaluation) -> dict[str, Tensor]:
    """Logits [V, C, classes] of test videos by level, and `label` [V]; kept in the run's folder."""
    test, how = manifest.split("test"), samplings(run.config.clip, config)
    key = [test.digest, [how[level] for level in LEVELS], config.seed]
    file = run.folder / f"test-{digest(key)}.safetensors"
    with locked(run.folder):
        if not file.exists():
            backbone = run.start.backbone if run.start else ""
            classifier = load_classifier(run.checkpoint, backbone=backbone).to(device())
            transform, tensors = VideoTransform().to(device()), dict[str, Tensor]()

            @torch.inference_mode()
            def encode(batch: Batch) -> tuple[Tensor, Tensor]:
                logits = classifier.logits(transform(batch.frames.to(device()))).float().cpu()
                return logits, logits[:, :0]

            batches = replace(config, clips_per_forward=run.config.optim.batch)
            for level in LEVELS:
                found = encode_all(encode, test, how[level], batches)
                tensors |= {level: found.video, "label": found.label}
            with replacing(file) as partial_file:
                save_file(tensors, partial_file)
    return load_file(file)


def measure(run: TrainingRun, manifest: Manifest, config: Evaluation, **metadata: str) -> list[Row]:
    """Result rows of both levels, top-1 and top-5; `metadata` goes into each."""
    found, classes = scores(run, manifest, config), torch.arange(len(manifest.classes))
    known = {"task": "finetune", "method": run.method, "run": run.name, "dataset": manifest.name}
    known |= {"data": manifest.origin, "protocol": config.protocol_title, **metadata}
    rest: dict[str, Tensor] = {"audio": torch.empty(0), "label": found["label"]}
    logits = {level: Features(video=found[level], **rest) for level in LEVELS}
    return scored(torch.nn.Identity(), logits, config, classes, **known)
