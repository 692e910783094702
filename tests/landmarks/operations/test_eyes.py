from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atldiff.landmarks.blink import EYE_CORNERS, eye_opening, find_blinks
from atldiff.landmarks.geometry import rotation_from_euler
from atldiff.landmarks.operations.eyes import EYEBALL, blink_times, eyes_held, with_blinks, without_blinks
from atldiff.landmarks.topology import LID_PAIRS_LEFT, LID_PAIRS_RIGHT, LIPS, MESH_POINTS
from atldiff.types import LandmarkTrack
from made_tracks import apart, same, speaking, still

LIDS = np.concatenate([LID_PAIRS_RIGHT, LID_PAIRS_LEFT])


def blinks_of(track: LandmarkTrack) -> list[float]:
    opening = eye_opening((track.neutral + track.displacements).astype(np.float64))
    moments = np.arange(0, len(track), float(track.fps) / 25)
    found = find_blinks(np.interp(moments, np.arange(len(track)), opening))
    return [blink.frame / 25 for blink in found]


class TestBlinks:
    @pytest.mark.parametrize("fps", [25, 30, 50])
    def test_they_are_taken_out_and_put_in_where_told(self, fps: int) -> None:
        track = speaking(4 * fps, fps)
        assert blinks_of(track) == pytest.approx([1.2, 3.0], abs=0.05)
        without = without_blinks(track)
        assert blinks_of(without) == []
        opening = eye_opening(without.neutral + without.displacements)
        assert opening.min() > 0.9 * np.median(opening)
        moved = with_blinks(without, [0.6, 2.2])
        assert blinks_of(moved) == pytest.approx([0.6, 2.2], abs=0.05)
        assert (len(moved), moved.fps) == (len(track), track.fps)

    def test_nothing_changes_nothing(self) -> None:
        track = speaking()
        assert with_blinks(track, []) is track
        assert apart(with_blinks(track, [2.0], depth=0), track) == 0
        assert same(without_blinks(without_blinks(track)), without_blinks(track))
        open_eyes = speaking(blinks=())
        assert without_blinks(open_eyes) is open_eyes
        for frames in (0, 1, 2):
            assert len(without_blinks(speaking(frames))) == len(with_blinks(speaking(frames), [0.0])) == frames

    def test_put_in_and_taken_out_again(self) -> None:
        track = speaking(blinks=())
        blinking = with_blinks(track, [1.0, 2.5])
        assert apart(blinking, track) > 0.05
        assert apart(without_blinks(blinking), track) < 0.02

    def test_only_lids_move_and_never_cross(self) -> None:
        track = speaking(blinks=())
        squint = replace(track, displacements=track.displacements.copy())
        squint.displacements[:, LIDS[:, 0], 1] += 0.005
        for base in (track, squint):
            moved = with_blinks(base, [0.5, 1.2, 1.3, 2.6])
            shapes = moved.neutral + moved.displacements
            assert (shapes[:, LIDS[:, 1], 1] - shapes[:, LIDS[:, 0], 1] > 0).all()
            still_ones = np.concatenate([LIPS, np.arange(MESH_POINTS, 478), [33, 133, 362, 263]])
            assert np.array_equal(moved.displacements[:, still_ones], base.displacements[:, still_ones])

    def test_depth(self) -> None:
        track = speaking(blinks=())
        openings = [eye_opening(t.neutral + t.displacements)[30] for t in
                    (with_blinks(track, [1.2], depth) for depth in (0, 0.5, 1))]  # fmt: skip
        assert openings[1] == pytest.approx(openings[0] / 2, rel=0.1)
        assert openings[2] < 0.1 * openings[0]

    @pytest.mark.parametrize("rate", [0.2, 0.6, 1.5])
    def test_a_rate(self, rate: float) -> None:
        times = blink_times(2000, rate, seed=3)
        assert len(times) / 2000 == pytest.approx(rate, rel=0.1)
        assert (np.diff(times) > 0.05).all()
        assert 0 <= times[0] < times[-1] < 2000
        assert times == blink_times(2000, rate, seed=3) != blink_times(2000, rate, seed=4)

    def test_no_rate_and_wrong_ones(self) -> None:
        assert blink_times(100, 0) == []
        for rate in (-0.1, 2.1, np.nan):
            with pytest.raises(ValueError, match=f"^blink_rate_hz: got {rate}, expected 0 to 2$"):
                blink_times(10, rate)
        for wrong in (-1.0, np.nan, np.inf):
            with pytest.raises(ValueError, match=f"^blink_times: got {wrong}, expected seconds from 0 on$"):
                with_blinks(speaking(3), [0.5, wrong])
        with pytest.raises(ValueError, match="^blink depth: got 2, expected 0 to 1$"):
            with_blinks(speaking(3), [0.5], 2)


def looking(track: LandmarkTrack) -> np.ndarray:
    """Return where irises are between the corners of their eyes (T, 2 eyes, 2)."""
    shapes = track.neutral + track.displacements
    each = [
        shapes[:, i, :2] - shapes[:, list(c), :2].mean(axis=1) for i, c in zip((468, 473), EYE_CORNERS, strict=True)
    ]
    return np.stack(each, axis=1)


class TestGaze:
    def test_eyes_stay_where_they_look_while_the_head_turns(self) -> None:
        track = speaking(turn_deg=10)
        held = eyes_held(track)
        away = looking(held) - looking(still(1))
        wanted = EYEBALL * np.einsum("tji,j->ti", track.rotation, np.array([0, 0, -1]))[:, :2]
        wanted -= wanted[0]
        assert np.abs(away - wanted[:, None]).max() < 1e-3
        assert np.ptp(away[:, 0, 0]) > 0.04
        elsewhere = np.arange(MESH_POINTS)
        assert np.array_equal(held.displacements[:, elsewhere], track.displacements[:, elsewhere])
        assert held.rotation is track.rotation

    def test_again_is_the_same_and_a_still_head_looks_straight(self) -> None:
        track = speaking(turn_deg=10)
        assert apart(eyes_held(eyes_held(track)), eyes_held(track)) < 1e-5
        assert apart(eyes_held(eyes_held(track, 20, 5)), eyes_held(track)) < 1e-5  # the last word counts
        straight = replace(still(), rotation=np.tile(np.eye(3, dtype=np.float32), (100, 1, 1)))
        assert apart(eyes_held(straight), straight) < 1e-5

    @pytest.mark.parametrize(("yaw", "pitch"), [(15, 0), (-15, 0), (0, 10), (5, -5)])
    def test_a_direction(self, yaw: float, pitch: float) -> None:
        straight = replace(still(4), rotation=np.tile(np.eye(3, dtype=np.float32), (4, 1, 1)))
        away = (looking(eyes_held(straight, yaw, pitch)) - looking(straight))[0]
        assert np.allclose(away[0], away[1], atol=1e-6)  # both eyes alike
        assert np.sign(away[0, 0]) == -np.sign(yaw)  # to the left of the picture
        assert np.sign(away[0, 1]) == np.sign(pitch)
        assert np.hypot(*away[0]) == pytest.approx(EYEBALL * np.radians(np.hypot(yaw, pitch)), rel=0.05)

    def test_a_portrait_that_looks_aside_looks_at_the_camera_instead(self) -> None:
        for aside_deg, left_deg in ((3.0, 3.0), (20.0, 0.0)):  # a few degrees are the face's own
            neutral = still(1).neutral.copy()
            neutral[MESH_POINTS:, 0] += EYEBALL * np.radians(aside_deg)
            track = replace(still(3), neutral=neutral, rotation=np.tile(np.eye(3, dtype=np.float32), (3, 1, 1)))
            away = (looking(eyes_held(track)) - looking(still(1)))[0, 0, 0]
            assert away == pytest.approx(EYEBALL * np.radians(left_deg), abs=1e-4)

    def test_a_turned_portrait(self) -> None:
        """Eyes of a head that is photographed from the side look at the camera from the corner of the eye."""
        turned = rotation_from_euler(np.array(20.0), np.array(0.0), np.array(0.0))
        neutral = still(1).neutral.copy()
        neutral[MESH_POINTS:, 0] += EYEBALL * np.sin(np.radians(20))
        track = replace(still(3), neutral=neutral, rotation=np.tile(turned.astype(np.float32), (3, 1, 1)))
        assert apart(eyes_held(track), track) < 1e-3

    def test_wrong_directions(self) -> None:
        with pytest.raises(ValueError, match=r"^gaze yaw: got 50, expected -45 to 45 degrees$"):
            eyes_held(speaking(3), 50)
        with pytest.raises(ValueError, match=r"^gaze pitch: got nan"):
            eyes_held(speaking(3), 0, np.nan)
        assert len(eyes_held(speaking(0))) == 0
