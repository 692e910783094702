"""Landmarks in, frames out: warp, guided noise, denoising in overlapping windows, composite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.diffusion.noise import window_noise
from atldiff.landmarks.blink import FOLD_LEFT, FOLD_RIGHT
from atldiff.landmarks.control import FACE_CONTROL
from atldiff.landmarks.raster import polygons
from atldiff.landmarks.topology import LID_PAIRS_LEFT, LID_PAIRS_RIGHT, LIPS_INNER, OVAL
from atldiff.methods.atl_inputs import NEEDED, build_inputs
from atldiff.video.composite import WindowResult, composite
from atldiff.video.eyelids import EyeLandmarks, part_lids
from atldiff.video.warp import PortraitWarp
from atldiff.video.window import WindowGeometry, apply, extract, fit_window, outline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atldiff.config import SampleConfig
    from atldiff.methods.atl import Renderer
    from atldiff.types import Portrait

CAVITY_BLUR_PX = 1.0

EYES = (
    EyeLandmarks(np.array([33, 133]), LID_PAIRS_RIGHT[:, 0], LID_PAIRS_RIGHT[:, 1], FOLD_RIGHT),
    EyeLandmarks(np.array([362, 263]), LID_PAIRS_LEFT[::-1, 0], LID_PAIRS_LEFT[::-1, 1], FOLD_LEFT[::-1]),
)
"""The eyes, their landmarks in the order of x."""


class FrameStream:
    """Frames of one portrait, from landmarks pushed in any portions; windows lie on a fixed grid of frames.

    Window w samples frames w * hop to w * hop + window_frames, hop = window_frames - shared_frames; the shared frames
    are cross-faded, each with the same frame of the window before.
    """

    def __init__(self, renderer: Renderer, portrait: Portrait, sampling: SampleConfig, seed: int) -> None:
        config = renderer.config
        self._renderer, self._sampling = renderer, sampling
        self._device = next(renderer.parameters()).device
        self._geometry = WindowGeometry(config.side, config.origin)
        points = portrait.landmarks[None]
        self._portrait, self._landmarks = portrait.image, portrait.landmarks[:, :2]
        matrix = fit_window(points, self._geometry)[0]
        self._identity = extract(portrait.image, matrix, config.side)
        self._source = apply(matrix, points[0, NEEDED, :2])
        self._warp = PortraitWarp.prepare(
            portrait.image,
            face=portrait.landmarks[OVAL, :2],
            source=FACE_CONTROL.of(portrait.landmarks[:, :2]),
            unit_px=1.0 / float(np.hypot(matrix[0, 0], matrix[1, 0])),
        )
        self._noise = window_noise(seed, 3, config.side).to(self._device)
        self._waiting: list[np.ndarray] = []  # landmarks not yet sampled by the last window
        self._tail: np.ndarray | None = None  # the last window's shared frames, (shared, S, S, 3)

    def push(self, points: np.ndarray) -> Iterator[np.ndarray]:
        """Take landmarks (F, 478, 3) in pixels; yield the frames (H, W, 3) uint8 that are complete."""
        self._waiting.extend(points)
        size = self._sampling.window_frames
        hop = size - self._sampling.shared_frames
        while len(self._waiting) >= size:
            yield from self._window(np.stack(self._waiting[:size]), hop)
            del self._waiting[:hop]

    def flush(self) -> Iterator[np.ndarray]:
        """End the stream: yield the frames still missing."""
        left = len(self._waiting)
        size, hop = self._sampling.window_frames, self._sampling.window_frames - self._sampling.shared_frames
        if left:
            # The last windows are filled up with their last frame, so every network call has one shape.
            padded = np.stack(self._waiting + [self._waiting[-1]] * (size - left))
            yield from self._window(padded, min(left, size))
            del self._waiting[: max(hop, left)]

    def _window(self, points: np.ndarray, emit: int) -> Iterator[np.ndarray]:
        """Sample one window of landmarks (T, 478, 3) and yield its first `emit` frames."""
        matrices = fit_window(points, self._geometry)
        target = np.stack([apply(m, p[:, :2]) for m, p in zip(matrices, points, strict=True)])  # (T, 478, 2)
        identity = torch.from_numpy(self._identity.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        inputs = build_inputs(identity, self._source[None], target[None][:, :, NEEDED], self._renderer.config)
        prior, conditions, mask = (x.to(self._device) for x in (inputs.prior, inputs.conditions, inputs.mask))
        with torch.inference_mode():
            frames = self._renderer.render(prior, conditions, mask, self._noise, self._sampling.steps)
        levels = lambda x: (x[0].permute(1, 2, 3, 0).float().cpu().numpy() + 1) * 127.5  # noqa: E731
        sampled, priors = levels(frames), levels(inputs.prior)  # (T, S, S, 3)
        shared = self._sampling.shared_frames
        if self._tail is not None and shared:
            fade = (np.arange(1, shared + 1, dtype=np.float32) / (shared + 1))[:, None, None, None]
            sampled[:shared] = (1 - fade) * self._tail + fade * sampled[:shared]
        self._tail = sampled[len(sampled) - shared :].copy() if shared else None
        cavities = self._cavities(target)
        for index in range(emit):
            yield self._frame(
                points[index], WindowResult(sampled[index], priors[index], cavities[index], matrices[index])
            )

    def _cavities(self, target: np.ndarray) -> np.ndarray:
        import cv2

        cavities = polygons(target[:, LIPS_INNER], self._geometry.side).astype(np.float32) / 255
        return np.stack([cv2.GaussianBlur(cavity, (0, 0), CAVITY_BLUR_PX) for cavity in cavities])

    def _frame(self, points: np.ndarray, window: WindowResult) -> np.ndarray:
        detail = np.concatenate(outline(window.matrix, self._geometry.side))
        smooth, lids = part_lids(self._landmarks, points[:, :2], EYES)
        moved = self._warp.warp(FACE_CONTROL.of(smooth), detail, lids)
        x0, y0, x1, y1 = self._warp.box
        composite(moved, (x0, y0), window)
        frame = self._portrait.copy()
        frame[y0:y1, x0:x1] = moved
        return frame
