"""Landmarks-Guide Noise: the start of denoising, placed by the landmarks on the identity (arXiv 2507.12804, figure 2).

The published form adds mask * noise to the unmoved identity picture; ours adds it to the landmark-warped one.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def landmark_dots(points: torch.Tensor, side: int) -> torch.Tensor:
    """Return maps (B, T, S, S) float32 with ones at the pixels that landmarks fall on.

    points: (B, T, K, 2) window pixels, cut to whole numbers; those outside lie on the border (the released code wraps
    or fails there).
    """
    batch, frames = points.shape[:2]
    pixels = points.clamp(0, side - 1).long()
    index = (pixels[..., 1] * side + pixels[..., 0]).flatten(0, 1)  # (B * T, K)
    maps = torch.zeros(batch * frames, side * side, device=points.device)
    return maps.scatter_(1, index, 1.0).reshape(batch, frames, side, side)


def gaussian_blur(maps: torch.Tensor, kernel: int) -> torch.Tensor:
    """Blur maps (..., S, S) with a Gaussian of `kernel` taps, edges mirrored, as two passes of one dimension.

    Sigma follows from the kernel as in OpenCV and torchvision: 0.3 ((kernel - 1) / 2 - 1) + 0.8.
    """
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    reach = (kernel - 1) // 2
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=maps.device) / sigma) ** 2)
    taps = taps / taps.sum()
    side = maps.shape[-1]
    flat = functional.pad(maps.reshape(-1, 1, side, side), (reach,) * 4, mode="reflect")
    flat = functional.conv2d(flat, taps[None, None, None])
    return functional.conv2d(flat, taps[None, None, :, None]).reshape(maps.shape)


def guide_mask(points: torch.Tensor, side: int, kernel: int, *, over_clip: bool = False) -> torch.Tensor:
    """Return the soft mask (B, 1, T, S, S) in [0, 1] of Landmarks-Guide Noise.

    points: (B, T, 68, 2) window pixels. Dots at the landmarks, blurred, scaled from their least to their largest value:
    of each frame, or `over_clip` of all T frames, as released, which makes frames depend on each other.
    """
    blurred = gaussian_blur(landmark_dots(points, side), kernel)  # (B, T, S, S)
    axes = (1, 2, 3) if over_clip else (2, 3)
    low, high = blurred.amin(axes, keepdim=True), blurred.amax(axes, keepdim=True)
    return ((blurred - low) / (high - low).clamp_min(1e-8))[:, None]


def frame_noise(seed: int, first: int, frames: int, channels: int, size: int | tuple[int, int]) -> torch.Tensor:
    """Return noise (channels, frames, height, width) float32 for frames `first` onwards of a video.

    size: its side, or width and height.

    Each frame's is a function of the seed and its number, so windows that overlap agree.
    """
    width, height = (size, size) if isinstance(size, int) else size
    pictures = []
    for frame in range(first, first + frames):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + frame) % 2**63)
        pictures.append(torch.randn(channels, height, width, generator=generator))
    return torch.stack(pictures, dim=1)


def video_noise(
    over_time: str, seed: int, first: int, frames: int, channels: int, size: int | tuple[int, int]
) -> torch.Tensor:
    """Return the noise of a video's frames from `first` on, (1, channels, frames, height, width).

    over_time: `independent`, or `shared` by all frames: then (1, channels, 1, height, width). size: its side, or width
    and height. Drawn on the CPU, so that it
    is the same everywhere.
    """
    first, frames = (0, 1) if over_time == "shared" else (first, frames)
    return frame_noise(seed, first, frames, channels, size)[None]


def window_noise(seed: int, channels: int, size: int | tuple[int, int]) -> torch.Tensor:
    """Return one noise picture (channels, height, width) float32, a function of the seed alone.

    size: its side, or width and height.

    Every frame of a video starts from the same picture: noise that changed with the frame would flicker, and windows
    that overlap would disagree.
    """
    width, height = (size, size) if isinstance(size, int) else size
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(channels, height, width, generator=generator)


def guided_noise(
    prior: torch.Tensor, mask: torch.Tensor, noise: torch.Tensor, floor: float, gain: float
) -> torch.Tensor:
    """Return x1 = prior + (floor + gain * mask) * noise.

    prior: (B, 3, T, S, S) in [-1, 1]. mask: (B, 1, T, S, S) in [0, 1]. noise: broadcastable to prior.
    """
    return prior + (floor + gain * mask) * noise
