"""What the pipeline knows of a network: arrays in, arrays out. Whatever computes it is behind this call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np


class Network(Protocol):
    """A network that is ready to run, from several threads at once."""

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Return its outputs, new float32 arrays, for its inputs in order: float32, int64 or bool, as it is named."""
        ...


Networks: TypeAlias = Mapping[str, Network]
"""The networks of a generator or of a renderer, by name."""
