"""What a renderer in training paints as it would in earnest: by its painter, over its networks as they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np


class BatchPainter(Protocol):
    """A painter of batches of its renderer's training set."""

    def render_batch(
        self, batch: Mapping[str, np.ndarray], noise: np.ndarray, steps: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the frames of a batch and the prior that they change, each (B, 3, T, H, W) float32."""
        ...


def on_device(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Return a batch where the renderer computes, its pictures and points in single precision."""
    moved = {name: tensor.to(device) for name, tensor in batch.items()}
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in moved.items()}


def paint_batch(
    painter: BatchPainter, batch: Mapping[str, torch.Tensor], noise: np.ndarray, steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the frames of a batch and the prior that they change, each (B, 3, T, H, W) float32, on its device.

    batch: with the pictures and points of the renderer's training set. noise: of the painter's `window_noise`.
    """
    device = batch["prior"].device
    given = {name: value.detach().float().cpu().numpy() for name, value in batch.items()}
    made, base = (torch.from_numpy(x).to(device) for x in painter.render_batch(given, noise, steps))
    return made, base
