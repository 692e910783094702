"""Whether teeth belong to the skull: how far they go along with the lips, and how they tremble where lips are still."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from atldiff.evaluation.metrics.mouth_crop import EXTENT, ORIGIN, RIM, Mouths, inside

if TYPE_CHECKING:
    from numpy.typing import NDArray

UPPER = 0.5
"""Share of the cavity's height, from the upper lip on, that is looked at: the lower teeth go with the jaw by right."""
APART_FRAMES = 4
"""Frames up to so far apart are compared: teeth seen in one are seen in the other."""
MOVED = 0.02
"""Mean motion of the inner lips, in eye distances, from which a pair says something of slide."""
STILL = 0.008
"""Mean motion of the inner lips below which neighbouring frames should show one picture."""
NOSE = (46, 28, 82, 42)
"""Left, top, right and bottom, in template pixels, of the part of the crop that is the skull's: landmarks place it to
about half a pixel, its picture to a tenth."""
SMOOTH_PX = 0.8
"""Sigma, in crop pixels, by which pictures are smoothed before their texture is compared."""
FARTHEST = 0.03
"""A larger shift of the skull, in eye distances, is a mistake."""
SHARES = np.linspace(-0.5, 1.5, 21)
"""Shares of the lips' motion that are tried."""
MIN_PAIRS = 8
MIN_TEXTURE = 1.0
"""RMS gradient, in levels a pixel, below which nothing can be followed."""

_UPPER, _LOWER = np.arange(11), np.r_[0, np.arange(19, 9, -1)]
"""Places of the upper and lower lip in the inner contour, both from the right corner to the left one."""


def teeth_slide(mouths: Mouths) -> float | None:
    """Return the share of the lips' motion that the texture in the upper half of the cavity goes along with.

    0: it stands still with the skull, as upper teeth do. 1: it moves as if printed on the lips, upper and lower in
    proportion to its place between them. The share, of those between -0.5 and 1.5, under which open mouths up to four
    frames apart, whose lips have moved by 0.02 eye distances, are most alike; squared differences of the luma's
    gradients are pooled over all of them, so that what has no texture has no say. None with fewer than 8 such pairs, or
    without texture.
    """
    costs, pairs, texture, pixels = np.zeros(len(SHARES)), 0, 0.0, 0
    usable = np.flatnonzero(mouths.open)
    details = {index: _detail(mouths, index) for index in usable.tolist()}
    for first in usable.tolist():
        for second in usable[(usable > first) & (usable <= first + APART_FRAMES)].tolist():
            shift = skull_shift(mouths, first, second)
            moved = mouths.inner[second] - shift - mouths.inner[first]
            if np.linalg.norm(moved, axis=-1).mean() < MOVED * mouths.eye_px:
                continue
            (near, here), (far, there) = details[first], details[second]
            ys, xs, motion = _carried(mouths.inner[first], moved, here & _shifted(there, shift))
            if not len(xs):
                continue
            own = near[ys, xs]
            for place, share in enumerate(SHARES):
                at = (np.stack([xs, ys], -1) + shift + share * motion).astype(np.float32)
                found = cv2.remap(far, at[:, None], None, cv2.INTER_LINEAR)[:, 0]  # type: ignore[call-overload]
                costs[place] += float(np.square(found - own).sum())
            pairs += 1
            texture += float(np.square(own).sum())
            pixels += len(own)
    if pairs < MIN_PAIRS or texture / pixels < MIN_TEXTURE**2:
        return None
    return _lowest(costs)


def cavity_jitter(mouths: Mouths) -> float | None:
    """Return how much the cavity changes between neighbouring frames whose lips stand still, in levels.

    Of open mouths whose inner lips move by less than 0.008 eye distances on average: the median over the cavity's
    pixels of the luma's absolute change, mean over the pairs. A camera's noise, and tongue and jaw behind still lips,
    leave a real clip 2 to 8. None with fewer than 8 such pairs.
    """
    changes = []
    for first in np.flatnonzero(mouths.open[1:] & mouths.open[:-1]).tolist():
        shift = skull_shift(mouths, first, first + 1)
        moved = mouths.inner[first + 1] - shift - mouths.inner[first]
        if np.linalg.norm(moved, axis=-1).mean() >= STILL * mouths.eye_px:
            continue
        shared = mouths.cavity(first) & _shifted(mouths.cavity(first + 1), shift)
        if shared.any():
            after = _shifted(mouths.luma[first + 1], shift)
            changes.append(float(np.median(np.abs(after - mouths.luma[first])[shared])))
    return float(np.mean(changes)) if len(changes) >= MIN_PAIRS else None


def skull_shift(mouths: Mouths, first: int, second: int) -> NDArray[np.float64]:
    """Return by how many pixels (x, y) the skull lies elsewhere in the second crop, (2,): the nose's picture says it.

    What the landmarks left of its motion; 0 where the two pictures do not agree.
    """
    scale = mouths.frames.shape[1] / EXTENT
    left, top, right, bottom = (int(scale * (at - ORIGIN[axis % 2])) for axis, at in enumerate(NOSE))
    one, other = (mouths.luma[index][top:bottom, left:right] for index in (first, second))
    matrix = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 15, 1e-3)
    everywhere = np.ones(one.shape, np.uint8)
    try:
        cv2.findTransformECC(one, other, matrix, cv2.MOTION_TRANSLATION, stop, everywhere, 3)
    except cv2.error:  # a flat picture, or no two of one face
        return np.zeros(2)
    shift = matrix[:, 2].astype(np.float64)
    return shift if np.linalg.norm(shift) < FARTHEST * mouths.eye_px else np.zeros(2)


def _shifted(picture: NDArray, shift: NDArray[np.float64]) -> NDArray:
    """Return a picture or a mask (S, S) laid back by a shift."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
    values = picture.astype(np.float32)
    moved = cv2.warpAffine(values, matrix, values.shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return moved > 0.999 if picture.dtype == bool else moved


def _detail(mouths: Mouths, index: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return a frame's luma gradients, (S, S, 2), and the part of the cavity where they do not see the lips, (S, S).

    Gradients, not luma: the shade of the upper lip comes and goes over teeth that stand still.
    """
    luma = cv2.GaussianBlur(mouths.luma[index], (0, 0), SMOOTH_PX)
    gradients = [cv2.Sobel(luma, cv2.CV_32F, *axis, ksize=1, scale=0.5) for axis in ((1, 0), (0, 1))]
    return np.stack(gradients, -1), inside(mouths.inner[index], len(luma), RIM * mouths.eye_px + 2 * SMOOTH_PX)


def _carried(
    inner: NDArray[np.float64], moved: NDArray[np.float64], cavity: NDArray[np.bool_]
) -> tuple[NDArray[np.int_], NDArray[np.int_], NDArray[np.float64]]:
    """Return rows and columns of the upper cavity's pixels and how the lips would carry them, (N, 2) pixels (x, y).

    inner, moved: (20, 2), the contour and its motion.
    """
    ys, xs = np.nonzero(cavity)
    edges, motions = [], []
    for lip in (_UPPER, _LOWER):
        lip = lip[np.argsort(inner[lip, 0], kind="stable")]
        across = inner[lip, 0]
        edges.append(np.interp(xs, across, inner[lip, 1]))
        motions.append(np.stack([np.interp(xs, across, moved[lip, axis]) for axis in (0, 1)], -1))
    share = (ys - edges[0]) / np.maximum(edges[1] - edges[0], 1e-6)
    upper = share < UPPER
    share = share[upper, None]
    return ys[upper], xs[upper], (1 - share) * motions[0][upper] + share * motions[1][upper]


def _lowest(costs: NDArray[np.floating]) -> float:
    """Return the share of the least cost, between the tried ones by a parabola."""
    least = int(costs.argmin())
    if not 0 < least < len(costs) - 1:
        return float(SHARES[least])
    before, at, after = costs[least - 1 : least + 2]
    bend = before - 2 * at + after
    return (
        float(SHARES[least] + (SHARES[1] - SHARES[0]) * 0.5 * (before - after) / bend)
        if bend > 0
        else float(SHARES[least])
    )
