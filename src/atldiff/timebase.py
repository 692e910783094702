"""The one time base: 16 kHz mono samples, 25 frames a second, 640 samples a frame.

This is the only module that divides rates. Everything else counts in frames, samples or mel columns.
"""

from __future__ import annotations

from fractions import Fraction

SAMPLE_RATE = 16_000
"""Samples a second of the audio the models hear."""

FPS = 25
"""Frames a second of the models' own time."""


def _exact_div(numerator: int, denominator: int) -> int:
    quotient, remainder = divmod(numerator, denominator)
    if remainder:
        raise ValueError(f"{numerator} is not a multiple of {denominator}")
    return quotient


SAMPLES_PER_FRAME = _exact_div(SAMPLE_RATE, FPS)  # 640
HOP_SAMPLES = 160
"""Samples between two log-mel columns (10 ms)."""
COLUMNS_PER_FRAME = _exact_div(SAMPLES_PER_FRAME, HOP_SAMPLES)  # 4
MEL_BANDS = 80
"""Bands of a log-mel column."""


def frame_count(samples: int) -> int:
    """Return how many 25 fps frames cover `samples` 16 kHz samples: ceil(samples / 640)."""
    return -(-samples // SAMPLES_PER_FRAME)


def output_frame_count(samples: int, fps: Fraction) -> int:
    """Return how many frames at `fps` cover `samples` 16 kHz samples (exact rational arithmetic)."""
    frames = Fraction(samples, SAMPLE_RATE) * fps
    return -(-frames.numerator // frames.denominator)


def duration_s(samples: int) -> Fraction:
    """Return the exact duration in seconds of `samples` 16 kHz samples."""
    return Fraction(samples, SAMPLE_RATE)
