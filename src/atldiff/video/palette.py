"""Frames with 256 colours, for GIF."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import av
from av.error import BlockingIOError, EOFError
from av.filter import Graph

if TYPE_CHECKING:
    from fractions import Fraction


class Palette:
    """Reduce frames to 256 colours, each frame with its own palette and an ordered dither that does not flicker."""

    def __init__(self, size: tuple[int, int], fps: Fraction) -> None:
        """Build the filters for frames of (height, width) pixels."""
        self._graph = Graph()
        pixels = av.VideoFormat("rgb24")
        source = self._graph.add_buffer(width=size[1], height=size[0], format=pixels, time_base=1 / fps)
        split = self._graph.add("split")
        colours = self._graph.add("palettegen", "stats_mode=single")
        use = self._graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=3")
        sink = self._graph.add("buffersink")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(colours, 1, 0)
        colours.link_to(use, 0, 1)
        use.link_to(sink)
        self._graph.configure()

    def reduce(self, picture: av.VideoFrame) -> list[av.VideoFrame]:
        """Take an rgb24 frame; return the pal8 frames that are ready."""
        self._graph.vpush(picture)
        return self._ready()

    def flush(self) -> list[av.VideoFrame]:
        """Return the pal8 frames that are left."""
        self._graph.vpush(None)
        return self._ready()

    def _ready(self) -> list[av.VideoFrame]:
        pictures = []
        while True:
            try:
                pictures.append(cast("av.VideoFrame", self._graph.vpull()))
            except (BlockingIOError, EOFError):
                return pictures
