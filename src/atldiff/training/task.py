"""What the training loop knows of a stage: a module, batches, a loss and a probe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import torch
    from torch import nn

    from atldiff.config import ATLConfig


class BatchSource(Protocol):
    """Batches as a function of the step; picklable, so that another process can make them."""

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """Return the batch of a step."""
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
class Task:
    """One stage of training.

    loss: (module, batch, step) to named scalars; the one called `loss` is minimised. probe: module to a measurement.
    write: (module) writes the checkpoint that users load. bfloat16: compute in it, over float32 masters.
    """

    model: ATLConfig
    module: nn.Module
    source: BatchSource
    loss: Callable[[nn.Module, dict[str, torch.Tensor], int], dict[str, torch.Tensor]]
    probe: Callable[[nn.Module], Probe]
    write: Callable[[nn.Module], None]
    bfloat16: bool = False
