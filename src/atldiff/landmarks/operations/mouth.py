"""Lips and jaw apart, stronger or weaker; and a mouth that is closed while nobody speaks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from atldiff.landmarks.gate import CLOSE_FRAMES, HOLD_FRAMES, LOOKAHEAD_FRAMES
from atldiff.landmarks.motion import GaussianSmoother, ease
from atldiff.landmarks.mouth import OPEN, meet_lips
from atldiff.landmarks.operations.regions import jaw_motion, region_weights
from atldiff.landmarks.rest import CLOSED_SHARE, lower_face
from atldiff.landmarks.topology import lip_opening
from atldiff.timebase import FPS
from atldiff.types import LandmarkTrack

MOST_STRENGTH = 3.0
LEAST_GAIN = 1e-3
"""Of what is only in part a lip's, a gain of nothing leaves so much to the power of its part: no seam."""
MOVES = 0.08
"""A mouth speaks where its opening changes by such a share of its range in a frame of 40 ms,"""
TREMBLES = 0.003
"""and by more than this, in eye distances, which is the tracker's tremble."""
PAUSE_S, BURST_S = 0.32, 0.12
"""Pauses shorter than the first are none; what moves for less than the second is no speech."""
RANGE = (5, 95)
"""Percentiles of the opening that its range is between."""


def resting(track: LandmarkTrack) -> np.ndarray:
    """Return the displacement (478, 3) float32 of the lower face at which the mouth rests.

    None where the identity's lips are closed; where it smiles or speaks, the median of the most closed frames.
    """
    if not len(track) or float(lip_opening(track.neutral)) < OPEN:
        return np.zeros(track.neutral.shape, np.float32)
    opening = lip_opening(track.neutral + track.displacements)
    closed = np.argsort(opening, kind="stable")[: max(3, int(len(track) * CLOSED_SHARE))]
    return np.median(track.displacements[closed], axis=0) * lower_face()[:, None]


def lip_strength(track: LandmarkTrack, gain: float) -> LandmarkTrack:
    """Return the track with what lips do of their own times `gain`: rounding, spreading, pressing; the jaw stays.

    gain: 0 to 3; 1 changes nothing, 0 leaves lips that only hang on the jaw. About the mouth at rest.

    Raises:
        ValueError: it is not in that range.
    """
    check_strength("lip_strength", gain)
    if gain == 1 or not len(track):
        return track
    moved = track.displacements - resting(track)
    part = region_weights("lips")
    # A power, so that two gains multiply at the seam as well.
    gains = np.where(part == 1, np.float32(gain), np.float32(max(gain, LEAST_GAIN)) ** part)
    return replace(track, displacements=track.displacements + (gains - 1)[:, None] * (moved - jaw_motion(moved)))


def jaw_strength(track: LandmarkTrack, gain: float) -> LandmarkTrack:
    """Return the track with what the jaw does, and carries with it, times `gain`; lips keep their own motion.

    gain: 0 to 3; 1 changes nothing. About the mouth at rest.

    Raises:
        ValueError: it is not in that range.
    """
    check_strength("jaw_strength", gain)
    if gain == 1 or not len(track):
        return track
    moved = track.displacements - resting(track)
    return replace(track, displacements=track.displacements + np.float32(gain - 1) * jaw_motion(moved))


def met(track: LandmarkTrack) -> LandmarkTrack:
    """Return the track with lips that touch where they would have crossed."""
    return replace(track, displacements=meet_lips(track.neutral, track.displacements)) if len(track) else track


def closed_in_silence(track: LandmarkTrack, gate: np.ndarray | None = None) -> LandmarkTrack:
    """Return the track with its mouth closed where nobody speaks: 200 ms after the last word, opened as long before.

    gate: (T,) in [0, 1], as a recording says; None asks the track itself (`speaks`): a mouth that hardly moves, or
    hangs open, does not speak.

    Raises:
        ValueError: a gate of another length.
    """
    gate = speech_gate(track) if gate is None else np.asarray(gate, np.float32)
    if gate.shape != (len(track),):
        raise ValueError(f"gate: got shape {gate.shape}, expected ({len(track)},)")
    if not len(track):
        return track
    away = track.displacements - resting(track)
    shut = (1 - gate)[:, None, None] * lower_face()[:, None]
    return replace(track, displacements=track.displacements - shut * away)


def speech_gate(track: LandmarkTrack) -> np.ndarray:
    """Return how open the mouth may be, (T,) float32 in [0, 1], by what the track itself says."""
    speaking = speaks(track)
    frames, pace = len(track), float(track.fps / FPS)
    at = np.flatnonzero(speaking)
    if not at.size:
        return np.zeros(frames, np.float32)
    index = np.arange(frames)
    last, following = np.searchsorted(at, index, side="right") - 1, np.searchsorted(at, index)
    since = np.where(last >= 0, index - at[np.maximum(last, 0)], np.inf) / pace
    until = np.where(following < at.size, at[np.minimum(following, at.size - 1)] - index, np.inf) / pace
    opened = np.maximum(ease(1 - (since - HOLD_FRAMES) / CLOSE_FRAMES), ease(1 - until / (LOOKAHEAD_FRAMES + 1)))
    return opened.astype(np.float32)


def speaks(track: LandmarkTrack) -> np.ndarray:
    """Return in which frames (T,) bool the mouth speaks: where its opening changes fast, short pauses included."""
    if len(track) < 2:
        return np.zeros(len(track), bool)
    pace = float(track.fps / FPS)
    smoother = GaussianSmoother(0.8 * pace)
    opening = lip_opening(track.neutral + track.displacements)[:, None]
    opening = np.concatenate([smoother.push(opening), smoother.flush()])[:, 0].astype(np.float64)
    least = max(MOVES * float(np.ptp(np.percentile(opening, RANGE))), TREMBLES)
    changes = np.abs(np.diff(opening)) * pace >= least
    moving = np.r_[changes, False] | np.r_[False, changes]
    return _without_runs(~_without_runs(~moving, PAUSE_S * float(track.fps)), BURST_S * float(track.fps))


def _without_runs(flags: np.ndarray, shortest: float) -> np.ndarray:
    """Return flags (T,) with runs of true ones that are shorter than so many frames turned false; not at the ends."""
    edges = np.flatnonzero(np.diff(np.r_[False, flags, False].astype(np.int8)))
    kept = flags.copy()
    for start, stop in edges.reshape(-1, 2):
        if stop - start < shortest and start > 0 and stop < len(flags):
            kept[start:stop] = False
    return kept


def check_strength(name: str, gain: float) -> None:
    """Raise ValueError unless a part of the face can be so strong."""
    if not (0 <= gain <= MOST_STRENGTH and math.isfinite(gain)):
        raise ValueError(f"{name}: got {gain}, expected 0 to {MOST_STRENGTH:g}")
