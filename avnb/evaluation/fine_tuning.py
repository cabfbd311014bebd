"""Fine-tuned classifiers on test videos (thesis 4.2.2).

Shapes: V videos, C clips of each.
"""

from dataclasses import replace

import torch
from torch import Tensor

from avnb.config import Evaluation
from avnb.data.clips import Batch
from avnb.data.manifest import Manifest
from avnb.data.transform import VideoTransform
from avnb.evaluation.features import Features, Sources, device, encode_all
from avnb.evaluation.probe import LEVELS, samplings
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


def logits(run: TrainingRun, manifest: Manifest, config: Evaluation) -> dict[str, Features]:
    """Logits [V, C, classes] of each clip of the test videos, as `video` of features, by level."""
    test, how = manifest.split("test"), samplings(run.config.clip, config)
    backbone = run.start.backbone if run.start else ""
    classifier = load_classifier(run.checkpoint, backbone=backbone).to(device())
    transform = VideoTransform().to(device())

    @torch.inference_mode()
    def encode(batch: Batch) -> tuple[Tensor, Tensor]:
        found = classifier.logits(transform(batch.frames.to(device()))).float().cpu()
        return found, found[:, :0]

    batches = replace(config, clips_per_forward=run.config.optim.batch)
    return {level: encode_all(encode, test, how[level], batches) for level in LEVELS}
