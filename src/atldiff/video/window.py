"""The stabilised window around the lower face, its transform and the inverse.

The template places 13 rigid points in a 128-pixel square: outer eye corners 72 px apart at y = 2, mouth centre at
(64, 58). A window is a part of it, given by its size in pixels and its origin in template pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RIGID_POINTS = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 98, 327, 1)
"""Dense indices of the template's points, in its order."""

TEMPLATE = np.array([
    (28.0, 2.3), (49.7, 3.2), (77.9, 3.3), (100.0, 2.3), (63.5, -1.5), (63.5, 4.5), (63.4, 10.1),
    (63.4, 15.3), (63.3, 20.9), (63.3, 27.8), (50.2, 37.2), (77.3, 37.1), (63.4, 33.2),
], np.float64)  # fmt: skip
"""(13, 2) template positions: the mean of 186 near-frontal faces."""


@dataclass(frozen=True, slots=True)
class WindowGeometry:
    """A part of the template, square unless a height is given.

    side: its width in pixels. origin: its corner (x, y) in template pixels. scale: pixels a template pixel. height: in
    pixels, when it is not the width.
    """

    side: int
    origin: tuple[int, int]
    scale: float = 1.0
    height: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.side, self.side if self.height is None else self.height


STORED_WINDOW = WindowGeometry(side=96, origin=(16, 16))
"""What `atldiff prepare` keeps of each frame; a renderer's window lies inside it, or inside `STORED_MOUTH`."""

STORED_MOUTH = WindowGeometry(side=176, origin=(20, 30), scale=2.0, height=160)
"""What `atldiff prepare` keeps of each frame's mouth, at twice the scale: a resting mouth is about 90 px wide."""

FACE_ORIGIN, FACE_EXTENT = (-48, -106), 224
"""Corner and side, in template pixels, of the whole-face window: hair to chin with some air, as the papers crop."""


def face_window(side: int) -> WindowGeometry:
    """Return the whole-face window at a side of `side` pixels; at 128 the outer eye corners are 41 px apart."""
    return WindowGeometry(side, FACE_ORIGIN, side / FACE_EXTENT)


STORED_FACE_SIDE = 128
"""Side of the whole-face window that `atldiff prepare` keeps of each frame."""


def fit_window(points: np.ndarray, geometry: WindowGeometry, smooth_frames: float = 0.0) -> np.ndarray:
    """Fit the similarity that carries each frame's picture into the window.

    points: (T, 478, 2 or 3) pixels. smooth_frames: Gaussian sigma over time applied to the similarity's parameters.

    Returns:
        (T, 2, 3) float64 maps from picture pixels to window pixels: rotation, one scale and translation, no reflection.
    """
    rigid = points[:, RIGID_POINTS, :2].astype(np.float64)  # (T, 13, 2)
    template = (TEMPLATE - np.asarray(geometry.origin, np.float64)) * geometry.scale
    centre = rigid.mean(axis=1)  # (T, 2)
    template_centre = template.mean(axis=0)
    moved, fixed = rigid - centre[:, None], template - template_centre
    norm = (moved**2).sum(axis=(1, 2))
    a = (moved * fixed).sum(axis=(1, 2)) / norm
    b = (moved[..., 0] * fixed[:, 1] - moved[..., 1] * fixed[:, 0]).sum(axis=1) / norm
    if smooth_frames > 0 and len(points) > 1:
        a, b, centre = (smoothed(value, smooth_frames) for value in (a, b, centre))
    linear = np.stack([np.stack([a, -b], -1), np.stack([b, a], -1)], -2)  # (T, 2, 2)
    offset = template_centre - np.einsum("tij,tj->ti", linear, centre)
    return np.concatenate([linear, offset[..., None]], axis=-1)


def smoothed(values: np.ndarray, sigma_frames: float) -> np.ndarray:
    """Return values (T, ...) smoothed over time by a Gaussian, cut off at four sigma; the ends are held."""
    reach = int(4 * sigma_frames + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_frames) ** 2)
    held = np.pad(values, ((reach, reach), *[(0, 0)] * (values.ndim - 1)), mode="edge")
    taps = enumerate(weights / weights.sum())
    return sum((weight * held[tap : tap + len(values)] for tap, weight in taps), np.zeros(values.shape))


def fit_still_window(points: np.ndarray, geometry: WindowGeometry) -> np.ndarray:
    """Fit one similarity (2, 3) for a whole clip, as the papers' fixed crop; points: (T, 478, 2 or 3) pixels.

    The head moves inside it.
    """
    return fit_window(np.median(points, axis=0)[None], geometry)[0]


def invert(matrix: np.ndarray) -> np.ndarray:
    """Return the inverse (..., 2, 3) of affine maps (..., 2, 3)."""
    linear = np.linalg.inv(matrix[..., :2])
    return np.concatenate([linear, -(linear @ matrix[..., 2:])], axis=-1)


def chain(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the affine map (2, 3) that does `first`, then `second`."""
    return np.concatenate([second[:, :2] @ first[:, :2], (second[:, :2] @ first[:, 2] + second[:, 2])[:, None]], 1)


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (..., K, 2) by affine maps (..., 2, 3)."""
    return points @ np.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2]


def outline(matrix: np.ndarray, size: int | tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the low and high corners (2,) in picture pixels of the box around a window.

    matrix: (2, 3) picture to window. size: the window's side, or width and height.
    """
    width, height = (size, size) if isinstance(size, int) else size
    corners = apply(invert(matrix), np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64))
    return corners.min(axis=0), corners.max(axis=0)


def extract(image: np.ndarray, matrix: np.ndarray, size: int | tuple[int, int], *, sharp: bool = False) -> np.ndarray:
    """Resample a picture (H, W, C) into a window (height, width, C) by the map `matrix` (2, 3); edges replicate.

    A picture larger than the window is averaged before it is sampled, so nothing aliases.

    size: the window's side, or width and height. sharp: by cubic interpolation, for pictures whose details count.
    """
    import cv2

    reduction = 1.0 / float(np.hypot(matrix[0, 0], matrix[1, 0]))  # picture pixels a window pixel
    fetch = matrix
    if reduction > 1.5:
        # Only the part of the picture that the window sees is averaged.
        first, last = outline(matrix, size)
        margin = 2 * reduction
        low = np.maximum(np.floor(first - margin), 0).astype(int)
        high = np.minimum(np.ceil(last + margin), [image.shape[1], image.shape[0]]).astype(int)
        if (high - low < 2).any():
            low, high = np.zeros(2, int), np.array([image.shape[1], image.shape[0]])
        part = image[low[1] : high[1], low[0] : high[0]]
        blur = 0.45 * (reduction - 1)
        image = cv2.GaussianBlur(part, (0, 0), blur, borderType=cv2.BORDER_REPLICATE)
        fetch = matrix.copy()
        fetch[:, 2] += matrix[:, :2] @ low
    flags = cv2.INTER_CUBIC if sharp else cv2.INTER_LINEAR
    shape = (size, size) if isinstance(size, int) else size
    return cv2.warpAffine(image, fetch, shape, flags=flags, borderMode=cv2.BORDER_REPLICATE)
