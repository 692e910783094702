"""A person cut out of a portrait, and what is behind: the head moves, the wall behind it does not.

A picture is alpha * figure + (1 - alpha) * plate (Porter and Duff 1984). The mask of a small network becomes the alpha
by a guided filter (He, Sun and Tang 2010); the plate goes on behind the person in the colours around; the figure's own
colours are what the two leave of the picture, so that a head at rest gives the picture again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np

from atldiff.video.background import bled
from atldiff.video.field import CELL, by_cell

if TYPE_CHECKING:
    from numpy.typing import NDArray

REACH = 0.015
"""Reach of the filter that fits the mask to the picture's edges, as a share of the mask's side."""
SMOOTHNESS = 2e-4
"""Variance of luma, of levels 0 to 1, that counts as an edge."""
SURE = (0.15, 0.85)
"""What the filter gives below and above which a pixel is wholly behind or wholly in front."""
TRUSTED = 0.35
"""Alpha from which the figure's colour can be told from the plate's."""
MARGIN = 0.006
"""How much wider the person is cut than the filter says, as a share of the picture's side: what of the hair it misses
would stay behind as a ghost, and a rim of background that goes along is seen less."""
MIRRORED = 0.1
"""How far behind the person the background goes on as its own mirror image, as a share of the picture's side; further
in, where no head ever turns away, it is smooth."""


@dataclass(frozen=True)
class Matte:
    """Person and background of a part of a picture, each (h, w, ...) uint8.

    alpha: (h, w). figure: (h, w, 3), the person, whose colours go on beyond the edge. plate: (h, w, 3), what is behind.
    """

    alpha: NDArray[np.uint8]
    figure: NDArray[np.uint8]
    plate: NDArray[np.uint8]

    @cached_property
    def _cells(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        return by_cell(np.maximum, self.alpha), by_cell(np.minimum, self.alpha)

    def cells(self, reach: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which squares of `CELL` pixels a person moved by up to `reach` pixels may touch, and surely fills."""
        side = 2 * int(np.ceil((reach + 1) / CELL)) + 1
        most, least = self._cells
        around = np.ones((side, side), np.uint8)
        return cv2.dilate(most, around) > 0, cv2.erode(least, around) == 255

    def laid(self) -> NDArray[np.uint8]:
        """Return the person before the background, where nothing has moved: the picture again, but for rounding."""
        share = self.alpha.astype(np.float32) / 255
        return np.asarray(cv2.blendLinear(self.figure, self.plate, share, 1 - share), np.uint8)

    @classmethod
    def cut_out(cls, image: NDArray[np.uint8], mask: NDArray[np.floating], face: NDArray[np.floating]) -> Matte:
        """Part a picture. image: (h, w, 3); mask: (h, w) in [0, 1]; face: (N, 2) contour, in its pixels, of a face."""
        side = max(image.shape[:2])
        inner = np.zeros(mask.shape, np.uint8)
        cv2.fillPoly(inner, [np.round(face * 16).astype(np.int32)], 1, shift=4)
        told = guided(image, np.where(inner > 0, 1, mask).astype(np.float32), max(2, round(REACH * side)))
        alpha = np.clip((told - SURE[0]) / (SURE[1] - SURE[0]), 0, 1)
        alpha[inner > 0] = 1
        rim = max(1, round(MARGIN * side))
        wider = cv2.dilate(alpha, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rim + 1,) * 2))
        alpha = np.maximum(alpha, cv2.GaussianBlur(wider, (0, 0), 0.6 * rim))
        alpha = np.where(alpha < 0.02, 0, np.rint(255 * alpha)).astype(np.uint8)
        share = (alpha.astype(np.float32) / 255)[..., None]
        plate = behind(image, alpha)
        own = (image - (1 - share) * plate) / np.maximum(share, TRUSTED)
        own = np.where(share == 1, image, np.clip(np.rint(own), 0, 255)).astype(np.uint8)
        figure = bled(own, np.where(share[..., 0] >= TRUSTED, 255, 0).astype(np.uint8))
        left = (image - share * figure) / np.maximum(1 - share, 1 - TRUSTED)
        plate = np.where(share < TRUSTED, np.clip(np.rint(left), 0, 255), plate).astype(np.uint8)
        return cls(alpha, figure, plate)


def behind(image: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture (h, w, 3) as it might look without the person: reflected at the outline, then ever smoother."""
    covered = (alpha > 0).astype(np.uint8)
    smooth = bled(image, 255 - 255 * covered)
    side = max(alpha.shape)
    depth = cv2.distanceTransform(covered, cv2.DIST_L2, cv2.DIST_MASK_5)
    height = cv2.distanceTransform(1 - covered, cv2.DIST_L2, cv2.DIST_MASK_5)
    level = cv2.GaussianBlur(depth - height, (0, 0), 0.01 * side)  # its slope is the outline's normal
    across, down = cv2.Sobel(level, cv2.CV_32F, 1, 0), cv2.Sobel(level, cv2.CV_32F, 0, 1)
    length = np.maximum(np.hypot(across, down), 1e-6)
    columns, rows = np.arange(alpha.shape[1], dtype=np.float32), np.arange(alpha.shape[0], dtype=np.float32)[:, None]
    columns, rows = columns - 2 * depth * across / length, rows - 2 * depth * down / length
    known = cv2.remap(255 - 255 * covered, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    mirrored = cv2.remap(smooth, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    weight = (known == 255) * np.clip(2 - 2 * depth / (MIRRORED * side), 0, 1)
    weight = cv2.GaussianBlur(weight.astype(np.float32), (0, 0), 0.005 * side)[..., None] * covered[..., None]
    return np.rint(smooth + weight * (mirrored.astype(np.float32) - smooth)).astype(np.uint8)


def guided(image: NDArray[np.uint8], mask: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """Return a mask (h, w) whose edges are those of a picture (h, w, 3) near by. reach: pixels to either side."""
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    mean = lambda values: cv2.blur(values, (2 * reach + 1,) * 2, borderType=cv2.BORDER_REFLECT)  # noqa: E731
    middle, level = mean(luma), mean(mask)
    slope = (mean(luma * mask) - middle * level) / (mean(luma * luma) - middle * middle + np.float32(SMOOTHNESS))
    return np.asarray(mean(slope) * luma + mean(level - slope * middle), np.float32)
