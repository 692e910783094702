"""What can be done to a whole landmark track: smooth it, scale it, carry it to another face or another frame rate."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np

from atldiff.landmarks.blink import FOLD_LEFT, FOLD_RIGHT
from atldiff.landmarks.motion import PIVOT, GaussianSmoother
from atldiff.landmarks.operations.mouth import resting
from atldiff.landmarks.rotations import turned_part_way
from atldiff.landmarks.topology import EYE_LEFT, EYE_RIGHT, IRIS_LEFT, IRIS_RIGHT
from atldiff.types import LandmarkTrack

EYES = np.concatenate([EYE_RIGHT, EYE_LEFT, FOLD_RIGHT, FOLD_LEFT, IRIS_RIGHT, IRIS_LEFT])
"""Points of lids, folds and irises: a stronger expression must not push the lids through one another."""


def smooth(track: LandmarkTrack, sigma_frames: float) -> LandmarkTrack:
    """Return the track with its displacements smoothed over time by a Gaussian; the head pose stays as it is.

    sigma_frames: 0 or more; 0 changes nothing. Blinks that are already in the track are smoothed with the rest.

    Raises:
        ValueError: `sigma_frames` is negative or not finite.
    """
    smoother = GaussianSmoother(sigma_frames)
    if not sigma_frames or not len(track):
        return track
    rows = track.displacements.reshape(len(track), -1)
    smoothed = np.concatenate([smoother.push(rows), smoother.flush()])
    return replace(track, displacements=smoothed.reshape(track.displacements.shape))


def scale_expression(track: LandmarkTrack, gain: float) -> LandmarkTrack:
    """Return the track with its displacements times `gain`, except those of lids, folds and irises.

    They are counted from the face at rest: a portrait that smiles has its lips brought together first (`resting`).

    Raises:
        ValueError: `gain` is not finite or negative.
    """
    if not 0 <= gain < math.inf:
        raise ValueError(f"gain: got {gain}, expected a number of at least 0")
    if gain == 1:
        return track
    gains = np.full(track.displacements.shape[1], gain, np.float32)
    gains[EYES] = 1
    rest = resting(track)
    return replace(track, displacements=rest + (track.displacements - rest) * gains[:, None])


def retarget(
    track: LandmarkTrack,
    neutral: np.ndarray,
    rotation: np.ndarray,
    scale: float,
    translation: np.ndarray,
    size: tuple[int, int],
    keep_pose: bool = True,
) -> LandmarkTrack:
    """Return the track on another identity.

    neutral: (478, 3) canonical shape of the new identity. rotation (3, 3), scale (pixels per unit) and translation
    (3,): the pose in its portrait. size: (height, width) of the portrait.
    keep_pose: the head moves from the portrait's pose as the track's does from its first frame; otherwise it is still.

    Raises:
        ValueError: an array of the wrong shape.
    """
    rotation, translation = np.asarray(rotation, np.float64), np.asarray(translation, np.float64)
    if rotation.shape != (3, 3) or translation.shape != (3,):
        got = f"rotation {rotation.shape} and translation {translation.shape}"
        raise ValueError(f"pose: got {got}, expected (3, 3) and (3,)")
    frames = len(track)
    if keep_pose and frames:
        source_rotation, source_scale = track.rotation.astype(np.float64), track.scale.astype(np.float64)
        # Turns about the head's own axes, so a nod stays a nod on a head that looks elsewhere; drift as seen.
        rotations = rotation @ (source_rotation[0].T @ source_rotation)
        scales = scale * (source_scale / source_scale[0])
        pivots = source_scale[:, None] * (source_rotation @ PIVOT) + track.translation
        drift = (scale / source_scale[0]) * (pivots - pivots[0])
        translations = scale * (rotation @ PIVOT) + translation + drift - scales[:, None] * (rotations @ PIVOT)
    else:
        rotations = np.tile(rotation, (frames, 1, 1))
        scales = np.full(frames, float(scale))
        translations = np.tile(translation, (frames, 1))
    return replace(
        track,
        neutral=np.asarray(neutral, np.float32),
        rotation=rotations.astype(np.float32),
        scale=scales.astype(np.float32),
        translation=translations.astype(np.float32),
        size=size,
    )


def resized_track(track: LandmarkTrack, size: tuple[int, int]) -> LandmarkTrack:
    """Return the track of a picture as that of the same picture scaled to `size` (height, width)."""
    down, across = (new / old for new, old in zip(size, track.size, strict=True))
    factor = math.sqrt(down * across)  # sides are whole pixels, so the two differ a little
    return replace(
        track,
        scale=track.scale * np.float32(factor),
        translation=track.translation * np.array([across, down, factor], np.float32),
        size=size,
    )


def at_fps(track: LandmarkTrack, fps: Fraction) -> LandmarkTrack:
    """Return the track at another frame rate: frame i shows time i / fps, for as long as the track lasts.

    Frames between two of the track are interpolated, rotations along the shortest turn; frames that fall on one are
    that one. The last frame lasts until the end.

    Raises:
        ValueError: `fps` is not positive.
    """
    if fps <= 0:
        raise ValueError(f"fps: got {fps}, expected a positive frame rate")
    if fps == track.fps or not len(track):
        return replace(track, fps=fps)
    step = track.fps / fps
    frames = math.ceil(len(track) / step)
    positions = [split(index * step) for index in range(frames)]
    return replace(sampled(track, positions), fps=fps)


def split(position: Fraction) -> tuple[int, Fraction]:
    """Return a position as `sampled` takes it."""
    whole = math.floor(position)
    return whole, position - whole


def sampled(track: LandmarkTrack, positions: list[tuple[int, Fraction]]) -> LandmarkTrack:
    """Return the track as it is at other moments, at its own frame rate; its ends are held.

    positions: for each frame that is wanted, a frame's number and a share in [0, 1) of the way to the next one.
    Rotations are interpolated along the shortest turn, the rest linearly; what falls on a frame is that frame.
    """
    last = len(track) - 1
    before = np.array([min(max(whole, 0), last) for whole, _ in positions], int)
    after = np.minimum(before + 1, last)
    weight = np.array([float(rest) if 0 <= whole < last else 0.0 for whole, rest in positions])
    rotation = turned_part_way(track.rotation[before], track.rotation[after], weight).astype(np.float32)
    on_frame = weight == 0
    rotation[on_frame] = track.rotation[before[on_frame]]

    def between(values: np.ndarray) -> np.ndarray:
        part = weight.astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
        return (1 - part) * values[before] + part * values[after]

    return replace(
        track,
        displacements=between(track.displacements),
        rotation=rotation,
        scale=between(track.scale),
        translation=between(track.translation),
    )
