"""The sound of the measurements: a recording cut or repeated to a length, or sound with the rhythm of speech."""

from __future__ import annotations

import math

import numpy as np

from atldiff.timebase import SAMPLE_RATE

SYLLABLES_HZ = 4.0
"""Rate at which made-up speech opens and closes its mouth."""
PHRASE_S, PAUSE_S = 2.2, 0.5
"""Made-up speech talks so long, then is silent so long."""
PITCH_HZ = 120.0
HARMONICS = 20


def lasting(samples: np.ndarray, seconds: float) -> np.ndarray:
    """Return samples (N,) at 16 kHz repeated or cut to a length."""
    wanted = round(seconds * SAMPLE_RATE)
    return np.tile(samples, math.ceil(wanted / len(samples)))[:wanted]


def speech_like(seconds: float) -> np.ndarray:
    """Return sound (N,) float32 at 16 kHz with the rhythm and the bands of speech, the same at every call.

    Harmonics of a gliding pitch under two moving formants, and noise between them, in syllables, phrases and pauses.
    """
    time_s = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = PITCH_HZ * (1 + 0.1 * np.sin(2 * np.pi * 0.4 * time_s))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    formants = (550 + 250 * np.sin(2 * np.pi * 1.3 * time_s), 1700 + 600 * np.sin(2 * np.pi * 0.9 * time_s + 1))
    voiced = np.zeros_like(time_s)
    for harmonic in range(1, HARMONICS + 1):
        heights = [np.exp(-(((harmonic * pitch - formant) / 250) ** 2)) for formant in formants]
        voiced += (0.05 + sum(heights)) / harmonic**0.5 * np.sin(harmonic * phase)
    noise = np.random.default_rng(0).standard_normal(len(time_s))
    syllable = np.clip(np.sin(2 * np.pi * SYLLABLES_HZ * time_s), 0, None)
    fricative = np.clip(-np.sin(2 * np.pi * SYLLABLES_HZ * time_s), 0, None) ** 4
    talking = time_s % (PHRASE_S + PAUSE_S) < PHRASE_S
    sound = talking * (0.25 * syllable * voiced + 0.05 * fricative * noise)
    return np.clip(sound, -0.9, 0.9).astype(np.float32)
