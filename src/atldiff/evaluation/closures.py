"""Whether lips meet where they have to: `python -m atldiff.evaluation.closures [WEIGHTS]`.

espeak-ng says sentences that no generator was trained on, and when each m, b and p is.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from atldiff.data.spoken import say
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import lip_opening
from atldiff.methods.speech import TrackStream, join
from atldiff.timebase import FPS
from atldiff.types import Controls, Portrait

if TYPE_CHECKING:
    from atldiff.data.spoken import Spoken
    from atldiff.methods.generators import Speaker

CLOSED = 0.02
"""Lip opening, in outer-eye distances, up to which lips meet: words open them by 0.1 and more."""
VOICES = (("", 165, 50), ("+f3", 150, 60), ("+m3", 180, 40))


@lru_cache(maxsize=1)
def bilabial_speech() -> tuple[Spoken, ...]:
    """Return the sentences, each by two of three voices.

    Raises:
        DataError: espeak-ng is missing.
    """
    lines = files("atldiff.evaluation").joinpath("bilabials.txt").read_text(encoding="utf-8").splitlines()
    speech = []
    for number, (language, text) in enumerate(line.split("|", 1) for line in lines):
        for variant, words_per_minute, pitch in (VOICES[number % 3], VOICES[(number + 1) % 3]):
            speech.append(say(text, language + variant, words_per_minute, pitch))
    return tuple(speech)


def spoken_opening(speaker: Speaker, samples: np.ndarray) -> np.ndarray:
    """Return the lip opening (F,), in outer-eye distances, of a frontal average face that speaks samples (N,)."""
    points = (100 * mean_shape() + 256).astype(np.float32)
    portrait = Portrait(np.zeros((512, 512, 3), np.uint8), points)
    stream = TrackStream(speaker, portrait, Controls(still=True, blink_rate_hz=0))
    track = join([stream.push(samples.astype(np.float32)), stream.flush()])
    return lip_opening(track.neutral + track.displacements)


def narrowest(opening: np.ndarray, closures: list[tuple[float, float]]) -> list[float]:
    """Return the smallest of openings (F,) in the frames of each closure, from its start to its end in seconds."""
    spans = ((int(np.floor(start * FPS)), int(np.ceil(end * FPS)) + 1) for start, end in closures)
    return [float(opening[first:last].min()) for first, last in spans if first < len(opening)]


def closure_figures(speaker: Speaker, speech: tuple[Spoken, ...]) -> dict[str, float]:
    """Return how many bilabials there are, the share with lips closed, and how far lips open beside them.

    Raises:
        ValueError: no bilabial.
    """
    least, most = [], []
    for each in speech:
        opening = spoken_opening(speaker, each.samples)
        least += narrowest(opening, each.closures())
        most.append(float(np.percentile(opening, 90)))
    if not least:
        raise ValueError("speech: got no bilabial, expected sentences with m, b or p")
    return {
        "bilabials": len(least),
        "closed": float(np.mean(np.array(least) <= CLOSED)),
        "opening_90th_percentile": float(np.median(most)),
    }


def main() -> None:
    """Measure from the command line."""
    from atldiff.checkpoint import load_model, locate
    from atldiff.methods.models import speaker_of

    speaker = speaker_of(load_model(locate(sys.argv[1] if len(sys.argv) > 1 else "atl-diff")).generator)
    for name, value in closure_figures(speaker, bilabial_speech()).items():
        print(f"{name}: {value:.4g}")  # noqa: T201 - a command


if __name__ == "__main__":
    main()
