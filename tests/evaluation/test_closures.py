"""Bilabials: found in an opening whose frames are known."""

from __future__ import annotations

import numpy as np
import pytest

from atldiff.data.spoken import Spoken
from atldiff.evaluation import closures
from atldiff.evaluation.closures import closure_figures, narrowest
from atldiff.timebase import SAMPLE_RATE

PHONEMES = (("a", 0.0, 0.2), ("p", 0.2, 0.28), ("a", 0.28, 0.6), ("m", 0.6, 0.64), ("a", 0.64, 0.9), ("b", 0.9, 0.94))


def test_the_narrowest_frame_of_each_sound_counts() -> None:
    opening = np.full(25, 0.1)
    opening[6], opening[16], opening[20] = 0.01, 0.03, 0.0
    speech = Spoken("x", np.zeros(SAMPLE_RATE, np.float32), PHONEMES)
    assert narrowest(opening, speech.closures()) == [0.01, 0.03, 0.1]
    assert narrowest(opening[:20], speech.closures()) == [0.01, 0.03]  # what is cut off is not counted


def test_share_of_bilabials_with_lips_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    opening = np.full(25, 0.1)
    opening[[6, 15]] = 0.01
    monkeypatch.setattr(closures, "spoken_opening", lambda generator, samples: opening)
    speech = (Spoken("x", np.zeros(SAMPLE_RATE, np.float32), PHONEMES),)
    figures = closure_figures(None, speech)  # pyright: ignore[reportArgumentType]
    assert figures == {"bilabials": 3, "closed": pytest.approx(2 / 3), "opening_90th_percentile": pytest.approx(0.1)}
    with pytest.raises(ValueError, match="no bilabial"):
        closure_figures(None, (Spoken("y", speech[0].samples, (("a", 0.0, 1.0),)),))  # pyright: ignore[reportArgumentType]
