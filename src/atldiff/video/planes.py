"""Frames as the encoder takes them: of a picture of which a part changes, only that part is converted again."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from atldiff.video.field import remains, within

if TYPE_CHECKING:
    from collections.abc import Callable

    import av
    from numpy.typing import NDArray

    from atldiff.video.field import Place
    from atldiff.video.patch import PatchedFrame

REACH = 8
"""How far, in pixels, a changed pixel may change halved planes: their filter reads 4 to either side."""
MOST = 0.7
"""Share of the picture from which all of it is converted: less work than to convert a part and to copy its planes."""
_SLACK = 64  # bytes that FFmpeg may read behind the last pixel


class Planes:
    """Makes frames of pictures of one size; odd sides gain a replicated row or column where the format needs it."""

    def __init__(
        self, shape: tuple[int, int, int], even: int, convert: Callable[[NDArray[np.uint8]], av.VideoFrame]
    ) -> None:
        """Make room for a picture.

        shape: (H, W, C) of the pictures. even: what the frame's sides are multiples of, 1 or 2. convert: pixels, which
        need not be contiguous, to a new frame, by a filter that knows no place.
        """
        height, width, channels = shape
        self._size, self._convert = (height, width), convert
        rows, columns = height + height % even, width + width % even
        memory = np.zeros(rows * columns * channels + _SLACK, np.uint8)
        self._canvas = memory[:-_SLACK].reshape(rows, columns, channels)  # read in place: FFmpeg's copy costs more
        self._still: NDArray[np.uint8] | None = None
        self._nothing: Place = (slice(0, 0), slice(0, 0))
        self._shown = self._changed = self._nothing
        self._frame: av.VideoFrame | None = None
        self._planes: list[NDArray[np.uint8]] = []

    def whole(self, picture: NDArray[np.uint8]) -> av.VideoFrame:
        """Return a picture (H, W, C) as a frame."""
        self._still = None
        self._put(picture, (slice(0, self._size[0]), slice(0, self._size[1])))
        return self._convert(self._canvas)

    def patched(self, frame: PatchedFrame) -> av.VideoFrame:
        """Return a frame of three planes, two of them halved, to the last bit as it would be converted whole.

        It may be the frame of a call before, unless somebody still holds that one's planes.
        """
        still, patch = frame
        if self._still is not still or self._frame is None:
            self._frame = self.whole(still)
            self._planes = [plane.copy() for plane in _planes(self._frame)]
            self._still, self._shown, self._changed = still, self._nothing, self._nothing
        for place in remains(self._shown, patch.place):
            self._put(still[place], place)
        self._put(patch.pixels, patch.place)
        self._shown = patch.place
        size = self._canvas.shape[:2]
        inner, outer = (_grown(patch.place, margin, size) for margin in (REACH, 2 * REACH))
        if self._canvas[outer].size > MOST * self._canvas.size:
            return self._convert(self._canvas)
        converted = _planes(self._convert(self._canvas[outer]))
        self._frame.make_writable()
        for number, (plane, old, new) in enumerate(zip(_planes(self._frame), self._planes, converted, strict=True)):
            step = 2 if number else 1
            for place in remains(self._changed, inner):
                plane[_of_plane(place, step)] = old[_of_plane(place, step)]
            plane[_of_plane(inner, step)] = new[_of_plane(within(inner, outer), step)]
        self._changed = inner
        return self._frame

    def _put(self, pixels: NDArray[np.uint8], place: Place) -> None:
        """Lay pixels (h, w, C) over a place of the canvas, and what their border is replicated to."""
        (height, width), canvas = self._size, self._canvas
        rows, columns = place
        canvas[place] = pixels
        if columns.stop == width < canvas.shape[1]:
            canvas[rows, width] = canvas[rows, width - 1]
            columns = slice(columns.start, width + 1)
        if rows.stop == height < canvas.shape[0]:
            canvas[height, columns] = canvas[height - 1, columns]


def _planes(frame: av.VideoFrame) -> list[NDArray[np.uint8]]:
    """Return a frame's planes, (h, w) each, as they lie in its memory."""
    return [
        np.frombuffer(cast("memoryview", plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        for plane in frame.planes
    ]


def _grown(place: Place, margin: int, size: tuple[int, int]) -> Place:
    """Return a place with a margin around it, of even ends, as far as it is in a picture (height, width)."""
    rows, columns = (
        slice(max(0, (axis.start - margin) // 2 * 2), min(most, -(-(axis.stop + margin) // 2) * 2))
        for axis, most in zip(place, size, strict=True)
    )
    return rows, columns


def _of_plane(place: Place, step: int) -> Place:
    rows, columns = (slice(axis.start // step, axis.stop // step) for axis in place)
    return rows, columns
