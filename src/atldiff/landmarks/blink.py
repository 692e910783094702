"""Blinks: how likely they are, what they do to the lids, and how they are found in a tracked face."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from atldiff.landmarks.topology import LID_PAIRS_LEFT, LID_PAIRS_RIGHT, POINTS
from atldiff.timebase import FPS

FOLD_RIGHT = np.array([247, 30, 29, 27, 28, 56, 190])
"""Skin above the upper lid, point by point in the order of `LID_PAIRS_RIGHT`."""
FOLD_LEFT = np.array([467, 260, 259, 257, 258, 286, 414])

SINCE_FRAMES = np.array([4, 8, 12, 20, 36, 60])
"""Frames since the last blink at which its likelihood changes."""
HELD_FRAMES = 0.75
"""How long lids stay closed, beside the time to half of it on either side: so made blinks are as long as real ones."""
RELEASE = 6.0
"""How long lids take to be where they were, as a multiple of the time to half of it."""
LONGEST_INTERVALS = 4
"""Mean intervals after which a blink gets no likelier."""
OPEN_PERCENTILE = 80
"""The eye opening of a clip that counts as open: blinks are short."""
LEAST_DEPTH, CLOSEST_FRAMES = 0.35, 5
"""A blink closes an eye by at least such a share; of two that are closer the deeper one counts."""
BEFORE_FRAMES, AFTER_FRAMES = 10, 14
"""Within so many frames an eye was, or is, open."""

EYE_CORNERS = ((33, 133), (362, 263))

UPPER_SHARE = 0.93
"""Part of the gap that the upper lid covers, as in 150 blinks of real clips (median); with the lower lid's, 2 % of the
gap stays: lids never cross."""
LOWER_SHARE = 0.05
FOLD_SHARE = 0.24
"""How much of the upper lid's way the skin above it follows, likewise."""
NARROWEST_GAP = 0.03
"""An eye open by less than this, in outer-eye-corner distances, is taken for closed and does not blink."""


class Blink(NamedTuple):
    """A blink that was seen: its frame, its depth in shares of the open eye, and frames to half of it on both sides."""

    frame: int
    depth: float
    closing: float
    opening: float


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


def blink_urge(since: np.ndarray, blink_hz: float, step_frames: int) -> np.ndarray:
    """Return the blinks a step (S,), by the steps since the last one, that give a mean rate; the last for all later.

    since: (7,) how likely they are, relative to one another, between `SINCE_FRAMES`; times a likelihood that grows with
    the time since the last one, the faster the more often they come. step_frames: of a step.
    """
    if not blink_hz:
        return np.zeros(1)
    mean = FPS / (step_frames * blink_hz)  # steps
    steps = np.arange(math.ceil(max(SINCE_FRAMES[-1] / step_frames, LONGEST_INTERVALS * mean)) + 1)
    shape = since[np.searchsorted(SINCE_FRAMES, steps * step_frames, side="right")].astype(np.float64)
    shape *= 2 * steps / (mean + 2 * steps)
    low, high = 1e-6, 1e3
    factor = 1.0
    for _ in range(60):  # the mean interval falls with the factor
        factor = math.sqrt(low * high)
        stays = np.exp(-factor * shape[1:])
        alive = np.cumprod(stays)
        made = 1 + alive[:-1].sum() + alive[-1] / max(1 - stays[-1], 1e-12)
        low, high = (factor, high) if made > mean else (low, factor)
    return factor * shape


def time_since_blink(urge: np.ndarray, chance: float) -> int:
    """Return the steps since the last blink at a moment that nobody chose. urge: of `blink_urge`. chance: in [0, 1)."""
    if not urge.any():
        return 0
    alive = np.cumprod(np.exp(-urge))
    return int(np.searchsorted(np.cumsum(alive), chance * alive.sum(), side="right"))


def blink_pulse(since: float, closing: float, opening: float) -> float:
    """Return how far a blink is done, 0 to 1, so many frames after its middle.

    closing, opening: frames, before and after the lids are closed, at which it is half done. Lids fall, stay for
    `HELD_FRAMES`, and open ever more slowly.
    """
    if since <= 0:
        return _ease(1 + min(since + HELD_FRAMES / 2, 0) / (2 * closing))
    since = max(since - HELD_FRAMES / 2, 0)
    return _ease((RELEASE * opening - since) / ((RELEASE - 1) * opening)) / (1 + (since / opening) ** 2)


def _ease(value: float) -> float:
    value = min(max(value, 0.0), 1.0)
    return value * value * (3 - 2 * value)


def eye_opening(shapes: np.ndarray) -> np.ndarray:
    """Return the mean lid gap over the eye's width of both eyes (T,) of shapes (T, 478, 3)."""
    ratios = []
    for pairs, (first, second) in zip((LID_PAIRS_RIGHT, LID_PAIRS_LEFT), EYE_CORNERS, strict=True):
        gap = np.linalg.norm(shapes[:, pairs[1:6, 1], :2] - shapes[:, pairs[1:6, 0], :2], axis=-1).mean(axis=1)
        ratios.append(gap / np.maximum(np.linalg.norm(shapes[:, first, :2] - shapes[:, second, :2], axis=-1), 1e-9))
    return np.mean(ratios, axis=0)


def find_blinks(opening: np.ndarray) -> list[Blink]:
    """Return the blinks of eye openings (T,): eyes that close by more than a third and open again."""
    closed = 1 - opening / max(float(np.percentile(opening, OPEN_PERCENTILE)), 1e-9)
    peaks: list[int] = []
    for frame in range(1, len(closed) - 1):
        if closed[frame] > LEAST_DEPTH and closed[frame] >= closed[frame - 1] and closed[frame] > closed[frame + 1]:
            if not peaks or frame - peaks[-1] >= CLOSEST_FRAMES:
                peaks.append(frame)
            elif closed[frame] > closed[peaks[-1]]:
                peaks[-1] = frame
    blinks = []
    for frame in peaks:
        depth = float(closed[frame])
        around = closed[max(0, frame - BEFORE_FRAMES) : frame].min(), closed[frame + 1 : frame + AFTER_FRAMES].min()
        if max(around) < 0.25 * depth + 0.08:
            blinks.append(Blink(frame, depth, _half(closed[frame::-1]), _half(closed[frame:])))
    return blinks


def _half(closed: np.ndarray) -> float:
    """Return after how many frames a closure falls to half its first value."""
    below = np.flatnonzero(closed <= closed[0] / 2)
    if not below.size:
        return float(len(closed))
    after = int(below[0])
    high, low = closed[after - 1], closed[after]
    return after - 1 + float((high - closed[0] / 2) / max(high - low, 1e-9))
