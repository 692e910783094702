from __future__ import annotations

import numpy as np
import pytest

from atldiff.landmarks.blink import (
    FOLD_LEFT,
    FOLD_RIGHT,
    HELD_FRAMES,
    SINCE_FRAMES,
    blink_displacement,
    blink_pulse,
    blink_urge,
    eye_opening,
    find_blinks,
    time_since_blink,
)
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import (
    BROW_LEFT,
    BROW_RIGHT,
    IRIS_LEFT,
    IRIS_RIGHT,
    LID_PAIRS_LEFT,
    LID_PAIRS_RIGHT,
    LIPS,
    MESH_POINTS,
)

LIDS = np.concatenate([LID_PAIRS_RIGHT, LID_PAIRS_LEFT])


def closures(middles: list[float], closing: float, opening: float, frames: int, step: float = 1.0) -> np.ndarray:
    moments = np.arange(0, frames, step)
    return np.max([[blink_pulse(at - middle, closing, opening) for at in moments] for middle in middles], axis=0)


@pytest.mark.parametrize("rate_hz", [0.05, 0.3, 1.0, 2.0])
def test_urges_give_the_rate(rate_hz: float) -> None:
    since = np.array([0, 0.5, 1.1, 1.2, 1.3, 1.4, 1.4])
    urge = blink_urge(since, rate_hz, 2)
    assert len(urge) >= SINCE_FRAMES[-1] // 2 + 1
    assert urge[0] == urge[1] == 0  # lids that are not open yet
    assert urge[30] > 1.2 * urge[10] > 0  # and by and by they are due
    random, last, blinks, steps = np.random.default_rng(3), 20, 0, 60_000
    for draw in random.random(steps):
        last += 1
        if draw < 1 - np.exp(-urge[min(last, len(urge) - 1)]):
            blinks, last = blinks + 1, 0
    assert blinks / (steps * 2 / 25) == pytest.approx(rate_hz, rel=0.2)
    assert not blink_urge(since, 0.0, 2).any()


def test_intervals_are_neither_a_clock_s_nor_chance_s() -> None:
    """In real clips their deviation is 0.7 of their mean; without a memory it would be 0.85."""
    urge = blink_urge(np.array([0, 0.57, 1.1, 1.2, 1.3, 1.4, 1.4]), 0.6, 2)
    random, last, intervals = np.random.default_rng(5), 0, []
    for draw in random.random(60_000):
        last += 1
        if draw < 1 - np.exp(-urge[min(last, len(urge) - 1)]):
            intervals.append(last)
            last = 0
    assert 0.55 < np.std(intervals) / np.mean(intervals) < 0.75


def test_a_face_may_have_blinked_at_any_time_before() -> None:
    urge = blink_urge(np.array([0, 1, 1, 1, 1, 1, 1]), 0.5, 2)
    since = np.array([time_since_blink(urge, chance) for chance in np.linspace(0, 1, 1001)[:-1]])
    assert (np.diff(since) >= 0).all()
    assert since[0] == 0
    # A moment falls into long intervals rather than short ones: (1 + 0.66 squared) / 2 of the mean of 25 steps.
    assert since.mean() == pytest.approx(18, abs=2.5)
    assert time_since_blink(blink_urge(np.ones(7), 0.0, 2), 0.9) == 0


def test_a_blink_closes_fast_and_opens_ever_more_slowly() -> None:
    step = 0.01
    shut = HELD_FRAMES / 2
    pulse = closures([10], 1.0, 2.0, 40, step)
    assert (np.diff(pulse)[:999] >= 0).all()
    assert (np.diff(pulse)[1001:] <= 0).all()
    assert pulse[[0, 750]].tolist() == [0, 0]
    assert (pulse[round((10 - shut) / step) : round((10 + shut) / step)] > 0.999).all()
    halves = [round((10 - shut - 1) / step), round((10 + shut + 2) / step)]
    assert pulse[halves] == pytest.approx([0.5, 0.5], abs=0.02)
    assert not pulse[int((10 + shut + 6 * 2) / step) + 1 :].any()
    velocity = np.diff(pulse) / step
    assert np.abs(np.diff(velocity)).max() < 0.06  # a kink would jump by the velocity itself


@pytest.mark.parametrize("phase", [0.0, 0.25, 0.5, 0.75])
def test_every_blink_is_seen_shut_whenever_the_frame_is_taken(phase: float) -> None:
    """Real lids stay shut for one or two frames; the shortest blinks once had none that was more than 0.8 shut."""
    pulse = closures([10 + phase], 0.54, 0.84, 30)
    assert pulse.max() > 0.97


def test_blinks_are_found_as_they_were_made() -> None:
    shape = mean_shape()
    closure = closures([30.0, 71.4, 90.0], 1.0, 2.0, 150)
    opening = eye_opening(shape + blink_displacement(shape, closure.astype(np.float32)))
    assert 0.2 < opening[0] < 0.5
    found = find_blinks(opening + np.random.default_rng(0).normal(0, 0.003, 150))
    assert np.abs(np.array([blink.frame for blink in found]) - [30, 71, 90]).max() <= 1
    assert all(blink.depth > 0.85 for blink in found)
    lasts = found[0].closing + found[0].opening
    assert lasts == pytest.approx(1 + HELD_FRAMES + 2, abs=0.5)
    assert found[0].closing < found[0].opening


def test_trembling_and_closed_eyes_do_not_blink() -> None:
    random = np.random.default_rng(1)
    assert not find_blinks(0.3 + random.normal(0, 0.01, 200))
    closed = np.full(200, 0.3)
    closed[60:] = 0.04  # and stay so
    assert not find_blinks(closed)
    squint = np.full(200, 0.3)
    squint[80:84] = 0.22
    assert not find_blinks(squint)


def test_a_blink_closes_the_lids_without_crossing() -> None:
    shape = mean_shape()
    moved = shape + blink_displacement(shape, np.linspace(0, 1, 21, dtype=np.float32))
    gap = moved[:, LIDS[:, 1], 1] - moved[:, LIDS[:, 0], 1]
    assert np.allclose(gap[0], shape[LIDS[:, 1], 1] - shape[LIDS[:, 0], 1])
    assert (gap > 0).all()
    assert (np.diff(gap, axis=0) < 0).all()
    distance = np.linalg.norm(moved[-1, LIDS[:, 1]] - moved[-1, LIDS[:, 0]], axis=-1)
    assert (distance < 0.1 * np.linalg.norm(shape[LIDS[:, 1]] - shape[LIDS[:, 0]], axis=-1)).all()
    lower_share = (shape[LIDS[:, 1], 1] - moved[-1, LIDS[:, 1], 1]) / gap[0]
    assert ((lower_share > 0) & (lower_share < 0.1)).all()  # lids meet where the lower one is


def test_skin_above_follows_and_everything_else_stays() -> None:
    shape = mean_shape()
    moved = blink_displacement(shape, np.ones(1, np.float32))[0]
    for fold, pairs in ((FOLD_RIGHT, LID_PAIRS_RIGHT), (FOLD_LEFT, LID_PAIRS_LEFT)):
        upper = pairs[:, 0]
        assert (shape[fold, 1] < shape[upper, 1]).all()  # the fold is above the lid,
        assert (np.abs(shape[fold, 0] - shape[upper, 0]) < 0.06).all()  # beside its own lid point,
        assert (shape[fold, 1] + moved[fold, 1] < shape[upper, 1] + moved[upper, 1]).all()  # and stays above it
        assert (moved[fold, 1] > 0.2 * moved[upper, 1]).all()
        assert (moved[fold, 1] < 0.3 * moved[upper, 1]).all()  # a lid unfolds: it does not pull the fold along
    moving = np.union1d(LIDS, np.concatenate([FOLD_RIGHT, FOLD_LEFT]))
    still = np.setdiff1d(np.arange(len(shape)), moving)
    elsewhere = np.concatenate([IRIS_RIGHT, IRIS_LEFT, LIPS, BROW_RIGHT, BROW_LEFT, [33, 133, 362, 263]])
    assert np.isin(elsewhere, still).all()
    assert not moved[still].any()
    closed = shape + moved
    between = np.sort(np.stack([shape[LIDS[:, 0], 2], shape[LIDS[:, 1], 2]]), axis=0)
    assert (closed[LIDS, 2] >= between[0][:, None] - 1e-6).all()
    assert (closed[LIDS, 2] <= between[1][:, None] + 1e-6).all()


def test_fold_indices_are_each_other_s_mirror_image() -> None:
    shape = mean_shape()
    assert np.allclose(shape[FOLD_RIGHT] * [-1, 1, 1], shape[FOLD_LEFT], atol=1e-3)


def test_a_closed_eye_does_not_blink() -> None:
    shape = mean_shape().copy()
    upper, lower = LID_PAIRS_RIGHT.T
    shape[upper] = shape[lower] - 0.2 * (shape[lower] - shape[upper])
    moved = blink_displacement(shape, np.ones(2, np.float32))
    assert not moved[:, np.concatenate([upper, lower, FOLD_RIGHT])].any()
    assert moved[:, LID_PAIRS_LEFT[:, 0]].any()


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"shape: got \(468, 3\)"):
        blink_displacement(mean_shape()[:MESH_POINTS], np.ones(1))
    with pytest.raises(ValueError, match="closure: got shape"):
        blink_displacement(mean_shape(), np.ones((1, 1)))
