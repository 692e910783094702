"""GIF out: at most 50 frames a second of 256 colours, small enough to be sent.

All frames share one palette and an ordered dither, and a pixel that hardly changes stays as it is. So what does not
move is the same from frame to frame and takes no room, which a palette a frame or a dither that spreads errors undo.
"""

from __future__ import annotations

import logging
import math
import os
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import av
import cv2
import numpy as np
from av.error import BlockingIOError, EOFError
from av.filter import Graph
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

LONGEST_SIDE = 480
"""Pixels of a GIF's longest side where no other size is asked for: 12 s of a portrait of 1000 pixels take 100 MB."""

MOST_FPS = 50
"""Delays are in hundredths of a second, and browsers take one below 2 for 10."""

PALETTE_FRAMES = 50
"""The palette is made of this many frames, 2 s in which the mouth has opened; some of them are looked at."""
LOOKED_AT = 5
HELD_BYTES = 64_000_000
"""Large frames are waited for as long as they fit into this."""

# Looked at on 2 portraits at twice their size.
DITHER = 8
"""Levels between the lowest and the highest step of the dither: gradients do not band, and no pattern shows."""
NEAR = 2
"""Levels from a colour of the palette within which nothing is dithered: white stays white."""
HOLD = 6
"""Levels by which a pixel may differ from the frame's before it is drawn again: halves the file."""

_TICK = Fraction(1, 100)
_TRANSPARENT = 255
"""Number of the colour that leaves what was there; those before it are colours."""


def capped_side(path: str | os.PathLike[str], size: tuple[int, int]) -> int | None:
    """Return the longest side for a GIF of (height, width) that nobody chose, and say so; None where it may stay."""
    if not os.fspath(path).lower().endswith(".gif") or max(size) <= LONGEST_SIDE:
        return None
    _log.warning(
        "output %s: made smaller than the portrait's %dx%d: a GIF has at most %d pixels a side unless a size is given",
        *(path, size[1], size[0], LONGEST_SIDE),
    )
    return LONGEST_SIDE


class GifStream:
    """A GIF file, written frame by frame; frames that come faster than `MOST_FPS` are thinned out."""

    def __init__(self, path: Path, size: tuple[int, int], fps: Fraction) -> None:
        """size: (height, width). fps: of the frames that come."""
        self._fps = fps
        self._most_held = max(1, min(PALETTE_FRAMES, HELD_BYTES // (3 * size[0] * size[1])))
        self._held: list[tuple[NDArray[np.uint8], int]] = []
        self._colours: _Colours | None = None
        self._stopped = False
        self._container = av.open(os.path.abspath(path), "w", format="gif")
        video = cast("av.VideoStream", self._container.add_stream("gif", rate=min(fps, Fraction(MOST_FPS))))
        video.height, video.width, video.pix_fmt = *size, "pal8"
        video.codec_context.time_base = _TICK
        self._video = video

    def write(self, frame: NDArray[np.uint8], index: int) -> None:
        """Take frame number `index`, (H, W, 3) uint8."""
        time = index / self._fps
        if self._fps > MOST_FPS:
            time = Fraction(math.ceil(time * MOST_FPS), MOST_FPS)
            if time * self._fps >= index + 1:  # by then the next frame is on display
                return
        ticks = round(time / _TICK)
        if self._colours is None:
            self._held.append((frame.copy(), ticks))
            if len(self._held) == self._most_held:
                self._release()
            return
        self._encode(self._colours.reduce(frame), ticks)

    def finish(self) -> None:
        """Write the rest."""
        self.stop()

    def stop(self) -> None:
        """End the file where the frames end. A second call does nothing."""
        if self._stopped:
            return
        self._stopped = True
        try:
            self._release()
            if self._video.codec_context.is_open:
                self._container.mux(self._video.encode(None))
        finally:
            self._container.close()

    def _release(self) -> None:
        """Choose the colours and write the frames that waited for them."""
        if not self._held:
            return
        self._colours = _Colours([frame for frame, _ in self._held[:: max(1, len(self._held) // LOOKED_AT)]])
        for frame, ticks in self._held:
            self._encode(self._colours.reduce(frame), ticks)
        self._held.clear()

    def _encode(self, picture: av.VideoFrame, ticks: int) -> None:
        picture.pts, picture.time_base = ticks, _TICK
        self._container.mux(self._video.encode(picture))


class _Colours:
    """One palette for all frames, and what is on the screen so far."""

    def __init__(self, frames: list[NDArray[np.uint8]]) -> None:
        """Choose 255 colours for frames such as these; one is left for what stays as it was."""
        self._argb = _palette(frames)
        self._chosen = Image.new("P", (1, 1))
        self._chosen.putpalette(self._argb[:_TRANSPARENT, 1:].tobytes())
        self._number_of = np.full(1 << 24, _TRANSPARENT, np.uint8)
        self._number_of[_packed(self._argb[:_TRANSPARENT, 1:])] = np.arange(_TRANSPARENT)
        height, width = frames[0].shape[:2]
        steps = np.tile(_bayer(), (-(-height // 8), -(-width // 8)))[:height, :width, None]
        offset = np.repeat(np.rint(DITHER * (steps - 0.5)).astype(np.int16), 3, axis=2)
        self._up, self._down = (np.maximum(sign * offset, 0).astype(np.uint8) for sign in (1, -1))
        self._shown = frames[0].copy()

    def reduce(self, frame: NDArray[np.uint8]) -> av.VideoFrame:
        """Return a frame (H, W, 3) as pal8."""
        shown = self._shown
        cv2.copyTo(frame, (_apart(frame, shown) > HOLD).astype(np.uint8), shown)
        nearest, dithered = self._nearest(shown), self._nearest(cv2.subtract(cv2.add(shown, self._up), self._down))
        far = _apart(shown, self._argb[nearest, 1:]) > NEAR
        indices = np.where(far, dithered, nearest)
        return av.VideoFrame.from_ndarray((indices, self._argb), format="pal8")  # pyright: ignore

    def _nearest(self, picture: np.ndarray) -> NDArray[np.uint8]:
        """Return the numbers (H, W) of the colours next to a picture's."""
        nearest = np.asarray(Image.fromarray(picture).quantize(palette=self._chosen, dither=Image.Dither.NONE))
        itself = self._number_of[_packed(picture)]  # Pillow may be two levels off, which flat colours would show
        return np.where(itself == _TRANSPARENT, nearest, itself)


def _packed(colours: np.ndarray) -> np.ndarray:
    """Return colours (..., 3) uint8 as numbers below 2**24."""
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def _apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return by how many levels pixels differ, (H, W), in the channel where they do most."""
    red, green, blue = cv2.split(cv2.absdiff(one, other))
    return cv2.max(cv2.max(red, green), blue)


def _bayer() -> NDArray[np.float64]:
    """Return the 8x8 matrix of an ordered dither, values in [0, 1)."""
    matrix = np.zeros((1, 1))
    for _ in range(3):
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    return matrix / 64


def _palette(frames: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return 255 colours and a transparent one, (256, 4) ARGB, that suit frames; every other row and column counts."""
    parts = [np.ascontiguousarray(frame[::2, ::2] if min(frame.shape[:2]) > 64 else frame) for frame in frames]
    graph = Graph()
    height, width = parts[0].shape[:2]
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=Fraction(1))
    choose, sink = graph.add("palettegen", "stats_mode=full"), graph.add("buffersink")
    source.link_to(choose)
    choose.link_to(sink)
    graph.configure()
    for number, part in enumerate(parts):
        picture = av.VideoFrame.from_ndarray(part, format="rgb24")
        picture.pts, picture.time_base = number, Fraction(1)
        graph.vpush(picture)
    graph.vpush(None)
    colours = None
    while colours is None:
        try:
            colours = cast("av.VideoFrame", graph.vpull())
        except (BlockingIOError, EOFError):
            raise OSError("no palette was made") from None
    rgba = cast("NDArray[np.uint8]", colours.to_ndarray(format="rgba")).reshape(256, 4)
    return np.ascontiguousarray(np.roll(rgba, 1, axis=1))
