"""Emotions by name: the labels that models are trained with, and how one follows another over time."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Emotion = Literal["angry", "fear", "sad", "contempt", "happy", "surprised", "disgusted", "neutral"]
EMOTIONS: tuple[Emotion, ...] = get_args(Emotion)
"""Emotion labels in the order of the released ATL-Diff; a label's number is its place here."""

OTHER_NAMES: dict[str, Emotion] = {
    "anger": "angry", "fearful": "fear", "afraid": "fear", "sadness": "sad", "happiness": "happy", "joy": "happy",
    "surprise": "surprised", "disgust": "disgusted",
}  # fmt: skip
MOST = 1.5
"""The greatest intensity: beyond it one picture is stretched visibly. At 1 an emotion is plainly seen."""
BLEND_S = 0.4
"""Seconds in which a face goes from one emotion to the next."""
EXPECTED = f"one of {', '.join(EMOTIONS)}, with an intensity such as happy:0.7, or several as 'neutral happy@2.5'"
_PART = re.compile(r"(?P<name>[a-z]+)(?P<rest>(?:[:@][^:@]+){0,2})")


def emotion_label(emotion: str | None, known: int = len(EMOTIONS)) -> int:
    """Return an emotion's number; None and the empty word, of clips and users that name none, are the one after all.

    known: how many of the labels a model was trained with.

    Raises:
        ValueError: not an emotion, or none of the known ones.
    """
    if not emotion:
        return known
    if not known:
        raise ValueError(f"emotion: got {emotion!r}, but this model was not trained with emotions; leave it out")
    if emotion not in EMOTIONS[:known]:
        raise ValueError(f"emotion: got {emotion!r}, expected one of {', '.join(EMOTIONS[:known])}")
    return EMOTIONS.index(emotion)


@dataclass(frozen=True, slots=True)
class Feeling:
    """An emotion from a time on. intensity: 0 to `MOST`. start_s: seconds from the beginning."""

    emotion: Emotion
    intensity: float = 1.0
    start_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EmotionSchedule:
    """Emotions that follow one another, in the order of their times; before the first one the face is neutral."""

    feelings: tuple[Feeling, ...]

    @property
    def label(self) -> Emotion | None:
        """The emotion where there is one from the start at full intensity, which a label can say; else None."""
        first = self.feelings[0]
        return first.emotion if len(self.feelings) == 1 and first == Feeling(first.emotion) else None

    def intensities(self, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how strong each emotion is at times (F,) in seconds, (F, 8) in the order of `EMOTIONS`.

        From one to the next the face goes in `BLEND_S`, from the next one's time on. What a face starts with is there
        from the first frame.
        """
        strong = np.zeros((len(times_s), len(EMOTIONS)))
        for feeling in self.feelings:
            passed = np.minimum(np.maximum((times_s - feeling.start_s) / BLEND_S, 0.0), 1.0)
            share = passed * passed * (3 - 2 * passed) if feeling.start_s > 0 else np.ones(len(times_s))
            strong *= (1 - share)[:, None]
            strong[:, EMOTIONS.index(feeling.emotion)] += feeling.intensity * share
        return strong


def parse_emotion(text: str) -> EmotionSchedule:
    """Return emotions written as NAME[:INTENSITY][@SECONDS], several of them apart by spaces or commas.

    The first starts at once unless it says otherwise; each later one says when, later than the one before.

    Raises:
        ValueError: no such emotion, intensity or order.
    """
    feelings: list[Feeling] = []
    for part in re.split(r"[\s,]+", text.strip().lower()):
        found = _PART.fullmatch(part)
        name = OTHER_NAMES.get(found["name"], found["name"]) if found else ""
        if found is None or name not in EMOTIONS:
            raise ValueError(f"emotion: got {text!r}, expected {EXPECTED}")
        told = re.findall(r"([:@])([^:@]+)", found["rest"])
        values = {mark: _number(value) for mark, value in told}
        intensity, start_s = values.get(":", 1.0), values.get("@", 0.0)
        if len(values) < len(told) or not 0 <= intensity <= MOST:
            raise ValueError(f"emotion: got {part!r}, expected an intensity of 0 to {MOST:g} such as {name}:0.7")
        if not 0 <= start_s < math.inf:
            raise ValueError(f"emotion: got {part!r}, expected seconds from the beginning such as {name}@2.5")
        if feelings and start_s <= feelings[-1].start_s:
            before = f"{feelings[-1].emotion} at {feelings[-1].start_s:g} s"
            raise ValueError(f"emotion: got {part!r} after {before}, expected a later time such as {name}@2.5")
        feelings.append(Feeling(name, intensity, start_s))
    return EmotionSchedule(tuple(feelings))


def labelled(emotion: str | None, labels: int) -> tuple[str | None, EmotionSchedule | None]:
    """Return what of an emotion a model is told that was trained with so many labels, and what is left to landmarks.

    A model is told a plain word of its labels; intensities and times, and all that it does not know, move landmarks.

    Raises:
        ValueError: as `parse_emotion`.
    """
    if emotion is None:
        return None, None
    schedule = parse_emotion(emotion)
    return (schedule.label, None) if schedule.label in EMOTIONS[:labels] else (None, schedule)


def _number(text: str) -> float:
    try:
        return float(text.removesuffix("s"))
    except ValueError:
        return math.nan
