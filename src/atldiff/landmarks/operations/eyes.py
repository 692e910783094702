"""Blinks taken out and put in, and eyes that keep looking where they are told to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from atldiff.landmarks.blink import (
    AFTER_FRAMES,
    BEFORE_FRAMES,
    EYE_CORNERS,
    OPEN_PERCENTILE,
    blink_displacement,
    blink_pulse,
    blink_urge,
    eye_opening,
    find_blinks,
    time_since_blink,
)
from atldiff.landmarks.motion_codes import KNOT_FRAMES
from atldiff.landmarks.motion_model import load_motion
from atldiff.landmarks.operations.regions import region_weights
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import IRIS_LEFT, IRIS_RIGHT, MESH_POINTS
from atldiff.timebase import FPS
from atldiff.types import LandmarkTrack

CLOSING_FRAMES, OPENING_FRAMES, DEPTH = 1.4, 1.9, 1.0
"""A blink of the median kind, in frames at 25 a second."""
OPEN_AGAIN = 0.1
"""A blink ends where a tenth of its depth is left."""
MOST_RATE_HZ = 2.0

EYEBALL = 0.1375
"""Radius of an eyeball in eye distances: 12 mm where the outer corners are 90 apart."""
MOST_GAZE_DEG = 45.0
TOLERANCE_DEG = 5.0
"""A portrait that looks past the camera by less, as far as its irises tell, looks at it; twice as far, it does not."""

_IRISES = (IRIS_RIGHT, IRIS_LEFT)


def _eyes_open(track: LandmarkTrack) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return the eye opening (T,) and for each blink the frames before and after it at which the eyes are open."""
    opening = eye_opening((track.neutral + track.displacements).astype(np.float64))
    pace = float(track.fps / FPS)
    moments = np.arange(math.ceil(len(track) / pace)) * pace
    own = opening if pace == 1 else np.interp(moments, np.arange(len(track)), opening)
    closed = 1 - opening / max(float(np.percentile(opening, OPEN_PERCENTILE)), 1e-9)
    spans = []
    for blink in find_blinks(own):
        middle = min(round(blink.frame * pace), len(track) - 1)
        least, most = middle - round(BEFORE_FRAMES * pace), middle + round(AFTER_FRAMES * pace)
        start = stop = middle
        while start > max(least, 0) and closed[start] > OPEN_AGAIN * blink.depth:
            start -= 1
        while stop < min(most, len(track) - 1) and closed[stop] > OPEN_AGAIN * blink.depth:
            stop += 1
        spans.append((start, stop))
    return opening, spans


def without_blinks(track: LandmarkTrack) -> LandmarkTrack:
    """Return the track with its blinks taken out: lids go straight from how they were to how they will be."""
    if len(track) < 3:
        return track
    spans = _eyes_open(track)[1]
    if not spans:
        return track
    part = region_weights("eyes").copy()
    part[MESH_POINTS:] = 0  # an iris is seen on either side of a blink
    moved = track.displacements.copy()
    for start, stop in spans:
        share = np.linspace(0, 1, stop - start + 1, dtype=np.float32)[:, None, None]
        straight = (1 - share) * moved[start] + share * moved[stop]
        moved[start : stop + 1] += part[:, None] * (straight - moved[start : stop + 1])
    return replace(track, displacements=moved)


def with_blinks(track: LandmarkTrack, times_s: Sequence[float], depth: float = DEPTH) -> LandmarkTrack:
    """Return the track with blinks added, shut at these seconds; those that it has stay.

    depth: 0 to 1, how far lids close what is open of the eyes: they meet and never cross.

    Raises:
        ValueError: a time before the start, or a depth out of range.
    """
    if not 0 <= depth <= 1:
        raise ValueError(f"blink depth: got {depth}, expected 0 to 1")
    for second in times_s:
        if not 0 <= second < math.inf:
            raise ValueError(f"blink_times: got {second}, expected seconds from 0 on")
    moments = np.arange(len(track)) * (FPS / float(track.fps))
    pulses = np.array([[blink_pulse(at - FPS * second, CLOSING_FRAMES, OPENING_FRAMES) for at in moments]
                       for second in times_s])  # fmt: skip
    if not pulses.any():
        return track
    closure = (depth * pulses.max(axis=0)).astype(np.float32)
    moved = track.displacements.copy()
    for frame in np.flatnonzero(closure):
        moved[frame] += blink_displacement(track.neutral + track.displacements[frame], closure[frame : frame + 1])[0]
    return replace(track, displacements=moved)


def blink_times(seconds: float, rate_hz: float, seed: int = 0) -> list[float]:
    """Return when somebody blinks who blinks so often, in seconds: neither by the clock nor by pure chance.

    rate_hz: mean blinks a second, 0 to 2.

    Raises:
        ValueError: it is not in that range.
    """
    if not 0 <= rate_hz <= MOST_RATE_HZ:
        raise ValueError(f"blink_rate_hz: got {rate_hz}, expected 0 to {MOST_RATE_HZ:g}")
    urge = blink_urge(load_motion()["blink_since"], rate_hz, KNOT_FRAMES)
    random = np.random.default_rng([seed, _STREAM])
    since, times = time_since_blink(urge, float(random.random())), []
    for step, (chance, place) in enumerate(random.random((math.ceil(seconds * FPS / KNOT_FRAMES), 2)).tolist()):
        since += 1
        if chance < 1 - math.exp(-urge[min(since, len(urge) - 1)]):
            times.append(KNOT_FRAMES * (step + place) / FPS)
            since = 0
    return [time for time in times if time < seconds]


_STREAM = 6  # keeps these draws apart from others of the same seed


def eyes_held(
    track: LandmarkTrack, yaw_deg: float = 0.0, pitch_deg: float = 0.0, portrait: np.ndarray | None = None
) -> LandmarkTrack:
    """Return the track with eyes that look in one direction while the head turns; 0, 0 is the camera.

    yaw_deg: positive to the left of the picture, pitch_deg: positive down, as of a head; -45 to 45. portrait: (3, 3)
    rotation of the photographed head, the first frame's when left out. Sideways the direction is as measured by the
    mean face, and a portrait that looks at the camera but for a few degrees does so; up and down the photograph counts
    as looking at the camera. Both eyes move alike.

    Raises:
        ValueError: a direction that eyes cannot take.
    """
    for name, angle in (("yaw", yaw_deg), ("pitch", pitch_deg)):
        if not abs(angle) <= MOST_GAZE_DEG:
            raise ValueError(f"gaze {name}: got {angle}, expected -{MOST_GAZE_DEG:g} to {MOST_GAZE_DEG:g} degrees")
    if not len(track):
        return track
    start = (track.rotation[0] if portrait is None else portrait).astype(np.float64)
    yaw, pitch = math.radians(yaw_deg), math.radians(pitch_deg)
    to = np.array([-math.sin(yaw) * math.cos(pitch), math.sin(pitch), -math.cos(yaw) * math.cos(pitch)])
    wanted = EYEBALL * np.einsum("tji,j->ti", track.rotation.astype(np.float64), to)[:, :2]  # (T, 2)
    own = _looking(track.neutral[None].astype(np.float64))[0] - _looking(mean_shape()[None])[0]
    past = own - EYEBALL * (start.T @ np.array([0, 0, -1.0]))[:2]  # by how much the photograph looks past the camera
    past[0] *= np.clip(2 - abs(past[0]) / (EYEBALL * math.radians(TOLERANCE_DEG)), 0, 1)
    target = _looking(mean_shape()[None])[0] + past + wanted
    moved = track.displacements.copy()
    by = target - _looking((track.neutral + track.displacements).astype(np.float64))
    moved[:, MESH_POINTS:, :2] += by[:, None].astype(np.float32)
    return replace(track, displacements=moved)


def _looking(shapes: np.ndarray) -> np.ndarray:
    """Return where irises are from the middle between the corners of their eyes, (T, 2), of both eyes the mean."""
    each = [shapes[:, iris[0], :2] - shapes[:, list(corners), :2].mean(axis=1)
            for iris, corners in zip(_IRISES, EYE_CORNERS, strict=True)]  # fmt: skip
    return np.mean(each, axis=0)
