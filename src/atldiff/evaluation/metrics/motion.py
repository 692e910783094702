"""Measures of how a face moves that need no reference: blinks, head motion, a mouth that should rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atldiff.landmarks.geometry import euler_degrees
from atldiff.landmarks.topology import LID_PAIRS_LEFT, LID_PAIRS_RIGHT

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPEN_PERCENTILE = 80
"""The eye opening of a clip that counts as open: blinks are short."""
CLOSED_SHARE = 0.55
"""Below this share of the open eye a blink has begun."""
REOPENED_SHARE = 0.75
"""Above this share it is over; a blink has both sides, so an eye that trembles at one level is not many blinks."""
LONGEST_BLINK_S = 0.6
"""Eyes closed for longer are closed, not blinking."""

_RIGHT_CORNERS, _LEFT_CORNERS = (33, 133), (362, 263)


def eye_opening(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the mean lid gap over the eye's width, of both eyes, (T,); about 0.3 open and under 0.1 closed.

    points: (T, 478, D >= 2), in any one unit. Source: the eye aspect ratio of Soukupova and Cech (2016), with the
    mesh's inner lid pairs.
    """
    ratios = []
    for pairs, corners in ((LID_PAIRS_RIGHT, _RIGHT_CORNERS), (LID_PAIRS_LEFT, _LEFT_CORNERS)):
        gap = np.linalg.norm(points[:, pairs[1:6, 1]] - points[:, pairs[1:6, 0]], axis=-1).mean(axis=1)
        width = np.linalg.norm(points[:, corners[1]] - points[:, corners[0]], axis=-1)
        ratios.append(gap / np.maximum(width, 1e-9))
    return np.mean(ratios, axis=0)


def blink_count(opening: NDArray[np.floating], fps: float) -> int:
    """Count the blinks in a series of eye openings (T,): down to 55 % of the open eye, up again within 0.6 s."""
    if len(opening) < 3:
        return 0
    share = opening / max(float(np.percentile(opening, OPEN_PERCENTILE)), 1e-9)
    blinks, began = 0, None
    for frame, value in enumerate(share):
        if began is None:
            began = frame if value < CLOSED_SHARE else None
        elif value > REOPENED_SHARE:
            blinks += began > 0 and frame - began <= LONGEST_BLINK_S * fps
            began = None
    return blinks


def blink_rate(opening: NDArray[np.floating], fps: float) -> float | None:
    """Return blinks a minute of eye openings (T,) at `fps`; None for an empty series. People speaking: 15 to 30."""
    return 60 * blink_count(opening, fps) * fps / len(opening) if len(opening) else None


def head_motion_range(rotation: NDArray[np.floating]) -> float:
    """Return the widest of the yaw, pitch and roll ranges in degrees, from the 5th to the 95th percentile.

    rotation: (T, 3, 3), T > 0. A photograph has 0; people who speak to a camera move by 5 to 20 degrees.
    """
    low, high = np.percentile(euler_degrees(rotation), [5, 95], axis=0)
    return float((high - low).max())


def silent_mouth_motion(opening: NDArray[np.floating], silent: NDArray[np.bool_]) -> float | None:
    """Return the mean change of the lip opening from one silent frame to the next; lower is better.

    opening: (T,), in outer-eye-corner distances; the result is in hundredths of that. silent: (T,), frames without
    sound. None where fewer than three pairs of neighbours are silent.
    """
    both = silent[1:] & silent[:-1]
    return float(100 * np.abs(np.diff(opening))[both].mean()) if both.sum() >= 3 else None
