"""What moves the face apart from speech: blinks and head motion of our own, or those of a driving track."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np

from atldiff.landmarks.blink import FOLD_LEFT, FOLD_RIGHT, NARROWEST_GAP, blink_closure, blink_displacement
from atldiff.landmarks.edit import retarget
from atldiff.landmarks.geometry import euler_degrees, rotation_from_euler
from atldiff.landmarks.motion import PIVOT, head_motion, pose_track
from atldiff.landmarks.rest import lower_face
from atldiff.landmarks.topology import EYE_LEFT, EYE_RIGHT, LID_PAIRS_LEFT, LID_PAIRS_RIGHT
from atldiff.types import Controls, LandmarkTrack

MOST_TURNED_DEG = np.array([14.0, 12.0, 25.0])
"""Yaw, pitch and roll that a driver's head comes near to on a portrait, and never passes: of one picture no more of the
other side can be shown. Half of it is carried over as it is."""
MOST_AWAY_DEG, LEAST_AWAY_DEG = 22.0, 5.0
"""Yaw that a portrait whose head is already turned comes near to on that side; but it may always turn a little more."""
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

    def displacements(self, frames: np.ndarray) -> np.ndarray:
        """Return displacements (F, 478, 3) float32 in canonical units, to be added to those of speech."""
        ...

    def pose(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rotation (F, 3, 3), scale (F,) pixels per unit and translation (F, 3) pixels, float32."""
        ...


class MotionModel:
    """Blinks and a small drift of the head, as the controls say.

    neutral: (478, 3) canonical shape of the portrait. rotation (3, 3), scale () and translation (3,): its pose.
    """

    driven = False

    def __init__(
        self,
        neutral: np.ndarray,
        controls: Controls,
        rotation: np.ndarray,
        scale: np.ndarray | float,
        translation: np.ndarray,
    ) -> None:
        self._neutral, self._pose, self._seed = neutral, (rotation, scale, translation), controls.seed
        self._blink_rate_hz = 0.0 if controls.still else controls.blink_rate_hz
        self._head_motion = 0.0 if controls.still else controls.head_motion

    def displacements(self, frames: np.ndarray) -> np.ndarray:
        """Return the blinks, (F, 478, 3) float32."""
        return blink_displacement(self._neutral, blink_closure(_moments(frames), self._blink_rate_hz, self._seed))

    def seen(self, frames: np.ndarray) -> np.ndarray:
        """Return the blinks, (F, 478, 3) float32: there is no speech in them."""
        return self.displacements(frames)

    def pose(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rotation (F, 3, 3), scale (F,) and translation (F, 3), float32."""
        return pose_track(*self._pose, *head_motion(_moments(frames), self._head_motion, self._seed))

    def euler_deg(self, frames: np.ndarray) -> np.ndarray:
        """Return yaw, pitch and roll (F, 3) in degrees."""
        return head_motion(_moments(frames), self._head_motion, self._seed)[0]


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
        self._share = np.repeat(1 - lower_face()[:, None], 3, axis=1)  # (478, 3): what speech leaves to the driver
        for eye, pairs in (
            (np.concatenate([EYE_RIGHT, FOLD_RIGHT]), LID_PAIRS_RIGHT),
            (np.concatenate([EYE_LEFT, FOLD_LEFT]), LID_PAIRS_LEFT),
        ):
            self._share[eye, 1] *= _lid_ratio(neutral, track.neutral, pairs)

    def displacements(self, frames: np.ndarray) -> np.ndarray:
        """Return the driver's displacements (F, 478, 3) float32, none where speech alone moves the face."""
        return self._track.displacements[self._forth_and_back(frames)] * self._share

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
) -> VisibleMotion:
    """Return what moves a portrait apart from speech: a driving track at 25 frames a second, or our motion model.

    Raises:
        ValueError: a driving track without frames, or one for a face that is to be still.
    """
    if driving is None:
        return MotionModel(neutral, controls, rotation, scale, translation)
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
    most = np.tile(MOST_TURNED_DEG, (len(turned), 1))
    yaw = float(euler_degrees(np.asarray(portrait, np.float64))[0])
    away = min(MOST_TURNED_DEG[0], max(LEAST_AWAY_DEG, MOST_AWAY_DEG - abs(yaw)))
    most[turned[:, 0] * yaw > 0, 0] = away
    free = most / 2
    beyond = np.maximum(np.abs(turned) - free, 0)
    limited = np.where(beyond > 0, np.sign(turned) * (free + free * np.tanh(beyond / free)), turned)
    kept = rotation.copy()
    far = np.flatnonzero(beyond.max(axis=1))
    kept[far] = rotation[0] @ rotation_from_euler(*limited[far].T)
    moved = track.scale[:, None] * ((rotation - kept) @ PIVOT)
    return replace(track, rotation=kept.astype(np.float32), translation=(track.translation + moved).astype(np.float32))


def _moments(frames: np.ndarray) -> np.ndarray:
    return np.maximum(frames, 0).astype(np.float64)


def _lid_ratio(portrait: np.ndarray, driver: np.ndarray, pairs: np.ndarray) -> float:
    """Return how much wider a portrait's eye (478, 3) is open than a driver's; 1 where the driver's is closed."""
    ours, theirs = (float((shape[pairs[:, 1], 1] - shape[pairs[:, 0], 1]).mean()) for shape in (portrait, driver))
    return 1.0 if theirs < NARROWEST_GAP else float(np.clip(ours / theirs, 1 / MAX_LID_RATIO, MAX_LID_RATIO))
