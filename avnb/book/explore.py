"""Widgets of the notebook `explore`; without a front end, each draws once and nothing moves.

ipywidgets are imported where they are shown.
"""

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch

from avnb.book.data import plot_film_strips
from avnb.book.galleries import draw_spectrogram, playing_gallery, plot_gallery
from avnb.book.losses import plot_pull
from avnb.book.style import method_title
from avnb.book.wording import level_title
from avnb.config import Pretrain
from avnb.data.clips import Sampling, VideoClips
from avnb.data.layouts import VIDEO_SUFFIXES
from avnb.data.manifest import Manifest
from avnb.data.previews import mel_spectrogram
from avnb.data.transforms import VideoTransform
from avnb.data.video_frames import DecodeError
from avnb.evaluation.exploration import Retrieval
from avnb.evaluation.galleries import Gallery
from avnb.evaluation.retrieval import COSINE, DIRECTIONS, PROJECTED, THESIS


def turned(draw: Callable[..., None], controls: Mapping[str, Any]) -> Any:
    """An output that `draw` fills anew whenever a control is turned; its errors are shown there."""
    import ipywidgets as widgets

    def told(**values: Any) -> None:
        try:
            draw(**values)
        except (DecodeError, ValueError, OSError) as error:
            print(f"{error}")

    return widgets.interactive_output(told, dict(controls))


def show_gallery(found: Gallery, retrieval: Retrieval) -> None:
    """A query and its answers: as a figure, and playing."""
    from IPython.display import HTML, display

    fig = plot_gallery(found)
    display(fig)
    plt.close(fig)
    display(HTML(playing_gallery(found, retrieval.work.media)))


def choices(retrieval: Retrieval) -> dict[str, Any]:
    """The controls of a retrieval: encoder, direction, space."""
    import ipywidgets as widgets

    methods = [(method_title(name), name) for name in retrieval.sources]
    directions = [(level_title(name), name) for name in DIRECTIONS]
    spaces = [THESIS, COSINE, PROJECTED]
    return {
        "method": widgets.Dropdown(options=methods, description="encoder"),
        "direction": widgets.Dropdown(options=directions, description="direction"),
        "space": widgets.Dropdown(options=spaces, description="space"),
    }


def explore_retrieval(retrieval: Retrieval, *, interactive: bool = True) -> None:
    """Pick encoder, direction, space, class and query; see and hear the answers; mark failures."""
    from IPython.display import display

    first = next(iter(retrieval.sources))
    if not interactive:
        show_gallery(retrieval.ask(first, "v->v", 0), retrieval)
        return
    import ipywidgets as widgets

    labels = sorted({video.label for video in retrieval.test.videos})
    of_class = widgets.Dropdown(options=["all", *labels], description="class")
    controls = choices(retrieval) | {"row": widgets.Dropdown(description="query")}
    note, said = widgets.Text(placeholder="what is wrong"), widgets.Label()
    mark = widgets.Button(description="mark as failure", icon="flag")

    def queries(*_: Any) -> None:
        """Offer the queries of the chosen class."""
        fits = [
            (f"{i}: {video.id}", i)
            for i, video in enumerate(retrieval.test.videos)
            if of_class.value in ("all", video.label)
        ]
        controls["row"].options = fits
        controls["row"].value = fits[0][1]

    def draw(method: str, direction: str, space: str, row: int | None) -> None:
        if row is not None:  # as while other queries are offered
            show_gallery(retrieval.ask(method, direction, row, space), retrieval)

    def save(_: Any) -> None:
        """Keep the query that is shown."""
        now = {name: control.value for name, control in controls.items()}
        found = retrieval.ask(now["method"], now["direction"], now["row"], now["space"])
        count = retrieval.mark(found, now["method"], now["space"], note.value)
        said.value = f"saved: {count} in {retrieval.failures.name}"

    of_class.observe(queries, "value")
    queries()
    mark.on_click(save)
    bars = [widgets.HBox([*list(controls.values())[:3]]), widgets.HBox([of_class, controls["row"]])]
    display(*bars, turned(draw, controls), widgets.HBox([mark, note, said]))


def explore_own_video(retrieval: Retrieval, *, interactive: bool = True) -> None:
    """Drop in a video file, and see what it retrieves."""
    from IPython.display import display

    if not interactive:
        print(f"In JupyterLab a video can be dropped in here ({', '.join(VIDEO_SUFFIXES)}).")
        return
    import ipywidgets as widgets

    upload = widgets.FileUpload(accept=",".join(VIDEO_SUFFIXES), description="a video")
    controls = choices(retrieval) | {"files": upload}

    def draw(method: str, direction: str, space: str, files: Any) -> None:
        for file in files:
            content = bytes(file["content"])
            found = retrieval.ask_with_file(method, direction, file["name"], content, space)
            show_gallery(found, retrieval)

    display(widgets.HBox(list(controls.values())), turned(draw, controls))


def explore_loss(*, interactive: bool = True) -> None:
    """Turn q, the temperature and the number of negatives of RINCE."""
    from IPython.display import display

    def draw(q: float, temperature: float, lam: float, negatives: int) -> None:
        fig = plot_pull(q=q, temperature=temperature, lam=lam, negatives=negatives)
        display(fig)
        plt.close(fig)

    if not interactive:
        draw(0.1, 0.07, 0.01, 1024)
        return
    import ipywidgets as widgets

    sliders = {
        "q": widgets.FloatSlider(0.1, min=0.01, max=1, step=0.01, description="q"),
        "temperature": widgets.FloatLogSlider(0.07, min=-2, max=0, description="temperature"),
        "lam": widgets.FloatLogSlider(0.01, min=-3, max=0, description="lambda"),
        "negatives": widgets.IntSlider(1024, min=1, max=4096, description="negatives"),
    }
    display(widgets.VBox(list(sliders.values())), turned(draw, sliders))


def explore_augmentation(manifest: Manifest, run: Pretrain, *, interactive: bool = True) -> None:
    """Scrub through the augmentations of a clip: every draw is another crop, colour and time."""
    from IPython.display import display

    transform, heard = VideoTransform(), manifest.with_audio()
    sampling = Sampling(clip=run.clip, count=1, place="random", augment=run.augment)
    clips = VideoClips(heard, sampling, seed=run.seed)

    def draw(video: int, number: int) -> None:
        batch = clips.whole(video, epoch=number)
        shown = transform(batch.frames, batch.params) * transform.std + transform.mean
        films = torch.cat([batch.frames / 255, shown.clamp(0, 1)])
        fig = plot_film_strips(films, ["after the crop", "after all augmentation"])
        display(fig)
        fig_audio, ax = plt.subplots(figsize=(9, 2))
        sound = batch.audio[0].numpy().astype(np.float32)
        draw_spectrogram(ax, mel_spectrogram(sound, run.clip.audio_hz), axes=True)
        display(fig_audio)
        plt.close(fig)
        plt.close(fig_audio)

    if not interactive:
        draw(0, 0)
        return
    import ipywidgets as widgets

    sliders = {
        "video": widgets.IntSlider(0, min=0, max=len(heard) - 1, description="video"),
        "number": widgets.IntSlider(0, min=0, max=99, description="draw"),
    }
    display(widgets.HBox(list(sliders.values())), turned(draw, sliders))
