"""A track earlier or later, faster or slower."""

from __future__ import annotations

import math
from fractions import Fraction

from atldiff.landmarks.edit import sampled, split
from atldiff.types import LandmarkTrack

MOST_OFFSET_MS = 10_000
LEAST_SPEED, MOST_SPEED = 0.1, 10.0


def delayed(track: LandmarkTrack, offset_ms: float) -> LandmarkTrack:
    """Return the track later by so many milliseconds, at its own frame rate and length; the ends are held.

    offset_ms: positive is later, negative earlier; not only whole frames. -10 000 to 10 000; 0 changes nothing.

    Raises:
        ValueError: it is not in that range.
    """
    check_offset(offset_ms)
    if not offset_ms or not len(track):
        return track
    by = Fraction(offset_ms).limit_denominator(10**6) * track.fps / 1000
    return sampled(track, [split(index - by) for index in range(len(track))])


def at_speed(track: LandmarkTrack, speed: float) -> LandmarkTrack:
    """Return the track played so many times as fast, at its own frame rate: ceil(T / speed) frames.

    speed: 0.1 to 10; 1 changes nothing.

    Raises:
        ValueError: it is not in that range.
    """
    check_speed(speed)
    if speed == 1 or not len(track):
        return track
    step = Fraction(speed).limit_denominator(10**6)
    return sampled(track, [split(index * step) for index in range(math.ceil(len(track) / step))])


def check_offset(offset_ms: float) -> None:
    """Raise ValueError unless a track can be so much later."""
    if not -MOST_OFFSET_MS <= offset_ms <= MOST_OFFSET_MS:
        raise ValueError(f"av_offset: got {offset_ms} ms, expected {-MOST_OFFSET_MS} to {MOST_OFFSET_MS}")


def check_speed(speed: float) -> None:
    """Raise ValueError unless a track can be so fast."""
    if not LEAST_SPEED <= speed <= MOST_SPEED:
        raise ValueError(f"speed: got {speed}, expected {LEAST_SPEED} to {MOST_SPEED:g}")
