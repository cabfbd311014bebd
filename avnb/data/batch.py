"""A batch of clips."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from avnb.data.transforms import AugmentParams, map_tensors


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B clips: uint8 frames and raw waveforms, or the network input made of them."""

    frames: Tensor  # [B, 3, T, S, S]; uint8 ones lie in memory as [B, T, S, S, 3]
    audio: Tensor  # [B, N] waveforms, or [B, 1, M, t] spectrograms; [B, 0] without audio
    params: AugmentParams | None = None
    second_view: Tensor | None = None  # [B, 3, T, S, S] of a second clip of each video
    second_params: AugmentParams | None = None
    label: Tensor  # [B]
    video_index: Tensor  # [B] row of the manifest
    step: int = 0  # steps of the run before this one
    offset: int = 0  # clips of the whole batch before these: of other processes or micro-batches

    def __post_init__(self) -> None:
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        sizes = {name: len(value) for name, value in tensors.items() if isinstance(value, Tensor)}
        if len(set(sizes.values())) != 1 or self.frames.ndim != 5 or self.frames.shape[1] != 3:
            raise ValueError(f"a batch of {sizes} with frames {tuple(self.frames.shape)}")

    @property
    def views(self) -> list[tuple[Tensor, AugmentParams | None]]:
        """Frames and augmentation of each view."""
        views = [(self.frames, self.params)]
        if self.second_view is not None:
            views.append((self.second_view, self.second_params))
        return views

    def __len__(self) -> int:
        return len(self.video_index)

    def apply(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """The same batch with every tensor replaced by the function of it."""
        return map_tensors(function, self)

    def __getitem__(self, rows: slice) -> "Batch":
        return self.apply(lambda x: x[rows])

    def split(self, size: int) -> list["Batch"]:
        """Parts of `size` clips, in order."""
        begins = range(0, len(self), size)
        return [replace(self[b : b + size], offset=self.offset + b) for b in begins]

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device; only the jitter's order, which steers the code, stays."""
        moved = self.apply(lambda x: x.to(device, non_blocking=True))
        for name in ("params", "second_params"):
            if (params := getattr(self, name)) is not None:
                # Copied, as the rest is: what a loader gives is overwritten later.
                order = params.order if device.type == "cpu" else params.order.clone()
                moved = replace(moved, **{name: replace(getattr(moved, name), order=order)})
        return moved
