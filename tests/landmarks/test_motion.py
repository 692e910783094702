from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from atldiff.landmarks.edit import EYES, at_fps, retarget, scale_expression, smooth
from atldiff.landmarks.geometry import euler_degrees, rotation_from_euler
from atldiff.landmarks.motion import PIVOT, GaussianSmoother, limited_turn, pose_track, softly_limited
from atldiff.landmarks.operations.mouth import resting
from atldiff.landmarks.shape import mean_shape
from atldiff.types import LandmarkTrack
from made_tracks import closed_shape

PORTRAIT_ROTATION = rotation_from_euler(np.float64(12.0), np.float64(-5.0), np.float64(3.0))
PORTRAIT_TRANSLATION = np.array([250.0, 210.0, 8.0])
PACKETS = (1, 3, 8, 50)


def swaying(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a head that turns (T, 3) in degrees and shifts (T, 2)."""
    phase = 0.13 * np.arange(frames)[:, None] + np.arange(5)
    wave = np.sin(phase) - np.sin(np.arange(5))
    return wave[:, :3] * [3.0, 2.0, 1.5], wave[:, 3:] * 0.02


def make_track(frames: int = 40, seed: int = 0) -> LandmarkTrack:
    draws = np.random.default_rng(seed)
    euler, shift = swaying(frames)
    rotation, scale, translation = pose_track(PORTRAIT_ROTATION, 90.0, PORTRAIT_TRANSLATION, euler, shift)
    return LandmarkTrack(
        neutral=mean_shape().astype(np.float32),
        displacements=draws.normal(0, 0.02, (frames, 478, 3)).astype(np.float32),
        rotation=rotation,
        translation=translation,
        scale=(scale * np.linspace(1, 1.1, frames)).astype(np.float32),
        fps=Fraction(25),
        size=(512, 480),
    )


# a head's pose


@pytest.mark.parametrize(("yaw", "right", "left"), [(0.0, 14, 14), (18.0, 5, 14), (-12.0, 14, 10)])
def test_turns_stay_within_what_one_picture_shows(yaw: float, right: float, left: float) -> None:
    portrait = rotation_from_euler(np.float64(yaw), np.float64(0), np.float64(0))
    sweep = np.linspace(-40, 40, 161)
    turned, less = limited_turn(np.stack([sweep] * 3, axis=1), portrait)
    assert turned[-1] == pytest.approx([right, 12, 25], rel=0.05)
    assert turned[0] == pytest.approx([-left, -12, -25], rel=0.05)
    assert (np.diff(turned, axis=0) > 0).all()  # what is further still goes further, without a step
    assert np.diff(turned, axis=0).max() < 0.51
    within = np.abs(sweep) <= 0.5 * min(right, left, 12)
    assert np.array_equal(turned[within], np.stack([sweep] * 3, axis=1)[within])
    assert not less[within].any()
    assert less[[0, -1]].all()


def test_a_soft_limit_does_not_depend_on_the_split() -> None:
    values = np.random.default_rng(0).normal(0, 2, 500)
    whole = softly_limited(values, 1.0)
    assert np.abs(whole).max() <= 1
    for packet in PACKETS:
        parts = [softly_limited(values[i : i + packet], 1.0) for i in range(0, len(values), packet)]
        assert np.array_equal(np.concatenate(parts), whole)


def test_the_pose_does_not_depend_on_the_split() -> None:
    turns, shifts = swaying(700)

    def pose(part: slice) -> np.ndarray:
        rotation, scale, translation = pose_track(
            PORTRAIT_ROTATION, 90.0, PORTRAIT_TRANSLATION, turns[part], shifts[part]
        )
        return np.concatenate([rotation.reshape(-1, 9), scale[:, None], translation], axis=1)

    whole = pose(slice(None))
    for packet in PACKETS:
        parts = [pose(slice(i, i + packet)) for i in range(0, len(turns), packet)]
        assert np.array_equal(np.concatenate(parts), whole)


def test_pose_without_motion_is_the_portrait_s() -> None:
    rotation, scale, translation = pose_track(
        PORTRAIT_ROTATION, 90.0, PORTRAIT_TRANSLATION, np.zeros((3, 3)), np.zeros((3, 2))
    )
    assert np.array_equal(rotation, np.broadcast_to(PORTRAIT_ROTATION.astype(np.float32), (3, 3, 3)))
    assert np.array_equal(scale, np.full(3, 90, np.float32))
    assert np.array_equal(translation, np.broadcast_to(PORTRAIT_TRANSLATION.astype(np.float32), (3, 3)))


def test_no_frames_give_no_frames() -> None:
    euler, shift = swaying(0)
    rotation, scale, translation = pose_track(PORTRAIT_ROTATION, 90.0, PORTRAIT_TRANSLATION, euler, shift)
    assert (rotation.shape, scale.shape, translation.shape) == ((0, 3, 3), (0,), (0, 3))
    empty = make_track().slice(0, 0)
    for edited in (smooth(empty, 2), scale_expression(empty, 2), at_fps(empty, Fraction(30))):
        assert len(edited) == 0
    assert len(retarget(empty, empty.neutral, PORTRAIT_ROTATION, 90.0, PORTRAIT_TRANSLATION, (64, 64))) == 0


def test_head_turns_about_the_pivot_and_shifts_in_the_picture() -> None:
    def place(euler: list[float], shift: list[float]) -> np.ndarray:
        rotation, scale, translation = pose_track(
            PORTRAIT_ROTATION, 90.0, PORTRAIT_TRANSLATION, np.array([euler]), np.array([shift])
        )
        return scale[0] * np.vstack([mean_shape(), PIVOT]) @ rotation[0].T.astype(np.float64) + translation[0]

    still = place([0, 0, 0], [0, 0])
    for euler in ([2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0]):
        moved = np.linalg.norm(place(euler, [0, 0]) - still, axis=1)
        assert moved[-1] < 1e-3  # the pivot
        assert moved[:468].max() > 1
    for euler in ([0, 2.0, 0], [0, 0, 2.0]):  # nod and tilt: forehead (10) wide, chin (152) little
        moved = np.linalg.norm(place(euler, [0, 0]) - still, axis=1)
        assert moved[10] > 1.4 * moved[152]
    assert np.allclose(place([0, 0, 0], [0.01, -0.02]) - still, [0.9, -1.8, 0], atol=1e-3)


# smoothing


def smoothed(rows: np.ndarray, sigma: float, packet: int) -> np.ndarray:
    smoother = GaussianSmoother(sigma)
    parts = [smoother.push(rows[i : i + packet]) for i in range(0, len(rows), packet)]
    return np.concatenate([*parts, smoother.flush()])


@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.0, 2.5, 5.0])
@pytest.mark.parametrize("frames", [1, 4, 61])
def test_smoother_is_the_gaussian_whatever_the_split(sigma: float, frames: int) -> None:
    rows = np.random.default_rng(1).normal(size=(frames, 6)).astype(np.float32)
    reach = GaussianSmoother(sigma).lookahead
    assert reach == np.ceil(3 * sigma)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / (sigma or 1)) ** 2)
    padded = rows[np.clip(np.arange(frames)[:, None] + offsets, 0, frames - 1)].astype(np.float64)  # (F, taps, D)
    expected = (padded * (weights / weights.sum())[:, None]).sum(axis=1)
    whole = smoothed(rows, sigma, frames)
    assert whole.dtype == np.float32
    assert np.allclose(whole, expected, atol=1e-6)
    for packet in PACKETS:
        assert np.array_equal(smoothed(rows, sigma, packet), whole)


def test_smoother_emits_as_soon_as_it_can() -> None:
    rows = np.ones((10, 2), np.float32)
    assert np.array_equal(GaussianSmoother(0).push(rows), rows)
    smoother = GaussianSmoother(1.0)
    assert len(smoother.push(rows[:3])) == 0
    assert len(smoother.push(rows[:1])) == 1
    assert len(smoother.flush()) == 3
    for sigma in (0.0, 1.0):
        empty = GaussianSmoother(sigma)
        assert empty.push(rows[:0]).shape == (0, 2)
        assert empty.flush().shape == (0, 2)
    with pytest.raises(ValueError, match="sigma_frames: got -1"):
        GaussianSmoother(-1)


# edits of a track


def test_smooth_keeps_the_mean_and_calms_the_motion() -> None:
    track = make_track()
    calm = smooth(track, 1.5)
    assert len(calm) == len(track)
    assert calm.displacements.std() < 0.6 * track.displacements.std()
    assert np.array_equal(calm.rotation, track.rotation)
    assert np.array_equal(smooth(track, 0).displacements, track.displacements)


def test_expression_gain_leaves_the_eyes() -> None:
    track = replace(make_track(), neutral=closed_shape())  # of open lips the gain is about those at rest
    strong = scale_expression(track, 1.7)
    others = np.setdiff1d(np.arange(478), EYES)
    assert np.allclose(strong.displacements[:, others], 1.7 * track.displacements[:, others])
    assert np.array_equal(strong.displacements[:, EYES], track.displacements[:, EYES])
    assert np.array_equal(scale_expression(track, 1).points(), track.points())
    opened = replace(track, neutral=mean_shape().astype(np.float32))
    rest, kept = resting(opened), scale_expression(opened, 0).displacements[:, others]
    assert rest.any()
    assert np.allclose(kept, rest[others], atol=1e-6)
    with pytest.raises(ValueError, match="gain: got nan"):
        scale_expression(track, float("nan"))


def test_retarget_onto_itself_is_identity() -> None:
    track = make_track()
    same = retarget(track, track.neutral, track.rotation[0], float(track.scale[0]), track.translation[0], track.size)
    assert np.array_equal(same.displacements, track.displacements)
    assert np.abs(same.points() - track.points()).max() < 2e-3  # pixels


def test_retarget_carries_the_motion_to_another_pose() -> None:
    track = make_track()
    neutral = (mean_shape() * [1.1, 0.95, 1.0]).astype(np.float32)
    rotation = rotation_from_euler(np.float64(-20.0), np.float64(4.0), np.float64(-2.0))
    translation = np.array([400.0, 300.0, 0.0])
    other = retarget(track, neutral, rotation, 150.0, translation, (800, 600))
    assert other.size == (800, 600)
    assert other.fps == track.fps
    assert np.allclose(other.rotation[0], rotation, atol=1e-6)
    assert np.allclose(other.translation[0], translation, atol=1e-3)
    assert np.isclose(other.scale[0], 150)
    assert np.isclose(other.scale[-1] / other.scale[0], 1.1, rtol=1e-4)
    own = np.swapaxes(track.rotation[:1], 1, 2) @ track.rotation
    assert np.allclose(euler_degrees(rotation.T @ other.rotation), euler_degrees(own), atol=1e-3)

    still = retarget(track, neutral, rotation, 150.0, translation, (800, 600), keep_pose=False)
    assert np.ptp(still.rotation, axis=0).max() == np.ptp(still.translation, axis=0).max() == np.ptp(still.scale) == 0
    back = (still.points() - translation) @ rotation / 150 - neutral
    assert np.allclose(back, track.displacements, atol=1e-5)
    with pytest.raises(ValueError, match="pose: got rotation"):
        retarget(track, neutral, rotation[:2], 150.0, translation, (800, 600))


@pytest.mark.parametrize("rate", ["25", "50", "30", "30000/1001", "24", "10"])
def test_other_frame_rates_show_the_same_time(rate: str) -> None:
    track, fps = make_track(), Fraction(rate)
    other = at_fps(track, fps)
    assert other.fps == fps
    assert len(other) == int(np.ceil(40 * float(fps) / 25 - 1e-9))
    for index in range(len(other)):
        moment = index * track.fps / fps
        if moment.denominator == 1 and moment < len(track):
            here = int(moment)
            assert np.array_equal(other.displacements[index], track.displacements[here])
            assert np.array_equal(other.rotation[index], track.rotation[here])
            assert np.array_equal(other.translation[index], track.translation[here])
    turned = np.swapaxes(other.rotation, 1, 2) @ other.rotation
    assert np.allclose(turned, np.eye(3), atol=1e-5)
    seconds = np.arange(len(other)) / float(fps)
    for have, want in (
        (other.scale, track.scale),
        (euler_degrees(other.rotation)[:, 0], euler_degrees(track.rotation)[:, 0]),
        (other.displacements[:, 13, 1], track.displacements[:, 13, 1]),
    ):
        assert np.allclose(have, np.interp(seconds, np.arange(40) / 25, want), atol=2e-3)


def test_a_single_frame_at_another_rate_lasts_as_long() -> None:
    track = make_track().slice(0, 1)
    other = at_fps(track, Fraction(60))
    assert len(other) == 3
    for name in ("displacements", "rotation", "scale", "translation"):
        assert np.array_equal(getattr(other, name), np.repeat(getattr(track, name), 3, axis=0)), name
    with pytest.raises(ValueError, match="fps: got 0"):
        at_fps(track, Fraction(0))
