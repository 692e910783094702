"""Parts of a face from one track, parts from another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from atldiff.landmarks.edit import at_fps
from atldiff.landmarks.operations.head import Pose, check_alike, head_of
from atldiff.landmarks.operations.mouth import resting
from atldiff.landmarks.operations.regions import REGIONS, jaw_motion, region_weights
from atldiff.landmarks.rotations import turned_part_way
from atldiff.types import LandmarkTrack

Part = Literal["lips", "jaw", "brows", "eyes", "nose", "head"]
PARTS: tuple[Part, ...] = get_args(Part)


def in_step(track: LandmarkTrack, other: LandmarkTrack) -> LandmarkTrack:
    """Return another track with the frames of the first: at its rate, and forth and back where it is shorter.

    Raises:
        ValueError: the other track has no frames.
    """
    if not len(other):
        raise ValueError("other track: got no frames, expected at least one")
    other = at_fps(other, track.fps)
    last = len(other) - 1
    at = last - np.abs(np.arange(len(track)) % max(2 * last, 1) - last)
    return replace(
        other,
        displacements=other.displacements[at],
        rotation=other.rotation[at],
        translation=other.translation[at],
        scale=other.scale[at],
    )


def mixed(
    track: LandmarkTrack, other: LandmarkTrack, weights: Mapping[Part, float], portrait: Pose | None = None
) -> LandmarkTrack:
    """Return the track with parts of its face moving as another's of the same length and rate does.

    weights: of each part, 0 (this track's, as of what is not named) to 1 (the other's). Both mouths move about the one
    at rest, so the other may be of another face. portrait: the pose the other's head moves from; that of the first
    frame when left out.

    Raises:
        ValueError: another length or rate, no such part, or a weight out of range.
    """
    check_weights(weights)
    check_alike(track, other)
    if not len(track) or not any(weights.values()):
        return track
    share = sum((weights.get(region, 0) * region_weights(region) for region in REGIONS), np.zeros(1, np.float32))
    apart = (other.displacements - resting(other)) - (track.displacements - resting(track))
    jaw = jaw_motion(apart)  # the lower lip hangs on it: a jaw from one face takes the lips of another along
    moved = np.float32(weights.get("jaw", 0)) * jaw + share.astype(np.float32)[:, None] * (apart - jaw)
    made = replace(track, displacements=track.displacements + moved)
    by = weights.get("head", 0)
    if not by:
        return made
    turned = head_of(track, other, portrait)
    rotation = turned_part_way(track.rotation, turned.rotation, np.full(len(track), by)) if by < 1 else turned.rotation
    return replace(
        made,
        rotation=rotation.astype(np.float32),
        scale=((1 - by) * track.scale + by * turned.scale).astype(np.float32),
        translation=((1 - by) * track.translation + by * turned.translation).astype(np.float32),
    )


def check_weights(weights: Mapping[Part, float]) -> None:
    """Raise ValueError unless parts can be mixed by these weights."""
    for part, weight in weights.items():
        if part not in PARTS:
            raise ValueError(f"mix_regions: got {part!r}, expected {', '.join(PARTS)}")
        if not 0 <= weight <= 1:
            raise ValueError(f"mix_regions: got {part}={weight:g}, expected 0 to 1")
