"""Measures of pixels: PSNR, SSIM, flicker and seams. Frames are (T, H, W, 3) uint8 RGB, sides in pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PEAK = 255.0
SSIM_REACH_PX = 5
"""Half of SSIM's window of 11 pixels."""
STILL_LEVELS = 2.0
"""A pixel of the reference is still from one frame to the next when its luma changes by no more than this."""
SEAM_REACH_PX = 2.0
"""How far inside and outside a border the colours on its two sides are taken."""


def mean_squared_error(prediction: NDArray[np.uint8], target: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean squared error of each frame, (T,) in levels squared; 0 is best.

    prediction, target: (T, H, W, 3) uint8.

    Raises:
        ValueError: the shapes differ, or are not those of frames.
    """
    _check(prediction, target)
    squares = [cv2.norm(p, t, cv2.NORM_L2SQR) for p, t in zip(prediction, target, strict=True)]
    return np.array(squares, np.float64) / prediction[0].size if len(squares) else np.zeros(0)


def psnr(squared_error: float) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared error in levels squared; higher is better.

    Of a clip this takes the mean error of all its frames, so that one perfect frame does not make the clip perfect.
    Infinite for identical pictures. Source: ITU-T J.340; peak 255.
    """
    if squared_error < 0:
        raise ValueError(f"squared_error: got {squared_error}, expected 0 or more")
    return float("inf") if squared_error == 0 else float(10 * np.log10(PEAK**2 / squared_error))


def ssim(prediction: NDArray[np.uint8], target: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the structural similarity of each frame, (T,) in [-1, 1]; higher is better, 1 for identical frames.

    prediction, target: (T, H, W, 3) uint8, sides of at least 11 px. The mean over the three channels and all
    positions of an 11x11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03 (Wang et al., 2004), in single precision.

    Raises:
        ValueError: the shapes differ, or are not those of frames.
    """
    _check(prediction, target)
    # OpenCV mirrors the picture at its edges; the definition takes whole windows only.
    inner = slice(SSIM_REACH_PX, -SSIM_REACH_PX)
    maps = map(_ssim, prediction, target)
    return np.array([each[inner, inner].mean(dtype=np.float64) for each in maps], np.float64)


def _ssim(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.floating]:
    """Return the structural similarity (H, W, 3) around each pixel of two frames (H, W, 3)."""
    one, other = first.astype(np.float32), second.astype(np.float32)
    side = 2 * SSIM_REACH_PX + 1
    mean_one, mean_other, square_one, square_other, product = (
        cv2.GaussianBlur(values, (side, side), 1.5) for values in (one, other, one * one, other * other, one * other)
    )
    means, squares = mean_one * mean_other, mean_one * mean_one + mean_other * mean_other
    light, contrast = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    alike = (2 * means + light) * (2 * (product - means) + contrast)
    return alike / ((squares + light) * (square_one + square_other - squares + contrast))


def flicker_sums(frames: NDArray[np.uint8], reference: NDArray[np.uint8]) -> tuple[float, int]:
    """Return the squared luma changes where the reference stands still, summed, and how many they are.

    frames, reference: (T, H, W, 3) uint8 of the same times; T frames have T - 1 changes. Sums of overlapping parts of
    a clip add up to the clip's; `flicker` makes a figure of them.

    Raises:
        ValueError: the shapes differ, or are not those of frames.
    """
    _check(frames, reference)
    total, count = 0.0, 0
    before = None
    for frame, real in zip(frames, reference, strict=True):
        luma, real_luma = (cv2.cvtColor(f, cv2.COLOR_RGB2GRAY).astype(np.float32) for f in (frame, real))
        if before is not None:
            still = np.abs(real_luma - before[1]) <= STILL_LEVELS
            total += float(np.square(luma - before[0])[still].sum(dtype=np.float64))
            count += int(still.sum())
        before = (luma, real_luma)
    return total, count


def flicker(total: float, count: int) -> float | None:
    """Return the RMS luma change from frame to frame, in levels, where the reference stands still; None if nowhere.

    total, count: from `flicker_sums`. 0 is best; the reference's own value, noise under two levels, is what a camera
    and its codec leave.
    """
    return float(np.sqrt(total / count)) if count else None


def seam_steps(frames: NDArray[np.uint8], border: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the mean step in colour across a closed border of each frame, (T,) in levels.

    frames: (T, H, W, 3) uint8. border: (T, N, 2) pixels (x, y), the corners of a polygon in order. Both sides are
    sampled 2 px from the border at every pixel of its length that lies well inside the picture. NaN where none does.
    """
    steps = np.full(len(frames), np.nan)
    for index, (frame, corners) in enumerate(zip(frames, border, strict=True)):
        points, normals = _walk(corners)
        low, high = np.full(2, SEAM_REACH_PX), np.array([frame.shape[1], frame.shape[0]]) - 1 - SEAM_REACH_PX
        inside = ((points >= low) & (points <= high)).all(axis=1)
        if not inside.any():
            continue
        sides = []
        for reach in (-SEAM_REACH_PX, SEAM_REACH_PX):
            at = (points[inside] + reach * normals[inside]).astype(np.float32)
            values = cv2.remap(frame.astype(np.float32), at[:, None], None, cv2.INTER_LINEAR)  # type: ignore[call-overload]
            sides.append(values.reshape(-1, 3))
        steps[index] = np.abs(sides[1] - sides[0]).mean()
    return steps


def seam_energy(steps: NDArray[np.floating], reference_steps: NDArray[np.floating]) -> float | None:
    """Return by how much the steps across a border exceed the reference's, in levels; None where no border was seen.

    steps, reference_steps: (T,) from `seam_steps`. 0 is best: above it there is a seam or noise, below it the border is
    smoother than the reference's skin.
    """
    seen = np.isfinite(steps) & np.isfinite(reference_steps)
    return float((steps[seen] - reference_steps[seen]).mean()) if seen.any() else None


def _walk(corners: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points a pixel apart along a closed polygon, and the unit normals there."""
    points, normals = [], []
    for start, stop in zip(corners.astype(np.float64), np.roll(corners, -1, axis=0).astype(np.float64), strict=True):
        along = stop - start
        length = float(np.hypot(*along))
        if length < 1:
            continue
        steps = (np.arange(int(length)) + 0.5) / int(length)
        points.append(start + steps[:, None] * along)
        normals.append(np.repeat([[along[1] / length, -along[0] / length]], len(steps), axis=0))
    if not points:
        return np.zeros((0, 2)), np.zeros((0, 2))
    return np.concatenate(points), np.concatenate(normals)


def _check(prediction: NDArray, target: NDArray) -> None:
    if prediction.shape != target.shape or prediction.ndim != 4 or prediction.shape[-1] != 3:
        raise ValueError(f"frames: got shapes {prediction.shape} and {target.shape}, expected one (T, H, W, 3)")
