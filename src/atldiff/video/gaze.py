"""Eyes that look aside: the iris moves between lids that stay. A smooth warp would take the lids with it.

Sideways alone: an eye that looks up or down takes its lids along, and what they uncover is not in the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from atldiff.video.eyelids import EyeFrame, EyeLandmarks, read_through

if TYPE_CHECKING:
    from collections.abc import Sequence

SKIP_PX = 0.05
"""Irises that are moved by less than this are not painted."""

# Shares of the eye's width.
MOST = 0.12
"""How far an iris moves at most."""
WHOLE = 0.25
"""What lies so near to its middle moves as it does: the iris and a little of the white."""
GIVES_WAY = 0.5
"""What lies further than this stays; the white between is stretched or squeezed."""


@dataclass(frozen=True, slots=True)
class IrisMotion:
    """What is painted on one eye.

    iris: (2,) its new middle, and `along` how far it has moved, in the eye's frame. u, upper, lower: (N,) the edges of
    the open lids there.
    """

    frame: EyeFrame
    iris: np.ndarray
    along: float
    u: np.ndarray
    upper: np.ndarray
    lower: np.ndarray

    @property
    def _ends(self) -> np.ndarray:
        heights = (self.upper.min() - 1, self.lower.max() + 1)
        return np.array([(u, v) for u in (0.0, self.frame.width) for v in heights])

    def place(self, corner: tuple[int, int], shape: tuple[int, ...]) -> tuple[slice, slice] | None:
        """Return the rows and columns of a canvas that `paint` draws on, None where it draws on none."""
        return self.frame.place(self._ends, corner, shape)

    def reads(self, corner: tuple[int, int], shape: tuple[int, ...]) -> tuple[slice, slice] | None:
        """Return those whose lookup `paint` needs, the same and some around them."""
        margin = abs(self.along) + 2
        return self.frame.place(self._ends + margin * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]), corner, shape)

    def paint(
        self, canvas: np.ndarray, image: np.ndarray, lookup: tuple[np.ndarray, np.ndarray], corner: tuple[int, int]
    ) -> None:
        """Draw the iris in place over a warped picture; as `LidMotion.paint`."""
        width = self.frame.width
        found = self.frame.grid(self._ends, corner, canvas.shape)
        if found is None:
            return
        place, (x, y), (u, v) = found
        ux, uy = self.frame.axes.astype(np.float32)[0]
        away = np.hypot(u - np.float32(self.iris[0]), v - np.float32(self.iris[1])) / np.float32(width)
        share = np.clip((GIVES_WAY - away) / (GIVES_WAY - WHOLE), 0, 1)
        by = np.float32(self.along) * share * share * (3 - 2 * share)
        moved = read_through(image, lookup, x - by * ux, y - by * uy)
        above, below = np.interp(u, self.u, self.upper), np.interp(u, self.u, self.lower)
        # Seen between the lids alone, softly: whole a pixel and a half within their edges.
        part = (np.clip((v - above) / 1.5, 0, 1) * np.clip((below - v) / 1.5, 0, 1))[..., None]
        under = canvas[place]
        under[:] = np.clip(np.rint(under + part * (moved.astype(np.float32) - under)), 0, 255).astype(np.uint8)


def moved_irises(
    source: np.ndarray, target: np.ndarray, eyes: Sequence[EyeLandmarks], irises: Sequence[int]
) -> list[IrisMotion]:
    """Return what is painted on eyes whose irises move against their lids; none where they go along.

    source, target: (K, 2) the portrait's landmarks and the wanted ones, the lids as open as they are to be before they
    are painted, in pixels. irises: their middles, an eye each.
    """
    motions = []
    for eye, iris in zip(eyes, irises, strict=True):
        before, frame = EyeFrame.of(source[eye.corners].astype(np.float64)), EyeFrame.of(target[eye.corners])
        seen = np.concatenate([eye.upper, eye.lower, [iris]])
        was, now = before.enter(source[seen]), frame.enter(target[seen])
        lids, middle = now[:-1], now[:-1].mean(axis=0)
        was = (was[-1] - was[:-1].mean(axis=0)) * (frame.width / before.width)
        along = float((now[-1] - middle - was)[0])
        if abs(along) < SKIP_PX:
            continue
        along = float(np.clip(along, -MOST * frame.width, MOST * frame.width))
        upper, lower = np.split(lids, 2)
        places = np.linspace(0, frame.width, 33)
        edges = [
            np.interp(places, np.r_[0.0, line[:, 0], frame.width], np.r_[0.0, line[:, 1], 0.0])
            for line in (upper, lower)
        ]
        motions.append(IrisMotion(frame, middle + was + [along, 0], along, places, *edges))
    return motions
