"""A frame of a picture that stays but for one rectangle: what need not be copied, laid or converted again is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Patch(NamedTuple):
    """A part of a picture. pixels: (h, w, C) uint8. corner: its top left pixel (x, y)."""

    pixels: NDArray[np.uint8]
    corner: tuple[int, int]

    @property
    def place(self) -> tuple[slice, slice]:
        """The rows and columns of the picture that it covers."""
        (x, y), (height, width) = self.corner, self.pixels.shape[:2]
        return slice(y, y + height), slice(x, x + width)


class PatchedFrame(NamedTuple):
    """A frame that is a picture but for one part.

    still: (H, W, C) uint8, the same array for all frames of it, which nobody may write to.
    """

    still: NDArray[np.uint8]
    patch: Patch

    def whole(self) -> NDArray[np.uint8]:
        """Return the frame (H, W, C), a new array."""
        frame = self.still.copy()
        frame[self.patch.place] = self.patch.pixels
        return frame


Frame: TypeAlias = "NDArray[np.uint8] | PatchedFrame"
"""A frame (H, W, 3 or 4), or what of a picture is another one in it."""


def unpatched(frame: Frame) -> NDArray[np.uint8]:
    """Return a frame (H, W, C), whichever way it is given."""
    return frame if isinstance(frame, np.ndarray) else frame.whole()
