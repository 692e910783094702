"""Synthetic speech whose sounds have known times."""

from __future__ import annotations

import numpy as np
import pytest

from atldiff.data import spoken
from atldiff.data.spoken import Spoken, corpus, say, sentences
from atldiff.errors import DataError
from atldiff.timebase import FPS, SAMPLE_RATE


@pytest.fixture(scope="module")
def espeak() -> None:
    try:
        spoken._engine()
    except DataError:
        pytest.skip("espeak-ng is not installed")


PHONEMES = (("a", 0.0, 0.2), ("p", 0.2, 0.29), ("s", 0.29, 0.4), ("A:", 0.4, 0.6), ("m", 0.6, 0.62), ("E", 0.62, 0.64))


def test_lips_are_asked_to_meet_at_bilabials_and_to_part_in_open_vowels() -> None:
    speech = Spoken("x", np.zeros(SAMPLE_RATE, np.float32), PHONEMES)
    assert speech.closures() == [(0.2, 0.29), (0.6, 0.62)]
    closed, parted = speech.asked(np.arange(25.0))
    assert np.flatnonzero(closed).tolist() == [5, 6, 15]
    assert np.flatnonzero(parted).tolist() == [2, 3, 12, 13]
    halves = speech.asked(np.arange(0, 25, 0.5).reshape(5, 10))
    assert halves[0].shape == (5, 10)
    assert halves[0].ravel()[::2].tolist() == closed.tolist()


def test_every_sentence_names_a_language() -> None:
    assert len(sentences()) >= 60
    assert all(2 <= len(language) <= 5 and len(text) > 5 for language, text in sentences())


def test_phonemes_cover_the_sound_in_order(espeak: None) -> None:
    speech = say("Bob makes maps.", "en-us")
    names = [name for name, _, _ in speech.phonemes]
    assert [name for name in names if name in spoken.BILABIALS] == ["b", "b", "m", "m", "p"]
    starts = [start for _, start, _ in speech.phonemes]
    assert starts == sorted(starts)
    assert 0.8 < len(speech.samples) / SAMPLE_RATE < 2.5
    assert speech.phonemes[-1][2] == pytest.approx(len(speech.samples) / SAMPLE_RATE)
    # a stop's closure is quieter than the vowel before it
    frames = np.sqrt(np.square(speech.samples[: len(speech.samples) // 640 * 640].reshape(-1, 640)).mean(1))
    (start, end) = speech.closures()[-1]
    assert frames[int((start + 0.3 * (end - start)) * FPS)] < 0.5 * frames.max()


def test_a_corpus_is_a_function_of_its_seed(espeak: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spoken, "sentences", lambda: sentences()[:2])
    first, again, other = corpus(3), corpus(3), corpus(4)
    assert len(first) == 4
    assert [each.name for each in first] == [each.name for each in again] != [each.name for each in other]
    for a, b in zip(first, again, strict=True):  # but for milliseconds, and the noise of its fricatives
        assert [name for name, _, _ in a.phonemes] == [name for name, _, _ in b.phonemes]
        assert np.allclose(*([start for _, start, _ in each.phonemes] for each in (a, b)), atol=0.02)


def test_an_unknown_voice_is_refused(espeak: None) -> None:
    with pytest.raises(DataError, match="got voice 'xx-nobody'"):
        say("Hello.", "xx-nobody")


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spoken, "LIBRARY", "libnosuchthing.so.9")
    with pytest.raises(DataError, match="install it, such as by `apt-get install espeak-ng`"):
        spoken._Engine()
