from __future__ import annotations

import numpy as np
import pytest

from atldiff.evaluation.metrics.mouth_crop import Mouths
from atldiff.evaluation.metrics.teeth import cavity_jitter, skull_shift, teeth_slide
from drawn_mouths import EYE_PX, SIDE, draw_mouths

OPENINGS = 0.13 + 0.07 * np.sin(0.5 * np.arange(40))


def moved(mouths: Mouths, shifts: np.ndarray) -> Mouths:
    """Return crops whose skull was placed wrong by whole pixels, (T, 2)."""
    frames = np.stack([np.roll(f, tuple(s[::-1]), axis=(0, 1)) for f, s in zip(mouths.frames, shifts, strict=True)])
    return Mouths(frames, mouths.inner + shifts[:, None], mouths.outer + shifts[:, None], mouths.opening, mouths.seen)


def test_teeth_that_stand_still_and_teeth_that_slide() -> None:
    shares = [teeth_slide(draw_mouths(OPENINGS, share)) for share in (0, 0.25, 0.5, 0.75, 1)]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(0, abs=0.08)
    assert shares[-1] == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("share", [0, 1])
def test_a_misplaced_skull_is_not_the_teeths_motion(share: float) -> None:
    shifts = np.random.default_rng(0).integers(-2, 3, (len(OPENINGS), 2))
    assert teeth_slide(moved(draw_mouths(OPENINGS, share), shifts)) == pytest.approx(share, abs=0.15)


def test_what_cannot_be_followed_is_not_measured() -> None:
    assert teeth_slide(draw_mouths(OPENINGS, teeth=False)) is None
    assert teeth_slide(draw_mouths(np.full(40, 0.15))) is None  # the lips do not move
    assert teeth_slide(draw_mouths(np.full(40, 0.01))) is None
    assert cavity_jitter(draw_mouths(np.linspace(0.06, 0.46, 12))) is None  # the lips never rest


def test_jitter_is_the_cavitys_change_under_still_lips() -> None:
    still = np.full(20, 0.15)
    assert [cavity_jitter(draw_mouths(still, tremble=levels)) for levels in (0, 1, 3, 6)] == [0, 2, 6, 12]
    both = np.concatenate([still, OPENINGS])  # what moves with the lips does not count
    assert cavity_jitter(draw_mouths(both, share=1)) == pytest.approx(0, abs=1)


def test_the_nose_says_where_the_skull_is() -> None:
    mouths = draw_mouths(np.full(2, 0.1))
    for shift in ([0, 0], [2, -1], [-3, 2]):
        found = skull_shift(moved(mouths, np.array([[0, 0], shift])), 0, 1)
        assert found.tolist() == pytest.approx(shift, abs=0.1)
    flat = Mouths(np.full_like(mouths.frames, 90), mouths.inner, mouths.outer, mouths.opening, mouths.seen)
    assert skull_shift(flat, 0, 1).tolist() == [0, 0]


def test_the_unit_is_the_eye_distance() -> None:
    mouths = draw_mouths(np.array([0.1, 0.2]))
    assert mouths.eye_px == EYE_PX == SIDE * 72 / 64
    assert mouths.opening.tolist() == pytest.approx([0.1, 0.2], rel=0.05)
