"""A head that moves as one: what of a portrait's displacement is the skull's, and how far down the neck it reaches.

Interpolated displacements alone hold a portrait's far border and shear whatever lies between: hair shrinks towards the
border, and a collar follows the chin. Hair goes with the skull; shoulders do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NECK = (0.0, 0.36)
"""Between which distances below the chin the motion fades, in lengths of the face: shoulders stay."""
NECK_REACH, SHOULDERS, SHOULDER_TOP = 0.3, 2.5, (-0.35, -0.1)
"""Half the width of a neck, in the same lengths; by how much a place beside it counts as further down; and between
which heights it begins to: hair above is no shoulder."""
BESIDE = (0.75, 1.2)
"""The same to either side of the face's axis."""
RIM = 0.15
"""Width, in lengths of the face, over which the motion fades towards the border that never moves."""


@dataclass(frozen=True, slots=True)
class Head:
    """Which control points are what.

    skull: (S,) indices of those that no expression moves. top, chin: of the face's top and of its chin.
    """

    skull: np.ndarray
    top: int
    chin: int

    def motion(self, source: np.ndarray, target: np.ndarray) -> HeadMotion:
        """Return how the skull moved. source, target: (K, 2) control points."""
        still, moved = _complex(source), _complex(target)
        here, there = still[self.skull], moved[self.skull]
        centred = here - here.mean()
        turn = complex(np.vdot(centred, there - there.mean()) / np.vdot(centred, centred))
        shift = complex(there.mean() - turn * here.mean())
        down = still[self.chin] - still[self.top]
        return HeadMotion(turn, shift, complex(down * turn), complex(moved[self.chin]))


@dataclass(frozen=True, slots=True)
class HeadMotion:
    """A similarity of the picture: a point z of the portrait, x + iy, goes to turn * z + shift.

    down: from the face's top to its chin, as turned now. chin: where it is now, an open jaw's.
    """

    turn: complex
    shift: complex
    down: complex
    chin: complex

    def back(self, points: np.ndarray) -> np.ndarray:
        """Return where moved points (..., 2) come from."""
        found = (_complex(points) - self.shift) / self.turn
        return np.stack([found.real, found.imag], -1).astype(points.dtype)

    def share(self, points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Return how much of the head's motion points (..., 2) take part in, (...) in [0, 1].

        low, high: (2,) corners of the rectangle whose border never moves.
        """
        length = abs(self.down)
        along = (_complex(points) - self.chin) / self.down  # real below the chin, imaginary beside it
        border = np.minimum(points - low, high - points).min(axis=-1) / length
        beside = np.abs(along.imag)
        shoulder = SHOULDERS * _smooth(along.real, *SHOULDER_TOP) * np.maximum(beside - NECK_REACH, 0)
        down = along.real + shoulder
        share = (1 - _smooth(down, *NECK)) * (1 - _smooth(beside, *BESIDE)) * _smooth(border, 0, RIM)
        return share.astype(points.dtype)


def _complex(points: np.ndarray) -> np.ndarray:
    return points[..., 0].astype(np.float64) + 1j * points[..., 1].astype(np.float64)


def _smooth(values: np.ndarray, low: float, high: float) -> np.ndarray:
    share = np.clip((values - low) / (high - low), 0, 1)
    return share * share * (3 - 2 * share)
