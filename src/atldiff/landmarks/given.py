"""Landmarks that a user gives where no detector finds any: looked over, and few of them lifted to all."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from atldiff.landmarks.geometry import fit_rigid
from atldiff.landmarks.plausible import roll_deg
from atldiff.landmarks.search import MIN_FACE_PX, face_width
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import (
    BROW_LEFT,
    BROW_RIGHT,
    EYE_LEFT,
    EYE_RIGHT,
    LIPS,
    LIPS_INNER,
    MESH_POINTS,
    NOSE,
    OUTER_EYE_CORNERS,
    POINTS,
    SIXTY_EIGHT,
)

COUNTS = {68: SIXTY_EIGHT, MESH_POINTS: np.arange(MESH_POINTS), POINTS: np.arange(POINTS)}
"""How many points may be given, and which of the dense ones they are."""
INNER = np.concatenate([EYE_RIGHT, EYE_LEFT, BROW_RIGHT, BROW_LEFT, NOSE, LIPS])
"""Points that a picture shows; those of the outline may lie beyond its border."""
BEYOND = 0.5
"""How far beyond, in widths of the face."""
UPSIDE_DOWN_DEG = 135.0
MOST_APART = 0.35
"""Mean distance of points from the mean face laid over them, in eye distances, from which they are in another order:
jaws counted from the left come to 0.6, all else to 2; photographs, paintings, statues and drawings to 0.06 at most."""
PARTED = 0.4
"""By how much the lower lip is moved down, in eye distances, where the mean face is what points are interpolated on:
its lips are closed, and points that touch cannot be moved apart."""
_FITS = 20


def lift(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return all landmarks (478, 3) float32 pixels of a face of which 68, 468 or 478 are given.

    points: (K, 2) or (K, 3) pixels, x right and y down, of which z counts where there are 468 or more. The 68 are in
    the usual order: jaw, brows, nose, eyes, outer and inner lips. size: (height, width) of the picture. What was given
    is met exactly: the mean face is turned as the points say, and what is left of them is carried to those between.

    Raises:
        ValueError: not so many points, or none that can be a face's: not finite, outside the picture, mirrored, upside
        down, or in another order.
    """
    given = check_points(points, size)
    known = COUNTS[len(given)]
    mean = mean_shape()
    rotation, scale, shift = _pose(mean[known], given[:, :2])
    posed = scale * mean @ rotation.T  # (478, 3)
    posed[:, :2] += shift
    lifted = posed.copy()
    if len(known) < POINTS:
        lifted[:, :2] += _carried(known) @ (given[:, :2] - posed[known, :2])
    lifted[known, :2] = given[:, :2]
    if given.shape[1] == 3 and len(known) > len(SIXTY_EIGHT):
        lifted[known, 2] = given[:, 2]
        if len(known) < POINTS:
            lifted[MESH_POINTS:, 2] += (given[:, 2] - posed[known, 2]).mean()
    return lifted.astype(np.float32)


def average_face(centre: tuple[float, float], width: float) -> np.ndarray:
    """Return the mean face (478, 3) float32, upright, with its middle and its width in pixels where they are wanted."""
    mean = mean_shape()
    low, high = mean[:MESH_POINTS, :2].min(axis=0), mean[:MESH_POINTS, :2].max(axis=0)
    scale = width / (high - low)[0]
    return (scale * (mean - np.append((low + high) / 2, 0)) + np.append(centre, 0)).astype(np.float32)


def check_points(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return given points as (K, 2 or 3) float64.

    Raises:
        ValueError: as `lift`.
    """
    array = np.asarray(points)
    if array.ndim != 2 or len(array) not in COUNTS or array.shape[1] not in (2, 3) or array.dtype.kind not in "iuf":
        counts = " or ".join(str(count) for count in (68, POINTS))
        raise ValueError(f"landmarks: got {array.shape} {array.dtype}, expected {counts} points of x and y in pixels")
    given = array.astype(np.float64)
    if not np.isfinite(given).all():
        wrong = int(np.flatnonzero(~np.isfinite(given).all(axis=1))[0])
        raise ValueError(f"landmarks: point {wrong} is not finite, expected pixels")
    placed = np.full((POINTS, 2), np.nan)
    placed[COUNTS[len(given)]] = given[:, :2]
    _check_place(placed, COUNTS[len(given)], size)
    _check_order(placed)
    return given


def _check_place(placed: np.ndarray, known: np.ndarray, size: tuple[int, int]) -> None:
    height, width = size
    wide = face_width(np.where(np.isfinite(placed), placed, np.nanmean(placed, axis=0)))
    if wide < MIN_FACE_PX:
        shares = " (they look like shares of the picture: multiply by its size)" if np.nanmax(placed) <= 1.5 else ""
        raise ValueError(f"landmarks: got a face {wide:.2g} px wide, expected at least {MIN_FACE_PX} px{shares}")
    room = np.where(np.isin(known, INNER), 0.0, BEYOND * wide)
    x, y = placed[known].T
    outside = (x < -room) | (y < -room) | (x > width + room) | (y > height + room)
    if outside.any():
        number = int(np.flatnonzero(outside)[0])
        raise ValueError(
            f"landmarks: point {number} is at {x[number]:.0f}, {y[number]:.0f}, outside the {width}x{height} picture; "
            "expected its pixels, x to the right and y down"
        )


def _check_order(placed: np.ndarray) -> None:
    """Raise ValueError where points cannot be those of a face the right way round."""
    right, left = placed[OUTER_EYE_CORNERS]
    across, down = left - right, placed[[61, 291]].mean(axis=0) - (right + left) / 2
    if across[0] * down[1] - across[1] * down[0] < 0:
        flipped = "upside down (y counted from below?)" if down[1] < 0 else "mirrored (left and right exchanged?)"
        raise ValueError(
            f"landmarks: {flipped}; expected the person's right eye first, which is on the left of the picture, and y "
            "to grow downwards"
        )
    if abs(roll_deg(placed)) > UPSIDE_DOWN_DEG:
        raise ValueError("landmarks: upside down: the mouth is above the eyes; turn the picture and its points upright")
    known = np.flatnonzero(np.isfinite(placed[:, 0]))
    rotation, scale, shift = _pose(mean_shape()[known], placed[known])
    apart = np.linalg.norm(scale * (mean_shape()[known] @ rotation.T)[:, :2] + shift - placed[known], axis=1)
    if float(apart.mean()) > MOST_APART * scale:
        raise ValueError(
            "landmarks: they do not lie like a face's; expected the order of 300-W for 68 (jaw, brows, nose, eyes, "
            "outer and inner lips) or that of Face Mesh for 478"
        )


def _pose(shape: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Return rotation (3, 3), scale and shift (2,) by which a shape (K, 3), seen from far away, fits points (K, 2)."""
    depth = np.zeros(len(points))
    rotation, scale, shift = np.eye(3), 1.0, np.zeros(3)
    for _ in range(_FITS):  # each fit says how deep the points are, which the next one takes for known
        rotation, scale, shift = fit_rigid(shape, np.column_stack([points, depth]))
        depth = scale * (shape @ rotation.T)[:, 2] + shift[2]
    return rotation, float(scale), shift[:2]


@lru_cache(maxsize=4)
def _carried_of(count: int) -> np.ndarray:
    """Return the matrix (478, K) that carries offsets of given points to all: a thin plate bent the least."""
    mean = _parted()
    at = mean[COUNTS[count]]

    def plate(apart: np.ndarray) -> np.ndarray:
        square = (apart**2).sum(axis=-1)
        return 0.5 * square * np.log(np.maximum(square, 1e-12))

    flat = np.column_stack([np.ones(count), at])
    system = np.block([[plate(at[:, None] - at[None]), flat], [flat.T, np.zeros((3, 3))]])
    asked = np.column_stack([plate(mean[:, None] - at[None]), np.ones(POINTS), mean])
    return np.linalg.solve(system, asked.T).T[:, :count]


def _carried(known: np.ndarray) -> np.ndarray:
    return _carried_of(len(known))


def _parted() -> np.ndarray:
    """Return the mean face (478, 2) with its lips apart, all below them moved down with the lower one."""
    flat = mean_shape()[:, :2].copy()
    corners, upper, lower = flat[[78, 308]], LIPS_INNER[1:10], LIPS_INNER[:10:-1]
    line = np.concatenate([corners[:1], (flat[upper] + flat[lower]) / 2, corners[1:]])
    middle, half = corners[:, 0].mean(), np.ptp(corners[:, 0]) / 2
    bump = np.clip(1 - ((flat[:, 0] - middle) / (1.6 * half)) ** 2, 0, None)
    below = flat[:, 1] > np.interp(flat[:, 0], *line.T)
    below[lower], below[upper] = True, False
    flat[:, 1] += PARTED * bump * below
    return flat
