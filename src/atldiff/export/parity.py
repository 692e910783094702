"""How far a network in another runtime may be from PyTorch's, and how far it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from atldiff.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atldiff.networks import Network

TOLERANCES = {"float32": 1e-4, "bfloat16": 2e-2, "int8": 5e-2}
"""Largest relative error, by what the network computes in: the norm of the difference over the norm of the output."""
LEAST_CHANGE = 1e-2
"""Share of an output's norm that is taken for what a network computes where it changes less from call to call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """The difference to PyTorch in float32, the worst of all inputs and outputs.

    relative: norm of the difference over the norm of what the network computes. largest: of all single values.
    """

    relative: float
    largest: float
    tolerance: float
    inputs: int

    def as_dict(self) -> dict[str, float | int]:
        """Return plain values for JSON."""
        return asdict(self)


def measure(
    exact: Network, other: Network, calls: Iterable[tuple[np.ndarray, ...]], tolerance: float, name: str = "network",
    least_change: float = LEAST_CHANGE,
) -> Parity:  # fmt: skip
    """Run both networks on the same inputs and return their difference.

    It is relative to what an output changes by from call to call, where there are several of a shape: what they have in
    common, such as the landmarks that a generator only adds to, is no achievement. least_change: the share of an
    output's norm that counts in any case; 1 is all of it.

    Raises:
        CheckpointError: outputs of another number or shape.
    """
    wanted = [(inputs, exact(*inputs)) for inputs in calls]
    alike: dict[tuple[int, tuple[int, ...]], list[np.ndarray]] = {}
    for _, outputs in wanted:
        for index, output in enumerate(outputs):
            alike.setdefault((index, output.shape), []).append(output)
    common = {key: np.mean(found, axis=0) for key, found in alike.items() if len(found) > 1}
    relative, largest = 0.0, 0.0
    for inputs, outputs in wanted:
        got = other(*inputs)
        shapes = [array.shape for array in outputs], [array.shape for array in got]
        if shapes[0] != shapes[1]:
            raise CheckpointError(f"export: {name} returns {shapes[1]}, expected {shapes[0]}")
        for index, (expected, found) in enumerate(zip(outputs, got, strict=True)):
            if not np.isfinite(found).all():
                relative = largest = float("inf")
                continue
            difference = found.astype(np.float64) - expected
            whole = np.linalg.norm(expected)
            changes = np.linalg.norm(expected - common.get((index, expected.shape), 0))
            computed = max(changes, least_change * whole, 1e-12)
            relative = max(relative, float(np.linalg.norm(difference) / computed))
            largest = max(largest, float(np.abs(difference).max(initial=0)))
    return Parity(relative=relative, largest=largest, tolerance=tolerance, inputs=len(wanted))


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
