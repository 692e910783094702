"""What a renderer's window must be, so that prepared clips hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atldiff.data.mouths import reduction
from atldiff.errors import DataError
from atldiff.video.window import STORED_MOUTH, STORED_WINDOW

if TYPE_CHECKING:
    from atldiff.video.window import WindowGeometry


def check_window(side: int, origin: tuple[int, int]) -> None:
    """Raise DataError unless a renderer's window, in template pixels, lies inside the one that `prepare` stores."""
    corner = [at - low for at, low in zip(origin, STORED_WINDOW.origin, strict=True)]
    if min(corner) < 0 or max(corner) + side > STORED_WINDOW.side:
        low, high = STORED_WINDOW.origin, [at + STORED_WINDOW.side for at in STORED_WINDOW.origin]
        raise DataError(
            f"config renderer: a window of side {side} at {origin}, expected one inside template pixels "
            f"{low} to {tuple(high)}, which is what `atldiff prepare` keeps"
        )


def check_mouth_window(geometry: WindowGeometry) -> None:
    """Raise DataError unless a renderer's window lies inside the one around the mouth that `prepare` stores."""
    low = (np.asarray(geometry.origin) - STORED_MOUTH.origin) * STORED_MOUTH.scale
    size = reduction(geometry) * np.array(geometry.size)
    whole = geometry.scale * reduction(geometry) == STORED_MOUTH.scale
    if not whole or low.min() < 0 or (low + size > STORED_MOUTH.size).any():
        end = [at + size / STORED_MOUTH.scale for at, size in zip(STORED_MOUTH.origin, STORED_MOUTH.size, strict=True)]
        raise DataError(
            f"config renderer: a window of {geometry.size[0]}x{geometry.size[1]} at {geometry.origin} and scale "
            f"{geometry.scale:g}, expected one of scale {STORED_MOUTH.scale:g}, or a whole part of it, inside template "
            f"pixels {STORED_MOUTH.origin} to ({end[0]:g}, {end[1]:g}), which is what `atldiff prepare` keeps"
        )
