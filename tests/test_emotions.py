from __future__ import annotations

import numpy as np
import pytest

from atldiff.emotions import BLEND_S, EMOTIONS, EmotionSchedule, Feeling, labelled, parse_emotion
from atldiff.types import Controls


def strong(text: str, *times: float) -> list[dict[str, float]]:
    rows = parse_emotion(text).intensities(np.array(times))
    return [{name: round(float(v), 6) for name, v in zip(EMOTIONS, row, strict=True) if v} for row in rows]


@pytest.mark.parametrize(
    ("text", "feelings"),
    [
        ("happy", [Feeling("happy")]),
        ("Happy:0.7", [Feeling("happy", 0.7)]),
        ("surprise:0 disgust:1.5@2", [Feeling("surprised", 0.0), Feeling("disgusted", 1.5, 2.0)]),
        ("neutral happy@2.5 sad@6:0.5", [Feeling("neutral"), Feeling("happy", 1, 2.5), Feeling("sad", 0.5, 6)]),
        ("joy@1, fear@2s", [Feeling("happy", 1, 1), Feeling("fear", 1, 2)]),
    ],
)
def test_emotions_are_written_in_words(text: str, feelings: list[Feeling]) -> None:
    assert parse_emotion(text) == EmotionSchedule(tuple(feelings))
    assert Controls(emotion=text).emotion == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected one of angry, fear"),
        ("merry", "got 'merry', expected one of angry, fear"),
        ("happy:1.6", "got 'happy:1.6', expected an intensity of 0 to 1.5 such as happy:0.7"),
        ("happy:-1", "expected an intensity"),
        ("happy:nan", "expected an intensity"),
        ("happy:much", "expected an intensity"),
        ("happy:1:1", "expected an intensity"),
        ("happy@-1", "expected seconds from the beginning such as happy@2.5"),
        ("happy@inf", "expected seconds"),
        ("happy sad", "got 'sad' after happy at 0 s, expected a later time such as sad@2.5"),
        ("happy@3 sad@2", "got 'sad@2' after happy at 3 s"),
        ("happy:", "expected one of"),
        ("happy;sad", "expected one of"),
    ],
)
def test_other_words_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="emotion: ") as caught:
        Controls(emotion=text)
    assert said in str(caught.value)


def test_one_follows_another() -> None:
    assert strong("happy", 0, 9) == [{"happy": 1}, {"happy": 1}]
    assert strong("happy@2", 0, 1.99, 2 + BLEND_S / 2, 2 + BLEND_S) == [{}, {}, {"happy": 0.5}, {"happy": 1}]
    assert strong("happy sad:0.5@2", 2, 2 + BLEND_S / 2, 3) == [{"happy": 1}, {"happy": 0.5, "sad": 0.25}, {"sad": 0.5}]
    text = "angry happy:0.3@1 sad@1.1 fear:1.2@1.3"
    times = np.arange(0, 3, 0.001)
    intensities = parse_emotion(text).intensities(times)
    assert np.abs(np.diff(intensities, axis=0)).max() < 0.001 * 1.2 * 1.5 / BLEND_S * 1.5  # no jump, however close
    assert intensities.min() >= 0
    assert intensities.max() <= 1.2
    pieces = [parse_emotion(text).intensities(part) for part in np.split(times, [1, 700, 1203])]
    assert np.array_equal(np.concatenate(pieces), intensities)


def test_who_is_told_what() -> None:
    assert labelled(None, 8) == labelled(None, 0) == (None, None)
    assert labelled("surprise", 8) == ("surprised", None)
    for text, labels in (("happy", 0), ("happy", 4), ("happy:0.5", 8), ("happy@1", 8), ("happy sad@1", 8)):
        assert labelled(text, labels) == (None, parse_emotion(text))
