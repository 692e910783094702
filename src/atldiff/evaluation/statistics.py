"""Intervals and tests over clips: what a mean of few clips can and cannot say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.95
RESAMPLES = 9999


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over clips and its 95 % interval."""

    mean: float | None
    """None without a clip; infinite where a clip's value is."""
    low: float | None
    """None, like `high`, with fewer than two clips or an infinite mean."""
    high: float | None
    clips: int


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed between two measurements of the same clips: the mean of b - a."""

    mean: float | None
    """None without a common clip, or where infinities of both signs meet."""
    low: float | None
    """None, like `high`, with fewer than two clips or an infinite mean."""
    high: float | None
    p: float | None
    """Two-sided p of no difference, by sign flips; None where the mean is None or infinite."""
    clips: int
    spread: float | None
    """Standard deviation of the clips' differences; None where `low` is."""


def mean(values: Sequence[float]) -> float | None:
    """Return the mean; None of nothing and where infinities of both signs meet."""
    if not len(values) or {math.inf, -math.inf} <= set(values):
        return None
    return float(np.mean(values))


def bootstrap_mean(values: Sequence[float | None], seed: int) -> Interval:
    """Return the mean over clips with its 95 % percentile bootstrap interval; None values are left out.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    measured = [value for value in values if value is not None]
    return Interval(mean(measured), *_bounds(measured, seed), len(measured))


def paired(a: Sequence[float | None], b: Sequence[float | None], seed: int) -> Difference:
    """Return the difference b - a of clips in the same order; a clip that lacks either value is left out.

    The interval is a percentile bootstrap over the clips' differences. p is the share of sign patterns of the
    differences whose mean is at least as far from zero: all patterns up to 13 clips, 9999 drawn ones beyond. Two
    equal infinities differ by 0.

    Source: Fisher, The Design of Experiments, 1935, section 21.

    Raises:
        ValueError: another number of clips in each.
    """
    if len(a) != len(b):
        raise ValueError(f"paired: got {len(a)} and {len(b)} values, expected the same clips in both")
    both = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    changes = [0.0 if x == y else y - x for x, y in both]
    change = mean(changes)
    low, high = _bounds(changes, seed)
    if change is None or math.isinf(change):
        return Difference(change, low, high, None, len(changes), None)
    p = 1.0
    if any(changes) and len(changes) > 1:
        p = stats.permutation_test(
            (changes,),
            np.mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=RESAMPLES,
            random_state=np.random.default_rng(seed),  # pyright: ignore[reportCallIssue] - `rng` is newer
        ).pvalue
    spread = float(np.std(changes, ddof=1)) if len(changes) > 1 else None
    return Difference(change, low, high, min(1.0, float(p)), len(changes), spread)


def smallest_p(clips: int) -> float:
    """Return the smallest p that `paired` can give for a number of clips: the clearest outcome there is."""
    if clips < 2:
        return 1.0
    patterns = 2.0 ** min(clips, 1000)
    return 2 / patterns if patterns <= RESAMPLES else 2 / (RESAMPLES + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values adjusted for being several, in their own order.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    adjusted = [0.0] * len(ps)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda index: ps[index])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted


def _bounds(values: Sequence[float], seed: int) -> tuple[float | None, float | None]:
    if len(values) < 2 or not np.isfinite(values).all():
        return None, None
    interval = stats.bootstrap(
        (values,),
        np.mean,
        method="percentile",
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        vectorized=True,
        batch=max(1, 10_000_000 // len(values)),  # at most 80 MB at a time, however many clips
        random_state=np.random.default_rng(seed),  # pyright: ignore[reportCallIssue] - `rng` is newer
    ).confidence_interval
    return float(interval.low), float(interval.high)
