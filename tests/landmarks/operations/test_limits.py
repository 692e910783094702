from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atldiff.landmarks.blink import eye_opening
from atldiff.landmarks.geometry import euler_degrees
from atldiff.landmarks.motion import MOST_TURNED_DEG
from atldiff.landmarks.operations import limits
from atldiff.landmarks.operations.limits import Bound, held_back, limited
from atldiff.landmarks.operations.mouth import jaw_strength, met
from atldiff.landmarks.operations.regions import CHIN
from atldiff.landmarks.topology import EYE_RIGHT, LID_PAIRS_LEFT, LID_PAIRS_RIGHT, MESH_POINTS
from atldiff.types import LandmarkTrack
from made_tracks import apart, openings, same, speaking, still

LIDS = np.concatenate([LID_PAIRS_RIGHT, LID_PAIRS_LEFT])


def test_within_what_is_free_nothing_changes() -> None:
    track = met(speaking(turn_deg=4))
    assert apart(limited(track), track) < 1e-6
    assert len(limited(speaking(0))) == 0
    assert same(limited(met(still())), met(still()))


def test_values_are_held_back_softly() -> None:
    values = np.linspace(0, 5, 1001)
    held = held_back(values, Bound(1, 1.5))
    assert np.array_equal(held[values <= 1], values[values <= 1])
    assert held.max() <= 1.5
    assert (np.diff(held) >= 0).all()
    assert np.abs(np.diff(held, 2)).max() < 0.001  # no kink


@pytest.mark.parametrize("by", [1.5, 3.0, 10.0])
def test_mouths_open_no_further(by: float) -> None:
    track = speaking()
    wild = replace(track, displacements=track.displacements * np.float32(by))
    held = limited(wild)
    assert openings(held).max() <= limits.LIP_OPENING.most + 1e-4
    assert held.displacements[:, CHIN, 1].mean(axis=1).max() <= limits.JAW_DROP.most + 1e-4
    if by > 5:
        assert openings(wild).max() > limits.LIP_OPENING.most
    order = np.argsort(openings(wild))
    assert (np.diff(openings(held)[order]) > -0.02).all()  # a wider mouth stays a wider one
    assert apart(limited(held), held) < 0.06  # what is near the bound is drawn in again, a little


def test_lips_open_on_a_jaw_that_stays() -> None:
    track = still()
    moved = track.displacements.copy()
    moved[:, [13, 82, 312, 0, 37, 267], 1] -= 0.4
    held = limited(replace(track, displacements=moved))
    assert openings(held).max() <= limits.LIP_OPENING.most + 1e-4


def test_a_jaw_that_rises() -> None:
    track = speaking(blinks=())
    wild = replace(track, displacements=-3 * track.displacements)
    assert limited(wild).displacements[:, CHIN, 1].mean(axis=1).min() >= -limits.JAW_RISE.most - 1e-4


def test_lids_neither_cross_nor_tear() -> None:
    track = speaking()
    for by in (3.0, -3.0):
        moved = track.displacements.copy()
        moved[:, EYE_RIGHT] *= np.float32(by)
        held = limited(replace(track, displacements=moved))
        shapes = held.neutral + held.displacements
        assert (shapes[:, LIDS[:, 1], 1] > shapes[:, LIDS[:, 0], 1]).all()
        right = [np.linalg.norm(shapes[:, p[1], :2] - shapes[:, p[0], :2], axis=-1) for p in LID_PAIRS_RIGHT[1:6]]
        width = np.linalg.norm(shapes[:, 33, :2] - shapes[:, 133, :2], axis=-1)
        assert (np.mean(right, axis=0) / width).max() <= limits.EYE_OPENING.most + 1e-3
    assert eye_opening(track.neutral[None])[0] < limits.EYE_OPENING.free


def test_wide_eyes_of_a_portrait_are_its_own() -> None:
    neutral = still(1).neutral.copy()
    neutral[LIDS[:, 0], 1] -= 0.06
    assert eye_opening(neutral[None])[0] > limits.EYE_OPENING.most
    track = replace(still(5), neutral=neutral)
    assert apart(limited(track), track) < 1e-6


def test_eyes_look_no_further_aside() -> None:
    track = still()
    moved = track.displacements.copy()
    moved[:, MESH_POINTS:, :2] += np.linspace(-0.3, 0.3, 100, dtype=np.float32)[:, None, None]
    held = limited(replace(track, displacements=moved))
    away = np.abs(held.displacements[:, MESH_POINTS:, :2]).max(axis=(0, 1))
    assert away[0] <= limits.GAZE_ACROSS.most + 1e-6
    assert away[1] <= limits.GAZE_DOWN.most + 1e-6
    assert np.ptp(held.displacements[:, 468:473, 0], axis=1).max() < 1e-6  # an iris stays round


def test_heads_turn_no_further_than_one_picture_shows() -> None:
    track = limited(speaking(turn_deg=60))
    rotation = track.rotation.astype(np.float64)
    assert (np.abs(euler_degrees(rotation[0].T @ rotation)).max(axis=0) <= MOST_TURNED_DEG + 0.01).all()


def test_it_takes_a_strong_jaw_back() -> None:
    track: LandmarkTrack = jaw_strength(speaking(), 3.0)
    assert openings(track).max() > openings(limited(track)).max() > openings(speaking()).max()
