"""How much of a photograph is shown: all of it, or a square of head and shoulders cut from it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np

from atldiff.landmarks.geometry import to_canonical
from atldiff.landmarks.shape import mean_shape
from atldiff.types import Framing, LandmarkTrack, Portrait

if TYPE_CHECKING:
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

FOREHEAD, CHIN, CHEEKS = 10, 152, [234, 454]

# In face lengths, from the forehead's top to the chin; looked at on 16 portraits, paintings and statues among them.
EXTENT = 2.3
"""Side of the square: hair, chin and the slope of the shoulders are in it."""
BELOW = 0.09
"""How far the square's middle lies below the face's."""
CROWN = 0.15
"""The least of any head that is above the forehead."""
UNDER_CHIN = 0.08

FROM_BELOW = 0.8
"""Share of what a smaller square lacks that it lacks below: clothes before hair, and hair before the chin."""
LENGTH_OF_WIDTH = 1.2
"""A face's length over its width, for faces that nod."""
SAME_SHAPE = 1e-3
"""Canonical shapes that differ by less are of one photograph."""


class Cut(NamedTuple):
    """A square of a photograph in whole pixels: its top left corner and its side."""

    x: int
    y: int
    side: int


def head_square(landmarks: NDArray[np.float32], size: tuple[int, int]) -> Cut:
    """Return the square of head and shoulders, of an even side where it is not the whole photograph.

    At the photograph's border it is shifted, and made smaller only where it does not fit at all.

    landmarks: (478, 3) pixels of a photograph of (height, width) pixels.
    """
    middle, down, length = _face(landmarks)
    side = max(2, min(2 * round(EXTENT * length / 2), min(size) // 2 * 2))
    missing = max(0.0, EXTENT - side / length)
    below = max(BELOW - (FROM_BELOW - 0.5) * missing, 0.5 + UNDER_CHIN - side / length / 2)
    if size[0] == size[1] and side >= size[0] - 2:  # also a cut of a cut, which may round otherwise
        return Cut(0, 0, size[0])
    corner = middle + below * length * down - side / 2
    x, y = (int(np.clip(np.rint(at), 0, most - side)) for at, most in zip(corner, size[::-1], strict=True))
    return Cut(x, y, side)


def framed(portrait: Portrait, framing: Framing) -> Portrait:
    """Return what is shown of a portrait; no pixel is resampled or invented, and a cut is its own cut.

    A warning says so where the head is not whole.

    Raises:
        ValueError: neither `full` nor `head`.
    """
    check_framing(framing)
    if framing == "full":
        return portrait
    height, width = portrait.image.shape[:2]
    cut = head_square(portrait.landmarks, (height, width))
    if _is_cut_off(portrait.landmarks, cut):
        _log.warning(
            "framing: the head reaches beyond the %dx%d square that %dx%d pixels allow; "
            "more room around it would show it whole",
            *(cut.side, cut.side, width, height),
        )
    rows, columns = slice(cut.y, cut.y + cut.side), slice(cut.x, cut.x + cut.side)
    return replace(
        portrait,
        image=np.ascontiguousarray(portrait.image[rows, columns]),
        alpha=None if portrait.alpha is None else np.ascontiguousarray(portrait.alpha[rows, columns]),
        landmarks=portrait.landmarks - np.array([cut.x, cut.y, 0], np.float32),
    )


def check_framing(framing: str) -> None:
    """Raise ValueError unless it is a framing."""
    if framing not in get_args(Framing):
        raise ValueError(f"framing: got {framing!r}, expected {' or '.join(get_args(Framing))}")


def reframe(track: LandmarkTrack, portrait: Portrait, framing: Framing) -> LandmarkTrack:
    """Return a track that was made for this portrait in the other framing as one in this framing, moved and no more.

    portrait: the whole one. Tracks of other faces and sizes come back as they are.
    """
    size = (portrait.image.shape[0], portrait.image.shape[1])
    cut = head_square(portrait.landmarks, size)
    shapes = {"full": (size, (0, 0)), "head": ((cut.side, cut.side), (cut.x, cut.y))}
    shown, (x, y) = shapes.pop(framing)
    ((other, (other_x, other_y)),) = shapes.values()
    if track.size != other or other == shown:
        return track
    neutral = to_canonical(portrait.landmarks.astype(np.float64), mean_shape())[0]
    if np.abs(track.neutral - neutral).max() >= SAME_SHAPE:
        return track
    offset = np.array([other_x - x, other_y - y, 0], np.float32)
    return replace(track, translation=track.translation + offset, size=shown)


def _face(landmarks: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return a face's middle (2,), its direction from forehead to chin (2,), and its length in pixels."""
    points = landmarks[:, :2].astype(np.float64)
    along, across = points[CHIN] - points[FOREHEAD], points[CHEEKS[1]] - points[CHEEKS[0]]
    length = max(float(np.hypot(*along)), 1e-6)
    middle = (points[CHIN] + points[FOREHEAD]) / 2
    return middle, along / length, max(length, LENGTH_OF_WIDTH * float(np.hypot(*across)))


def _is_cut_off(landmarks: NDArray[np.float32], cut: Cut) -> bool:
    """Return whether crown, chin or a cheek lies outside a cut."""
    middle, down, length = _face(landmarks)
    head = np.concatenate([landmarks[[CHIN, *CHEEKS], :2], [landmarks[FOREHEAD, :2] - CROWN * length * down]])
    inside = head - (cut.x, cut.y)
    return bool((inside < 0).any() or (inside > cut.side).any())
