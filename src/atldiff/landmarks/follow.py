"""One face of several followed through a video: by where it was, how large, its shape, and the colours around it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from atldiff.landmarks.boxes import find_boxes
from atldiff.landmarks.geometry import to_canonical
from atldiff.landmarks.mesh import measure, next_region, region_of
from atldiff.landmarks.search import MIN_FACE_PX, face_width
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import MESH_POINTS

if TYPE_CHECKING:
    from atldiff.landmarks.region import Region

SURE = 0.5
"""Probability of a face above which a mesh counts."""
LOOK_EVERY = 12
"""Frames after which other faces are looked for beside one that is followed."""
SEEK_ALL, SEEK_EVERY = 12, 3
"""Frames in which a face that is lost is looked for, and then every how many."""
NEAR = 3.0
"""Distance, in face widths, up to which another face is followed frame by frame: the two may cross."""
SAME = 0.3
"""Overlap from which two meshes lie on one face."""
JUMP, GROWTH = 0.6, 1.5
"""How far a face may move from frame to frame, in its widths, and by how much grow or shrink."""
SUDDEN, STRANGE = 0.04, 2.0
"""A mesh that moves by more, in face widths, from frame to frame may lie on another face after a cut; unlikeness above
which it does."""
GONE = 25
"""Frames after which where a face was last says nothing about where it is now."""
REMEMBERED = 250
"""Frames for which another face that is no longer seen is remembered."""
ALIKE, ALIKE_BESIDE, CLEARLY = 1.15, 1.6, 0.8
"""Unlikeness up to which a face that appears elsewhere is the one that was lost: of 17 people 97 % of their own frames
stay below 1.0, and 97 % of the others' above. Where others are known that it might be, it may be more, but has to be
less than this share of what it is from theirs."""

_COLOUR, _SHAPE = 24.0, 0.045
"""Spread of colours, in levels of CIE Lab, and of shape, in eye distances, that make an unlikeness of one."""
_CORNERS = np.array([33, 133, 362, 263, 168, 1, 98, 327, 10, 234, 454, 70, 300])
"""Points whose distances tell heads apart, as little as may be by what they do."""


class View(Protocol):
    """A frame of which parts are looked at in RGB."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in square pixels."""
        ...

    def part(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what is between two corners (2,), (h, w, 3) uint8, and where its own top left corner is, (2,)."""
        ...

    def whole(self) -> np.ndarray:
        """Return all of it, (H, W, 3) uint8."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Appearance:
    """What a face looks like: colours (3, 3) of skin, hair and clothes in CIE Lab, and shape (P,) in eye distances."""

    colours: np.ndarray
    shape: np.ndarray

    @classmethod
    def of(cls, view: View, points: np.ndarray) -> Appearance:
        """Look at a face with landmarks (478, 3)."""
        import cv2

        down = points[152, :2] - points[168, :2]
        across = points[454, :2] - points[234, :2]
        patches = (
            [points[i, :2] for i in (50, 280, 151, 108, 337)],
            [points[i, :2] - 0.28 * down for i in (10, 67, 297)],
            [points[152, :2] + 0.55 * down + shift * across for shift in (-0.4, 0.0, 0.4)],
        )
        margin = 0.06 * float(np.linalg.norm(across)) + 1
        every = np.concatenate([np.stack(places) for places in patches])
        picture, corner = view.part(every.min(0) - 2 * margin, every.max(0) + 2 * margin)
        lab = cv2.cvtColor(cv2.blur(picture, (2 * int(margin) + 1,) * 2), cv2.COLOR_RGB2LAB)
        limit = np.array(picture.shape[1::-1]) - 1
        colours = []
        for places in patches:
            at = np.clip(np.rint(np.stack(places) - corner).astype(int), 0, limit)
            colours.append(lab[at[:, 1], at[:, 0]].astype(np.float32).mean(0))
        shape = to_canonical(points.astype(np.float64), mean_shape())[0][_CORNERS]
        apart = np.linalg.norm(shape[:, None] - shape[None], axis=-1)[np.triu_indices(len(_CORNERS), 1)]
        return cls(np.stack(colours), apart.astype(np.float32))

    def unlike(self, other: Appearance, *, clothes: bool = True) -> float:
        """Return how unlike two are: people of one video mostly differ by more than one."""
        many = 3 if clothes else 2
        colour = np.linalg.norm(self.colours[:many] - other.colours[:many], axis=1).mean() / _COLOUR
        shape = float(np.sqrt(np.square(self.shape - other.shape).mean())) / _SHAPE
        return float(np.hypot(colour, shape))

    def with_more(self, other: Appearance, share: float = 0.1) -> Appearance:
        """Return what it is on the average, a little more like the latest."""
        return replace(
            self, colours=self.colours + share * (other.colours - self.colours),
            shape=self.shape + share * (other.shape - self.shape),
        )  # fmt: skip


def measured(view: View, region: Region, least: float = SURE) -> np.ndarray | None:
    """Return the landmarks (478, 3) of the face in a region of a view, or None."""
    reach = 0.75 * region.side + 2  # of a turned square, and a pixel for the border
    middle = np.array([region.x, region.y])
    picture, corner = view.part(middle - reach, middle + reach)
    points = measure(picture, replace(region, x=region.x - corner[0], y=region.y - corner[1]), least)
    return None if points is None else points + np.append(corner, 0).astype(np.float32)


def seen_faces(view: View) -> list[np.ndarray]:
    """Return the landmarks of the faces that the detector of near faces sees in a view, the surest first."""
    found: list[np.ndarray] = []
    for box in find_boxes(view.whole(), "near"):
        points = measured(view, region_of(box))
        if points is not None and face_width(points) >= MIN_FACE_PX and all(overlap(points, o) < SAME for o in found):
            found.append(points)
    return found


class Follower:
    """Follows one face from frame to frame; a face that is covered or gone is looked for until it is back."""

    def __init__(self, view: View, points: np.ndarray) -> None:
        """Begin with the landmarks (478, 3) of the face in a view."""
        self._own = _Face(points, Appearance.of(view, points))
        self._others: list[_Face] = []
        self._count = self._missed = 0
        self._look(view)

    def push(self, view: View) -> np.ndarray | None:
        """Return the landmarks (478, 3) of the face in the next frame, None where it is not seen."""
        self._count += 1
        points = self._own.next(view) if not self._missed else None
        middle, width = _place(self._own.points)
        for other in self._others:
            if np.linalg.norm(_place(other.points)[0] - middle) <= NEAR * width:
                other.follow(view)
        if points is not None and (self._taken(view, points) or self._replaced(view, points)):
            points = None
        if points is None:
            self._missed += 1
            if self._missed <= SEEK_ALL or self._missed % SEEK_EVERY == 0:
                points = self._sought(view)
        if points is None:
            return None
        self._missed = 0
        self._own.take(points)
        if self._count % LOOK_EVERY == 0:
            self._look(view)
        return points

    def _taken(self, view: View, points: np.ndarray) -> bool:
        """Return whether a mesh lies on a face that is another's: it lies where that is or was, and looks like it."""
        near = [other for other in self._others if overlap(points, other.points) >= SAME]
        if not near:
            return False
        found = Appearance.of(view, points)
        own = found.unlike(self._own.looks)
        return any(found.unlike(other.looks) < own for other in near)

    def _replaced(self, view: View, points: np.ndarray) -> bool:
        """Return whether a cut has put another face in ours' place: it has moved at once, and looks different."""
        moved = float(np.abs(points[:, :2] - self._own.points[:, :2]).mean()) / _place(points)[1]
        if moved < SUDDEN and self._count % LOOK_EVERY:
            return False
        return Appearance.of(view, points).unlike(self._own.looks) > STRANGE

    def _sought(self, view: View) -> np.ndarray | None:
        best, least = None, np.inf
        for points in seen_faces(view):
            looks = Appearance.of(view, points)
            unlike = looks.unlike(self._own.looks)
            near = self._missed <= GONE and self._own.is_near(points) and unlike <= STRANGE
            others = [looks.unlike(other.looks) for other in self._others]
            if others and min(others) < unlike:
                continue
            clear = bool(others) and unlike < min(ALIKE_BESIDE, CLEARLY * min(others))
            if (near or clear or unlike < ALIKE) and unlike < least:
                best, least = points, unlike
        return best

    def _look(self, view: View) -> None:
        """See which other faces there are, and what ours looks like now."""
        self._own.looks = self._own.looks.with_more(Appearance.of(view, self._own.points))
        others = []
        for points in seen_faces(view):
            if overlap(points, self._own.points) >= SAME:
                continue
            looks = Appearance.of(view, points)
            known = min(self._others, key=lambda other: looks.unlike(other.looks), default=None)  # noqa: B023
            if known is not None and known not in others and looks.unlike(known.looks) < ALIKE:
                known.take(points)
                others.append(known)
            else:
                others.append(_Face(points, looks))
        unseen = [other for other in self._others if other not in others and other.missed <= REMEMBERED]
        self._others = others + unseen


class _Face:
    """A face that is followed: its landmarks in the last frame, and what it looks like."""

    def __init__(self, points: np.ndarray, looks: Appearance) -> None:
        self.points, self.looks, self.missed = points, looks, 0

    def next(self, view: View) -> np.ndarray | None:
        points = measured(view, next_region(self.points))
        return points if points is not None and self.is_near(points) else None

    def follow(self, view: View) -> None:
        points = None if self.missed else self.next(view)
        if points is None:
            self.missed += 1
        else:
            self.take(points)

    def take(self, points: np.ndarray) -> None:
        self.points, self.missed = points, 0

    def is_near(self, points: np.ndarray) -> bool:
        """Return whether landmarks may be of the same face, a frame later."""
        (was, width), (now, its) = _place(self.points), _place(points)
        return bool(np.linalg.norm(now - was) <= JUMP * width and 1 / GROWTH <= its / max(width, 1) <= GROWTH)


def _place(points: np.ndarray) -> tuple[np.ndarray, float]:
    low, high = points[:MESH_POINTS, :2].min(axis=0), points[:MESH_POINTS, :2].max(axis=0)
    return (low + high) / 2, max(1.0, float((high - low).max()))


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the intersection over union of the boxes of two faces with landmarks (478, 3)."""
    lows, highs = zip(*((p[:MESH_POINTS, :2].min(0), p[:MESH_POINTS, :2].max(0)) for p in (first, second)), strict=True)
    inner = np.prod(np.clip(np.minimum(*highs) - np.maximum(*lows), 0, None))
    areas = sum(float(np.prod(high - low)) for low, high in zip(lows, highs, strict=True))
    return float(inner / max(areas - inner, 1e-6))
