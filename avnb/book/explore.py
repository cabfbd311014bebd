"""Widgets of the notebook `explore`; without a front end, each draws once and nothing moves.

ipywidgets are imported where they are shown.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from avnb.book.galleries import playing_gallery
from avnb.book.plots import method_title, title
from avnb.config import Evaluation
from avnb.data.manifest import Manifest
from avnb.data.prepare import load_dataset
from avnb.evaluation.features import (
    EncoderSource,
    FrozenEncoders,
    device,
    encode_all,
    training_part,
)
from avnb.evaluation.retrieval import (
    COSINE,
    DIRECTIONS,
    PROJECTED,
    THESIS,
    Gallery,
    QueryAndGallery,
    extract_each,
    find_gallery,
    projected,
    samplings,
)
from avnb.files import appending, json_lines, replacing
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
        self.test = self.manifest.split("test")
        self.features: dict[str, QueryAndGallery] = {}
        self.last: dict[str, Any] = {}  # what was asked, and answered

    @property
    def failures(self) -> Path:
        """The file of marked failures."""
        return self.work.folder / "failures.jsonl"

    def query_and_gallery(self, method: str, space: str) -> QueryAndGallery:
        """Query and gallery features of an encoder in a space."""
        if method not in self.features:
            one = {method: self.sources[method]}
            self.features |= extract_each(one, self.manifest, self.config, self.work.features)
        query, gallery = self.features[method]
        if space == PROJECTED:
            heads = self.sources[method].heads()
            return projected(query, heads), projected(gallery, heads)
        return query, gallery

    def ask(self, method: str, direction: str, space: str, row: int) -> Gallery:
        """The nearest videos of one test video; arguments as of `find_gallery`."""
        query, gallery = self.query_and_gallery(method, space)
        found = find_gallery(self.manifest, query, gallery, [row], direction=direction, space=space)
        self.last = {"run": self.sources[method].name, "space": space} | described(found)
        return found

    def ask_with_video(self, method: str, direction: str, space: str, own: Manifest) -> Gallery:
        """The nearest videos of the one video of a manifest, whose class is not known.

        Raises:
            ValueError: when it has no audio and the direction needs some.
        """
        source, audible = self.sources[method], bool(len(own.with_audio()))
        if not audible and direction != "v->v":
            raise ValueError(f"{own.videos[0].path} has no audio: it can ask by its frames only")
        encoders = FrozenEncoders(source, training_part(self.manifest)).to(device())
        sampling = replace(samplings(source.config, self.config)["queries"], audio=audible)
        (query,) = encode_all([encoders.encode], own, sampling, self.config)
        if space == PROJECTED:
            query = projected(query, source.heads())
        _, gallery = self.query_and_gallery(method, space)
        options: dict[str, Any] = {"direction": direction, "space": space, "queries": own}
        return find_gallery(self.manifest, query, gallery, [0], **options)

    def prepare(self, name: str, content: bytes) -> Manifest:
        """A data set of one video whose bytes are given; they are kept in the profile's folder.

        Raises:
            FileNotFoundError, ValueError: when it is no video that can be read.
        """
        folder = self.work.folder / "dropped" / hashlib.sha256(content).hexdigest()[:16]
        with replacing(folder / Path(name).name) as partial:
            partial.write_bytes(content)
        return load_dataset(self.work, "folder", str(folder))

    def mark(self, note: str) -> int:
        """Save the last query and its answers as a failure; returns how many are saved."""
        with appending(self.failures) as add:
            add(json.dumps(self.last | {"dataset": self.manifest.name, "note": note}))
        return sum(1 for _ in json_lines(self.failures))

    def show(self, found: Gallery) -> None:
        """Display a query and its answers, which play."""
        from IPython.display import HTML, display

        display(HTML(playing_gallery(found, self.work.media)))


def described(found: Gallery) -> dict[str, Any]:
    """Ids of the first query and its answers, and which of them have its class."""
    return {
        "direction": found.direction,
        "query": found.queries[0].video.id,
        "answers": [shown.video.id for shown in found.answers[0]],
        "right": found.right[0].tolist(),
    }


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


def choices(retrieval: Retrieval) -> dict[str, Any]:
    """The controls of a retrieval: encoder, direction, space."""
    return {
        "method": [(method_title(name), name) for name in retrieval.sources],
        "direction": [(title(name), name) for name in DIRECTIONS],
        "space": [THESIS, COSINE, PROJECTED],
    }


def explore_retrieval(retrieval: Retrieval, *, interactive: bool) -> None:
    """Pick encoder, direction, space and query; see and hear the answers; mark failures."""
    first = next(iter(retrieval.sources))
    videos = enumerate(retrieval.test.videos)
    queries = sorted((f"{video.label}: {video.id}", row) for row, video in videos)

    def draw(
        method: str = first,
        direction: str = "v->v",
        space: str = THESIS,
        query: int = queries[0][1],
    ) -> None:
        retrieval.show(retrieval.ask(method, direction, space, query))

    turn(draw, interactive=interactive, **choices(retrieval), query=queries)
    if not interactive:
        return
    import ipywidgets
    from IPython.display import display

    note, saved = ipywidgets.Text(placeholder="what is wrong"), ipywidgets.Label()
    button = ipywidgets.Button(description="mark as failure")

    def save(_: Any) -> None:
        saved.value = f"saved: {retrieval.mark(note.value)} in {retrieval.failures.name}"

    button.on_click(save)
    display(ipywidgets.HBox([button, note, saved]))


def explore_own_video(retrieval: Retrieval, *, interactive: bool) -> None:
    """Drop in a video file, and see what it retrieves."""
    if not interactive:
        print("In JupyterLab a video can be dropped in here.")
        return
    import ipywidgets

    first = next(iter(retrieval.sources))
    upload = ipywidgets.FileUpload(accept="video/*", description="a video")

    def draw(
        method: str = first, direction: str = "v->v", space: str = THESIS, files: Any = ()
    ) -> None:
        for file in files:
            own = retrieval.prepare(file["name"], bytes(file["content"]))
            retrieval.show(retrieval.ask_with_video(method, direction, space, own))

    turn(draw, interactive=True, **choices(retrieval), files=upload)
