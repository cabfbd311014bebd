"""Widgets of the notebook `explore`; without a front end, each draws once and nothing moves.

ipywidgets are imported where they are shown.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from avnb.book.galleries import playing_gallery
from avnb.book.plots import method_title, title
from avnb.config import Evaluation
from avnb.data.manifest import Manifest
from avnb.data.prepare import load_dataset
from avnb.evaluation import retrieval
from avnb.evaluation.features import (
    EncoderSource,
    FrozenEncoders,
    device,
    encode_all,
    training_part,
)
from avnb.files import replacing
from avnb.profiles import Workspace


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
        self.features: dict[str, retrieval.QueryAndGallery] = {}

    def query_and_gallery(self, method: str) -> retrieval.QueryAndGallery:
        """Query and gallery features of an encoder."""
        if method not in self.features:
            about = self.manifest, self.config, self.work.features
            self.features[method] = retrieval.query_and_gallery(self.sources[method], *about)
        return self.features[method]

    def show(self, method: str, direction: str, row: int) -> None:
        """Play the nearest videos of one test video."""
        test, both = self.manifest.split("test"), self.query_and_gallery(method)
        found = retrieval.find_neighbours(*both, [row], direction)
        self.play(test.only([test.videos[row]]), found)

    def show_of_file(self, method: str, direction: str, name: str, content: bytes) -> None:
        """Play the nearest videos of a video file, which is kept in the profile's folder.

        Raises:
            ValueError: when it is no video that can be read, or lacks audio to ask by.
        """
        folder = self.work.folder / "dropped" / hashlib.sha256(content).hexdigest()[:16]
        with replacing(folder / Path(name).name) as partial:
            partial.write_bytes(content)
        own = load_dataset(self.work, "folder", str(folder))
        source, audible = self.sources[method], bool(len(own.with_audio()))
        if not audible and direction != "v->v":
            raise ValueError(f"{name} has no audio: it can ask by its frames only")
        encoders = FrozenEncoders(source, training_part(self.manifest)).to(device())
        sampling = retrieval.clip_sampling(source.config, self.config)
        sampling = replace(sampling, audio=audible)
        query = encode_all(encoders.encode, own, sampling, self.config)
        _, gallery = self.query_and_gallery(method)
        self.play(own, retrieval.find_neighbours(query, gallery, [0], direction))

    def play(self, query: Manifest, found: Tensor) -> None:
        """Display a query and its answers, rows of the training videos, which play."""
        from IPython.display import HTML, display

        train = self.manifest.split("train")
        display(HTML(playing_gallery(query, train, found.tolist(), self.work.media)))


def turn(draw: Callable[..., None], /, *, interactive: bool, **controls: Any) -> None:
    """Draw, and draw anew whenever a control is turned; errors are shown in the place of it.

    Args:
        draw: takes the values of the controls by name; its defaults are what is drawn first.
        interactive: whether there is a front end for widgets.
        controls: as `ipywidgets.interact` takes them.
    """
    if not interactive:
        draw()
        return
    import ipywidgets

    @functools.wraps(draw)
    def redraw(**values: Any) -> None:
        try:
            draw(**values)
        except (ValueError, OSError) as error:
            print(error)

    ipywidgets.interact(redraw, **controls)


def explore_retrieval(shown: Retrieval, *, interactive: bool) -> None:
    """Pick encoder, direction and query, or drop in a video file; see and hear the answers."""
    first = next(iter(shown.sources))
    rows = enumerate(shown.manifest.split("test").videos)
    queries = sorted((f"{video.label}: {video.id}", row) for row, video in rows)

    def draw(
        method: str = first, direction: str = "v->v", query: int = queries[0][1], files: Any = ()
    ) -> None:
        shown.show(method, direction, query)
        for file in files:
            shown.show_of_file(method, direction, file["name"], bytes(file["content"]))

    controls: dict[str, Any] = {"query": queries}
    controls["method"] = [(method_title(name), name) for name in shown.sources]
    controls["direction"] = [(title(name), name) for name in retrieval.DIRECTIONS]
    if interactive:
        import ipywidgets

        controls["files"] = ipywidgets.FileUpload(accept="video/*", description="a video")
    turn(draw, interactive=interactive, **controls)
