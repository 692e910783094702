"""Decoded frames as their planes of brightness and colour, of which parts are seen in RGB and changed.

What is not changed keeps the very levels that were decoded: no conversion of a whole picture there and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
from av.video.reformatter import ColorRange, Interpolation

from atldiff.video.colour import UNTAGGED
from atldiff.video.field import Place
from atldiff.video.frame import orientation

if TYPE_CHECKING:
    import av
    from numpy.typing import NDArray

_LUMA = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
"""Shares of red and blue in brightness, by H.273's number of the matrix."""
_BT601 = (0.299, 0.114)
_BT709_LINES = 720
_RGB = 0
"""H.273's number where the planes are red, green and blue."""
_FULL = int(ColorRange.JPEG)
_EXACT = 0x40000 | 0x4000  # swscale's ACCURATE_RND and FULL_CHR_H_INP
_PLANES = ("yuv420p", "yuvj420p")


@dataclass(frozen=True)
class Tags:
    """What a video says of its colours, by numbers of H.273, and whether its levels take the full range."""

    primaries: int
    transfer: int
    matrix: int
    full: bool
    stated_range: int
    lines: int

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Tags:
        """Read them from a frame; those of RGB are those of the planes that are made of it."""
        stated = int(frame.color_range)
        full = stated == _FULL or frame.format.name.startswith("yuvj")
        matrix = int(frame.colorspace)
        if frame.format.is_rgb or frame.format.has_palette:
            matrix, full, stated = UNTAGGED if matrix == _RGB else matrix, False, int(ColorRange.MPEG)
        lines = frame.width if orientation(frame)[0] else frame.height
        return cls(int(frame.color_primaries), int(frame.color_trc), matrix, full, _FULL if full else stated, lines)

    @cached_property
    def shares(self) -> tuple[float, float, float]:
        """How much red, green and blue count for brightness."""
        red, blue = _LUMA.get(self.matrix, _BT601)
        if self.matrix == UNTAGGED and self.lines >= _BT709_LINES:
            red, blue = _LUMA[1]
        return red, 1 - red - blue, blue

    @cached_property
    def to_rgb(self) -> NDArray[np.float32]:
        """The affine map (3, 4) of levels of the planes to levels of RGB."""
        red, green, blue = self.shares
        light, colour = self._scales
        matrix = np.array([
            [light, 0, colour * 2 * (1 - red)],
            [light, -colour * 2 * blue * (1 - blue) / green, -colour * 2 * red * (1 - red) / green],
            [light, colour * 2 * (1 - blue), 0],
        ])  # fmt: skip
        dark = np.array([0 if self.full else 16, 128, 128])
        return np.concatenate([matrix, -(matrix @ dark)[:, None]], 1).astype(np.float32)

    @cached_property
    def from_rgb(self) -> NDArray[np.float32]:
        """The linear map (3, 3) of differences in RGB to those in the planes."""
        return np.linalg.inv(self.to_rgb[:, :3].astype(np.float64)).astype(np.float32)

    @property
    def _scales(self) -> tuple[float, float]:
        return (1.0, 1.0) if self.full else (255 / 219, 255 / 224)


class Planar:
    """A frame of three planes, two of them halved, the right way up; both sides even, odd ones a row or column longer.

    planes: brightness (H, W), blue and red (H / 2, W / 2), uint8, each an array of its own. tags: of its colours.
    """

    def __init__(self, planes: tuple[NDArray[np.uint8], ...], tags: Tags) -> None:
        self.planes, self.tags = planes, tags

    @classmethod
    def of(cls, frame: av.VideoFrame, tags: Tags, size: tuple[int, int] | None = None) -> Planar:
        """Take the planes of a decoded frame, converted where they are others than 8 bits of 4:2:0.

        size: (height, width) upright, to which frames of another one are scaled.
        """
        transposed, left, up = orientation(frame)
        height, width = (frame.height, frame.width) if size is None else (size[::-1] if transposed else size)
        even = (height + height % 2, width + width % 2)
        scaled = size is not None and (frame.height + frame.height % 2, frame.width + frame.width % 2) != even
        if frame.format.name not in _PLANES or scaled:
            rgb = frame.format.is_rgb or frame.format.has_palette
            frame = frame.reformat(
                even[1] if scaled else None,
                even[0] if scaled else None,
                "yuvj420p" if tags.full else "yuv420p",
                dst_colorspace=(1 if tags.shares[0] == _LUMA[1][0] else 5) if rgb else None,
                interpolation=Interpolation.BICUBIC | _EXACT,
                threads=1,
            )
        planes = [_even(plane, halved) for plane, halved in zip(_copies(frame), (False, True, True), strict=True)]
        size_y = (planes[0].shape[0] // 2, planes[0].shape[1] // 2)
        planes = [planes[0], *(plane[: size_y[0], : size_y[1]] for plane in planes[1:])]
        if transposed:
            planes = [plane.T for plane in planes]
        flipped = (plane[:: -1 if up else 1, :: -1 if left else 1] for plane in planes)
        return cls(tuple(np.ascontiguousarray(plane) for plane in flipped), tags)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.planes[0].shape[0], self.planes[0].shape[1]

    def even_place(self, low: np.ndarray, high: np.ndarray) -> Place:
        """Return the rows and columns of a rectangle (2,) to (2,), with even ends, as far as it is in the picture."""
        ends = []
        for axis, most in ((1, self.size[0]), (0, self.size[1])):
            first = min(max(0, int(np.floor(low[axis])) // 2 * 2), most - 2)
            ends.append(slice(first, max(first + 2, min(most, -(-int(np.ceil(high[axis])) // 2) * 2))))
        return ends[0], ends[1]

    def rgb(self, place: Place | None = None) -> NDArray[np.uint8]:
        """Return a place of even ends, or all of the frame, as (h, w, 3) uint8 RGB."""
        import cv2

        rows, columns = place or (slice(0, self.size[0]), slice(0, self.size[1]))
        part = self.planes[0][rows, columns]
        half = (slice(rows.start // 2, rows.stop // 2), slice(columns.start // 2, columns.stop // 2))
        colours = [
            cv2.resize(np.ascontiguousarray(plane[half]), part.shape[::-1], interpolation=cv2.INTER_LINEAR)
            for plane in self.planes[1:]
        ]
        return cast("NDArray[np.uint8]", cv2.transform(cv2.merge([part, *colours]), self.tags.to_rgb))

    def add(self, place: Place, difference: NDArray[np.float32]) -> None:
        """Add a difference (h, w, 3) of RGB levels to a place of even ends; where it is zero, levels stay."""
        import cv2

        rows, columns = place
        changes = cv2.transform(difference, self.tags.from_rgb)
        half = (slice(rows.start // 2, rows.stop // 2), slice(columns.start // 2, columns.stop // 2))
        height, width = difference.shape[:2]
        for number, (plane, where) in enumerate(zip(self.planes, ((rows, columns), half, half), strict=True)):
            change = np.ascontiguousarray(changes[..., number])
            if number:
                change = cv2.resize(change, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
            part = plane[where]
            part[:] = np.clip(np.rint(part + change), 0, 255).astype(np.uint8)

    def copy(self) -> Planar:
        """Return a frame that may be changed without changing this one."""
        return Planar(tuple(plane.copy() for plane in self.planes), self.tags)


def _copies(frame: av.VideoFrame) -> list[NDArray[np.uint8]]:
    views = [
        np.frombuffer(cast("memoryview", plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        for plane in frame.planes
    ]
    return [view.copy() for view in views]


def _even(plane: NDArray[np.uint8], halved: bool) -> NDArray[np.uint8]:
    if halved:
        return plane
    rows, columns = (side % 2 for side in plane.shape)
    return np.pad(plane, ((0, rows), (0, columns)), mode="edge") if rows or columns else plane
