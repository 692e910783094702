"""Pose, canonical space and similarity fits, as arrays in and arrays out.

The canonical space is frontal and pose-free, centred between the outer eye corners, with their distance as its unit.
"""

from __future__ import annotations

import numpy as np

from atldiff.landmarks.topology import OUTER_EYE_CORNERS, RIGID

Array = np.ndarray

FITTED_AT_ONCE = 250


def fit_rigid(source: Array, target: Array) -> tuple[Array, Array, Array]:
    """Fit the rotation, scale and translation that carry `source` onto `target` in least squares (Umeyama, 1991).

    source: (K, 3); target: (..., K, 3). Reflections are excluded.

    Returns:
        rotation (..., 3, 3), scale (...), translation (..., 3): `scale * source @ rotation.T + translation`.
    """
    source_mean = source.mean(axis=0)
    target_mean = target.mean(axis=-2)
    centred = source - source_mean  # (K, 3)
    moved = target - target_mean[..., None, :]  # (..., K, 3)
    covariance = np.einsum("...ki,kj->...ij", moved, centred)
    left, singular, right = np.linalg.svd(covariance)
    sign = np.sign(np.linalg.det(left @ right))
    flip = np.ones(singular.shape)
    flip[..., 2] = sign
    rotation = (left * flip[..., None, :]) @ right
    scale = (singular * flip).sum(axis=-1) / (centred**2).sum()
    translation = target_mean - scale[..., None] * np.einsum("...ij,j->...i", rotation, source_mean)
    return rotation, scale, translation


def to_canonical(points: Array, mean_shape: Array) -> tuple[Array, Array, Array, Array]:
    """Split points into a pose-free shape and a pose.

    points: (..., K, 3) pixels. mean_shape: (K, 3) canonical shape that the rigid points are fitted to.

    Returns:
        shape (..., K, 3) in canonical units, rotation (..., 3, 3), scale (...), translation (..., 3), such that
        `from_canonical` gives the points back exactly.
    """
    rotation, scale, translation = fit_rigid(mean_shape[RIGID], points[..., RIGID, :])
    centred = points - translation[..., None, :]
    shape = np.einsum("...ki,...ij->...kj", centred, rotation) / scale[..., None, None]
    return shape, rotation, scale, translation


def to_canonical_in_parts(points: Array, mean_shape: Array) -> tuple[Array, Array, Array, Array]:
    """Split a track's points (T, K, 3) as `to_canonical` does, in double precision, some frames at a time.

    Of a minute's points in double precision, 17 MB, the fit would hold several.

    Returns:
        shape (T, K, 3) float32; rotation (T, 3, 3), scale (T,) and translation (T, 3) float64.
    """
    frames = len(points)
    shape, rotation = np.empty(points.shape, np.float32), np.empty((frames, 3, 3))
    scale, translation = np.empty(frames), np.empty((frames, 3))
    for start in range(0, frames, FITTED_AT_ONCE):
        part = slice(start, start + FITTED_AT_ONCE)
        fitted = to_canonical(points[part].astype(np.float64), mean_shape)
        shape[part], rotation[part], scale[part], translation[part] = fitted
    return shape, rotation, scale, translation


def fill_gaps(points: Array, seen: Array) -> Array:
    """Return points (T, K, 3) float32 with the frames that are not `seen` (T,) interpolated, at the ends held.

    At least one frame is seen.
    """
    known, flat = np.flatnonzero(seen), points.reshape(len(points), -1)
    times = np.arange(len(points))
    columns = [np.interp(times, known, column) for column in flat[known].T]
    return np.stack(columns, axis=1).reshape(points.shape).astype(np.float32)


def from_canonical(shape: Array, rotation: Array, scale: Array, translation: Array) -> Array:
    """Return points (..., K, 3) in pixels: the inverse of `to_canonical`."""
    return scale[..., None, None] * np.einsum("...ij,...kj->...ki", rotation, shape) + translation[..., None, :]


def normalise_shape(shape: Array) -> Array:
    """Centre a shape (K, 3) between its outer eye corners and scale their distance to one."""
    corners = shape[OUTER_EYE_CORNERS]
    return (shape - corners.mean(axis=0)) / np.linalg.norm(corners[1] - corners[0])


def mirror_symmetric(shape: Array, mirrored: Array) -> Array:
    """Average a frontal shape (K, 3) with its mirror image; `mirrored` (K,) is each point's counterpart."""
    reflected = shape[mirrored] * np.array([-1.0, 1.0, 1.0])
    return (shape + reflected) / 2


def euler_degrees(rotation: Array) -> Array:
    """Return yaw, pitch and roll (..., 3) in degrees of rotations (..., 3, 3), zero for the frontal pose."""
    yaw = np.arctan2(rotation[..., 0, 2], rotation[..., 2, 2])
    pitch = np.arcsin(np.clip(-rotation[..., 1, 2], -1, 1))
    roll = np.arctan2(rotation[..., 1, 0], rotation[..., 1, 1])
    return np.degrees(np.stack([yaw, pitch, roll], axis=-1))


def rotation_from_euler(yaw_deg: Array, pitch_deg: Array, roll_deg: Array) -> Array:
    """Return rotations (..., 3, 3), the inverse of `euler_degrees`: yaw about y, then pitch about x, then roll."""
    yaw, pitch, roll = (np.radians(np.asarray(angle, np.float64)) for angle in (yaw_deg, pitch_deg, roll_deg))
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)

    def stack(rows: list[list[Array]]) -> Array:
        return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)

    about_y = stack([[np.cos(yaw), zero, np.sin(yaw)], [zero, one, zero], [-np.sin(yaw), zero, np.cos(yaw)]])
    about_x = stack([[one, zero, zero], [zero, np.cos(pitch), -np.sin(pitch)], [zero, np.sin(pitch), np.cos(pitch)]])
    about_z = stack([[np.cos(roll), -np.sin(roll), zero], [np.sin(roll), np.cos(roll), zero], [zero, zero, one]])
    return about_y @ about_x @ about_z
