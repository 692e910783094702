"""How far an exported network may be from the one it was made of, and how far it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from atldiff.export.networks import Network

    Inputs = Sequence[torch.Tensor]

DRAWS = 4
"""Random inputs that are tried."""
TOLERANCES = {"float32": 1e-4, "bfloat16": 2e-2, "int8": 5e-2}
"""Largest relative error, by what the network computes in: the norm of the difference over the norm of the output.

Networks in 8 bits are tried on windows of the pipeline's own, others on random inputs.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """The difference to PyTorch in float32, the worst of all inputs.

    relative: norm of the difference over the norm of what the network adds. largest: of all single values.
    """

    relative: float
    largest: float
    tolerance: float
    inputs: int

    def as_dict(self) -> dict[str, float | int]:
        """Return plain values for JSON."""
        return asdict(self)


def random_inputs(network: Network) -> list[tuple[torch.Tensor, ...]]:
    """Return the random inputs a network is tried on, always the same."""
    return [network.draw(np.random.default_rng([seed, 6])) for seed in range(DRAWS)]


def measure(
    network: Network, exported: Callable[..., torch.Tensor], inputs: Iterable[Inputs], tolerance: float
) -> Parity:
    """Run both networks on the same inputs and return their difference."""
    relative, largest, count = 0.0, 0.0, 0
    with torch.inference_mode():
        for values in inputs:
            expected, got = network.module(*values).float(), exported(*values)
            if got.shape != expected.shape:
                raise CheckpointError(
                    f"export: {network.name} returns shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
                )
            difference = got - expected
            computed = expected if network.added_to is None else expected - _spread(values[network.added_to], expected)
            relative = max(relative, float(difference.norm() / computed.norm().clamp_min(1e-12)))
            largest = max(largest, float(difference.abs().max()))
            if not bool(torch.isfinite(got).all()):
                relative = largest = float("inf")
            count += 1
    return Parity(relative=relative, largest=largest, tolerance=tolerance, inputs=count)


def check(name: str, precision: str, parity: Parity) -> None:
    """Raise unless a difference is within its tolerance.

    Raises:
        CheckpointError: it is not.
    """
    if not parity.relative <= parity.tolerance:
        raise CheckpointError(
            f"export: {name} in {precision} differs from PyTorch by {parity.relative:.2g} (largest value "
            f"{parity.largest:.2g}), expected at most {parity.tolerance:.2g}; nothing was written"
        )


def _spread(base: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return what an output (B, T, ...) was added to, (B, ...), at every moment."""
    return base[:, None].expand_as(like)
