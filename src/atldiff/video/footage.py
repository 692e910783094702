"""A video as what it was filmed on: every frame in the planes that were decoded, with its own timestamp.

Frames can be read in any order that goes forwards and backwards by single frames, without holding more of them than a
second or two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from av.error import FFmpegError

from atldiff.errors import MediaError
from atldiff.video.colour import tagged
from atldiff.video.frame import orientation
from atldiff.video.planar import Planar, Tags
from atldiff.video.read import decoded_frames, frame_rate, on_clock, opened, time_s

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

_HELD_BYTES = 64_000_000
"""Frames held at once while a video is read backwards, in bytes of their planes."""
_WIDEST_PIXEL = 4
_UNSEEN = -(2**62)


@dataclass
class Stamps:
    """When each frame of a video is shown, in ticks from the first one, growing; all that is kept of a pass over it.

    ticks, lengths: how long after the first frame, and for how long it says itself. keys: whether decoding can begin
    there. own: the container's timestamps.
    """

    ticks: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    own: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ticks)

    @property
    def end(self) -> int:
        """Ticks from the first frame to where the last one ends."""
        return self.ticks[-1] + self.lengths[-1]


@dataclass(frozen=True)
class Footage:
    """A video file: size (height, width) as its planes have it upright, both even.

    aspect: how wide a pixel is, by its height. tick: seconds. rate: mean frames a second. tags: of its colours.
    start_s: the first frame's timestamp in seconds. stated_frames: how many there should be, 0 where nothing says so.
    """

    path: Path
    size: tuple[int, int]
    aspect: Fraction
    tick: Fraction
    rate: Fraction
    tags: Tags
    start_s: Fraction
    stated_frames: int = 0

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Footage:
        """Look at the first frame of a video.

        Raises:
            MediaError: missing, empty, not a video, no frame that decodes, or HDR.
        """
        path = Path(path)
        with opened(path) as (container, stream):
            frame = next(decoded_frames(container, stream), None)
            if frame is None:
                raise MediaError(f"video {path}: no frame decodes, expected a whole video file: export it again")
            tags = Tags.of(frame)
            space = tagged(tags.primaries, tags.transfer)
            if space is not None and space.hdr:
                raise MediaError(f"video {path}: got HDR (HLG or PQ), expected SDR: convert it to BT.709 first")
            planar = Planar.of(frame, tags)
            aspect = Fraction(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
            if not 1 / Fraction(_WIDEST_PIXEL) <= aspect <= _WIDEST_PIXEL:
                aspect = Fraction(1)
            aspect = 1 / aspect if orientation(frame)[0] else aspect
            tick = Fraction(frame.time_base or stream.time_base or 1 / frame_rate(stream))
            start_s = time_s(frame) or Fraction(0)
            rate = frame_rate(stream)
            stated = stream.frames
            if not stated and container.duration:
                stated = round(Fraction(container.duration, av.time_base) * rate)
            return cls(path, planar.size, aspect, tick, rate, tags, Fraction(start_s), stated)

    @property
    def shown(self) -> tuple[float, float]:
        """How many square pixels a pixel of the planes takes across and down: the shorter side is stretched."""
        return (float(self.aspect), 1.0) if self.aspect > 1 else (1.0, float(1 / self.aspect))

    def frames(self, stamps: Stamps | None = None) -> Iterator[av.VideoFrame]:
        """Yield all frames that are shown for any time; add when to `stamps`."""
        with opened(self.path) as (container, stream):
            for time, length, frame in on_clock(decoded_frames(container, stream), 1 / self.rate):
                if stamps is not None:
                    stamps.ticks.append(round(time / self.tick))
                    stamps.lengths.append(max(1, round(Fraction(length) / self.tick)))
                    stamps.keys.append(bool(frame.key_frame))
                    stamps.own.append(_UNSEEN if frame.pts is None else frame.pts)
                yield frame

    def planar(self, frame: av.VideoFrame) -> Planar:
        """Return the planes of one of its frames."""
        return Planar.of(frame, self.tags, self.size)

    def read(self, order: np.ndarray, stamps: Stamps) -> Iterator[Planar]:
        """Yield the frames of an order (N,), forwards, backwards or standing still; what is yielded may be changed."""
        at = 0
        while at < len(order):
            step = int(np.sign(order[at + 1] - order[at])) if at + 1 < len(order) else 1
            last = at + 1
            while last < len(order) and np.sign(order[last] - order[last - 1]) == step:
                last += 1
            first, final = int(order[at]), int(order[last - 1])
            if not step:
                (frame,) = self._forwards(first, first + 1, stamps)
                for _ in range(at, last):
                    yield frame.copy()
            else:
                wanted = set(order[at:last].tolist())
                run = (
                    self._forwards(first, final + 1, stamps) if step > 0 else self._backwards(final, first + 1, stamps)
                )
                for number, frame in zip(range(first, final + step, step), run, strict=True):
                    if number in wanted:
                        yield frame
            at = last

    def _backwards(self, first: int, stop: int, stamps: Stamps) -> Iterator[Planar]:
        most = max(8, int(_HELD_BYTES / (1.5 * self.size[0] * self.size[1])))
        while stop > first:
            key = max(first, _key_before(stop - 1, stamps), stop - most)
            held = list(self._forwards(key, stop, stamps))
            while held:
                yield held.pop()
            stop = key

    def _forwards(self, first: int, stop: int, stamps: Stamps) -> Iterator[Planar]:
        """Yield the frames from `first` up to `stop`."""
        key = _key_before(first, stamps)
        if key and len(set(stamps.own)) == len(stamps):
            own = stamps.own[key]
            with opened(self.path) as (container, stream):
                try:
                    container.seek(own, stream=stream)
                    decoded = decoded_frames(container, stream)
                    frame = next(decoded, None)
                except FFmpegError:
                    frame, decoded = None, iter(())
                if frame is not None and frame.pts is not None and frame.pts <= own:
                    yield from self._matched(frame, decoded, first, stop, stamps)
                    return
        for index, frame in enumerate(self.frames()):
            if index >= stop:
                return
            if index >= first:
                yield self.planar(frame)

    def _matched(
        self, frame: av.VideoFrame, others: Iterator[av.VideoFrame], first: int, stop: int, stamps: Stamps
    ) -> Iterator[Planar]:
        wanted = first
        while True:
            if frame.pts == stamps.own[wanted]:
                yield self.planar(frame)
                wanted += 1
                if wanted == stop:
                    return
            following = next(others, None)
            if following is None:
                raise MediaError(f"video {self.path}: frame {wanted} decodes no more: copy it to another container")
            frame = following


def _key_before(index: int, stamps: Stamps) -> int:
    """Return the last frame up to `index` at which decoding can begin."""
    while index and not stamps.keys[index]:
        index -= 1
    return index
