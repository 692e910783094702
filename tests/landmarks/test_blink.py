from __future__ import annotations

import numpy as np
import pytest

from atldiff.landmarks.blink import FOLD_LEFT, FOLD_RIGHT, blink_closure, blink_displacement
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

TEN_MINUTES = np.arange(10 * 60 * 25)
LIDS = np.concatenate([LID_PAIRS_RIGHT, LID_PAIRS_LEFT])


def blink_starts(closure: np.ndarray) -> np.ndarray:
    return np.flatnonzero((closure[1:] > 0) & (closure[:-1] == 0))


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
@pytest.mark.parametrize("rate_hz", [0.05, 0.28, 0.5, 1.0, 2.0])
def test_rate_and_range(rate_hz: float, seed: int) -> None:
    fine = np.arange(0, len(TEN_MINUTES), 0.25)  # at 2 Hz the lids hardly rest between blinks
    closure = blink_closure(fine, rate_hz, seed)
    assert closure.dtype == np.float32
    assert closure.min() == 0
    assert closure.max() == 1
    expected = rate_hz * 600
    slack = max(0.3 * expected, 9)
    assert abs(len(blink_starts(closure)) - expected) < slack


def test_no_blink_at_the_start_and_none_at_rate_zero() -> None:
    for seed in range(200):
        assert not blink_closure(np.arange(-50, 15), 2.0, seed).any()
    assert not blink_closure(TEN_MINUTES, 0.0, 3).any()
    assert blink_closure(np.zeros(0), 0.28, 3).shape == (0,)


def test_blinks_keep_apart_but_for_occasional_doubles() -> None:
    doubles, gaps = 0, []
    for seed in range(8):
        apart = np.diff(blink_starts(blink_closure(TEN_MINUTES, 0.28, seed)))
        doubles += (apart < 20).sum()
        gaps.append(apart[apart >= 20])
    gaps = np.concatenate(gaps)
    total = len(gaps) + doubles
    assert gaps.min() >= 15  # after a double, counted from its second half
    assert np.percentile(gaps, 2) >= 27
    assert 0.02 * total < doubles < 0.2 * total
    assert gaps.std() > 0.35 * gaps.mean()  # not a metronome


def test_blink_closes_fast_and_opens_slowly() -> None:
    fine = blink_closure(np.arange(0, 3000, 0.05), 0.28, 5).astype(np.float64)
    start = blink_starts(fine)[0]
    end = start + np.flatnonzero(fine[start + 1 :] == 0)[0] + 1
    pulse = fine[start : end + 1]
    full = np.flatnonzero(pulse == 1)
    closing, hold, opening = full[0] * 0.05, (full[-1] - full[0]) * 0.05, (len(pulse) - full[-1]) * 0.05
    assert 2 < closing < 4
    assert 0.9 < hold < 2.2
    assert 4.5 < opening < 7
    assert opening > 1.4 * closing


@pytest.mark.parametrize("rate_hz", [0.28, 2.0])
def test_closure_has_a_continuous_velocity(rate_hz: float) -> None:
    step = 0.01
    closure = blink_closure(np.arange(0, 1000, step), rate_hz, 1).astype(np.float64)
    velocity = np.diff(closure) / step
    assert np.abs(velocity).max() < (0.6 if rate_hz < 1 else 1.0)
    assert np.abs(np.diff(velocity)).max() < 0.05  # a kink would jump by the velocity itself


def test_every_blink_is_fully_closed_in_some_frame() -> None:
    closure = blink_closure(TEN_MINUTES, 0.28, 9)
    starts = blink_starts(closure)
    for start, stop in zip(starts, [*starts[1:], len(closure)], strict=True):
        if start + 12 < len(closure):
            assert closure[start:stop].max() > 0.99


def test_any_split_and_order_gives_the_same_bits() -> None:
    moments = np.arange(2000) * 25 / 30
    whole = blink_closure(moments, 0.4, 11)
    for packet in (1, 7, 8, 333):
        parts = [blink_closure(moments[i : i + packet], 0.4, 11) for i in range(0, len(moments), packet)]
        assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(blink_closure(moments[::-1], 0.4, 11), whole[::-1])
    assert not np.array_equal(blink_closure(moments, 0.4, 12), whole)


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
    assert ((lower_share > 0.1) & (lower_share < 0.15)).all()


def test_skin_above_follows_and_everything_else_stays() -> None:
    shape = mean_shape()
    moved = blink_displacement(shape, np.ones(1, np.float32))[0]
    for fold, pairs in ((FOLD_RIGHT, LID_PAIRS_RIGHT), (FOLD_LEFT, LID_PAIRS_LEFT)):
        upper = pairs[:, 0]
        assert (shape[fold, 1] < shape[upper, 1]).all()  # the fold is above the lid,
        assert (np.abs(shape[fold, 0] - shape[upper, 0]) < 0.06).all()  # beside its own lid point,
        assert (shape[fold, 1] + moved[fold, 1] < shape[upper, 1] + moved[upper, 1]).all()  # and stays above it
        assert (moved[fold, 1] > 0.4 * moved[upper, 1]).all()
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
    with pytest.raises(ValueError, match="rate_hz: got 2.5"):
        blink_closure(TEN_MINUTES, 2.5, 0)
    with pytest.raises(ValueError, match="moments: got shape"):
        blink_closure(TEN_MINUTES[None], 0.3, 0)
    with pytest.raises(ValueError, match=r"shape: got \(468, 3\)"):
        blink_displacement(mean_shape()[:MESH_POINTS], np.ones(1))
    with pytest.raises(ValueError, match="closure: got shape"):
        blink_displacement(mean_shape(), np.ones((1, 1)))
