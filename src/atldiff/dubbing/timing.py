"""Which frame of a video is shown when, so that it lasts as long as what is said in it."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal, NamedTuple, get_args

import numpy as np

from atldiff.video.footage import Stamps

Fit = Literal["loop", "freeze", "cut"]
FITS: tuple[Fit, ...] = get_args(Fit)


class Showing(NamedTuple):
    """The frames of a dub: numbers (N,) of the video's, when each is shown, and for how long the last one is, in ticks.

    order: each is that before it, or one more or less, or, where frames are left out, more. end: ticks of all of it.
    """

    order: np.ndarray
    ticks: np.ndarray
    end: int


def showing(stamps: Stamps, tick: Fraction, speech_s: Fraction, fit: Fit, kept: np.ndarray | None = None) -> Showing:
    """Return the frames of a dub.

    loop: as long as the speech; a shorter video is played forth and back. freeze: as long as the longer of the two, on
    the last frame. cut: as long as the shorter. kept: (T,) the frames that are shown at all; all when None.
    """
    numbers = np.arange(len(stamps)) if kept is None else np.flatnonzero(kept)
    starts = np.array(stamps.ticks, np.int64)
    lengths = np.append(np.diff(starts), stamps.lengths[-1])[numbers]
    lengths[:-1] = np.maximum(lengths[:-1], 1)
    times = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    own, wanted = int(times[-1]), max(1, -(-int(speech_s / tick * 10**6) // 10**6))
    end = {"loop": wanted, "freeze": max(own, wanted), "cut": min(own, wanted)}[fit]
    if end <= own:
        count = max(1, int(np.searchsorted(times[:-1], end)))
        return Showing(numbers[:count], times[:count], end)
    if fit == "freeze" or len(numbers) == 1:
        step = max(1, int(np.median(lengths)))
        more = np.arange(own, end, step).astype(np.int64)
        return Showing(np.append(numbers, np.repeat(numbers[-1:], len(more))), np.append(times[:-1], more), end)
    # Forth and back: each step lasts as long as the one between the same two frames did.
    forth, back = np.arange(len(numbers)), np.arange(len(numbers) - 2, -1, -1)
    gaps = np.diff(times[:-1])
    order, ticks, at = [forth], [times[:-1]], int(times[-2])
    turn = 0
    while True:
        steps = gaps[::-1] if turn % 2 == 0 else gaps
        shown = at + np.cumsum(steps)
        if turn == 0:  # the last frame stays for as long as it says
            shown = shown - steps[0] + lengths[-1]
        order.append(back if turn % 2 == 0 else np.arange(1, len(numbers)))
        ticks.append(shown)
        at = int(shown[-1])
        turn += 1
        if at >= end:
            break
    all_order, all_ticks = np.concatenate(order), np.concatenate(ticks)
    count = int(np.searchsorted(all_ticks, end))
    return Showing(numbers[all_order[:count]], all_ticks[:count], end)


def weights(known: np.ndarray, fade: int) -> np.ndarray:
    """Return how much of what is made is seen in each frame (T,): all, but less and less towards frames without a face.

    fade: frames that it takes. The ends of a video are none.
    """
    count = len(known)
    missing = np.flatnonzero(~known)
    if not missing.size:
        return np.ones(count, np.float32)
    at = np.arange(count)
    after = np.searchsorted(missing, at)
    left = np.where(after > 0, at - missing[np.maximum(after - 1, 0)], count)
    right = np.where(after < len(missing), missing[np.minimum(after, len(missing) - 1)] - at, count)
    distance = np.where(known, np.minimum(left, right), 0)
    ramp = np.clip(distance / (fade + 1), 0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)
