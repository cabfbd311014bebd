"""A retrieval to be asked: any encoder, direction and space, also with a video of one's own."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from avnb.config import Evaluation
from avnb.data.listing import VIDEO_SUFFIXES, is_video
from avnb.data.manifest import Manifest, Video
from avnb.data.media import inspect
from avnb.data.video_frames import DecodeError
from avnb.evaluation.encoder_source import EncoderSource
from avnb.evaluation.features import FrozenEncoders, device, encode_all, training_part
from avnb.evaluation.galleries import Gallery, find_gallery
from avnb.evaluation.retrieval import (
    PROJECTED,
    THESIS,
    QueryAndGallery,
    extract_each,
    projected,
    samplings,
)
from avnb.files import appending, json_lines, replacing
from avnb.profiles import Workspace

DROPPED_BYTES = 200e6  # of a video that is dropped in, at most


class Retrieval:
    """Test videos that ask, training videos that answer, under several encoders.

    Features are extracted when an encoder is first asked for, and kept.
    """

    def __init__(
        self,
        sources: Mapping[str, EncoderSource],
        target: Manifest,
        config: Evaluation,
        work: Workspace,
    ):
        self.sources, self.config, self.work = dict(sources), config, work
        self.manifest = target.with_audio()
        self.test = self.manifest.split("test")
        self.features: dict[str, QueryAndGallery] = {}
        self.projected: dict[str, QueryAndGallery] = {}  # the same after the heads

    @property
    def failures(self) -> Path:
        """The file of marked failures."""
        return self.work.folder / "failures.jsonl"

    def both(self, method: str, space: str) -> QueryAndGallery:
        """Query and gallery features of an encoder in a space."""
        if space == PROJECTED:
            if method not in self.projected:
                query, gallery = self.both(method, THESIS)
                heads = self.sources[method].heads()
                self.projected[method] = projected(query, heads), projected(gallery, heads)
            return self.projected[method]
        if method not in self.features:
            one = {method: self.sources[method]}
            self.features |= extract_each(one, self.manifest, self.config, self.work.features)
        return self.features[method]

    def ask(
        self, method: str, direction: str, row: int, space: str = THESIS, k: int = 5
    ) -> Gallery:
        """The nearest videos of one test video; arguments as of `find_gallery`."""
        return find_gallery(
            self.manifest, *self.both(method, space), [row], direction=direction, k=k, space=space
        )

    def ask_with_file(
        self, method: str, direction: str, name: str, content: bytes, space: str = THESIS
    ) -> Gallery:
        """The nearest videos of a file of one's own, whose class is not known.

        Raises:
            ValueError: when it is too large, its name has no known ending, or it has no audio.
            DecodeError: when it is no video that can be read.
        """
        own = dropped(self.manifest, name, content, self.work.folder / "dropped")
        source = self.sources[method]
        audible = own.videos[0].audio_hz > 0
        if not audible and direction != "v->v":
            raise ValueError(f"{name} has no audio: it can ask by its frames only")
        encoders = FrozenEncoders(source, training_part(self.manifest)).to(device())
        sampling = replace(samplings(source.config, self.config)["queries"], audio=audible)
        query = encode_all(encoders, own, sampling, seed=self.config.seed, workers=0)
        if space == PROJECTED:
            query = projected(query, source.heads())
        _, gallery = self.both(method, space)
        options: dict[str, Any] = {"direction": direction, "space": space, "queries": own}
        return find_gallery(self.manifest, query, gallery, [0], **options)

    def mark(self, found: Gallery, method: str, space: str, note: str = "") -> int:
        """Save a query and its answers as a failure; returns how many are saved."""
        row = {
            "run": self.sources[method].name,
            "dataset": self.manifest.name,
            "direction": found.direction,
            "space": space,
            "query": found.queries[0].video.id,
            "answers": [shown.video.id for shown in found.answers[0]],
            "right": found.right[0].tolist(),
            "note": note,
        }
        with appending(self.failures) as add:
            add(json.dumps(row))
        return sum(1 for _ in json_lines(self.failures))


def dropped(beside: Manifest, name: str, content: bytes, folder: Path) -> Manifest:
    """A manifest of one video whose bytes are given; they are kept in `folder`.

    Raises:
        ValueError: when it is too large, or its name has no known ending.
        DecodeError: when it is no video that can be read.
    """
    suffix = Path(name).suffix.lower()
    if not is_video(name):
        raise ValueError(
            f"{name!r} is not named like a video; allowed: {', '.join(VIDEO_SUFFIXES)}"
        )
    if len(content) > DROPPED_BYTES:
        size = f"{len(content) / 1e6:.0f} MB"
        raise ValueError(
            f"{name!r} has {size}; at most {DROPPED_BYTES / 1e6:.0f} MB can be dropped"
        )
    file = folder / f"{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    with replacing(file) as aside:
        aside.write_bytes(content)
    try:
        found = inspect(file)
    except DecodeError:
        file.unlink()
        raise
    values: dict[str, Any] = {"id": Path(name).stem, "path": file.name, "label": Path(name).stem}
    video = Video(**values, split="test", **asdict(found))
    classes = (*beside.classes, video.label)
    return replace(beside, folder=folder, videos=(video,), classes=classes, listed=1, cache=None)
