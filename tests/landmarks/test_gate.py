from __future__ import annotations

import numpy as np
import pytest

from atldiff.landmarks.gate import (
    CLOSE_FRAMES,
    FIRST_FRAMES,
    HEARD_FRAMES,
    HOLD_FRAMES,
    LATE_FRAMES,
    LOOKAHEAD_FRAMES,
    START,
    STAY,
    SpeechGate,
)
from atldiff.timebase import COLUMNS_PER_FRAME

QUIET_DB, LOUD_DB = -70.0, -25.0
AFTER = HOLD_FRAMES + CLOSE_FRAMES


def levels_of(speech: list[tuple[int, int]], frames: int) -> np.ndarray:
    """Make levels (4 F,) that are loud in the given ranges of frames, louder and softer from frame to frame."""
    levels = np.full(frames, QUIET_DB)
    for start, stop in speech:
        levels[start:stop] = LOUD_DB + 3 * (-1) ** np.arange(start, min(stop, frames))
    return np.repeat(levels, COLUMNS_PER_FRAME).astype(np.float32)


def voice_of(speech: list[tuple[int, int]], frames: int, late: int = 1) -> np.ndarray:
    """Make what a detector says of speech in the given ranges of frames: late at the start and later at the end."""
    voice = np.full(frames, 0.02, np.float32)
    for start, stop in speech:
        voice[start + late : stop + 4 * late] = 0.97
    return voice


def gate_of(voice: np.ndarray, levels: np.ndarray, packet: int | None = None) -> np.ndarray:
    gate = SpeechGate()
    packet = packet or len(levels)
    parts = [
        gate.push(voice[at // 4 : (at + packet) // 4], levels[at : at + packet]) for at in range(0, len(levels), packet)
    ]
    return np.concatenate([*parts, gate.flush(len(voice))])


def heard(speech: list[tuple[int, int]], frames: int, late: int = 1) -> np.ndarray:
    return gate_of(voice_of(speech, frames, late), levels_of(speech, frames))


def test_it_is_shut_where_nobody_speaks() -> None:
    for loud in ([], [(10, 90)]):  # be it quiet or loud
        gate = gate_of(np.full(100, START - 0.01, np.float32), levels_of(loud, 100))
        assert gate.shape == (100,)
        assert gate.dtype == np.float32
        assert not gate.any()


def test_no_frames_give_no_gates() -> None:
    assert SpeechGate().push(np.zeros(0, np.float32), np.zeros(0, np.float32)).shape == (0,)
    assert SpeechGate().flush(0).shape == (0,)


@pytest.mark.parametrize("late", range(LATE_FRAMES + 1))
def test_it_opens_before_speech_and_closes_200_ms_after_it_however_late_the_detector(late: int) -> None:
    gate = heard([(40, 70)], 120, late)
    assert not gate[: 40 - LOOKAHEAD_FRAMES].any()
    assert (np.diff(gate[39 - LOOKAHEAD_FRAMES + late : 41]) > 0).all()
    assert (gate[40 : 70 + HOLD_FRAMES] == 1).all()
    assert (np.diff(gate[70 : 70 + AFTER]) < 0).all()
    assert not gate[69 + AFTER :].any()  # for good
    assert np.abs(np.diff(gate[40:])).max() <= 0.35
    assert ((gate >= 0) & (gate <= 1)).all()


def test_the_end_is_the_level_s_where_noise_follows() -> None:
    noise = -25 - 12 + np.random.default_rng(0).uniform(-1, 1, 4 * 400)
    levels = np.maximum(levels_of([(100, 150)], 400), noise)
    voice = np.full(400, 0.02)
    voice[100:150], voice[150:165], voice[300] = 0.97, 0.45, 0.39  # the detector goes on for 0.6 s
    gate = gate_of(voice.astype(np.float32), levels.astype(np.float32))
    assert not gate[: 100 - LOOKAHEAD_FRAMES].any()
    assert (gate[100:150] == 1).all()
    assert not gate[149 + AFTER :].any()


def test_it_is_open_at_once_when_the_recording_starts_with_speech() -> None:
    assert (heard([(0, 80)], 80)[LATE_FRAMES:] > 0.8).all()
    assert (heard([(0, 80)], 80, late=0) > 0.8).all()


def test_a_tone_that_a_recording_starts_with_is_no_speech() -> None:
    levels = np.full(4 * 60, -20.0, np.float32)
    voice = np.full(60, 0.05, np.float32)
    voice[:12] = 0.8  # what the detector says of one
    assert not gate_of(voice, levels).any()
    assert gate_of(voice, levels_of([(0, 60)], 60))[:10].all()


def test_a_note_held_for_ten_seconds_is_sung() -> None:
    levels = np.concatenate([levels_of([], 20), np.full(4 * 250, -20.0, np.float32)])
    gate = gate_of(np.concatenate([np.full(20, 0.02), np.full(250, 0.95)]).astype(np.float32), levels)
    assert (gate[20:] == 1).all()


def test_it_stays_open_to_the_end_of_a_recording_cut_inside_a_word() -> None:
    for frames in (6, 13, 14, 15, 30):
        gate = gate_of(voice_of([(0, 60)], 60, 0)[:frames], levels_of([(0, 60)], 60)[: 4 * frames])
        assert (gate > 0.8).all()


@pytest.mark.parametrize("gap", [1, 2, 3])
def test_it_hardly_moves_in_gaps_of_up_to_120_ms(gap: int) -> None:
    gate = gate_of(voice_of([(20, 90)], 90), levels_of([(20, 50), (50 + gap, 90)], 90))
    assert gate[20:].min() > 0.8
    assert (gate[50 + gap :] == 1).all()


def test_speech_begins_at_one_probability_and_lasts_at_another() -> None:
    levels = levels_of([(0, 80)], 80)
    faint = np.full(80, (START + STAY) / 2, np.float32)
    assert not gate_of(faint, levels).any()
    faint[20] = START + 0.01
    assert (gate_of(faint, levels)[20:] == 1).all()
    faint[50] = STAY - 0.01
    assert not gate_of(faint, levels)[49 + AFTER :].any()


def test_it_does_not_depend_on_the_split_and_waits_for_its_lookahead() -> None:
    draws = np.random.default_rng(3)
    voice = np.repeat(draws.uniform(0, 0.8, 60), 3).astype(np.float32)[:-2]
    levels = np.repeat(draws.uniform(-60, -20, 178), 4).astype(np.float32)
    whole = gate_of(voice, levels)
    assert 0 < whole.mean() < 1
    assert len(whole) == 178
    for packet in (4, 8, 28, 200):
        assert np.array_equal(gate_of(voice, levels, packet), whole)
    gate, parts = SpeechGate(), []
    for frame in range(178):  # levels come in twos, voices in ones and sometimes ahead
        parts.append(
            gate.push(voice[frame : frame + 1], levels[4 * (frame - 1) : 4 * (frame + 1)] if frame % 2 else levels[:0])
        )
        assert gate.emitted <= (frame + 1 - LOOKAHEAD_FRAMES if frame >= FIRST_FRAMES - 1 else 0)
    assert gate.emitted == 178 - LOOKAHEAD_FRAMES
    assert np.array_equal(np.concatenate([*parts, gate.flush(178)]), whole)


def test_it_says_whether_there_was_speech() -> None:
    for spoken, expected in ((0, False), (HEARD_FRAMES - 1, False), (HEARD_FRAMES, True), (30, True)):
        gate = SpeechGate()
        gate.push(voice_of([(20, 20 + spoken)], 60) if spoken else np.zeros(60), levels_of([(20, 20 + spoken)], 60))
        gate.flush(60)
        assert gate.heard is expected
