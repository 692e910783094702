"""Lip-sync from landmarks: the lip opening against the reference's, and against the sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from atldiff.audio.features import log_mel
from atldiff.data.sync import best_lag, speech_level, sync_peak
from atldiff.timebase import FPS, SAMPLES_PER_FRAME

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAME_MS = 1000 / FPS
MAX_LAG_FRAMES = 15
"""The largest lag that is looked for, 600 ms either way, as in SyncNet's evaluation."""
STILL_OPENING = 1e-4
"""A lip opening of a smaller standard deviation, in outer-eye-corner distances, does not move."""
MIN_PEAK = 0.3
"""A lag at which two openings agree less than this is no lag: any two series agree somewhere."""
QUIET_DB, QUIETEST_DB = -35.0, -100.0
"""A frame is quiet this far below the recording's loud frames, or under the rounding of 16 bits."""
QUIET_MARGIN_FRAMES = 3
"""Frames beside a loud one do not count as silent: lips open before a sound and close after it."""


@dataclass(frozen=True, slots=True)
class LipSync:
    """How well one lip opening follows another.

    correlation: Pearson's at lag 0, in [-1, 1]; higher is better. lag_ms: the shift of the video that makes them agree
    best, a multiple of 40; negative when the video is late; None where they agree nowhere. amplitude: ratio of the
    standard deviations; 1 is best.
    """

    correlation: float
    lag_ms: float | None
    amplitude: float


def lip_sync(opening: NDArray[np.floating], reference: NDArray[np.floating]) -> LipSync | None:
    """Compare a lip opening (T,) with the reference's (T,), both in one unit; None where the reference stays still.

    A mouth that stays still agrees with nothing: its correlation is 0.

    Raises:
        ValueError: the lengths differ.
    """
    if opening.shape != reference.shape or opening.ndim != 1:
        raise ValueError(f"opening: got {opening.shape} and {reference.shape}, expected one (T,)")
    if len(reference) < 2 or reference.std() < STILL_OPENING:
        return None
    amplitude = float(opening.std() / reference.std())
    if opening.std() < STILL_OPENING:
        return LipSync(0.0, None, amplitude)
    peak, lag = best_lag(reference, opening, MAX_LAG_FRAMES)
    lag_ms = -FRAME_MS * lag + 0.0 if peak >= MIN_PEAK else None  # minus zero would be printed as such
    return LipSync(float(np.corrcoef(opening, reference)[0, 1]), lag_ms, amplitude)


def audio_lip_sync(opening: NDArray[np.floating], samples: NDArray[np.float32]) -> tuple[float, float | None]:
    """Return the peak correlation of lip opening and speech level, in [0, 1], and the shift of the video in ms there.

    opening: (T,). samples: (N,) 16 kHz mono from the first frame on. Both are high-passed and looked at over lags of
    up to 8 frames. Level is a weak sign of articulation: a real video reads 0.2 to 0.7, so compare with the ground
    truth. The shift is negative when the video is late and None for a still mouth or silence.
    """
    frames = min(len(opening), len(samples) // SAMPLES_PER_FRAME)
    if frames < 1:
        return 0.0, None
    mel, _ = log_mel(samples[: frames * SAMPLES_PER_FRAME])
    peak, lag = sync_peak(speech_level(mel), opening[:frames])
    return peak, -FRAME_MS * lag + 0.0 if peak > 0 else None


def silent_frames(samples: NDArray[np.float32], frames: int) -> NDArray[np.bool_]:
    """Return which of `frames` frames hold no sound and lie three frames away from any, (frames,) bool.

    samples: (N,) 16 kHz mono from the first frame on; what is missing at the end is silence.
    """
    whole = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
    used = samples[: len(whole)]
    whole[: len(used)] = used
    power = np.square(whole.reshape(frames, SAMPLES_PER_FRAME), dtype=np.float64).mean(axis=1)
    level = 10 * np.log10(power + 1e-12)  # (frames,) dB re full scale
    loud = level > max(float(np.percentile(level, 95)) + QUIET_DB, QUIETEST_DB) if frames else np.zeros(0, bool)
    reach = np.ones(2 * QUIET_MARGIN_FRAMES + 1)
    return np.convolve(loud, reach, "same")[:frames] < 0.5 if frames >= len(reach) else ~loud & ~loud.any()
