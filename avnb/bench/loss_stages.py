"""Stages on embeddings at the thesis's shapes: xID's banks, VICReg's terms, retrieval."""

from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from avnb.bench import recipe_losses
from avnb.bench.clip_stages import RECIPE, check_equal
from avnb.bench.rows import Row
from avnb.bench.timing import compare
from avnb.bench.workload import Workload
from avnb.config import Pretrain
from avnb.data.batch import Batch
from avnb.evaluation import search
from avnb.models.losses import vicreg_terms
from avnb.models.methods.xid import CrossModalDiscrimination

FLOOR = "floor"
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3  # relative; e^{1/0.07} leaves float32 few digits
BANK_VIDEOS, QUICK_VIDEOS = 50_000, 500
QUERIES, GALLERY, FEATURES = 1916, 4797, 512  # UCF-101's videos with audio (thesis A.1)


class BankStep(CrossModalDiscrimination):
    """xID without its networks: the embeddings are given."""

    def __init__(self, config: Pretrain, videos: int):
        super().__init__(config.changed(width=1), videos, 2)
        rng = torch.Generator().manual_seed(0)
        shape = config.optim.batch, config.xid.embedding_dim
        self.v, self.a = (
            F.normalize(torch.randn(shape, generator=rng), dim=1).requires_grad_() for _ in range(2)
        )

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The given embeddings, both [B, D]."""
        return self.v, self.a


def without_clips(size: int, videos: int) -> Batch:
    """A batch of different videos, with nothing to see or to hear."""
    video = torch.randperm(videos, generator=torch.Generator().manual_seed(1))[:size]
    nothing = torch.zeros(size, 3, 1, 1, 1, dtype=torch.uint8)
    return Batch(frames=nothing, audio=torch.zeros(size, 0), video_index=video, label=video * 0)


def gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    """The loss and its gradients."""
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


def check_gradients(what: str, one: list[Tensor], other: list[Tensor]) -> None:
    """Raise ValueError unless two losses and their gradients are equal, relative to their size."""
    for i, (x, y) in enumerate(zip(one, other, strict=True)):
        relative = float((x - y).abs().sum() / y.abs().sum().clamp_min(1e-30))
        check_equal(what, relative, GRADIENT_TOLERANCE if i else LOSS_TOLERANCE)


def bank_stage(work: Workload) -> Iterator[Row]:
    """Draw, similarities, RINCE, gradient and update of both banks; networks are left out."""
    config, videos = work.config(), QUICK_VIDEOS if work.quick else BANK_VIDEOS
    step, c, size = BankStep(config, videos).train(), config.xid, config.optim.batch
    batch, rng = without_clips(size, videos), torch.Generator().manual_seed(2)
    banks = step.video_bank.rows.clone(), step.audio_bank.rows.clone()
    own = batch.video_index[:, None]

    def recipes(negatives: Tensor) -> list[Tensor]:
        rows = torch.cat([own, negatives], dim=1)
        return gradients(
            recipe_losses.contrast(step.v, step.a, banks, rows, c, c.q_last), step.v, step.a
        )

    def recipe_step(_: int) -> None:
        recipes(recipe_losses.draw(batch.video_index, videos, c.negatives, rng))
        for bank, z in zip(banks, (step.v, step.a), strict=True):
            recipe_losses.update(bank, batch.video_index, z, c.bank_momentum)

    def our_step(_: int) -> list[Tensor]:
        step.embeddings.clear()
        found = gradients(step(batch, 1.0)["loss"], step.v, step.a)
        step.after_step()
        return found

    rows = torch.cat([own, step.negatives(batch)], dim=1)
    buffer = torch.empty(rows.numel(), c.embedding_dim)

    def floor(_: int) -> None:
        for bank in banks:
            torch.index_select(bank, 0, rows.flatten(), out=buffer)

    check_gradients("xID's loss and gradients", recipes(step.negatives(batch)), our_step(0))
    yield compared(
        work,
        "bank",
        f"B {size}, {c.negatives} negatives, {videos} x {c.embedding_dim}",
        {RECIPE: recipe_step, "ours": our_step, FLOOR: floor},
        "the rows of both banks are read once",
    )


def compared(
    work: Workload, stage: str, what: str, ways: Mapping[str, Callable[[int], object]], limit: str
) -> Row:
    """Ours against the recipe, with the floor as its limit."""
    timings = compare(ways, lambda number: range(1), rounds=work.rounds, title=stage)
    floor = float(timings.row(FLOOR, RECIPE)["ms"])
    values = timings.row("ours", RECIPE)
    return Row(stage=stage, what=what, values=values, limit=limit, limit_ms=floor)


def vicreg_stage(work: Workload) -> Iterator[Row]:
    """VICReg's three terms and their gradients."""
    config, rng = work.config(), torch.Generator().manual_seed(0)
    v, shape = config.vicreg, (config.optim.batch, config.vicreg.expander_dim)
    x, y = (torch.randn(shape, generator=rng).requires_grad_() for _ in range(2))

    def weighted(terms: dict[str, Tensor]) -> list[Tensor]:
        weights = v.invariance_weight, v.variance_weight, v.covariance_weight
        names = "invariance", "variance", "covariance"
        return gradients(sum(w * terms[n] for w, n in zip(weights, names, strict=True)), x, y)  # type: ignore[arg-type]

    ways: dict[str, Callable[[int], object]] = {
        RECIPE: lambda _: weighted(recipe_losses.vicreg_as_printed(x, y)),
        "ours": lambda _: weighted(vicreg_terms(x, y)),
        FLOOR: lambda _: [(z @ z.T) @ z for z in (x.detach(), y.detach())],
    }
    check_gradients(
        "VICReg's terms and gradients",
        weighted(recipe_losses.vicreg_as_printed(x, y)),
        weighted(vicreg_terms(x, y)),
    )
    limit = "the Gram matrices and their products with the embeddings"
    yield compared(work, "vicreg", f"B {shape[0]}, D {shape[1]}", ways, limit)


def retrieval_stage(work: Workload) -> Iterator[Row]:
    """The five nearest gallery videos of every query."""
    scale, rng, k = 20 if work.quick else 1, torch.Generator().manual_seed(0), 5
    sizes = [(n // scale, FEATURES) for n in (QUERIES, GALLERY)]
    query, gallery = (torch.randn(size, generator=rng) for size in sizes)

    def one_product(_: int) -> Tensor:
        return (2 * query @ gallery.T - gallery.square().sum(1)).topk(k).indices

    ways: dict[str, Callable[[int], Tensor]] = {
        RECIPE: lambda _: recipe_losses.nearest(query, gallery, k),
        "ours": lambda _: search.nearest(query, gallery, k),
        FLOOR: one_product,
    }
    # Neighbours at almost the same distance may change places; their distances do not.
    distances = [(query[:, None] - gallery[way(0)]).norm(dim=2) for way in ways.values()]
    for other in (distances[0], distances[2]):
        difference = float((distances[1] - other).abs().mean())
        check_equal("distances of the neighbours", difference, 1e-4)
    what = f"{len(query)} x {len(gallery)} x {FEATURES}"
    yield compared(work, "retrieval", what, ways, "one product and top-k, not in blocks")
