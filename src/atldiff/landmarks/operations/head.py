"""Where the head of a track turns: by keyframes, as another track's, more or less, or not at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from atldiff.landmarks.edit import retarget
from atldiff.landmarks.geometry import euler_degrees, rotation_from_euler
from atldiff.landmarks.motion import PIVOT, limited_turn, pose_track
from atldiff.landmarks.operations.mouth import resting
from atldiff.landmarks.operations.regions import region_weights
from atldiff.types import LandmarkTrack

MOST_DEG = (90.0, 60.0, 90.0)
"""Yaw, pitch and roll that a keyframe may ask for."""


class Pose(NamedTuple):
    """A head's pose in a portrait. rotation: (3, 3). scale: pixels per unit. translation: (3,) pixels."""

    rotation: np.ndarray
    scale: float
    translation: np.ndarray


class Keyframe(NamedTuple):
    """How far a head is turned from its portrait at a moment, about its own axes.

    seconds: from 0 on. yaw_deg: positive to the left of the picture. pitch_deg: positive down. roll_deg: clockwise.
    """

    seconds: float
    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0


def first_pose(track: LandmarkTrack) -> Pose:
    """Return the pose of the first frame, which is the portrait's where a track was made for one."""
    return Pose(track.rotation[0], float(track.scale[0]), track.translation[0])


def keyed_head(track: LandmarkTrack, keys: Sequence[Keyframe], portrait: Pose | None = None) -> LandmarkTrack:
    """Return the track with a head that is turned as keyframes say, and between them goes from one to the next.

    portrait: the pose from which it turns, that of the first frame when left out. Between two keyframes the turn stays
    between theirs (a monotone cubic, Fritsch and Butland 1984); before the first and after the last it is held.

    Raises:
        ValueError: no keyframes, times that do not grow, angles out of range.
    """
    check_keyframes(keys)
    if not len(track):
        return track
    seconds = np.arange(len(track)) / float(track.fps)
    table = np.array(keys, np.float64)
    turns = np.stack([_monotone(table[:, 0], column, seconds) for column in table[:, 1:].T], axis=1)
    return _posed(track, *pose_track(*(portrait or first_pose(track)), turns, np.zeros((len(track), 2))))


def check_keyframes(keys: Sequence[Keyframe]) -> None:
    """Raise ValueError unless a head can be moved by keyframes."""
    if not keys:
        raise ValueError("head: got no keyframes, expected at least one")
    times = [key.seconds for key in keys]
    if not all(0 <= time < math.inf for time in times) or any(b <= a for a, b in zip(times, times[1:], strict=False)):
        raise ValueError(
            f"head: got keyframes at {', '.join(f'{t:g}' for t in times)} s, expected times that grow from 0 on"
        )
    for key in keys:
        for name, angle, most in zip(("yaw", "pitch", "roll"), key[1:], MOST_DEG, strict=True):
            if not abs(angle) <= most:
                raise ValueError(
                    f"head: got a {name} of {angle:g} at {key.seconds:g} s, expected -{most:g} to {most:g} degrees"
                )


def _monotone(times: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return a cubic through values that stays between neighbours, its slope zero at both ends."""
    if len(times) == 1:
        return np.full(len(at), values[0])
    gaps, slopes = np.diff(times), np.diff(values) / np.diff(times)
    tangents = np.zeros(len(times))
    before, after = slopes[:-1], slopes[1:]
    share = (gaps[:-1] + 2 * gaps[1:]) / (3 * (gaps[:-1] + gaps[1:]))
    mean = share * after + (1 - share) * before
    same = before * after > 0
    tangents[1:-1][same] = (before * after)[same] / mean[same]
    index = np.clip(np.searchsorted(times, at, side="right") - 1, 0, len(gaps) - 1)
    gap = gaps[index]
    t = np.clip((at - times[index]) / gap, 0, 1)
    start, end = values[index], values[index + 1]
    return (
        start
        + (end - start) * t * t * (3 - 2 * t)
        + gap * t * (1 - t) * ((1 - t) * tangents[index] - t * tangents[index + 1])
    )


def head_of(track: LandmarkTrack, other: LandmarkTrack, portrait: Pose | None = None) -> LandmarkTrack:
    """Return the track with the head motion of another of the same length and rate, from the portrait's own pose.

    Raises:
        ValueError: another length or rate.
    """
    check_alike(track, other)
    if not len(track):
        return track
    rotation, scale, translation = portrait or first_pose(track)
    moved = retarget(other, track.neutral, rotation, scale, translation, track.size)
    return _posed(track, moved.rotation, moved.scale, moved.translation)


def head_strength(track: LandmarkTrack, gain: float, portrait: Pose | None = None) -> LandmarkTrack:
    """Return the track with a head that turns `gain` times as far from its portrait's pose, and moves as far.

    gain: 0 to 3; 1 changes nothing.

    Raises:
        ValueError: it is not in that range.
    """
    if not 0 <= gain <= 3:
        raise ValueError(f"head_motion: got {gain}, expected 0 to 3")
    if gain == 1 or not len(track):
        return track
    rotation, scale, translation = portrait or first_pose(track)
    rotation = np.asarray(rotation, np.float64)
    turns = gain * euler_degrees(rotation.T @ track.rotation.astype(np.float64))
    turned = rotation @ rotation_from_euler(*turns.T)
    sizes = scale * (track.scale.astype(np.float64) / scale) ** gain
    place = scale * (rotation @ PIVOT) + translation
    pivots = track.scale[:, None] * (track.rotation.astype(np.float64) @ PIVOT) + track.translation
    places = place + gain * (pivots - place) - sizes[:, None] * (turned @ PIVOT)
    return _posed(track, turned, sizes, places)


def still(track: LandmarkTrack, portrait: Pose | None = None) -> LandmarkTrack:
    """Return the track with head and brows that rest; mouth, blinks and eyes go on."""
    if not len(track):
        return track
    rotation, scale, translation = portrait or first_pose(track)
    part = region_weights("brows")[:, None]
    moved = track.displacements - part * (track.displacements - resting(track))
    frames = len(track)
    held = _posed(track, np.tile(rotation, (frames, 1, 1)), np.full(frames, scale), np.tile(translation, (frames, 1)))
    return replace(held, displacements=moved)


def turned_less(track: LandmarkTrack, portrait: np.ndarray | None = None) -> tuple[LandmarkTrack, np.ndarray]:
    """Return the track with a head that turns no further than one picture shows, and (T,) where it turns less.

    portrait: (3, 3) rotation of the photographed head, the first frame's when left out. The skull's base stays.
    """
    if not len(track):
        return track, np.zeros(0, bool)
    rotation = track.rotation.astype(np.float64)
    start = rotation[0] if portrait is None else np.asarray(portrait, np.float64)
    limited, less = limited_turn(euler_degrees(start.T @ rotation), start)
    if not less.any():
        return track, less
    kept = rotation.copy()
    kept[less] = start @ rotation_from_euler(*limited[less].T)
    moved = track.scale[:, None] * ((rotation - kept) @ PIVOT)
    return _posed(track, kept, track.scale, track.translation + moved), less


def check_alike(track: LandmarkTrack, other: LandmarkTrack) -> None:
    """Raise ValueError unless two tracks have the same frames."""
    if (len(track), track.fps) != (len(other), other.fps):
        got = f"{len(other)} frames at {float(other.fps):g} fps"
        raise ValueError(f"other track: got {got}, expected {len(track)} at {float(track.fps):g}: see `in_step`")


def _posed(track: LandmarkTrack, rotation: np.ndarray, scale: np.ndarray, translation: np.ndarray) -> LandmarkTrack:
    return replace(
        track,
        rotation=rotation.astype(np.float32),
        scale=scale.astype(np.float32),
        translation=translation.astype(np.float32),
    )
