"""A landmark track on a portrait: its own, or another one that it is carried over to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from atldiff.landmarks.blink import FOLD_LEFT, FOLD_RIGHT
from atldiff.landmarks.edit import retarget
from atldiff.landmarks.geometry import to_canonical
from atldiff.landmarks.mouth import closing_coefficients, meet_lips
from atldiff.landmarks.operations.head import Pose
from atldiff.landmarks.operations.mouth import resting
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import EYE_LEFT, EYE_RIGHT, LID_PAIRS_LEFT, LID_PAIRS_RIGHT
from atldiff.landmarks.visible import lid_ratio
from atldiff.types import LandmarkTrack, Portrait

SAME = 1e-3
"""Shapes of one portrait differ by less, in eye distances."""


def shape_and_pose(portrait: Portrait) -> tuple[np.ndarray, Pose]:
    """Return the canonical shape (478, 3) float32 of a portrait's face, and the pose of its head."""
    shape, rotation, scale, translation = to_canonical(portrait.landmarks.astype(np.float64), mean_shape())
    return shape.astype(np.float32), Pose(rotation, float(scale), translation)


def fitted(track: LandmarkTrack, portrait: Portrait, basis: np.ndarray | None = None) -> LandmarkTrack:
    """Return the track on a portrait: as it is where it was made for it, else retargeted.

    The mouth moves about the one at rest, which of a portrait that smiles or speaks is not the photographed one; lids
    close the portrait's eyes as far as they close the track's; the head moves from the portrait's pose.
    basis: (M, 478, 3) displacements of speech, which say how an open mouth closes; None leaves it open.
    """
    shape, pose = shape_and_pose(portrait)
    if np.abs(track.neutral - shape).max() < SAME:  # this face, in a picture of this size or another
        return track if track.size == portrait.size else retarget(track, shape, *pose, portrait.size)
    moved = track.displacements - resting(track)
    for eye, pairs in (
        (np.concatenate([EYE_RIGHT, FOLD_RIGHT]), LID_PAIRS_RIGHT),
        (np.concatenate([EYE_LEFT, FOLD_LEFT]), LID_PAIRS_LEFT),
    ):
        moved[:, eye, 1] *= np.float32(lid_ratio(shape, track.neutral, pairs))
    if basis is not None:
        moved += np.einsum("m,mkd->kd", closing_coefficients(shape, basis), basis)
        moved = meet_lips(shape, moved)
    return retarget(replace(track, displacements=moved), shape, *pose, portrait.size)
