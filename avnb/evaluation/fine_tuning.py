"""Fine-tuned classifiers on test videos (thesis 4.2.2).

Shapes: V videos, C clips of each.
"""

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from avnb.config import Evaluation, digest
from avnb.data.clips import Batch, VideoClips
from avnb.data.manifest import Manifest
from avnb.data.transform import VideoTransform
from avnb.evaluation.features import Features, Sources, device, encoded
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
            backbone, tensors = run.start.backbone if run.start else "", {}
            classifier = load_classifier(run.checkpoint, backbone=backbone).to(device())
            transform = VideoTransform().to(device())

            @torch.inference_mode()
            def logits(batch: Batch) -> dict[str, Tensor]:
                frames = transform(batch.frames.to(device()))
                return {"logits": classifier.logits(frames).float().cpu()}

            for level in LEVELS:
                clips = VideoClips(test, how[level], seed=config.seed)
                title = f"{run.method} on {manifest.name}, {level}"
                (found,) = encoded([logits], clips, run.config.optim.batch, title)
                tensors[level] = found["logits"]
            with replacing(file) as partial_file:
                save_file({"label": torch.tensor(test.labels), **tensors}, partial_file)
    return load_file(file)


def measure(run: TrainingRun, manifest: Manifest, config: Evaluation, **metadata: str) -> list[Row]:
    """Result rows of both levels, top-1 and top-5; `metadata` goes into each."""
    found, classes = scores(run, manifest, config), torch.arange(len(manifest.classes))
    known = {"task": "finetune", "method": run.method, "run": run.name, "dataset": manifest.name}
    known |= {"data": manifest.origin, "protocol": config.protocol_title, **metadata}
    label, no_audio = found["label"], torch.empty(0)
    logits = {x: Features(video=found[x], audio=no_audio, label=label) for x in LEVELS}
    return scored(torch.nn.Identity(), logits, config, classes, **known)
