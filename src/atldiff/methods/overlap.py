"""Frames from landmarks in overlapping windows: the same for every renderer, offline and streaming."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from atldiff.config import SampleConfig
    from atldiff.video.patch import Frame
    from atldiff.workers import Workers

    Finish = Callable[[int, np.ndarray], Frame]
    """Frame of a window (its number in it, its sampled picture (S, S, 3)) to the output frame."""


class OverlapStream:
    """Landmarks pushed in any portions become frames; windows lie on a fixed grid of frames.

    Window w samples frames w * hop to w * hop + window_frames, hop = window_frames - shared_frames; the shared frames
    are cross-faded, each with the same frame of the window before.

    sample: landmarks (T, 478, 3) and the number of the first frame to sampled pictures (T, S, S, 3) float32, and how
    each becomes a frame. workers: where windows are sampled, several at a time; in the caller's thread without them.
    carried: the share of the frame before in a window's first frame, where windows share none; for pictures that move
    with the face.
    """

    def __init__(
        self,
        sampling: SampleConfig,
        sample: Callable[[np.ndarray, int], tuple[np.ndarray, Finish]],
        workers: Workers | None = None,
        first: int = 0,
        carried: float = 0.0,
    ) -> None:
        """first: the number of the first frame that is pushed, where a window begins."""
        self._sample, self._workers, self._carried = sample, workers, np.float32(carried)
        self._running: deque[tuple[Future[tuple[np.ndarray, Finish]], int]] = deque()  # and how many frames to emit
        self._size, self._shared = sampling.window_frames, sampling.shared_frames
        self._hop = self._size - self._shared
        self._waiting: list[np.ndarray] = []  # landmarks not yet sampled by the last window
        self._first = first  # the video's frame that the next window starts with
        self._tail: np.ndarray | None = None  # the last window's shared frames, or its last, (shared or 1, S, S, 3)

    def push(self, points: np.ndarray, *, more: bool = False) -> Iterator[Frame]:
        """Take landmarks (F, 478, 3) in pixels; yield the frames that are complete.

        more: the next landmarks are at hand, so windows may stay in work meanwhile; their frames come with those.
        """
        self._waiting.extend(points)
        most = self._workers.count if self._workers else 0
        while len(self._waiting) >= self._size:
            self._start(np.stack(self._waiting[: self._size]), self._hop)
            del self._waiting[: self._hop]
            while len(self._running) > most:
                yield from self._frames()
        while len(self._running) > (most if more else 0):
            yield from self._frames()

    def flush(self) -> Iterator[Frame]:
        """End the stream: yield the frames still missing."""
        left = len(self._waiting)
        if left:
            # The last windows are filled up with their last frame, so every network call has one shape.
            padded = np.stack(self._waiting + [self._waiting[-1]] * (self._size - left))
            self._start(padded, min(left, self._size))
            del self._waiting[: max(self._hop, left)]
        while self._running:
            yield from self._frames()

    def _start(self, points: np.ndarray, emit: int) -> None:
        """Have a window sampled, of which the first `emit` frames are wanted."""
        if self._workers:
            window = self._workers.submit(self._sample, points, self._first)
        else:
            window = Future()
            window.set_result(self._sample(points, self._first))
        self._running.append((window, emit))
        self._first += self._hop

    def _frames(self) -> Iterator[Frame]:
        """Yield the frames of the oldest window."""
        window, emit = self._running.popleft()
        sampled, finish = window.result()
        shared = self._shared
        if self._tail is not None and shared:
            fade = (np.arange(1, shared + 1, dtype=np.float32) / (shared + 1))[:, None, None, None]
            sampled[:shared] = (1 - fade) * self._tail + fade * sampled[:shared]
        elif self._tail is not None and self._carried:
            sampled[0] += self._carried * (self._tail[0] - sampled[0])
        self._tail = sampled[len(sampled) - max(1, shared) :].copy()
        make = lambda index: finish(index, sampled[index])  # noqa: E731 - one expression, used twice
        yield from self._workers.in_order(make, range(emit)) if self._workers else map(make, range(emit))
