from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from atldiff.landmarks.operations.timing import at_speed, delayed
from made_tracks import apart, same, speaking


def test_nothing_and_whole_frames_are_exact() -> None:
    track = speaking()
    assert delayed(track, 0) is track
    later, earlier = delayed(track, 80), delayed(track, -120)
    assert (len(later), later.fps, len(earlier)) == (100, 25, 100)
    assert same(later.slice(2, 100), track.slice(0, 98))
    assert same(earlier.slice(0, 97), track.slice(3, 100))
    assert (later.points()[:2] == track.points()[0]).all()
    assert (earlier.points()[97:] == track.points()[-1]).all()


def test_between_frames_it_is_exact_too() -> None:
    """Half a frame later is the middle between two frames, not the nearer one."""
    track = speaking()
    later = delayed(track, 20)
    middle = (track.displacements[:-1] + track.displacements[1:]) / 2
    assert np.abs(later.displacements[1:] - middle).max() < 1e-7
    fast = delayed(speaking(100, 50), 20)
    assert same(fast.slice(1, 100), speaking(100, 50).slice(0, 99))


@pytest.mark.parametrize(("first", "second"), [(40, 80), (-40, 120), (20, 20), (33, -13)])
def test_offsets_add_up(first: float, second: float) -> None:
    track = speaking(200, 50, blinks=())
    both, at_once = delayed(delayed(track, first), second), delayed(track, first + second)
    inner = slice(20, 180)
    whole = first % 20 == second % 20 == 0
    assert apart(both.slice(inner.start, inner.stop), at_once.slice(inner.start, inner.stop)) < (
        1e-5 if whole else 0.02
    )


def test_odd_rates() -> None:
    from dataclasses import replace

    track = replace(speaking(), fps=Fraction(30000, 1001))
    frame_ms = 1001 / 30
    assert apart(delayed(track, frame_ms).slice(1, 100), track.slice(0, 99)) < 1e-3


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.25, 2.0, 3.0])
def test_speed(speed: float) -> None:
    track = speaking(101, blinks=())
    fast = at_speed(track, speed)
    assert len(fast) == math.ceil(101 / Fraction(speed).limit_denominator(100))
    assert fast.fps == 25
    for frame in range(0, len(fast) - 1, 7):
        at = frame * speed
        low, high = track.points()[[math.floor(at), min(math.ceil(at), 100)]]
        assert (fast.points()[frame] <= np.maximum(low, high) + 0.2).all()
        assert (fast.points()[frame] >= np.minimum(low, high) - 0.2).all()


def test_speeds_multiply_and_one_is_nothing() -> None:
    track = speaking(101, blinks=())
    assert at_speed(track, 1.0) is track
    assert same(at_speed(at_speed(track, 0.5), 2.0).slice(0, 101), track)
    assert same(at_speed(at_speed(track, 2.0), 2.0), at_speed(track, 4.0))
    assert len(at_speed(speaking(0), 2.0)) == len(delayed(speaking(0), 80)) == 0


@pytest.mark.parametrize("offset", [10_001, -10_001, np.nan, np.inf])
def test_offsets_out_of_range(offset: float) -> None:
    with pytest.raises(ValueError, match=f"^av_offset: got {offset} ms, expected -10000 to 10000$"):
        delayed(speaking(3), offset)


@pytest.mark.parametrize("speed", [0.05, 11, 0, -1, np.nan])
def test_speeds_out_of_range(speed: float) -> None:
    with pytest.raises(ValueError, match=f"^speed: got {speed}, expected 0.1 to 10$"):
        at_speed(speaking(3), speed)
