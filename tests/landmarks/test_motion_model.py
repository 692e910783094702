"""The motion model: a stream's is a file's, nothing drifts, it moves as the people it was learned from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atldiff.errors import CheckpointError
from atldiff.landmarks.blink import find_blinks
from atldiff.landmarks.geometry import from_canonical, rotation_from_euler, to_canonical
from atldiff.landmarks.motion_codes import BROWS, CODES, POSE, amplitudes, face_codes, heard_bands
from atldiff.landmarks.motion_model import MotionFrames, MotionStream, Style, load_motion, own_motion
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import BROW_LEFT, BROW_RIGHT
from atldiff.types import MOTION_STYLES

WEIGHTS, NATURAL = own_motion("natural")


def sound(frames: int, seed: int = 0) -> np.ndarray:
    """Return log-mel columns (4 T, 80) of syllables and pauses."""
    columns = np.arange(4 * frames)
    speaking = (columns // 250 % 3 < 2) * (0.5 + 0.5 * np.sin(columns * 2 * np.pi / 25))
    noise = np.random.default_rng(seed).normal(0, 0.15, (4 * frames, 80))
    return (noise - 2.8 + 2.6 * speaking[:, None]).clip(-3, 0.5).astype(np.float32)


def moved(frames: int, seed: int = 0, style: Style = NATURAL, blink_hz: float | None = None) -> MotionFrames:
    stream = MotionStream(WEIGHTS, style, seed, blink_hz)
    stream.hear(sound(frames))
    stream.end()
    return stream.frames(np.arange(frames))


TEN_MINUTES = moved(15_000)


def test_any_packets_and_orders_give_the_same_bits() -> None:
    columns, whole = sound(300), moved(300)
    for packet in (1, 3, 8, 40):
        stream, parts, done = MotionStream(WEIGHTS, NATURAL, 0), [], 0
        for start in range(0, len(columns), 4 * packet):
            stream.hear(columns[start : start + 4 * packet])
            known = min(300, start // 4 + packet)  # all that was heard: no frame waits for the next one's sound
            parts.append(stream.frames(np.arange(done, known)))
            done = known
            stream.forget(done - 8)
        joined = [np.concatenate(each) for each in zip(*parts, strict=True)]
        assert [each.tobytes() for each in joined] == [each.tobytes() for each in whole]
    stream = MotionStream(WEIGHTS, NATURAL, 0)
    stream.hear(columns)
    stream.end()
    backwards = stream.frames(np.arange(300)[::-1])
    assert np.array_equal(backwards.codes[::-1], whole.codes)
    assert np.array_equal(stream.frames(np.array([-5, -1])).codes, whole.codes[[0, 0]])


def test_a_frame_before_its_sound_is_refused() -> None:
    stream = MotionStream(WEIGHTS, NATURAL, 0)
    stream.hear(sound(20))
    stream.frames(np.arange(20))
    with pytest.raises(ValueError, match="before its sound"):
        stream.frames(np.array([24]))
    stream.end()
    assert stream.frames(np.array([24, 900])).codes.shape == (2, CODES)  # silence


def test_the_seed_and_the_sound_decide() -> None:
    assert np.array_equal(moved(100, 3).codes, moved(100, 3).codes)
    assert not np.allclose(moved(100, 3).codes, moved(100, 4).codes)
    stream = MotionStream(WEIGHTS, NATURAL, 0)
    stream.end()
    silent = stream.frames(np.arange(300)).codes
    assert not np.allclose(silent, moved(300).codes, atol=0.1)


def test_nothing_drifts_or_jumps_in_ten_minutes() -> None:
    codes = TEN_MINUTES.codes
    minutes = codes.reshape(10, -1, CODES)
    assert (np.abs(codes.mean(axis=0)) < 0.9 * codes.std(axis=0)).all()
    assert (np.abs(minutes.mean(axis=1)) < 1.1 * codes.std(axis=0)).all()
    spread = minutes.std(axis=1)
    assert (spread.max(axis=0) < 3 * spread.min(axis=0)).all()
    steps = np.abs(np.diff(codes[:, POSE], axis=0))
    assert np.percentile(steps, 99.9) < 6  # degrees a frame
    second = np.abs(np.diff(codes[:, POSE], n=2, axis=0))
    assert np.percentile(second, 99.9) < 3
    odd, even = second[1::2], second[::2]  # between steps of the model and on them: no jump where two meet
    assert odd.mean() < 2.5 * even.mean()
    assert even.mean() < 2.5 * odd.mean()


@pytest.mark.parametrize("style", MOTION_STYLES)
def test_styles_are_as_lively_as_they_say(style: str) -> None:
    wanted = own_motion(style)[1]
    frames = 5000
    made = moved(frames, 1, wanted)
    windows = made.codes[125:].reshape(-1, 125, CODES)
    head, brows = np.median([amplitudes(window) for window in windows], axis=0)
    assert 0.3 < head / wanted.head_deg < 1.3  # how far depends on the sound, and this is no voice
    assert 0.4 < brows / wanted.brows < 1.6
    assert len(find_blinks(0.3 * (1 - made.closure))) / (frames / 25) == pytest.approx(wanted.blink_hz, rel=0.35)


def test_an_idle_face_moves_as_much_as_people_do() -> None:
    stream = MotionStream(WEIGHTS, NATURAL, 0)
    stream.end()
    idle = stream.frames(np.arange(15_000)).codes[:, POSE].std(axis=0)
    assert (idle < [5, 5, 4]).all()
    assert (idle > [1, 1, 0.7]).all()


def test_styles_are_in_their_order() -> None:
    styles = np.array([own_motion(style)[1] for style in MOTION_STYLES])
    assert (np.diff(styles, axis=0) > 0).all()
    ranges = np.percentile(TEN_MINUTES.codes, 95, axis=0) - np.percentile(TEN_MINUTES.codes, 5, axis=0)
    assert (ranges[POSE] > [5, 4, 3]).all()  # what real heads do, and the random motion of old did not
    assert (ranges[POSE] < [20, 17, 17]).all()


@pytest.mark.parametrize("rate_hz", [0.1, 0.5, 1.5])
def test_blinks_come_as_often_as_asked(rate_hz: float) -> None:
    made = moved(7500, 2, blink_hz=rate_hz)
    assert made.closure.min() == 0
    assert 0.9 < made.closure.max() <= 1
    assert not made.closure[:14].any()
    found = len(find_blinks(0.3 * (1 - made.closure))) / 300
    assert found == pytest.approx(rate_hz, rel=0.35)


def test_people_who_speak_blink_as_often_as_real_ones() -> None:
    """The middle half of real clips has 21 to 59 a minute."""
    minutes = [len(find_blinks(0.3 * (1 - moved(750, seed).closure))) * 2 for seed in range(12)]
    assert all(21 <= rate <= 59 for rate in minutes)
    assert 33 < np.mean(minutes) < 42
    stream = MotionStream(WEIGHTS, NATURAL, 0)
    stream.end()
    assert 24 < len(find_blinks(0.3 * (1 - stream.frames(np.arange(15_000)).closure))) / 10 < 42


def test_the_first_blink_is_not_always_soon() -> None:
    first = [np.flatnonzero(moved(400, seed, blink_hz=0.2).closure)[:1] for seed in range(24)]
    first = np.array([frames[0] if len(frames) else 400 for frames in first])
    assert first.min() >= 14
    assert 60 < np.mean(first) < 130  # of a mean interval of 125 frames
    assert (first < 50).any()


def test_real_blinks_are_short() -> None:
    found = find_blinks(0.3 * (1 - TEN_MINUTES.closure))
    half_s = np.median([(blink.closing + blink.opening) / 25 for blink in found])
    assert 0.1 < half_s < 0.2
    opening = [blink.opening > blink.closing for blink in found]
    assert np.mean(opening) > 0.6


def test_eyes_wander_a_little_and_by_leaps() -> None:
    gaze, wander = TEN_MINUTES.gaze, float(WEIGHTS["gaze"][1])
    assert 0.001 < wander < 0.01
    assert gaze.std() == pytest.approx(wander, rel=0.2)
    leaps = np.abs(np.diff(gaze)) > 0
    assert 1.0 < leaps.sum() / 2 / 600 < 1.6  # a second; each takes two frames
    assert np.corrcoef(gaze[:-250], gaze[250:])[0, 1] < 0.2


def test_no_blinks_at_rate_zero() -> None:
    assert not moved(500, blink_hz=0.0).closure.any()


def test_heard_bands_are_levels() -> None:
    assert (heard_bands(np.full((8, 80), -3, np.float32)) == -1).all()
    loud = np.full((8, 80), -3, np.float32)
    loud[:, 16:24] = 0
    assert heard_bands(loud)[2] == 1
    assert (np.delete(heard_bands(loud), 2) == -1).all()


def test_codes_of_a_track_are_what_its_face_did() -> None:
    frames = 60
    wave = np.sin(np.arange(frames) / 6)
    yaw, raised = 5 * wave, 0.02 * wave
    shapes = np.repeat(mean_shape()[None], frames, axis=0)
    shapes[:, np.concatenate([BROW_RIGHT, BROW_LEFT]), 1] -= raised[:, None]
    rotation = rotation_from_euler(yaw, np.zeros(frames), np.zeros(frames))
    points = from_canonical(shapes, rotation, np.full(frames, 80.0), np.full((frames, 3), 200.0))
    found, *pose = to_canonical(points, mean_shape())
    face = face_codes(found, *pose, smooth=False)
    assert np.allclose(face.codes[:, 0], yaw - yaw.mean(), atol=0.05)
    assert np.allclose(face.codes[:, 1:3], 0, atol=0.05)
    assert np.allclose(face.codes[:, BROWS], raised - raised.mean(), atol=1e-3)
    quickest = [np.abs(np.diff(face_codes(found, *pose, smooth=smooth).codes[:, 0])).max() for smooth in (True, False)]
    assert 0.8 < quickest[0] / quickest[1] < 0.99
    assert np.allclose(face.gaze.mean(axis=0), face.gaze, atol=1e-3)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    with pytest.raises(CheckpointError, match="expected a folder made by `atldiff train motion`"):
        load_motion(tmp_path)
    save_file({"ar": np.zeros((1, 2), np.float32)}, tmp_path / "motion.safetensors")
    with pytest.raises(CheckpointError, match=r"ar: got \(1, 2\), expected"):
        load_motion(tmp_path)
