"""Landmarks-Guide Noise: the start of denoising, placed by the landmarks on the identity (arXiv 2507.12804, figure 2).

The published form adds mask * noise to the unmoved identity picture; ours adds it to the landmark-warped one. All noise
is NumPy's, so that a seed is the same picture wherever the networks are computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

    Values = TypeVar("Values", np.ndarray, torch.Tensor)


def landmark_dots(points: np.ndarray, side: int) -> np.ndarray:
    """Return maps (B, T, S, S) float32 with ones at the pixels that landmarks fall on.

    points: (B, T, K, 2) window pixels, cut to whole numbers; those outside lie on the border (the released code wraps
    or fails there).
    """
    batch, frames = points.shape[:2]
    pixels = np.clip(points, 0, side - 1).astype(np.int64).reshape(batch * frames, -1, 2)
    maps = np.zeros((batch * frames, side, side), np.float32)
    maps[np.arange(batch * frames)[:, None], pixels[..., 1], pixels[..., 0]] = 1
    return maps.reshape(batch, frames, side, side)


def gaussian_blur(maps: np.ndarray, kernel: int) -> np.ndarray:
    """Blur maps (..., S, S) float32 with a Gaussian of `kernel` taps, edges mirrored.

    Sigma follows from the kernel as in OpenCV and torchvision: 0.3 ((kernel - 1) / 2 - 1) + 0.8.
    """
    import cv2

    blurred = np.empty_like(maps)
    for place in np.ndindex(maps.shape[:-2]):
        blurred[place] = cv2.GaussianBlur(maps[place], (kernel, kernel), 0, borderType=cv2.BORDER_REFLECT_101)
    return blurred


def guide_mask(points: np.ndarray, side: int, kernel: int, *, over_clip: bool = False) -> np.ndarray:
    """Return the soft mask (B, 1, T, S, S) float32 in [0, 1] of Landmarks-Guide Noise.

    points: (B, T, 68, 2) window pixels. Dots at the landmarks, blurred, scaled from their least to their largest value:
    of each frame, or `over_clip` of all T frames, as released, which makes frames depend on each other.
    """
    blurred = gaussian_blur(landmark_dots(points, side), kernel)  # (B, T, S, S)
    axes = (1, 2, 3) if over_clip else (2, 3)
    low, high = blurred.min(axes, keepdims=True), blurred.max(axes, keepdims=True)
    return ((blurred - low) / np.maximum(high - low, np.float32(1e-8)))[:, None]


def frame_noise(seed: int, first: int, frames: int, channels: int, size: int | tuple[int, int]) -> np.ndarray:
    """Return noise (channels, frames, height, width) float32 for frames `first` onwards of a video.

    size: its side, or width and height.

    Each frame's is a function of the seed and its number, so windows that overlap agree.
    """
    width, height = (size, size) if isinstance(size, int) else size
    noise = np.empty((channels, frames, height, width), np.float32)
    for index in range(frames):
        random = np.random.default_rng((seed % 2**64, first + index))
        noise[:, index] = random.standard_normal((channels, height, width), np.float32)
    return noise


def video_noise(
    over_time: str, seed: int, first: int, frames: int, channels: int, size: int | tuple[int, int]
) -> np.ndarray:
    """Return the noise of a video's frames from `first` on, (1, channels, frames, height, width) float32.

    over_time: `independent`, or `shared` by all frames: then (1, channels, 1, height, width). size: its side, or width
    and height.
    """
    first, frames = (0, 1) if over_time == "shared" else (first, frames)
    return frame_noise(seed, first, frames, channels, size)[None]


def window_noise(seed: int, channels: int, size: int | tuple[int, int]) -> np.ndarray:
    """Return one noise picture (channels, height, width) float32, a function of the seed alone.

    size: its side, or width and height.

    Every frame of a video starts from the same picture: noise that changed with the frame would flicker, and windows
    that overlap would disagree.
    """
    width, height = (size, size) if isinstance(size, int) else size
    return np.random.default_rng(seed % 2**64).standard_normal((channels, height, width), np.float32)


def guided_noise(prior: Values, mask: Values, noise: Values, floor: float, gain: float) -> Values:
    """Return x1 = prior + (floor + gain * mask) * noise.

    prior: (B, 3, T, S, S) in [-1, 1]. mask: (B, 1, T, S, S) in [0, 1]. noise: broadcastable to prior.
    """
    return prior + (floor + gain * mask) * noise
