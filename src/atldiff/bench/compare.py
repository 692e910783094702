"""Several runs of one figure, and two variants' runs in pairs: medians with what lies around them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over its runs."""

    median: float
    low: float
    high: float
    runs: int


def spread(values: Sequence[float]) -> Spread:
    """Return the median, the least and the greatest of a figure's runs.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("spread: got no values, expected at least one run")
    return Spread(statistics.median(values), min(values), max(values), len(values))


def paired_ratios(base: Sequence[float], other: Sequence[float]) -> Spread | None:
    """Return `other` over `base`, run by run: what disturbs both runs of a pair alike falls out.

    Runs without a partner (an interrupted last round) are left out; None where no pair is left or the base is zero.
    """
    ratios = [after / before for before, after in zip(base, other, strict=False) if before > 0]
    return spread(ratios) if ratios else None
