"""Subprocesses of test_features: one is killed while it writes, one has little memory."""

import os
import resource
import signal
import sys
from pathlib import Path

import torch

from avnb.config import Clip, Evaluation
from avnb.data.clips import Sampling
from avnb.data.manifest import Manifest
from avnb.evaluation import feature_store, features, probe
from avnb.evaluation.encoder_source import EncoderSource, source_of_file

SAMPLING = Sampling(
    clip=Clip(video_seconds=0.25, video_fps=8, frame_px=16, audio_seconds=0.5),
    count=2, place="random", resize_px=20, random_crop=True,
)  # fmt: skip
MIB = 2**20


def extracted(sources: list[EncoderSource], where: Path, cache: Path) -> list[features.Features]:
    """Of fourteen videos, three with two clips each in a forward pass."""
    return features.extract(sources, some(where), SAMPLING, cache, seed=0, workers=0, at_once=6)


def some(where: Path) -> Manifest:
    """A few videos."""
    train = Manifest.load(where).split("train")
    return train.only(train.videos[:14])


def killed(where: str, cache: str, *paths: str) -> None:
    """Write some blocks, tear one, and die as if by a power cut."""
    feature_store.SAVE_EVERY_SECONDS = 0
    add, blocks = feature_store.FeatureWriter.add, []

    def torn(self, rows):
        blocks.append(1)
        if len(blocks) == 8:
            self.arrays["video"][self.done] = 7
            self.arrays["video"].flush()
            os.kill(os.getpid(), signal.SIGKILL)
        add(self, rows)

    feature_store.FeatureWriter.add = torn
    extracted([source_of_file(path) for path in paths], Path(where), Path(cache))


def narrow(folder: str) -> None:
    """Write, train on and classify 98 MiB of features with 40 MiB more than now."""
    torch.set_num_threads(1)
    weight = torch.zeros(1, requires_grad=True)
    weight.sum().backward()
    torch.optim.Adam([weight]).step()  # imports what it needs when it is used first
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    limit = int(status["VmData"].split()[0]) * 1024 + 40 * MIB
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    videos, clips, width, block = 1000, 50, 512, 8
    shapes = {"video": (clips, width), "audio": (clips, 0)}
    label = torch.arange(videos) % 5
    with feature_store.FeatureWriter(Path(folder), videos, shapes, block) as growing:
        for row in range(0, videos, block):
            rows = torch.randn(block, clips, width) + label[row : row + block, None, None]
            growing.add({"video": rows, "audio": rows[..., :0]})
    growing.finish({}, label=label)
    found = features.load(Path(folder))
    assert found.video.shape == (videos, clips, width) and found.audio.shape == (videos, clips, 0)
    config = Evaluation(probe_epochs=2)
    layer, losses = probe.fit(found.video, found.label, 5, config)
    assert losses[1] < losses[0] < 3
    assert probe.clip_level(layer, found.video, found.label, 1).shape == (videos,)
    try:
        found.video.clone()
    except RuntimeError as error:
        print("as a whole it does not fit:", error)


if __name__ == "__main__":
    {"killed": killed, "narrow": narrow}[sys.argv[1]](*sys.argv[2:])
