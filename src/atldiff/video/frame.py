"""Decoded video frames as pictures: whole where they are interlaced, in sRGB, in the shape and the way up shown."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.error import BlockingIOError as NotYet
from av.error import EOFError as EndOfStream
from av.filter import Graph
from av.video.reformatter import Colorspace, Interpolation

from atldiff.video.colour import UNTAGGED, tagged, to_srgb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_BT709_LINES = 720
"""Untagged videos from this height on are BT.709, lower ones BT.601, as players assume."""

_BT2020_MATRIX = 9

_EXACT = 0x40000 | 0x2000
"""swscale's flags that keep a flat colour within one level: ACCURATE_RND and FULL_CHR_H_INT, which PyAV names only
from 18 on; the numbers mean the same everywhere."""

_WIDEST_PIXEL = 4
"""A pixel that states to be more stretched than this is nonsense, and taken for square."""


_SQUARE = ("gif", "apng")
"""Codecs whose stated pixel aspect no browser heeds."""


def displayed_size(frame: av.VideoFrame, stream: av.VideoStream) -> tuple[int, int]:
    """Return the height and width in which a player shows a frame: pixels made square, turned as the file says.

    The shorter side of a pixel is stretched, so no detail is lost.
    """
    height, width = _square(frame, stream)
    return (width, height) if orientation(frame)[0] else (height, width)


def to_rgb(
    frame: av.VideoFrame, stream: av.VideoStream, size: tuple[int, int] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Return a frame as players show it, (H, W, 3) uint8 sRGB, and its alpha (H, W) uint8, None where it has none.

    size: (height, width) to scale to; the displayed size when None.
    """
    transposed, left, up = orientation(frame)
    height, width = _square(frame, stream) if size is None else size[::-1] if transposed else size
    space = tagged(frame.color_primaries, frame.color_trc)
    clear = any(component.is_alpha for component in frame.format.components) or frame.format.has_palette
    untagged_hd = frame.colorspace == UNTAGGED and frame.height >= _BT709_LINES
    with _without_tags(frame, _BT2020_MATRIX if space and space.hdr and frame.colorspace == UNTAGGED else None):
        scaled = frame.reformat(
            width,
            height,
            ("rgba" if clear else "rgb24") if space is None else "rgba64le" if clear else "rgb48le",
            src_colorspace=Colorspace.ITU709 if untagged_hd and space is None else None,
            interpolation=(Interpolation.BICUBIC if size is None else Interpolation.AREA) | _EXACT,
            threads=1,
        )
    levels = scaled.to_ndarray()
    colour, alpha = levels[..., :3], levels[..., 3] if clear else None
    if space is not None:
        colour = to_srgb(np.ascontiguousarray(colour, np.uint16), space)
        alpha = None if alpha is None else alpha // 257
    if alpha is not None and alpha.min() == 255:
        alpha = None
    return _upright(colour, transposed, left, up), None if alpha is None else _upright(alpha, transposed, left, up)


def deinterlaced(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Yield as many frames at the same times, interlaced ones with both fields made whole, others untouched."""
    graph, kind = None, None
    stamps = deque()  # the filter counts time in other units
    for frame in frames:
        its_kind = (frame.format.name, frame.width, frame.height)
        if graph is not None and kind != its_kind:
            yield from _filtered(graph, None, stamps)
            graph = None
        if graph is None:
            if not frame.interlaced_frame:
                yield frame
                continue
            graph, kind = _deinterlacer(frame), its_kind
        stamps.append((frame.pts, frame.time_base, frame.duration))
        yield from _filtered(graph, frame, stamps)
    if graph is not None:
        yield from _filtered(graph, None, stamps)


def _deinterlacer(frame: av.VideoFrame) -> Graph:
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    whole = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
    sink = graph.add("buffersink")
    source.link_to(whole)
    whole.link_to(sink)
    graph.configure()
    return graph


def _filtered(graph: Graph, frame: av.VideoFrame | None, stamps: deque) -> Iterator[av.VideoFrame]:
    graph.push(frame)
    while stamps:
        try:
            whole: Any = graph.pull()
        except (NotYet, EndOfStream):
            return
        whole.pts, whole.time_base, whole.duration = stamps.popleft()
        yield whole


@contextmanager
def _without_tags(frame: av.VideoFrame, matrix: int | None) -> Iterator[None]:
    """Hide a frame's curve and primaries from swscale, which refuses some, and give it a colour matrix if there is one.

    What they say is done here, alike for all versions of FFmpeg.
    """
    kept = frame.color_trc, frame.color_primaries, frame.colorspace
    frame.color_trc = frame.color_primaries = UNTAGGED
    if matrix is not None:
        frame.colorspace = matrix
    try:
        yield
    finally:
        frame.color_trc, frame.color_primaries, frame.colorspace = kept


def _square(frame: av.VideoFrame, stream: av.VideoStream) -> tuple[int, int]:
    """Return a frame's height and width with its pixels made square, before it is turned."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    if stream.codec_context.name in _SQUARE:
        return frame.height, frame.width
    if not aspect or not 1 / _WIDEST_PIXEL <= aspect <= _WIDEST_PIXEL:
        return frame.height, frame.width
    if aspect > 1:
        return frame.height, round(frame.width * aspect)
    return round(frame.height / aspect), frame.width


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Return whether a frame is to be transposed, and then mirrored left to right and upside down.

    The nearest of the eight ways to lay a picture to what its display matrix says: (x, y) to (a x + c y, b x + d y).
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32, 5).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def _upright(image: np.ndarray, transposed: bool, left: bool, up: bool) -> NDArray[np.uint8]:
    if transposed:
        image = image.swapaxes(0, 1)
    return np.ascontiguousarray(image[:: -1 if up else 1, :: -1 if left else 1], np.uint8)
