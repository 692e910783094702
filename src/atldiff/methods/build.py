"""The methods side by side: a renderer's frames. One arm a method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from atldiff.methods.atl_published.frames import PublishedFrameStream
from atldiff.methods.atl_published.network import PublishedRenderer
from atldiff.methods.window_frames import FrameStream

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from atldiff.config import SampleConfig
    from atldiff.methods.models import FaceRenderer
    from atldiff.types import Portrait
    from atldiff.workers import Workers


class Frames(Protocol):
    """Frames of one portrait, from landmarks pushed in any portions."""

    def push(self, points: np.ndarray, *, more: bool = False) -> Iterator[np.ndarray]:
        """Take landmarks (F, 478, 3) in pixels; yield the frames (H, W, 3 or 4) uint8 that are complete.

        more: the next landmarks are at hand, so windows may stay in work meanwhile; their frames come with those.
        """
        ...

    def flush(self) -> Iterator[np.ndarray]:
        """End the stream: yield the frames still missing."""
        ...


def open_frames(
    renderer: FaceRenderer,
    portrait: Portrait,
    sampling: SampleConfig,
    seed: int,
    emotion: str | None = None,
    workers: Workers | None = None,
    background: np.ndarray | None = None,
) -> Frames:
    """Start rendering a portrait; `emotion` reaches renderers that were trained with emotions.

    background: (H, W, 3) uint8 behind a portrait with alpha; without one its frames are (H, W, 4).
    """
    if isinstance(renderer, PublishedRenderer):
        return PublishedFrameStream(renderer, portrait, sampling, seed, emotion, workers, background)
    return FrameStream(renderer, portrait, sampling, seed, workers, background)
