"""Generated motion beside the motion of people never seen: ranges, speeds, blinks, and how they go with the sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atldiff.landmarks.blink import Blink, find_blinks
from atldiff.landmarks.motion_codes import BROWS, POSE
from atldiff.landmarks.motion_model import MotionStream, named_style
from atldiff.timebase import COLUMNS_PER_FRAME, FPS

if TYPE_CHECKING:
    from atldiff.training.motion_data import MotionClip

SEEDS = 8
LEAST_FRAMES = 100
"""Shorter clips are not compared: a range over less says little."""
BANDS_HZ = ((0.2, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, 4.0))
"""Parts of the spectrum of the head's speed whose shares are compared."""
OPEN_EYE = 0.3


def compared(weights: dict[str, np.ndarray], clips: list[MotionClip], style: str = "natural") -> dict[str, float]:
    """Return each measure of real clips (25, 50 and 75 %) and of generated motion for their sound (median)."""
    long = [clip for clip in clips if len(clip) >= LEAST_FRAMES]
    sounding = [clip for clip in long if clip.mel is not None]
    if not long:
        return {}
    real = [measured(clip.face.codes, clip.face.opening, clip.mel) for clip in long]
    made = []
    for number, clip in enumerate(sounding or long):
        for seed in range(SEEDS * number, SEEDS * (number + 1)):
            stream = MotionStream(weights, named_style(weights, style), seed)
            if clip.mel is not None:
                stream.hear(clip.mel)
            stream.end()
            moved = stream.frames(np.arange(len(clip)))
            made.append(measured(moved.codes, OPEN_EYE * (1 - moved.closure), clip.mel))
    table = {}
    for name in real[0]:
        truth, ours = ([each[name] for each in found if not np.isnan(each[name])] for found in (real, made))
        if truth and ours:
            for quantile in (25, 50, 75):
                table[f"{name}/real_{quantile}"] = float(np.percentile(truth, quantile))
            table[f"{name}/made"] = float((np.mean if name == "blinks_a_minute" else np.median)(ours))
    return table


def measured(codes: np.ndarray, opening: np.ndarray, mel: np.ndarray | None) -> dict[str, float]:
    """Return the measures of codes (T, CODES), eye openings (T,) and the sound's columns (4 T, 80), NaN for none."""
    low, high = np.percentile(codes, [5, 95], axis=0)
    steps = np.diff(codes[:, POSE], axis=0) * FPS
    speed = np.linalg.norm(steps, axis=1)
    blinks: list[Blink] = find_blinks(opening)
    found = {
        "yaw_range_deg": high[0] - low[0], "pitch_range_deg": high[1] - low[1], "roll_range_deg": high[2] - low[2],
        "brow_range": high[BROWS] - low[BROWS],
        "speed_deg_s": speed.mean(), "speed_p10": np.percentile(speed, 10), "speed_p90": np.percentile(speed, 90),
        "blinks_a_minute": 60 * FPS * len(blinks) / len(codes),
        "blink_half_ms": float(np.mean([(b.closing + b.opening) * 1000 / FPS for b in blinks])) if blinks else np.nan,
        "speed_sound": np.nan,
    }  # fmt: skip
    power = np.square(np.abs(np.fft.rfft((steps - steps.mean(axis=0)) * np.hanning(len(steps))[:, None], axis=0))).sum(
        1
    )
    hertz = np.fft.rfftfreq(len(steps), 1 / FPS)
    for start, stop in BANDS_HZ:
        part = (hertz >= start) & (hertz < stop)
        found[f"power_{start:g}_{stop:g}_hz"] = power[part].sum() / max(power[hertz >= BANDS_HZ[0][0]].sum(), 1e-12)
    if mel is not None and len(mel) >= COLUMNS_PER_FRAME * len(codes):
        level = mel[: COLUMNS_PER_FRAME * len(codes)].mean(axis=1).reshape(-1, COLUMNS_PER_FRAME).mean(axis=1)
        smooth = np.hanning(13) / np.hanning(13).sum()
        a, b = np.convolve(level[1:], smooth, "valid"), np.convolve(speed, smooth, "valid")
        if min(a.std(), b.std()) > 1e-6:
            found["speed_sound"] = float(np.corrcoef(a, b)[0, 1])
    return {name: float(value) for name, value in found.items()}
