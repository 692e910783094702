from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from atldiff.dubbing.timing import showing, weights
from atldiff.video.footage import Stamps

TICK = Fraction(1, 1000)
UNEVEN = Stamps([0, 40, 90, 100, 180], [40, 50, 10, 80, 30], [True] * 5, [0, 40, 90, 100, 180])


def test_as_long_as_the_video_every_frame_keeps_its_time() -> None:
    for fit in ("loop", "freeze", "cut"):
        shown = showing(UNEVEN, TICK, Fraction(210, 1000), fit)
        assert shown.order.tolist() == [0, 1, 2, 3, 4]
        assert shown.ticks.tolist() == UNEVEN.ticks
        assert shown.end == 210


@pytest.mark.parametrize(("fit", "end"), [("loop", 95), ("freeze", 210), ("cut", 95)])
def test_a_shorter_speech(fit, end: int) -> None:
    shown = showing(UNEVEN, TICK, Fraction(95, 1000), fit)
    assert shown.end == end
    assert shown.ticks.tolist() == [tick for tick in UNEVEN.ticks if tick < end]


def test_forth_and_back_keeps_the_time_between_two_frames() -> None:
    shown = showing(UNEVEN, TICK, Fraction(1), "loop")
    assert shown.end == 1000
    assert shown.order[:10].tolist() == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1]
    assert (np.abs(np.diff(shown.order)) == 1).all()
    assert shown.ticks[5] == 210  # the last frame stays for as long as it says
    assert np.diff(shown.ticks[5:10]).tolist() == [10, 50, 40, 40]
    assert shown.ticks[-1] < 1000
    assert (np.diff(shown.ticks) > 0).all()


def test_the_last_frame_is_repeated_at_the_usual_rate() -> None:
    shown = showing(UNEVEN, TICK, Fraction(400, 1000), "freeze")
    assert shown.order.tolist() == [0, 1, 2, 3, 4, *[4] * 5]
    assert shown.ticks[5:].tolist() == [210, 250, 290, 330, 370]
    assert shown.end == 400
    assert showing(UNEVEN, TICK, Fraction(400, 1000), "cut").end == 210


def test_one_frame_stands_still() -> None:
    shown = showing(Stamps([0], [40], [True], [0]), TICK, Fraction(100, 1000), "loop")
    assert shown.order.tolist() == [0, 0, 0]


def test_left_out_frames_take_their_time_along() -> None:
    kept = np.array([True, False, True, True, True])
    shown = showing(UNEVEN, TICK, Fraction(10), "cut", kept)
    assert shown.order.tolist() == [0, 2, 3, 4]
    assert shown.ticks.tolist() == [0, 40, 50, 130]
    assert shown.end == 160


def test_what_is_made_fades_towards_frames_without_a_face() -> None:
    known = np.array([True] * 6 + [False] * 2 + [True] * 6)
    seen = weights(known, 3)
    assert (seen[6:8] == 0).all()
    assert (np.diff(seen[:7]) <= 0).all()
    assert seen[0] == seen[-1] == 1
    assert 0 < seen[5] < seen[4] < seen[3] < 1
    assert (weights(np.ones(4, bool), 3) == 1).all()
