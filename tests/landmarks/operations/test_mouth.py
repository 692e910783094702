from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atldiff.landmarks.mouth import OPEN
from atldiff.landmarks.operations.mouth import (
    closed_in_silence,
    jaw_strength,
    lip_strength,
    met,
    resting,
    speaks,
    speech_gate,
)
from atldiff.landmarks.operations.regions import CHIN, REGIONS, jaw_weights, region_weights
from atldiff.landmarks.topology import JAW, LIPS, LIPS_INNER, LIPS_OUTER, lip_opening
from atldiff.types import LandmarkTrack
from made_tracks import apart, openings, same, speaking, still

STRENGTHS = [lip_strength, jaw_strength]


def chin(track: LandmarkTrack) -> np.ndarray:
    return track.displacements[:, CHIN, 1].mean(axis=1)


def width(track: LandmarkTrack) -> np.ndarray:
    corners = track.displacements[:, [61, 291], 0]
    return corners[:, 1] - corners[:, 0]


class TestRegions:
    def test_they_share_the_face(self) -> None:
        weights = np.stack([region_weights(name) for name in REGIONS])
        assert np.allclose(weights.sum(axis=0), 1, atol=1e-6)
        assert weights.min() >= 0
        assert (region_weights("lips")[LIPS] == 1).all()
        assert not region_weights("lips")[CHIN].any()
        assert (region_weights("jaw")[CHIN] == 1).all()

    def test_the_jaw_hangs_from_the_ears(self) -> None:
        weights = jaw_weights()
        assert (weights[CHIN] == 1).all()
        assert weights[13] == weights[0] == 0  # the upper lip
        assert weights[14] == weights[17] == 1  # the lower one
        assert 0.2 < weights[61] == weights[291] < 0.4
        half = weights[JAW[:11]]
        assert (np.diff(half) >= 0).all()
        for ring in (LIPS_OUTER, LIPS_INNER):
            assert np.allclose(weights[ring[11:]], weights[ring[11:]][::-1])
        assert not weights[mean_shape_above()].any()


def mean_shape_above() -> np.ndarray:
    from atldiff.landmarks.shape import mean_shape

    return np.flatnonzero(mean_shape()[:, 1] < 0.15)


@pytest.mark.parametrize("operation", STRENGTHS)
class TestStrengths:
    def test_one_changes_nothing(self, operation) -> None:
        track = speaking()
        assert operation(track, 1.0) is track
        assert len(operation(track.slice(0, 0), 2.0)) == 0

    def test_two_gains_multiply(self, operation) -> None:
        track = speaking()
        for first, second in ((0.5, 1.6), (2.0, 1.5), (0.25, 0.1)):
            assert apart(operation(operation(track, first), second), operation(track, first * second)) < 1e-5
        assert apart(operation(operation(track, 0), 2.0), operation(track, 0)) < 3e-4

    def test_nothing_else_changes(self, operation) -> None:
        track = speaking()
        other = operation(track, 1.7)
        assert (len(other), other.fps) == (len(track), track.fps)
        assert other.rotation is track.rotation
        assert np.array_equal(other.displacements[:, mean_shape_above()], track.displacements[:, mean_shape_above()])

    @pytest.mark.parametrize("gain", [-0.1, 3.1, np.nan, np.inf])
    def test_gains_out_of_range(self, operation, gain: float) -> None:
        with pytest.raises(ValueError, match=rf"^{operation.__name__}: got {gain}, expected 0 to 3$"):
            operation(speaking(3), gain)

    def test_a_smile_at_rest_stays(self, operation) -> None:
        """Of a portrait that shows its teeth the lips are brought together first: that is no expression."""
        track = speaking()
        apart_by = 0.1 * jaw_weights()[:, None] * np.array([0, 1, 0], np.float32)
        smiling = replace(track, neutral=track.neutral + apart_by, displacements=track.displacements - apart_by)
        assert float(lip_opening(smiling.neutral)) > OPEN
        gained = openings(operation(smiling, 2.0))
        wanted = openings(operation(track, 2.0))
        assert np.abs(gained - wanted).max() < 0.02
        assert np.abs(resting(smiling) + apart_by)[CHIN].max() < 0.02


def test_the_jaw_alone_opens_the_mouth_and_lips_alone_shape_it() -> None:
    track = speaking()
    wide, open_ = lip_strength(track, 2.0), jaw_strength(track, 2.0)
    assert np.allclose(chin(wide), chin(track), atol=1e-6)
    assert np.allclose(width(wide), 2 * width(track), atol=1e-5)
    assert np.allclose(chin(open_), 2 * chin(track), atol=1e-6)
    assert np.allclose(width(open_), width(track), atol=1e-6)
    assert np.allclose(np.ptp(openings(open_)), 2 * np.ptp(openings(track)), rtol=0.15)
    assert apart(jaw_strength(wide, 0.5), lip_strength(jaw_strength(track, 0.5), 2.0)) < 1e-5  # in either order


def test_lips_meet_and_never_cross() -> None:
    track = speaking()
    pressed = replace(
        track, displacements=track.displacements - 0.05 * jaw_weights()[:, None] * np.array([0, 1, 0], "f")
    )
    upper, lower = LIPS_INNER[1:10], LIPS_INNER[:10:-1]
    height = (pressed.neutral + pressed.displacements)[..., 1]
    assert (height[:, lower] < height[:, upper] - 0.01).any()
    closed = met(pressed)
    height = (closed.neutral + closed.displacements)[..., 1]
    assert (height[:, lower] >= height[:, upper] - 1e-6).all()
    assert apart(met(closed), closed) < 1e-6
    assert apart(met(track), track) < 1e-6


class TestSilence:
    def test_what_is_spoken_stays(self) -> None:
        track = speaking(150)
        assert speaks(track).all()
        assert np.array_equal(closed_in_silence(track).displacements, track.displacements)
        assert np.array_equal(closed_in_silence(track, np.ones(150)).displacements, track.displacements)

    @pytest.mark.parametrize("fps", [25, 50, 30])
    @pytest.mark.parametrize("kind", ["mumbling", "hanging open", "trembling"])
    def test_a_mouth_that_does_not_speak_is_closed_after_200_ms(self, fps: int, kind: str) -> None:
        track = speaking(6 * fps, fps)
        seconds = np.arange(6 * fps) / fps
        after = 3 * fps
        spoken = openings(track)[:after]
        speech = np.ptp(np.percentile(spoken, (5, 95)))
        size = {"mumbling": 0.03 * np.sin(2 * np.pi * 4 * seconds), "hanging open": 0.4 + 0 * seconds,
                "trembling": np.random.default_rng(0).normal(0, 0.01, len(seconds))}[kind]  # fmt: skip
        moved = track.displacements.copy()
        silent = (0.05 + size)[:, None, None] * speech * jaw_weights()[:, None] * np.array([0, 1, 0])
        moved[after:] = silent[after:]
        closed = closed_in_silence(replace(track, displacements=moved))
        rest = openings(still(1))[0]
        late = after + 1 + round(0.2 * fps)
        assert np.abs(openings(closed)[late:] - rest).max() < 0.02 * speech
        assert np.abs(moved[late:, LIPS]).max() > 0.02 * speech  # it was not before
        assert np.array_equal(openings(closed)[: after - fps // 10], spoken[: after - fps // 10])

    def test_a_recording_knows_better(self) -> None:
        track = speaking()
        gate = np.r_[np.ones(50), np.linspace(1, 0, 5), np.zeros(45)]
        closed = closed_in_silence(track, gate)
        assert np.array_equal(closed.displacements[:50], track.displacements[:50])
        assert np.abs(openings(closed)[55:] - openings(still(1))[0]).max() < 1e-6
        above = mean_shape_above()
        assert np.array_equal(closed.displacements[:, above], track.displacements[:, above])  # lids and brows go on
        again = closed_in_silence(closed, gate > 0)
        assert np.abs(again.displacements - closed.displacements)[:, LIPS].max() < 1e-6  # what is closed stays so

    def test_pauses_between_words_are_none(self) -> None:
        track = speaking(150)
        moved = track.displacements.copy()
        moved[60:66] = moved[60]
        assert speaks(replace(track, displacements=moved)).all()

    def test_a_face_that_never_speaks(self) -> None:
        assert not speech_gate(still()).any()
        assert not speech_gate(still(1)).any()
        assert same(closed_in_silence(still()), still())
        assert len(closed_in_silence(still(0))) == 0

    def test_a_gate_of_another_length(self) -> None:
        with pytest.raises(ValueError, match=r"^gate: got shape \(3,\), expected \(100,\)$"):
            closed_in_silence(speaking(), np.ones(3))
