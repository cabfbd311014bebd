"""A batch of clips."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from avnb.data import transforms


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B clips. Frames are uint8 and sound is raw until `views` have looked at them."""

    frames: Tensor  # [B, 3, T, S, S]
    audio: Tensor  # [B, N] raw, or [B, 1, M, t] as a spectrogram; [B, 0] when none is wanted
    video: Tensor  # [B] row of the manifest
    label: Tensor  # [B]
    params: transforms.AugmentParams | None = None
    second_view: Tensor | None = None  # [B, 3, T, S, S] of a second clip of each video
    second_params: transforms.AugmentParams | None = None
    step: int = 0  # steps of the run before this one
    first: int = 0  # clips of the whole batch before these: of other processes, or of other parts

    def __post_init__(self) -> None:
        sizes = {
            f.name: len(value) for f in fields(self) if (value := self.tensor(f.name)) is not None
        }
        if len(set(sizes.values())) != 1 or self.frames.ndim != 5 or self.frames.shape[1] != 3:
            raise ValueError(f"a batch of {sizes} with frames {tuple(self.frames.shape)}")

    def tensor(self, name: str) -> Tensor | None:
        """The field's value if it is a tensor."""
        value = getattr(self, name)
        return value if isinstance(value, Tensor) else None

    def __len__(self) -> int:
        return len(self.video)

    def apply(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The same batch with every tensor changed."""
        changed: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                changed[f.name] = change(value)
            elif isinstance(value, transforms.AugmentParams):
                changed[f.name] = value.apply(change)
        return replace(self, **changed)

    def split(self, size: int) -> list["Batch"]:
        """Parts of `size` clips, in order."""
        return [
            replace(self.apply(lambda x, at=at: x[at : at + size]), first=self.first + at)  # type: ignore[misc]
            for at in range(0, len(self), size)
        ]

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device; only the order of draws stays, which steers the code."""
        moved = self.apply(lambda x: x.to(device, non_blocking=True))
        kept = {
            name: replace(new, order=old.order)
            for name in ("params", "second_params")
            if (old := getattr(self, name)) is not None
            and (new := getattr(moved, name)) is not None
        }
        return replace(moved, **kept)

    @classmethod
    def stack(cls, rows: list[tuple["Batch", int]], **where: int) -> "Batch":
        """One batch of the given clips of the given batches."""
        found: dict[str, Any] = {}
        for f in fields(cls):
            values = [getattr(one, f.name) for one, _ in rows]
            if isinstance(values[0], Tensor):
                found[f.name] = torch.stack(
                    [v[at] for v, (_, at) in zip(values, rows, strict=True)]
                )
            elif isinstance(values[0], transforms.AugmentParams):
                one = [v[at : at + 1] for v, (_, at) in zip(values, rows, strict=True)]
                found[f.name] = transforms.AugmentParams.stack(one)
        return cls(**{**found, **where})
