"""Landmark tracks that tests make: a face that speaks, blinks, looks aside and turns, known to the last number."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from atldiff.landmarks.blink import blink_displacement, blink_pulse
from atldiff.landmarks.geometry import rotation_from_euler
from atldiff.landmarks.motion import PIVOT
from atldiff.landmarks.mouth import meet_lips
from atldiff.landmarks.operations.regions import jaw_weights, region_weights
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import BROW_LEFT, BROW_RIGHT, MESH_POINTS, lip_opening
from atldiff.types import LandmarkTrack

FIELDS = ("neutral", "displacements", "rotation", "translation", "scale")


def closed_shape() -> np.ndarray:
    """Return the mean face (478, 3) float32 with its lips closed, by its jaw."""
    shape = mean_shape().astype(np.float32)
    shape[:, 1] -= np.float32(0.97 * lip_opening(shape)) * jaw_weights()
    return shape + meet_lips(shape, np.zeros((1, *shape.shape), np.float32))[0]


def speaking(
    frames: int = 100, fps: int = 25, seed: int = 0, blinks: tuple[float, ...] = (1.2, 3.0), turn_deg: float = 6.0
) -> LandmarkTrack:
    """Return somebody with closed lips who speaks all the time; jaw down by 0 to 0.1 eye distances, lips apart more."""
    random = np.random.default_rng(seed)
    seconds = np.arange(frames) / fps
    phase = random.uniform(0, 2 * np.pi, 4)
    neutral = closed_shape()
    jaw = 0.025 * (2 - np.cos(2 * np.pi * 2.6 * seconds) - np.cos(2 * np.pi * 4.1 * seconds))
    moved = np.zeros((frames, *neutral.shape))
    moved[:, :, 1] += jaw[:, None] * jaw_weights()
    wide = 0.03 * np.sin(2 * np.pi * 1.7 * seconds + phase[0])
    moved[:, :, 0] += wide[:, None] * region_weights("lips") * np.sign(neutral[:, 0])
    moved[:, np.concatenate([BROW_LEFT, BROW_RIGHT]), 1] -= (
        0.02 * (1 + np.sin(2 * np.pi * 0.5 * seconds + phase[1]))[:, None]
    )
    moved[:, MESH_POINTS:, 0] += 0.02 * np.sin(2 * np.pi * 0.7 * seconds + phase[2])[:, None]
    if blinks:
        closure = np.max([[blink_pulse(25 * (at - middle), 1.4, 1.9) for at in seconds] for middle in blinks], axis=0)
        moved += blink_displacement(neutral, closure.astype(np.float32))
    turns = turn_deg * np.sin(2 * np.pi * seconds * [[0.4], [0.55], [0.3]])
    rotation = rotation_from_euler(*turns)
    return LandmarkTrack(
        neutral=neutral,
        displacements=moved.astype(np.float32),
        rotation=rotation.astype(np.float32),
        translation=(np.array([200, 180, 0]) - 80 * (rotation @ PIVOT)).astype(np.float32),
        scale=np.full(frames, 80, np.float32),
        fps=Fraction(fps),
        size=(400, 400),
    )


def still(frames: int = 100, fps: int = 25) -> LandmarkTrack:
    """Return a face at which nothing moves."""
    track = speaking(frames, fps, blinks=(), turn_deg=0)
    return replace(track, displacements=np.zeros_like(track.displacements))


def same(left: LandmarkTrack, right: LandmarkTrack) -> bool:
    """Return whether two tracks are the same, bit for bit."""
    arrays = all(getattr(left, name).tobytes() == getattr(right, name).tobytes() for name in FIELDS)
    return arrays and (left.fps, left.size) == (right.fps, right.size)


def apart(left: LandmarkTrack, right: LandmarkTrack) -> float:
    """Return by how much the points of two tracks of one length differ at most, in eye distances."""
    return float(np.abs(left.points() - right.points()).max()) / float(np.median(left.scale)) if len(left) else 0.0


def openings(track: LandmarkTrack) -> np.ndarray:
    """Return the lip opening (T,) in eye distances."""
    return lip_opening(track.neutral + track.displacements)
