from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atldiff.landmarks.geometry import euler_degrees
from atldiff.landmarks.motion import MOST_TURNED_DEG, PIVOT
from atldiff.landmarks.operations.head import (
    Keyframe,
    Pose,
    first_pose,
    head_of,
    head_strength,
    keyed_head,
    still,
    turned_less,
)
from atldiff.landmarks.operations.mixing import PARTS, in_step, mixed
from atldiff.landmarks.topology import BROW_LEFT, LIPS, MESH_POINTS
from atldiff.types import LandmarkTrack
from made_tracks import apart, same, speaking

KEYS = [Keyframe(0), Keyframe(1, 10, -5, 0), Keyframe(2.5, -8, 4, 12), Keyframe(3.2, -8, 4, 12)]


def turns(track: LandmarkTrack) -> np.ndarray:
    rotation = track.rotation.astype(np.float64)
    return euler_degrees(rotation[0].T @ rotation)


def pivots(track: LandmarkTrack) -> np.ndarray:
    return track.scale[:, None] * (track.rotation @ PIVOT) + track.translation


class TestKeyframes:
    def test_it_goes_through_all_of_them(self) -> None:
        track = keyed_head(speaking(), KEYS)
        for key in KEYS:
            frame = round(key.seconds * 25)
            if frame == key.seconds * 25:
                assert turns(track)[frame] == pytest.approx(key[1:], abs=0.01)
        assert turns(track)[-1] == pytest.approx(KEYS[-1][1:], abs=0.01)  # and stays
        assert np.abs(pivots(track) - pivots(track)[0]).max() < 1e-2

    def test_between_two_it_stays_between_them(self) -> None:
        angles = turns(keyed_head(speaking(), KEYS))
        for start, stop in zip(KEYS, KEYS[1:], strict=False):
            part = angles[round(start.seconds * 25) : round(stop.seconds * 25) + 1]
            low, high = np.minimum(start[1:], stop[1:]), np.maximum(start[1:], stop[1:])
            assert (part > low - 0.02).all()
            assert (part < high + 0.02).all()
        assert np.abs(np.diff(angles, 2, axis=0)).max() < 0.6  # no kinks

    def test_nothing_but_the_head_moves(self) -> None:
        track = speaking()
        keyed = keyed_head(track, KEYS)
        assert keyed.displacements is track.displacements
        assert (len(keyed), keyed.fps) == (100, 25)
        assert same(keyed_head(keyed, KEYS), keyed)
        assert len(keyed_head(speaking(0), KEYS)) == 0

    def test_from_a_portrait_s_pose(self) -> None:
        track = speaking()
        pose = Pose(np.eye(3), 120.0, np.array([10.0, 20.0, 0.0]))
        at_rest = keyed_head(track, [Keyframe(0)], pose)
        assert np.allclose(at_rest.rotation, np.eye(3))
        assert np.allclose(at_rest.translation, [10, 20, 0], atol=1e-4)
        assert (at_rest.scale == 120).all()

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            ([], "got no keyframes"),
            ([Keyframe(1), Keyframe(1)], "got keyframes at 1, 1 s, expected times that grow from 0 on"),
            ([Keyframe(-1)], "got keyframes at -1 s"),
            ([Keyframe(0, 91)], "got a yaw of 91 at 0 s, expected -90 to 90 degrees"),
            ([Keyframe(0, 0, -61)], "got a pitch of -61 at 0 s"),
            ([Keyframe(0, 0, 0, np.nan)], "got a roll of nan at 0 s"),
        ],
    )
    def test_wrong_ones(self, keys: list[Keyframe], said: str) -> None:
        with pytest.raises(ValueError, match=f"^head: {said}"):
            keyed_head(speaking(3), keys)


class TestOthers:
    def test_one_changes_nothing_and_gains_multiply(self) -> None:
        track = speaking()
        assert head_strength(track, 1) is track
        assert apart(head_strength(track, 0), still_pose(track)) < 1e-3
        assert apart(head_strength(head_strength(track, 0.5), 1.6), head_strength(track, 0.8)) < 1e-3
        assert np.allclose(turns(head_strength(track, 1.5)), 1.5 * turns(track), atol=0.02)
        for gain in (-1, 3.1, np.nan):
            with pytest.raises(ValueError, match=f"^head_motion: got {gain}, expected 0 to 3$"):
                head_strength(track, gain)

    def test_as_another_track_s(self) -> None:
        track, other = speaking(), speaking(seed=1, turn_deg=9)
        moved = head_of(track, other)
        assert np.allclose(turns(moved), turns(other), atol=0.01)
        assert moved.displacements is track.displacements
        assert apart(head_of(track, track), track) < 1e-4
        with pytest.raises(ValueError, match=r"^other track: got 50 frames at 25 fps, expected 100 at 25"):
            head_of(track, other.slice(0, 50))

    def test_still_blinks_and_speaks(self) -> None:
        track = speaking()
        held = still(track)
        assert np.abs(turns(held)).max() < 1e-3
        assert not held.displacements[:, BROW_LEFT].any()
        kept = np.concatenate([LIPS, [159, 145, 386, 374], np.arange(MESH_POINTS, 478)])
        assert np.array_equal(held.displacements[:, kept], track.displacements[:, kept])
        assert same(still(held), held)
        assert len(still(speaking(0))) == 0

    def test_no_further_than_one_picture_shows(self) -> None:
        near, far = speaking(turn_deg=5), speaking(turn_deg=40)
        assert turned_less(near)[0] is near
        held, less = turned_less(far)
        assert less.any()
        assert (np.abs(turns(held)).max(axis=0) <= MOST_TURNED_DEG).all()
        assert np.abs(pivots(held) - pivots(far)).max() < 0.01
        assert not turned_less(speaking(0))[1].any()


def still_pose(track: LandmarkTrack) -> LandmarkTrack:
    rotation, scale, translation = first_pose(track)
    frames = len(track)
    return replace(
        track,
        rotation=np.tile(rotation, (frames, 1, 1)),
        scale=np.full(frames, scale, np.float32),
        translation=np.tile(translation, (frames, 1)),
    )


class TestMixing:
    def test_all_or_nothing(self) -> None:
        track, other = speaking(), speaking(seed=1, blinks=(2.0,), turn_deg=9)
        assert mixed(track, other, {}) is track
        assert mixed(track, other, {"lips": 0.0}) is track
        whole = mixed(track, other, dict.fromkeys(PARTS, 1.0))
        assert np.abs(whole.displacements - other.displacements).max() < 1e-6
        assert np.allclose(turns(whole), turns(other), atol=0.01)
        assert apart(mixed(track, track, dict.fromkeys(PARTS, 0.7)), track) < 1e-4

    def test_parts_add_up(self) -> None:
        track, other = speaking(), speaking(seed=1, blinks=(2.0,))
        one_by_one = track
        for part in PARTS:
            one_by_one = mixed(one_by_one, other, {part: 1.0})
        assert apart(one_by_one, mixed(track, other, dict.fromkeys(PARTS, 1.0))) < 0.01  # seams apart
        half = mixed(track, other, {"brows": 0.5}).displacements[:, BROW_LEFT]
        assert np.allclose(half, (track.displacements + other.displacements)[:, BROW_LEFT] / 2, atol=1e-6)

    def test_only_what_was_asked_for(self) -> None:
        track, other = speaking(), speaking(seed=1, blinks=(2.0,), turn_deg=9)
        eyes = mixed(track, other, {"eyes": 1.0})
        assert np.array_equal(eyes.displacements[:, LIPS], track.displacements[:, LIPS])
        assert np.allclose(eyes.displacements[:, 159], other.displacements[:, 159], atol=1e-6)
        assert eyes.rotation is track.rotation
        head = mixed(track, other, {"head": 1.0})
        assert np.array_equal(head.displacements, track.displacements)
        halfway = mixed(track, other, {"head": 0.5})
        assert np.abs(turns(halfway) - (turns(track) + turns(other)) / 2).max() < 0.3

    def test_lips_hang_on_the_jaw_they_are_given(self) -> None:
        track, other = speaking(blinks=()), speaking(blinks=())
        other = replace(other, displacements=other.displacements * 0)
        closed = mixed(track, other, {"jaw": 1.0})
        assert np.abs(closed.displacements[:, [152, 14], 1]).max() < 1e-6
        assert np.allclose(np.ptp(closed.displacements[:, 61, 0]), np.ptp(track.displacements[:, 61, 0]))

    def test_steps(self) -> None:
        track, other = speaking(100), speaking(60, 50, seed=1)
        fitted = in_step(track, other)
        assert (len(fitted), fitted.fps) == (100, 25)
        assert np.array_equal(fitted.displacements[:30], other.displacements[::2])
        assert np.array_equal(fitted.displacements[30:59], fitted.displacements[28::-1])  # and back
        assert same(in_step(track, track), track)
        assert len(in_step(track, speaking(1))) == 100
        with pytest.raises(ValueError, match="^other track: got no frames"):
            in_step(track, speaking(0))

    @pytest.mark.parametrize(
        ("weights", "said"),
        [({"chin": 1.0}, "got 'chin', expected lips, jaw"), ({"jaw": 1.5}, "got jaw=1.5, expected 0 to 1")],
    )
    def test_wrong_weights(self, weights: dict, said: str) -> None:
        with pytest.raises(ValueError, match=f"^mix_regions: {said}"):
            mixed(speaking(3), speaking(3), weights)
