"""What moves the face apart from speech: blinks and head motion of our own, or those of a driving track."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np

from atldiff.landmarks.blink import FOLD_LEFT, FOLD_RIGHT, NARROWEST_GAP, blink_displacement
from atldiff.landmarks.edit import retarget
from atldiff.landmarks.geometry import euler_degrees, rotation_from_euler
from atldiff.landmarks.motion import PIVOT, RAMP_FRAMES, ease, limited_turn, pose_track, softly_limited
from atldiff.landmarks.motion_codes import BROWS, CODES, POSE, SHIFT
from atldiff.landmarks.motion_model import (
    DEFAULT_STYLE,
    MotionFrames,
    MotionStream,
    Style,
    Weights,
    own_motion,
)
from atldiff.landmarks.rest import lower_face
from atldiff.landmarks.steady import steady_points
from atldiff.landmarks.topology import EYE_LEFT, EYE_RIGHT, LID_PAIRS_LEFT, LID_PAIRS_RIGHT, MESH_POINTS
from atldiff.types import Controls, LandmarkTrack

SHIFT_SHARE = 0.5
"""Of the sway that people show, the head's own part: in a portrait the body below it stays."""
MOST_SHIFT = 0.08
"""How far, in eye distances, our own head moves sideways or up and down, and never further."""
KEPT_FRAMES = 512
"""Frames before the last that may be asked for again."""
MAX_LID_RATIO = 2.0
"""A driver's lids move at most this much more, or less, on a portrait whose eyes are open wider, or less wide."""


class SeenMotion(Protocol):
    """What a completion generator sees of a face and its head, a function of the frame alone.

    Frames are numbers (F,) at 25 frames a second, in any order; before the start, the face is as at frame 0.
    """

    @property
    def driven(self) -> bool:
        """Whether it was filmed."""
        ...

    def seen(self, frames: np.ndarray) -> np.ndarray:
        """Return displacements (F, 478, 3) float32 from the neutral shape, whole, speech included."""
        ...

    def euler_deg(self, frames: np.ndarray) -> np.ndarray:
        """Return yaw, pitch and roll (F, 3) in degrees about the head's own axes, from the pose of frame 0."""
        ...


class VisibleMotion(SeenMotion, Protocol):
    """A portrait's face and head outside speech, likewise."""

    def hear(self, columns: np.ndarray) -> None:
        """Take the next log-mel columns (C, 80): a frame may be asked for when those to its end are there."""
        ...

    def end(self) -> None:
        """Let there be silence after what was heard."""
        ...

    def displacements(self, frames: np.ndarray) -> np.ndarray:
        """Return displacements (F, 478, 3) float32 in canonical units, to be added to those of speech."""
        ...

    def pose(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rotation (F, 3, 3), scale (F,) pixels per unit and translation (F, 3) pixels, float32."""
        ...


class MotionModel:
    """Head, brows and blinks that go with what is said, as the controls say.

    neutral: (478, 3) canonical shape of the portrait. rotation (3, 3), scale () and translation (3,): its pose. motion:
    weights and style, natural ones of our own when left out; a face that is to be still only blinks.
    """

    driven = False

    def __init__(
        self,
        neutral: np.ndarray,
        controls: Controls,
        rotation: np.ndarray,
        scale: np.ndarray | float,
        translation: np.ndarray,
        motion: tuple[Weights, Style] | None = None,
    ) -> None:
        self._neutral, self._pose = neutral, (rotation, scale, translation)
        self._gain = 0.0 if controls.still else controls.head_motion
        self._stream = None
        if not (controls.still and controls.blink_rate_hz == 0):
            weights, style = motion or own_motion(DEFAULT_STYLE)
            self._stream = MotionStream(weights, style, controls.seed, controls.blink_rate_hz)
            self._brows, self._gaze_a_degree = weights["brows"], float(weights["gaze"][0])

    def hear(self, columns: np.ndarray) -> None:
        """Take the next log-mel columns (C, 80)."""
        if self._stream is not None:
            self._stream.hear(columns)

    def end(self) -> None:
        """Let there be silence after what was heard."""
        if self._stream is not None:
            self._stream.end()

    def displacements(self, frames: np.ndarray) -> np.ndarray:
        """Return blinks, brows and gaze, (F, 478, 3) float32."""
        codes, closure, gaze = self._frames(frames)
        moved = blink_displacement(self._neutral, closure)
        if self._stream is not None:
            moved += codes[:, BROWS, None, None].astype(np.float32) * self._brows
            moved[:, MESH_POINTS:, 0] += gaze[:, None].astype(np.float32)
        return moved

    def seen(self, frames: np.ndarray) -> np.ndarray:
        """Return blinks, brows and gaze, (F, 478, 3) float32: there is no speech in them."""
        return self.displacements(frames)

    def pose(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rotation (F, 3, 3), scale (F,) and translation (F, 3), float32; forget what is long past."""
        codes = self._frames(frames)[0]
        if self._stream is not None and len(frames):
            self._stream.forget(int(np.max(frames)) - KEPT_FRAMES)
        return pose_track(*self._pose, codes[:, POSE], softly_limited(SHIFT_SHARE * codes[:, SHIFT], MOST_SHIFT))

    def euler_deg(self, frames: np.ndarray) -> np.ndarray:
        """Return yaw, pitch and roll (F, 3) in degrees."""
        return self._frames(frames)[0][:, POSE]

    def _frames(self, frames: np.ndarray) -> MotionFrames:
        """Return what the controls and one picture leave of the motion."""
        if self._stream is None:
            return MotionFrames(
                np.zeros((len(frames), CODES)), np.zeros(len(frames), np.float32), np.zeros(len(frames))
            )
        codes, closure, gaze = self._stream.frames(frames)
        grown = self._gain * ease(np.maximum(frames, 0) / RAMP_FRAMES)
        codes = codes * grown[:, None]
        codes[:, POSE] = limited_turn(codes[:, POSE], self._pose[0])[0]
        # Eyes stay with whom they look at while the head turns, if not wholly.
        return MotionFrames(codes, closure, gaze * grown + self._gaze_a_degree * codes[:, 0])


class DrivingTrack:
    """Another face's eyes, brows and head on a portrait; forth and back where it is shorter than the sound.

    track: at 25 frames a second. neutral, rotation, scale, translation: as for `MotionModel`. size: (height, width) of
    the portrait. The head moves from the portrait's own pose, less far where the driver's turns away; lids close its
    eyes as far as they close the driver's.

    Raises:
        ValueError: a track without frames.
    """

    driven = True

    def __init__(
        self,
        track: LandmarkTrack,
        neutral: np.ndarray,
        rotation: np.ndarray,
        scale: np.ndarray | float,
        translation: np.ndarray,
        size: tuple[int, int],
    ) -> None:
        if not len(track):
            raise ValueError("driving track: got no frames, expected at least one")
        self._track = retarget(_turned_less(track, rotation), neutral, rotation, float(scale), translation, size)
        self._irises = steady_points(self._track.displacements[:, MESH_POINTS:])  # whose tremble would show
        self._share = np.repeat(1 - lower_face()[:, None], 3, axis=1)  # (478, 3): what speech leaves to the driver
        for eye, pairs in (
            (np.concatenate([EYE_RIGHT, FOLD_RIGHT]), LID_PAIRS_RIGHT),
            (np.concatenate([EYE_LEFT, FOLD_LEFT]), LID_PAIRS_LEFT),
        ):
            self._share[eye, 1] *= lid_ratio(neutral, track.neutral, pairs)

    def hear(self, columns: np.ndarray) -> None:
        """Take log-mel columns (C, 80), of which a driver knows nothing."""

    def end(self) -> None:
        """Let there be silence: a driver goes on."""

    def displacements(self, frames: np.ndarray) -> np.ndarray:
        """Return the driver's displacements (F, 478, 3) float32, none where speech alone moves the face."""
        at = self._forth_and_back(frames)
        moved = self._track.displacements[at] * self._share
        moved[:, MESH_POINTS:] = self._irises[at]
        return moved

    def seen(self, frames: np.ndarray) -> np.ndarray:
        """Return the driver's displacements (F, 478, 3) float32 as they were filmed."""
        return self._track.displacements[self._forth_and_back(frames)]

    def pose(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rotation (F, 3, 3), scale (F,) and translation (F, 3), float32."""
        at = self._forth_and_back(frames)
        return self._track.rotation[at], self._track.scale[at], self._track.translation[at]

    def euler_deg(self, frames: np.ndarray) -> np.ndarray:
        """Return yaw, pitch and roll (F, 3) in degrees."""
        rotation = self._track.rotation.astype(np.float64)
        return euler_degrees(rotation[0].T @ rotation[self._forth_and_back(frames)])

    def _forth_and_back(self, frames: np.ndarray) -> np.ndarray:
        last = len(self._track) - 1
        return last - np.abs(np.maximum(frames, 0) % max(2 * last, 1) - last)


def open_visible(
    driving: LandmarkTrack | None,
    controls: Controls,
    neutral: np.ndarray,
    rotation: np.ndarray,
    scale: np.ndarray | float,
    translation: np.ndarray,
    size: tuple[int, int],
    motion: tuple[Weights, Style] | None = None,
) -> VisibleMotion:
    """Return what moves a portrait apart from speech: a driving track at 25 frames a second, or our motion model.

    motion: weights and style of the latter.

    Raises:
        ValueError: a driving track without frames, or one for a face that is to be still.
    """
    if driving is None:
        return MotionModel(neutral, controls, rotation, scale, translation, motion)
    refuse_still(controls)
    return DrivingTrack(driving, neutral, rotation, scale, translation, size)


def refuse_still(controls: Controls) -> None:
    """Raise ValueError where the face is to be still: for callers that have a driving track or are to make one."""
    if controls.still:
        raise ValueError("still: got it with a driving track, which moves head and eyes; expected only one of them")


def _turned_less(track: LandmarkTrack, portrait: np.ndarray) -> LandmarkTrack:
    """Return a track whose head turns no further from its first frame than can be shown, about the same pivot.

    portrait: (3, 3) rotation of the head that is to turn.
    """
    rotation = track.rotation.astype(np.float64)
    turned = euler_degrees(rotation[0].T @ rotation)  # (T, 3)
    limited, less = limited_turn(turned, portrait)
    kept = rotation.copy()
    far = np.flatnonzero(less)
    kept[far] = rotation[0] @ rotation_from_euler(*limited[far].T)
    moved = track.scale[:, None] * ((rotation - kept) @ PIVOT)
    return replace(track, rotation=kept.astype(np.float32), translation=(track.translation + moved).astype(np.float32))


def lid_ratio(portrait: np.ndarray, driver: np.ndarray, pairs: np.ndarray) -> float:
    """Return how much wider a portrait's eye (478, 3) is open than a driver's; 1 where the driver's is closed."""
    ours, theirs = (float((shape[pairs[:, 1], 1] - shape[pairs[:, 0], 1]).mean()) for shape in (portrait, driver))
    return 1.0 if theirs < NARROWEST_GAP else float(np.clip(ours / theirs, 1 / MAX_LID_RATIO, MAX_LID_RATIO))
