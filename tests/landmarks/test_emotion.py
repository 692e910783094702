from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from atldiff.emotions import EMOTIONS
from atldiff.landmarks.blink import blink_displacement
from atldiff.landmarks.emotion import UNITS, emotion_displacements, with_emotion
from atldiff.landmarks.mouth import meet_lips
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import (
    BROW_LEFT,
    BROW_RIGHT,
    LID_PAIRS_LEFT,
    LID_PAIRS_RIGHT,
    LIPS_INNER,
    MESH_POINTS,
    OUTER_EYE_CORNERS,
    RIGID_WINDOW,
)
from atldiff.types import LandmarkTrack

FELT = [name for name in EMOTIONS if name != "neutral"]
LIDS = np.concatenate([LID_PAIRS_RIGHT, LID_PAIRS_LEFT])
UPPER, LOWER = LIPS_INNER[1:10], LIPS_INNER[:10:-1]


def track(frames: int = 30, seed: int = 0) -> LandmarkTrack:
    """Return a face that speaks and blinks: lips part and close, lids close at frame 10."""
    random = np.random.default_rng(seed)
    neutral = mean_shape().astype(np.float32)
    moved = random.normal(0, 0.002, (frames, 478, 3)).astype(np.float32)
    below = (neutral[:, 1] > 0.8) & (np.arange(478) < MESH_POINTS)
    moved[:, below, 1] += 0.1 * np.abs(np.sin(np.arange(frames) / 4))[:, None].astype(np.float32)
    moved = meet_lips(neutral, moved)
    moved[:, LIDS] = 0
    moved += blink_displacement(neutral, np.clip(1 - np.abs(np.arange(frames) - 10) / 3, 0, 1))
    return LandmarkTrack(
        neutral=neutral,
        displacements=moved.astype(np.float32),
        rotation=np.tile(np.eye(3, dtype=np.float32), (frames, 1, 1)),
        translation=np.full((frames, 3), 200, np.float32),
        scale=np.full(frames, 100, np.float32),
        fps=Fraction(25),
        size=(400, 400),
    )


def added(before: LandmarkTrack, emotion: str) -> np.ndarray:
    return with_emotion(before, emotion).displacements - before.displacements


@pytest.mark.parametrize("emotion", ["neutral", "neutral:1.5", *(f"{name}:0" for name in FELT)])
def test_nothing_asked_for_is_nothing_done(emotion: str) -> None:
    before = track()
    assert np.array_equal(with_emotion(before, emotion).displacements, before.displacements)


@pytest.mark.parametrize("emotion", FELT)
def test_offsets_are_linear_and_bounded(emotion: str) -> None:
    before = track()
    whole = added(before, emotion)
    for share in (0.25, 0.5, 1.5):
        assert np.allclose(added(before, f"{emotion}:{share}"), share * whole, atol=1e-6)
    assert 0.03 < np.abs(whole).max() < 0.13
    assert np.array_equal(with_emotion(before, emotion).rotation, before.rotation)


@pytest.mark.parametrize("emotion", FELT)
def test_lips_meet_and_part_as_they_did(emotion: str) -> None:
    """A closed mouth stays closed, an open one as open, and none is crossed."""
    before = track()
    after = with_emotion(before, f"{emotion}:1.5")
    gaps = [each.neutral[LOWER] + each.displacements[:, LOWER] - each.neutral[UPPER] - each.displacements[:, UPPER]
            for each in (before, after)]  # fmt: skip
    assert np.allclose(*gaps, atol=1e-6)
    assert gaps[1][..., 1].min() >= -1e-6
    assert gaps[1][..., 1].min() < 0.03  # lips did meet


@pytest.mark.parametrize("emotion", FELT)
def test_lids_never_cross_and_a_blink_closes_them(emotion: str) -> None:
    before = track()
    after = with_emotion(before, f"{emotion}:1.5")
    shapes = [each.neutral + each.displacements for each in (before, after)]
    gaps = [shape[:, LIDS[:, 1], 1] - shape[:, LIDS[:, 0], 1] for shape in shapes]
    assert gaps[1].min() > 0
    assert np.allclose(gaps[0][10], gaps[1][10], atol=0.004)  # shut
    assert np.array_equal(added(before, emotion)[:, MESH_POINTS:], np.zeros((30, 10, 3)))


@pytest.mark.parametrize("shape", ["narrow", "shut"])
def test_narrow_eyes_move_less_and_shut_ones_not_at_all(shape: str) -> None:
    before = track(3)
    neutral = before.neutral.copy()
    middle = neutral[LIDS].mean(axis=1, keepdims=True)
    neutral[LIDS] = middle + (neutral[LIDS] - middle) * {"narrow": 0.5, "shut": 0.1}[shape]
    still = np.zeros((1, 478, 3), np.float32)
    intensities = np.eye(len(EMOTIONS))[None, EMOTIONS.index("fear")]
    usual = emotion_displacements(before.neutral, still, intensities)[0, LIDS, 1]
    less = emotion_displacements(neutral, still, intensities)[0, LIDS, 1]
    assert np.allclose(less, {"narrow": 0.5, "shut": 0}[shape] * usual, atol=1e-3)


def test_a_face_shows_what_is_asked_for() -> None:
    still = track(1)
    move = {name: added(still, name)[0] for name in FELT}
    corners, brows = [61, 291], np.concatenate([BROW_RIGHT, BROW_LEFT])
    inner, lids = [107, 336], LIDS[:, 0]
    assert move["happy"][corners, 1].max() < -0.04  # up,
    assert move["happy"][61, 0] < -0.03 < 0.03 < move["happy"][291, 0]  # and apart
    assert move["sad"][corners, 1].min() > 0.03
    assert move["sad"][inner, 1].max() < -0.02
    assert move["angry"][inner, 1].min() > 0.04
    assert move["surprised"][brows, 1].max() < -0.03
    assert move["surprised"][lids, 1].max() < -0.01
    assert move["fear"][lids, 1].max() < move["surprised"][lids, 1].max()
    assert move["disgusted"][[64, 294], 1].max() < -0.02
    assert move["contempt"][291, 1] < -0.03  # on one side
    assert np.abs(move["contempt"][61]).max() < 0.005


@pytest.mark.parametrize("emotion", FELT)
def test_what_the_pose_is_fitted_to_hardly_moves(emotion: str) -> None:
    corners = added(track(1), emotion)[0, OUTER_EYE_CORNERS]
    assert np.abs(corners).max() < 1e-6
    assert np.abs(added(track(1), emotion)[0, RIGID_WINDOW]).mean() < 0.01


def test_other_faces_and_portions_change_nothing() -> None:
    before = track(60)
    whole = with_emotion(before, "neutral happy:0.8@0.5 angry@1.4")
    intensities = np.zeros((60, len(EMOTIONS)))
    intensities[:, EMOTIONS.index("happy")] = np.linspace(0, 1, 60)
    at_once = emotion_displacements(before.neutral, before.displacements, intensities)
    for cuts in ([1, 2, 7], [30], list(range(1, 60))):
        parts = zip(np.split(before.displacements, cuts), np.split(intensities, cuts), strict=True)
        pieces = [emotion_displacements(before.neutral, moved, strong) for moved, strong in parts]
        assert np.array_equal(np.concatenate(pieces), at_once)
    assert np.array_equal(whole.displacements[:12], before.displacements[:12])
    assert len(with_emotion(before.slice(0, 0), "happy")) == 0


def test_every_emotion_is_made_of_action_units() -> None:
    assert set(UNITS) == set(EMOTIONS)
