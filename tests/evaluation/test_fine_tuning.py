"""Fine-tuned classifiers on test videos: whose logits, of which clips, and as rows."""

from dataclasses import replace

import pytest
import torch

from avnb.config import Evaluation, Finetune
from avnb.data.clips import VideoClips
from avnb.data.manifest import Manifest
from avnb.evaluation import fine_tuning
from avnb.evaluation.features import untrained_source
from avnb.evaluation.probe import samplings
from avnb.profiles import PROFILES, Workspace
from avnb.training import checkpoint
from avnb.training.classifier import Classifier, load_classifier
from avnb.training.runs import describe, finetuning_run

CONFIG = Evaluation.from_flat(
    video_fps=8.0, resize_px=18, clip_level_clips=3, video_level_clips=2, bootstrap_resamples=50
)


@pytest.fixture
def few(manifests):
    whole = Manifest.load(manifests / "ucf101")
    return whole.only((*whole.split("train").videos[:8], *whole.split("test").videos[:5]))


@pytest.fixture
def run(few, tiny, tmp_path):
    """A run whose classifier is as it was before the first step."""
    values = {**PROFILES["smoke"]["finetune"], "frame_px": 16, "batch": 6, "seed": 3}
    start = untrained_source(tiny, tmp_path).starting_point
    made = finetuning_run(Finetune.from_flat(**values), start, few, tmp_path)
    model = Classifier(start.load(), len(few.classes), made.config)
    about = describe(made.config, few.split("train"), start=start)
    checkpoint.save(made.checkpoint, about, model, log=[])
    return made


def test_logits_are_those_of_the_classifier_on_every_clip(run, few):
    found = fine_tuning.logits(run, few, CONFIG)
    test, classifier = few.split("test"), load_classifier(run.checkpoint)
    shapes = {level: tuple(x.video.shape) for level, x in found.items()}
    assert shapes == {"clip": (5, 3, len(few.classes)), "video": (5, 2, len(few.classes))}
    for level in shapes:
        assert found[level].label.tolist() == test.labels
        clips = VideoClips(test, samplings(run.config.clip, CONFIG)[level], seed=CONFIG.seed)
        for row in range(5):
            with torch.inference_mode():
                frames = fine_tuning.VideoTransform()(clips.whole(row).frames)
                alone = classifier.logits(frames)
            torch.testing.assert_close(found[level].video[row], alone, rtol=1e-4, atol=1e-5)


def test_what_was_not_pre_trained_is_tuned_for_longer(tiny, few, tmp_path):
    work = Workspace("thesis", tmp_path, PROFILES["thesis"])
    random = untrained_source(tiny, tmp_path)
    sources = {m: replace(random, method=m) for m in ("random", "xid", "of_ones_own")}
    found = fine_tuning.finetuning_runs(work, sources, few, seed=3)
    epochs = {name: run.config.optim.tuned_epochs for name, run in found.items()}
    assert epochs == {"random": 100, "xid": 16, "of_ones_own": 16}
    assert all(run.config.seed == 3 and not run.finished for run in found.values())
    assert [run.method for run in found.values()] == list(sources)
