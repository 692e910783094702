"""A frame of planes as faces are looked for in it: in RGB, pixels square."""

from __future__ import annotations

import numpy as np

from atldiff.video.planar import Planar


class FrameView:
    """A frame in square pixels, of which only what is asked for is converted.

    shown: square pixels a pixel of the planes, across and down, as of `Footage.shown`.
    """

    def __init__(self, frame: Planar, shown: tuple[float, float] = (1.0, 1.0)) -> None:
        self.frame = frame
        height, width = frame.size
        self.size = (round(height * shown[1]), round(width * shown[0]))
        self.step = np.array([self.size[1] / width, self.size[0] / height])
        self._whole: np.ndarray | None = None

    def part(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what is between two corners (2,), (h, w, 3) uint8, and where its own top left corner is, (2,)."""
        import cv2

        rows, columns = self.frame.even_place(low / self.step, high / self.step)
        pixels = self.frame.rgb((rows, columns))
        corner = np.array([columns.start, rows.start], np.float64)
        if (self.step == 1).all():
            return pixels, corner
        size = tuple(np.maximum(1, np.rint(np.array(pixels.shape[1::-1]) * self.step)).astype(int).tolist())
        return cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC), corner * self.step

    def whole(self) -> np.ndarray:
        """Return all of it, (H, W, 3) uint8."""
        if self._whole is None:
            self._whole = self.part(np.zeros(2), np.array(self.size[::-1], np.float64))[0]
        return self._whole
