"""What moves the face apart from speech: our own motion bit for bit, a driver's forth and back."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from atldiff.landmarks.blink import FOLD_LEFT, FOLD_RIGHT, blink_displacement, eye_opening, find_blinks
from atldiff.landmarks.geometry import euler_degrees, rotation_from_euler
from atldiff.landmarks.motion import PIVOT, RAMP_FRAMES, pose_track
from atldiff.landmarks.motion_model import own_motion
from atldiff.landmarks.rest import lower_face
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import (
    BROW_LEFT,
    BROW_RIGHT,
    EYE_LEFT,
    EYE_RIGHT,
    IRIS_LEFT,
    JAW,
    LID_PAIRS_LEFT,
    LID_PAIRS_RIGHT,
    LIPS,
    MESH_POINTS,
)
from atldiff.landmarks.visible import MAX_LID_RATIO, MOST_SHIFT, DrivingTrack, MotionModel, open_visible
from atldiff.types import Controls, LandmarkTrack

NEUTRAL = mean_shape().astype(np.float32)
ROTATION = rotation_from_euler(np.array(8.0), np.array(-3.0), np.array(2.0))
SCALE, TRANSLATION = 90.0, np.array([160.0, 140.0, 5.0])
SIZE = (320, 300)
FRAMES = np.arange(60)


def driver(frames: int = 7, seed: int = 0) -> LandmarkTrack:
    random = np.random.default_rng(seed)
    angles = random.uniform(-1.5, 1.5, (3, frames))  # what is carried over as it is
    return LandmarkTrack(
        neutral=NEUTRAL,
        displacements=random.normal(0, 0.01, (frames, 478, 3)).astype(np.float32),
        rotation=rotation_from_euler(*angles).astype(np.float32),
        translation=random.normal(200, 3, (frames, 3)).astype(np.float32),
        scale=random.normal(120, 1, frames).astype(np.float32),
        fps=Fraction(25),
        size=(480, 640),
    )


def driving(track: LandmarkTrack, neutral: np.ndarray = NEUTRAL) -> DrivingTrack:
    return DrivingTrack(track, neutral, ROTATION, SCALE, TRANSLATION, SIZE)


def spoken(frames: int, seed: int = 0) -> np.ndarray:
    """Return log-mel columns (4 T, 80) of a sound that swells twice a second."""
    swell = np.sin(np.arange(4 * frames) * 2 * np.pi / 50)[:, None]
    return (np.random.default_rng(seed).normal(-1, 0.2, (4 * frames, 80)) + swell).clip(-3, 0.5).astype(np.float32)


def model(controls: Controls, rotation: np.ndarray = ROTATION, frames: int = 60) -> MotionModel:
    made = MotionModel(NEUTRAL, controls, rotation, SCALE, TRANSLATION)
    made.hear(spoken(frames))
    made.end()
    return made


def test_our_own_motion_begins_at_rest_on_the_portrait() -> None:
    made = model(Controls(seed=2), frames=200)
    assert not made.driven
    frames = np.arange(200)
    rotation, scale, translation = made.pose(frames)
    assert np.array_equal(rotation[0], ROTATION.astype(np.float32))
    assert np.allclose(translation[0], TRANSLATION)
    assert (scale == np.float32(SCALE)).all()
    turned = made.euler_deg(frames)
    base = scale[:, None] * (rotation @ PIVOT) + translation  # the neck hardly moves
    assert 0.005 < np.abs(base - base[0]).max() / SCALE <= MOST_SHIFT + 1e-3
    assert not turned[0].any()
    assert np.abs(turned[1]).max() < 0.02
    assert np.ptp(turned[int(RAMP_FRAMES) :], axis=0).min() > 0.5
    moved = made.displacements(frames)
    assert (moved.dtype, moved.shape) == (np.float32, (200, 478, 3))
    assert not moved[0].any()
    assert np.abs(moved[:, BROW_LEFT, 1]).max() > 0.002
    assert not moved[:, np.concatenate([LIPS, JAW])].any()
    assert np.array_equal(made.seen(frames), moved)


def test_controls_steer_our_own_motion() -> None:
    frames = np.arange(300)
    plain = model(Controls(seed=5), frames=300)
    half = model(Controls(seed=5, head_motion=0.5), frames=300)
    assert np.allclose(half.euler_deg(frames)[:40], plain.euler_deg(frames)[:40] / 2, atol=1e-9)
    unmoved = model(Controls(seed=5, head_motion=0, blink_rate_hz=1.0), frames=300)
    assert not unmoved.euler_deg(frames).any()
    assert (unmoved.pose(frames)[0] == ROTATION.astype(np.float32)).all()
    assert unmoved.displacements(frames).any()  # blinks
    staring = model(Controls(seed=5, head_motion=0, blink_rate_hz=0), frames=300)
    assert not staring.displacements(frames).any()
    other = model(Controls(seed=6), frames=300)
    assert not np.allclose(other.euler_deg(frames), plain.euler_deg(frames), atol=0.1)


def test_eyes_stay_with_whom_they_look_at() -> None:
    frames = np.arange(400)
    made = model(Controls(seed=4, blink_rate_hz=0), frames=400)
    gaze, yaw = made.displacements(frames)[:, IRIS_LEFT[0], 0], made.euler_deg(frames)[:, 0]
    assert np.corrcoef(gaze, yaw)[0, 1] > 0.6
    assert 0.0005 < (gaze * yaw).sum() / (yaw * yaw).sum() < 0.0023  # a degree; an eyeball that stays wholly: 0.0023
    assert not gaze[0]


def test_a_still_face_needs_no_sound() -> None:
    still = MotionModel(NEUTRAL, Controls(still=True, blink_rate_hz=0), ROTATION, SCALE, TRANSLATION)
    assert not still.displacements(FRAMES).any()
    assert not still.euler_deg(FRAMES).any()
    for ours, theirs in zip(
        still.pose(FRAMES), pose_track(ROTATION, SCALE, TRANSLATION, np.zeros((60, 3)), np.zeros((60, 2))), strict=True
    ):
        assert (ours.dtype, ours.tobytes()) == (theirs.dtype, theirs.tobytes())


def test_a_still_face_blinks_and_does_nothing_else() -> None:
    frames = np.arange(500)
    model = MotionModel(NEUTRAL, Controls(still=True), ROTATION, SCALE, TRANSLATION)
    model.end()
    moved = model.displacements(frames)
    lids = np.unique(np.concatenate([LID_PAIRS_RIGHT, LID_PAIRS_LEFT]))
    elsewhere = np.setdiff1d(np.arange(478), np.concatenate([lids, FOLD_RIGHT, FOLD_LEFT]))
    assert len(find_blinks(eye_opening(NEUTRAL + moved))) >= 4
    assert not moved[:, elsewhere].any()
    assert not model.euler_deg(frames).any()
    assert (model.pose(frames)[2] == model.pose(frames)[2][0]).all()


def test_a_turned_portrait_turns_less_on_that_side() -> None:
    frames = np.arange(1500)
    lively = own_motion("lively")
    yaw: list[np.ndarray] = []
    for angle in (0.0, 20.0):
        portrait = rotation_from_euler(np.array(angle), np.array(0.0), np.array(0.0))
        made = MotionModel(NEUTRAL, Controls(head_motion=2.0), portrait, SCALE, TRANSLATION, lively)
        made.hear(spoken(1500))
        made.end()
        turned = made.euler_deg(frames)
        assert (np.abs(turned) <= [14, 12, 25]).all()
        yaw.append(turned[:, 0])
    assert yaw[0].max() > 8
    assert yaw[1].max() <= 5
    assert np.array_equal(yaw[0][yaw[0] < 0], yaw[1][yaw[1] < 0])


@pytest.mark.parametrize("kind", ["model", "driver"])
def test_a_frame_does_not_depend_on_the_others(kind: str) -> None:
    visible = model(Controls(blink_rate_hz=2.0)) if kind == "model" else driving(driver())

    def everything(frames: np.ndarray) -> list[np.ndarray]:
        return [visible.displacements(frames), *visible.pose(frames), visible.euler_deg(frames)]

    whole = everything(FRAMES)
    assert [values.shape for values in whole] == [(60, 478, 3), (60, 3, 3), (60,), (60, 3), (60, 3)]
    for index in (0, 13, 59):
        for alone, all_of_them in zip(everything(np.array([index])), whole, strict=True):
            assert alone.tobytes() == all_of_them[[index]].tobytes()
    for before, first in zip(everything(np.array([-9, -1])), everything(np.array([0, 0])), strict=True):
        assert np.array_equal(before, first)
    assert all(len(values) == 0 for values in everything(np.zeros(0, np.int64)))


@pytest.mark.parametrize(("length", "order"), [(1, "0000000000"), (2, "0101010101"), (4, "0123210123")])
def test_a_short_driver_goes_forth_and_back(length: int, order: str) -> None:
    track, numbers = driver(length), [int(digit) for digit in order]
    rotation, scale, translation = driving(track).pose(np.arange(10))
    base = driving(track).pose(np.arange(length))
    for played, own in zip((rotation, scale, translation), base, strict=True):
        assert np.array_equal(played, own[numbers])
    assert np.array_equal(
        driving(track).displacements(np.arange(10)), driving(track).displacements(np.arange(length))[numbers]
    )


def test_the_driver_moves_all_but_what_speech_moves() -> None:
    track = driver()
    displacements = driving(track).displacements(np.arange(7))
    assert displacements.dtype == np.float32
    share = 1 - lower_face()
    mesh = slice(MESH_POINTS)
    assert np.allclose(displacements[:, mesh], track.displacements[:, mesh] * share[mesh, None], atol=1e-7)
    assert not displacements[:, LIPS].any()
    assert not displacements[:, JAW[8:13]].any()  # the chin
    eyes = np.concatenate([EYE_RIGHT, EYE_LEFT, BROW_RIGHT, BROW_LEFT])
    assert np.allclose(displacements[:, eyes], track.displacements[:, eyes], atol=1e-7)
    trembling = np.abs(np.diff(track.displacements[:, IRIS_LEFT], axis=0)).mean()
    assert 0 < np.abs(np.diff(displacements[:, IRIS_LEFT], axis=0)).mean() < trembling
    looks = replace(driver(40), displacements=np.zeros((40, 478, 3), np.float32))
    looks.displacements[20:, IRIS_LEFT, 0] = 0.03  # a saccade, which is no tremble
    assert np.allclose(driving(looks).displacements(np.arange(40)), looks.displacements, atol=1e-3)
    assert np.array_equal(driving(track).seen(np.arange(9)), track.displacements[[0, 1, 2, 3, 4, 5, 6, 5, 4]])


def test_the_head_starts_in_the_portrait_s_pose_and_turns_as_the_driver_s() -> None:
    track = driver()
    rotation, scale, translation = driving(track).pose(np.arange(7))
    assert np.allclose(rotation[0], ROTATION, atol=1e-6)
    assert scale[0] == pytest.approx(SCALE)
    assert np.allclose(translation[0], TRANSLATION, atol=1e-3)
    turns = track.rotation[0].astype(np.float64).T @ track.rotation
    assert np.allclose(ROTATION.T @ rotation, turns, atol=1e-5)
    assert np.allclose(scale / SCALE, track.scale / track.scale[0], atol=1e-5)
    assert np.allclose(driving(track).euler_deg(np.arange(7)), euler_degrees(turns), atol=1e-3)
    assert driving(track).driven


@pytest.mark.parametrize(("portrait_yaw", "most_right", "most_left"), [(0.0, 14, 14), (18.0, 5, 14), (-12.0, 14, 10)])
def test_a_head_turns_no_further_than_one_picture_shows(
    portrait_yaw: float, most_right: float, most_left: float
) -> None:
    yaw = np.concatenate([np.linspace(0, 60, 30), np.linspace(60, -60, 60)])
    angles = np.stack([yaw, yaw / 2, -yaw])
    track = replace(
        driver(len(yaw)),
        rotation=rotation_from_euler(*angles).astype(np.float32),
        translation=np.zeros((len(yaw), 3), np.float32),
        scale=np.ones(len(yaw), np.float32),
    )
    pose = rotation_from_euler(np.array(portrait_yaw), np.array(0.0), np.array(0.0))
    made = DrivingTrack(track, NEUTRAL, pose, SCALE, TRANSLATION, SIZE)
    turned = euler_degrees(pose.T @ made.pose(np.arange(len(yaw)))[0])
    assert np.allclose(made.euler_deg(np.arange(len(yaw))), turned, atol=1e-3)
    high, low = turned[:, 0].max(), turned[:, 0].min()
    assert 0.98 * most_right < high <= most_right + 1e-3
    assert -most_left - 1e-3 <= low < -0.98 * most_left
    assert np.abs(turned[:, 1:]).max(axis=0) == pytest.approx([12, 25], rel=0.02)
    assert np.abs(np.diff(turned[:, 0])).max() < 3  # however wildly the driver moves: no step
    # The pivot, at the base of the skull, goes where the driver's goes.
    rotation, scale, translation = made.pose(np.arange(len(yaw)))
    pivots = scale[:, None] * (rotation @ PIVOT) + translation
    driven = track.rotation.astype(np.float64) @ PIVOT
    assert np.allclose(pivots - pivots[0], SCALE * (driven - driven[0]), atol=0.05)


def opened(neutral: np.ndarray, gap: float) -> np.ndarray:
    """Return the shape with its eyes open by `gap` times as much: the upper lids moved."""
    shape = neutral.copy()
    for pairs in (LID_PAIRS_RIGHT, LID_PAIRS_LEFT):
        shape[pairs[:, 0], 1] += (1 - gap) * (shape[pairs[:, 1], 1] - shape[pairs[:, 0], 1])
    return shape


@pytest.mark.parametrize("gap", [0.6, 1.0, 1.5])
def test_a_blink_closes_eyes_of_another_size(gap: float) -> None:
    blink = replace(driver(1), displacements=blink_displacement(NEUTRAL, np.ones(1, np.float32)))
    portrait = opened(NEUTRAL, gap)
    shape = portrait + driving(blink, portrait).displacements(np.array([0]))[0]
    for pairs in (LID_PAIRS_RIGHT, LID_PAIRS_LEFT):
        before = portrait[pairs[:, 1], 1] - portrait[pairs[:, 0], 1]
        after = shape[pairs[:, 1], 1] - shape[pairs[:, 0], 1]
        assert np.allclose(after / before, 0.02, atol=1e-3)  # what our own blinks leave open


def test_a_driver_of_closed_eyes_is_not_blown_up() -> None:
    track = driver(1)
    brow = int(BROW_LEFT[0])
    for own, theirs, ratio in ((1, 0, 1), (2, 0.6, MAX_LID_RATIO), (1, 3, 1 / MAX_LID_RATIO)):
        carried = driving(replace(track, neutral=opened(NEUTRAL, theirs)), opened(NEUTRAL, own))
        got = carried.displacements(np.array([0]))[0]
        assert np.allclose(got[EYE_LEFT, 1], ratio * track.displacements[0, EYE_LEFT, 1], rtol=1e-4, atol=1e-6)
        assert np.allclose(got[EYE_LEFT, 0], track.displacements[0, EYE_LEFT, 0], atol=1e-6)
        assert np.allclose(got[brow], track.displacements[0, brow], atol=1e-6)


def test_which_of_the_two() -> None:
    pose = (NEUTRAL, ROTATION, SCALE, TRANSLATION, SIZE)
    assert isinstance(open_visible(None, Controls(still=True, blink_rate_hz=0), *pose), MotionModel)
    assert isinstance(open_visible(driver(), Controls(), *pose), DrivingTrack)
    with pytest.raises(ValueError, match=r"^still: got it with a driving track, .*; expected only one of them$"):
        open_visible(driver(), Controls(still=True, blink_rate_hz=0), *pose)
    with pytest.raises(ValueError, match="^driving track: got no frames, expected at least one$"):
        open_visible(driver().slice(0, 0), Controls(), *pose)
