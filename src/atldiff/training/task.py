"""What the training loop knows of a stage: a module, batches, a loss and a probe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import torch
    from torch import nn

    from atldiff.config import TrainConfig


class BatchSource(Protocol):
    """Batches as a function of the step, item by item; picklable, so that another process can make them."""

    def batch(self, step: int, items: range) -> dict[str, torch.Tensor]:
        """Return a part of a step's batch on the CPU; every tensor has len(items) rows.

        items: indices into the whole batch. An item, with the time and the noise it is trained at, depends on the seed,
        the step and its index alone (`draws.item_random`), not on the part it is in.
        """
        ...

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Return the names of a batch's clips, for the message that stops a run."""
        ...


@dataclass(frozen=True, slots=True)
class Probe:
    """What a measurement on held-out people gives: scalars, and pictures (H, W, 3) uint8 by name."""

    scalars: dict[str, float]
    pictures: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rival:
    """An adversary that is trained beside a stage, by an optimiser of its own.

    loss: step to its loss over what the stage's own loss has just seen, a mean over the batch's clips. config: whose
    optimiser and learning rate it takes.
    """

    module: nn.Module
    loss: Callable[[int], torch.Tensor]
    config: TrainConfig


@dataclass(frozen=True, slots=True)
class Task:
    """One stage of training.

    module: what is trained, on its device. loss: (module, batch) to named scalars, each a mean over the batch's clips
    of terms that know only their clip, so that equal parts of a batch average to the whole; the one called `loss` is
    minimised. probe: module to a measurement. write: (module) writes the checkpoint that users load. bfloat16: compute
    in it, over float32 masters. rival: that judges it, where there is one. kept_by: the scalar of the probe whose
    highest value decides which averaged weights are written; None writes the last ones.
    """

    module: nn.Module
    source: BatchSource
    loss: Callable[[nn.Module, dict[str, torch.Tensor]], dict[str, torch.Tensor]]
    probe: Callable[[nn.Module], Probe]
    write: Callable[[nn.Module], None]
    bfloat16: bool = False
    rival: Rival | None = None
    kept_by: str | None = None


def strips_picture(strips: list[torch.Tensor]) -> dict[str, np.ndarray]:
    """Return the probe's picture of a renderer, at most 16 strips below one another; none without strips.

    strips: (B, 3, H, 5 W) each, in [-1, 1]: warped portrait, fast, balanced, best and real frame side by side.
    """
    import torch

    if not strips:
        return {}
    grid = torch.cat(strips)[:16]
    rows = grid.permute(0, 2, 3, 1).reshape(-1, grid.shape[-1], 3)
    levels = ((rows + 1) * 127.5).clamp(0, 255).cpu().numpy()
    return {"prior_fast_balanced_best_real": levels.astype("uint8")}
