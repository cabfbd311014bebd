"""Diagrams of what is computed; every number on them is one of the values it is computed with."""

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from avnb.book.diagrams import (
    AUDIO,
    GREEN,
    TEXT,
    VIDEO,
    Node,
    arrow,
    bank,
    box,
    canvas,
    elbow,
    encoder,
    note,
    sphere,
)
from avnb.book.style import BLUE, GREY, RED
from avnb.book.wording import label
from avnb.config import Clip, Evaluation, Pretrain
from avnb.evaluation.concepts import Matched
from avnb.evaluation.retrieval import samplings
from avnb.models.backbones import VIDEO_BACKBONES

COLOURS = {"video": VIDEO, "audio": AUDIO}


def feature_count(config: Pretrain, modality: str) -> str:
    """Features of an encoder; `D` for a video backbone of the user's own."""
    own = modality == "video" and config.backbone not in VIDEO_BACKBONES
    return "D" if own else f"{8 * config.width}"


def frames_text(clip: Clip) -> str:
    """`16 frames of`, `224 × 224`: what the video encoder receives of a clip."""
    return f"{clip.frames} frames of\n{clip.frame_px} × {clip.frame_px}"


def mel_text(config: Pretrain, clip: Clip) -> str:
    """`2 s, log-mel`, `128 × 125`: what the audio encoder receives of a clip."""
    columns = config.spectrogram.frames(clip.samples)
    return f"{clip.audio_seconds:g} s, log-mel\n{config.spectrogram.mels} × {columns}"


# ---- xID ------------------------------------------------------------------------------------


def plot_xid(config: Pretrain) -> Figure:
    """xID: two paths to the unit sphere, each compared with the memory bank of the other."""
    fig, ax = canvas(5.1)
    outer = {"video": 3.9, "audio": 1.2}
    points = {name: embedding_path(ax, config, name, y) for name, y in outer.items()}
    banks = {}
    for name, other in (("video", "audio"), ("audio", "video")):
        banks[other] = contrast_side(ax, config, points[name], name, other)
    for name, colour in COLOURS.items():
        (x, y), up = points[name].right, 1 if name == "audio" else -1
        end = banks[name].x - banks[name].width / 2 - 0.04, banks[name].y - up * 0.42
        arrow(ax, (x - 0.1, y + up * 0.28), end, color=colour, ls=(0, (4, 2)))
    note(ax, 2.2, 2.55, loss_text(config))
    own = config.xid.bank_momentum
    moved = f"row i ← {own:g} · row i\n+ {1 - own:.4g} · embedding,\nscaled to length 1"
    note(ax, 8.12, 2.55, f"dashed: after a step\n{moved}")
    return fig


def loss_text(config: Pretrain) -> str:
    """What the two directions have in common."""
    c = config.xid
    form = "InfoNCE"
    if c.xid_loss == "rince":
        form = f"RINCE, λ = {c.lam:g}, q from {c.q_first:g} to {c.q_last:g}"
    return f"loss: the mean of both directions\n{form}\nof cosines divided by {c.temperature:g}"


def embedding_path(ax: Axes, config: Pretrain, name: str, y: float) -> Node:
    """From a clip's video or audio to its point on the unit sphere."""
    colour, out = COLOURS[name], 1 if name == "video" else -1
    text = f"clip of video i\n{frames_text(config.clip)}"
    if name == "audio":
        text = f"its audio\n{mel_text(config, config.clip)}"
    clip = box(ax, Node(0.8, y, 1.4, 0.86), text, colour)
    net = encoder(ax, Node(2.2, y, 0.96, 1.1), f"{name}\nencoder", colour)
    head = box(ax, Node(3.8, y, 0.8, 0.7), "head\n3 layers", colour)
    point = sphere(ax, Node(4.93, y, 0.62, 0.62), colour)
    for one, next_one in ((clip, net), (net, head), (head, point)):
        arrow(ax, one.right, next_one.left)
    note(ax, 3.04, y + 0.14, feature_count(config, name))
    note(ax, 3.04, y - 0.14, "features")
    note(ax, 4.41, y + 0.14, f"{config.xid.embedding_dim}")
    note(ax, 4.83, y + out * 0.58, f"{name} embedding\non the unit sphere")
    return point


def contrast_side(ax: Axes, config: Pretrain, point: Node, name: str, other: str) -> Node:
    """The loss of one direction and the bank that it looks into; returns the bank."""
    y, out, colour = point.y, 1 if name == "video" else -1, COLOURS[other]
    loss = box(ax, Node(6.07, y, 1.2, 0.8), f"loss\n{name} → {other}", RED)
    rows = bank(ax, Node(8.42, y, 0.86, 1.08), colour)
    arrow(ax, point.right, loss.left)
    for rise in (0.0, out * 0.3):
        arrow(ax, (rows.left[0], y + rise), (loss.right[0], y + rise), color=colour)
    note(ax, 7.35, y - out * 0.2, "positive:\nrow i")
    note(ax, 7.35, y + out * 0.53, f"negatives:\n{config.xid.negatives:,} others")
    size = f"{config.subset.subset_videos:,} × {config.xid.embedding_dim}"
    note(ax, rows.x, y + out * 0.77, f"{other} bank\n{size}")
    return rows


# ---- VICReg ---------------------------------------------------------------------------------


def plot_vicreg(config: Pretrain) -> Figure:
    """VICReg between video and audio (left), and between two clips of a video (right)."""
    fig, ax = canvas(5.0)
    c = config.vicreg
    for x, branches in ((0.1, audio_visual_branches), (4.65, visual_branches)):
        branches(ax, config, x)
        terms(ax, config, x)
    weights = (c.invariance_weight, c.variance_weight, c.covariance_weight)
    kinds = ("invariance", "mean of both variances", "sum of both covariances")
    parts = [f"{weight:g} · {kind}" for weight, kind in zip(weights, kinds, strict=True)]
    note(ax, 4.5, 0.25, "loss = " + " + ".join(parts), fontsize=TEXT)
    ax.plot([4.5, 4.5], [0.6, 4.9], color=GREY, lw=0.8)
    return fig


BRANCHES = (0.85, 3.4)  # inches from the left of a panel to the middle of either branch


def audio_visual_branches(ax: Axes, config: Pretrain, x: float) -> None:
    """An encoder and an expander for each modality."""
    note(ax, x + 2.125, 4.8, "VICReg-AV: video and audio of a clip", fontsize=TEXT)
    for at, name in zip(BRANCHES, COLOURS, strict=True):
        colour, middle = COLOURS[name], x + at
        text = frames_text(config.clip) if name == "video" else mel_text(config, config.clip)
        clip = box(ax, Node(middle, 4.2, 1.6, 0.76), f"{name} of a clip\n{text}", colour)
        net = encoder(ax, Node(middle, 3.28, 1.6, 0.6), f"{name} encoder", colour, down=True)
        wide = box(ax, Node(middle, 2.35, 1.6, 0.6), f"{name} expander\n3 layers", colour)
        arrow(ax, clip.bottom, net.top)
        arrow(ax, net.bottom, wide.top)
        arrow(ax, wide.bottom, (middle, 1.72))
        note(ax, middle + 0.42, 2.82, feature_count(config, name))


def visual_branches(ax: Axes, config: Pretrain, x: float) -> None:
    """One encoder and one expander for both clips."""
    note(ax, x + 2.125, 4.8, "VICReg-V: two clips of a video, no audio", fontsize=TEXT)
    c, middle = config.vicreg, x + sum(BRANCHES) / 2
    together = "in one pass" if c.views_per_forward == 2 else "one after the other"
    text = f"one video encoder for both clips, {together}"
    net = encoder(ax, Node(middle, 3.28, 4.15, 0.6), text, VIDEO, down=True)
    wide = box(ax, Node(middle, 2.35, 4.15, 0.6), "one video expander for both, 3 layers", VIDEO)
    for at, name in zip(BRANCHES, ("first", "second"), strict=True):
        text = f"{name} clip\n{frames_text(config.clip)}"
        clip = box(ax, Node(x + at, 4.2, 1.6, 0.76), text, VIDEO)
        arrow(ax, clip.bottom, (x + at, net.top[1]))
        arrow(ax, (x + at, net.bottom[1]), (x + at, wide.top[1]))
        arrow(ax, (x + at, wide.bottom[1]), (x + at, 1.72))
        note(ax, x + at + 0.42, 2.82, feature_count(config, "video"))
    apart = f"{c.second_view_min_seconds:g} to {c.second_view_max_seconds:g} s"
    note(ax, middle, 4.2, f"{apart}\napart")


def terms(ax: Axes, config: Pretrain, x: float) -> None:
    """The embeddings of both branches, and the term that acts on each or between them."""
    c, colours = config.vicreg, (VIDEO, AUDIO if x < 1 else VIDEO)
    size = f"{config.optim.batch:,} × {c.expander_dim:,}"
    for at, colour, name in zip(BRANCHES, colours, ("Z", "Z′"), strict=True):
        box(ax, Node(x + at, 1.5, 1.6, 0.44), f"{name}:  {size}", colour)
        each = f"variance × {c.variance_weight:g}\ncovariance × {c.covariance_weight:g}"
        note(ax, x + at, 0.98, each, color=RED)
    start, end = x + BRANCHES[0] + 0.8, x + BRANCHES[1] - 0.8
    arrow(ax, (start, 1.5), (end, 1.5), arrowstyle="<|-|>", color=RED)
    note(ax, (start + end) / 2, 1.66, "invariance", color=RED)
    note(ax, (start + end) / 2, 1.34, f"× {c.invariance_weight:g}", color=RED)


# ---- retrieval with both modalities -----------------------------------------------------------


def plot_late_fusion(run: Pretrain, config: Evaluation) -> Figure:
    """How a video and its audio become one point, and how that is searched."""
    fig, ax = canvas(3.2)
    sampling = samplings(run, config)["queries"]
    clip, count = sampling.clip, sampling.count
    heard = f"their audio\n{mel_text(run, clip)}"
    if config.whole_video_sound:
        heard = "audio of the\nwhole video,\nlog-mel"
    inputs = {"video": f"{count} clips, each\n{frames_text(clip)}", "audio": heard}
    mean = box(ax, Node(6.1, 1.75, 1.1, 0.8), "mean of\nboth\n(v + a) / 2")
    for (name, text), y in zip(inputs.items(), (2.55, 0.95), strict=True):
        colour = COLOURS[name]
        given = box(ax, Node(0.8, y, 1.4, 0.86), text, colour)
        net = encoder(ax, Node(2.25, y, 0.96, 1.0), f"{name}\nencoder", colour)
        one = box(ax, Node(4.25, y, 1.3, 0.86), "mean over\nclips, scaled\nto length 1", colour)
        arrow(ax, given.right, net.left)
        arrow(ax, net.right, one.left)
        arrow(ax, one.right, (mean.left[0], 1.75 + (0.2 if y > 1.75 else -0.2)))
        clips = 1 if config.whole_video_sound and name == "audio" else count
        note(ax, 3.16, y + 0.14, f"{clips} × {feature_count(run, name)}")
        note(ax, 5.35, y - (0.14 if y > 1.75 else -0.14), name[0])
    found = box(
        ax, Node(7.95, 1.75, 1.7, 0.8), "Euclidean distance\nto every point of\nthe gallery"
    )
    arrow(ax, mean.right, found.left)
    note(ax, 4.5, 0.2, "queries (test videos) and gallery (training videos) alike")
    return fig


# ---- seen and unseen classes ------------------------------------------------------------------


def plot_concept_split(matched: Matched) -> Figure:
    """How the class names of a pre-training set make those of a test set seen or unseen."""
    fig, ax = canvas(4.1)
    pair, (_, listed, seen) = matched.pair, split_counts(matched)
    sets = ((pair.queries, "classes of\npre-training"), (pair.targets, "classes of\nthe test set"))
    names = [
        box(ax, Node(0.8, y, 1.4, 0.9), f"{named(classes.title, 15)}\n{len(classes)} {kind}")
        for (classes, kind), y in zip(sets, (3.3, 1.55), strict=True)
    ]
    models = [box(ax, Node(3.35, y, 2.4, 1.4), text, GREEN) for y, text in judges(matched)]
    whose = "both lists" if matched.second else "its lists"
    both = box(ax, Node(5.8, 2.42, 1.3, 0.9), f"{listed} test\nclasses on\n{whose}")
    for model in models:
        for name in names:
            arrow(ax, name.right, (model.left[0], model.y + (0.15 if name.y > both.y else -0.15)))
        arrow(ax, model.right, (both.left[0], both.y + (0.2 if model.y > both.y else -0.2)))
    known = box(ax, Node(8.05, both.y, 1.5, 0.8), f"{seen} seen\nclasses", BLUE)
    arrow(ax, both.right, known.left)
    note(ax, 6.87, both.y + 0.27, f"{listed - seen} removed\nby hand")
    unseen = f"{len(pair.targets) - seen} unseen\nclasses"
    unknown = box(ax, Node(8.05, 0.52, 1.5, 0.8), unseen, RED)
    elbow(ax, [names[1].bottom, (names[1].x, unknown.y), unknown.left])
    note(ax, 4.2, unknown.y - 0.17, "all other test classes")
    return fig


def named(title: str, letters: int = 25) -> str:
    """A name of a data set or a text encoder, on two lines at most."""
    lines = textwrap.wrap(title, letters, max_lines=2, placeholder="…", break_on_hyphens=False)
    return label("\n".join(lines))


def split_counts(matched: Matched) -> tuple[int, int, int]:
    """Pre-training classes that count, test classes that these list, and those that are seen."""
    counting = int((matched.primary.max(axis=1) > matched.pair.threshold).sum())
    return counting, len(matched.seen(struck=False)[1]), len(matched.seen()[1])


def judges(matched: Matched) -> list[tuple[float, str]]:
    """What either text encoder decides: the height of its box and the text in it."""
    top = min(matched.top, len(matched.pair.targets))
    listing = f"for each pre-training class\nthe {top} nearest test classes"
    counting = split_counts(matched)[0]
    rule = f"if the nearest has a cosine\nabove {matched.pair.threshold:g} ({counting} classes)"
    first = f"{named(matched.model)}:\n{listing},\n{rule}"
    second = "no second text encoder:\nthe first decides alone"
    if matched.second:
        second = f"{named(matched.second.title)}:\n{listing}"
    return [(3.3, first), (1.55, second)]
