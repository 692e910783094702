"""Blinks: when they happen and what they do to the lids. A function of time and seed alone."""

from __future__ import annotations

import numpy as np

from atldiff.landmarks.topology import LID_PAIRS_LEFT, LID_PAIRS_RIGHT, POINTS
from atldiff.timebase import FPS

FOLD_RIGHT = np.array([247, 30, 29, 27, 28, 56, 190])
"""Skin above the upper lid, point by point in the order of `LID_PAIRS_RIGHT`."""
FOLD_LEFT = np.array([467, 260, 259, 257, 258, 286, 414])

FIRST_FRAME = 0.6 * FPS
"""No blink before this: a video starts on the photograph."""
REFRACTORY_FRAMES = 1.2 * FPS
DOUBLE_CHANCE = 0.08
DOUBLE_FASTEST_HZ = 0.5
"""No double blinks at rates above this one: there is no room for them."""

_SLOT_TRIALS = 6
_TRIAL_CHANCE = 2 / 3
_SLOT_EVENTS = _SLOT_TRIALS * _TRIAL_CHANCE
_TIGHTEST = 0.64  # refractory time over mean interval; 6 x 0.64 < 4, so even the fullest slot has room

_CLOSE_FRAMES = (2.6, 3.4)
_HOLD_FRAMES = (1.0, 2.0)
_OPEN_FRAMES = (5.0, 6.5)
_DOUBLE_GAP_FRAMES = 2.0
_LONGEST_FRAMES = _CLOSE_FRAMES[1] + _HOLD_FRAMES[1] + _OPEN_FRAMES[1]

_STREAM = 1  # keeps these draws apart from those of the head motion of the same seed

UPPER_SHARE = 0.86
"""Part of the gap that the upper lid covers; with the lower lid's, 2 % of the gap stays: lids never cross."""
LOWER_SHARE = 0.12
FOLD_SHARE = 0.45
"""How much of the upper lid's way the skin above it follows."""
NARROWEST_GAP = 0.03
"""An eye open by less than this, in outer-eye-corner distances, is taken for closed and does not blink."""


def blink_closure(moments: np.ndarray, rate_hz: float, seed: int) -> np.ndarray:
    """Return how far the lids are closed at given moments.

    moments: (T,) frame indices at 25 frames a second, fractions allowed, in any order.
    rate_hz: mean blinks a second, 0 to 2; above about 0.5 the refractory time shrinks with the mean interval.

    Returns:
        closure (T,) float32 in [0, 1]; every value depends on its own moment, the rate and the seed only.

    Raises:
        ValueError: `rate_hz` is out of range or `moments` is not one-dimensional.
    """
    moments = np.asarray(moments, np.float64)
    if moments.ndim != 1:
        raise ValueError(f"moments: got shape {moments.shape}, expected (T,) frame indices")
    if not 0 <= rate_hz <= 2:
        raise ValueError(f"rate_hz: got {rate_hz}, expected 0 to 2 blinks a second")
    if not len(moments) or not rate_hz:
        return np.zeros(len(moments), np.float32)
    interval = FPS * (1 + _double_chance(rate_hz)) / rate_hz
    slot_frames = _SLOT_EVENTS * interval
    slots = np.maximum(np.floor((moments - FIRST_FRAME) / slot_frames), 0).astype(np.int64)
    used, which = np.unique(slots, return_inverse=True)
    blinks = np.stack([_blinks(int(slot), rate_hz, interval, seed) for slot in used])[which]  # (T, 12, 4)
    start, closing, hold, opening = np.moveaxis(blinks, -1, 0)
    since = moments[:, None] - FIRST_FRAME - start
    pulses = _ease(since / closing) * (1 - _ease((since - closing - hold) / opening))
    return pulses.max(axis=1).astype(np.float32)


def blink_displacement(shape: np.ndarray, closure: np.ndarray) -> np.ndarray:
    """Return what a closure does to a neutral shape.

    shape: (478, 3) canonical neutral shape. closure: (T,) in [0, 1].

    Returns:
        displacements (T, 478, 3) float32 in canonical units: the upper lids go down to the lower lids' curve, which
        rises a little, and the skin above follows; all other points, the eye corners and irises too, stay.

    Raises:
        ValueError: an array of another shape.
    """
    if shape.shape != (POINTS, 3):
        raise ValueError(f"shape: got {shape.shape}, expected ({POINTS}, 3)")
    if closure.ndim != 1:
        raise ValueError(f"closure: got shape {closure.shape}, expected (T,)")
    closed = np.zeros((POINTS, 3))
    for pairs, fold in ((LID_PAIRS_RIGHT, FOLD_RIGHT), (LID_PAIRS_LEFT, FOLD_LEFT)):
        upper, lower = pairs.T
        gap = shape[lower] - shape[upper]  # (7, 3)
        if gap[:, 1].max() < NARROWEST_GAP:
            continue
        closed[upper] = UPPER_SHARE * gap
        closed[lower] = -LOWER_SHARE * gap
        closed[fold] = FOLD_SHARE * closed[upper]
    return closure.astype(np.float32)[:, None, None] * closed.astype(np.float32)


def _double_chance(rate_hz: float) -> float:
    return DOUBLE_CHANCE if rate_hz <= DOUBLE_FASTEST_HZ else 0.0


def _blinks(slot: int, rate_hz: float, interval: float, seed: int) -> np.ndarray:
    """Draw a slot's blinks: (12, 4) start in frames from `FIRST_FRAME`, closing, hold and opening frames.

    A slot is four mean intervals long and holds four blinks in the mean, placed at random with the refractory time
    between them and before the slot's end, so no blink touches another slot. Rows without a blink start at infinity.
    """
    draws = np.random.default_rng([seed, _STREAM, slot])
    refractory = min(REFRACTORY_FRAMES, _TIGHTEST * interval)
    count = int((draws.random(_SLOT_TRIALS) < _TRIAL_CHANCE).sum())
    free = _SLOT_EVENTS * interval - count * refractory
    starts = slot * _SLOT_EVENTS * interval + np.sort(draws.random(count)) * free + np.arange(count) * refractory
    low, high = np.transpose([_CLOSE_FRAMES, _HOLD_FRAMES, _OPEN_FRAMES])
    phases = (low + (high - low) * draws.random((2 * _SLOT_TRIALS, 3))) * min(1.0, refractory / _LONGEST_FRAMES)
    blinks = np.concatenate([np.full((2 * _SLOT_TRIALS, 1), np.inf), phases], axis=1)
    blinks[:count, 0] = starts
    double = np.flatnonzero(draws.random(count) < _double_chance(rate_hz))
    ends = blinks[double].sum(axis=1)
    blinks[_SLOT_TRIALS + double, 0] = ends + _DOUBLE_GAP_FRAMES
    return blinks


def _ease(value: np.ndarray) -> np.ndarray:
    """Return the ramp from 0 to 1 over [0, 1] whose slope is zero at both ends."""
    value = np.clip(value, 0.0, 1.0)
    return value * value * (3 - 2 * value)
