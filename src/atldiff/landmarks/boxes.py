"""Faces of a picture as boxes with six key points, by MediaPipe's two detectors: of near faces, and of far ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from atldiff.landmarks.networks import network
from atldiff.landmarks.region import Region

Range = Literal["near", "far"]

SIDE: dict[Range, int] = {"near": 128, "far": 192}
"""Side in pixels of the square that a network sees."""
GRIDS: dict[Range, tuple[tuple[int, int], ...]] = {"near": ((16, 2), (8, 6)), "far": ((48, 1),)}
"""Cells a side of the grids of anchors, and anchors in each cell."""
LEAST: dict[Range, float] = {"near": 0.5, "far": 0.6}
"""Scores from which it is a face. They weigh in what is averaged too: lower ones would move boxes."""
SAME = 0.3
"""Overlap above which two boxes are one face."""
KEY_POINTS = 6
"""Right eye, left eye, tip of the nose, mouth, right ear, left ear; right is the person's own."""
_LOGIT = 80.0
"""Logits are cut off there, before float32 overflows."""


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """A face: its score in [0, 1], corners (2,) and key points (6, 2) in pixels."""

    score: float
    low: np.ndarray
    high: np.ndarray
    key_points: np.ndarray


@cache
def anchors(kind: Range) -> np.ndarray:
    """Return the centres (N, 2) of a detector's anchors, in sides of its square: row by row, grid by grid."""
    centres = []
    for cells, each in GRIDS[kind]:
        down, across = (np.mgrid[:cells, :cells] + 0.5) / cells
        centres.append(np.repeat(np.stack([across, down], axis=-1).reshape(-1, 2), each, axis=0))
    return np.concatenate(centres).astype(np.float32)


def decode(boxes: np.ndarray, kind: Range) -> np.ndarray:
    """Return corners and key points (N, 8, 2), in sides of the square, of a network's answers (N, 16)."""
    shares = boxes.reshape(-1, 2 + KEY_POINTS, 2) / np.float32(SIDE[kind])
    size, points = shares[:, 1].copy(), shares + anchors(kind)[:, None]
    points[:, 0], points[:, 1] = points[:, 0] - size / 2, points[:, 0] + size / 2
    return points


def suppress(scores: np.ndarray, points: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Return what is seen of each face, the surest first: the best score, and the mean of all that overlap the best.

    scores: (N,). points: (N, K, 2), the first two of them the corners of a box. The mean (K, 2) is weighted by scores.
    """
    order = np.argsort(-scores, kind="stable")
    scores, points = scores[order], points[order]
    found = []
    while len(scores):
        same = _overlaps(points[:, :2], points[0, :2]) > SAME
        same[0] = True
        weights = scores[same, None, None]
        found.append((float(scores[0]), (points[same] * weights).sum(axis=0) / weights.sum()))
        scores, points = scores[~same], points[~same]
    return found


def _overlaps(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the intersection over union (N,) of boxes (N, 2, 2) and one (2, 2), as corners."""
    inner = np.clip(np.minimum(boxes[:, 1], box[1]) - np.maximum(boxes[:, 0], box[0]), 0, None).prod(axis=1)
    areas = (boxes[:, 1] - boxes[:, 0]).prod(axis=1)
    whole = areas + (box[1] - box[0]).prod() - inner
    return np.divide(inner, whole, out=np.zeros_like(inner), where=whole > 0)


def find_boxes(picture: np.ndarray, kind: Range, least: float | None = None) -> list[Detection]:
    """Return the faces of a picture (H, W, 3) uint8, the surest first.

    kind: whose detector: of faces that fill at least a tenth of the picture or so, or of those further away. least: the
    score from which it is a face, where not the detector's own.
    """
    height, width = picture.shape[:2]
    whole = Region(width / 2, height / 2, float(max(height, width)))
    logits: np.ndarray
    boxes, logits = network(kind)(whole.fetch(picture, SIDE[kind], replicate=False))
    scores = 1 / (1 + np.exp(-np.clip(logits, -_LOGIT, _LOGIT)))
    kept = np.flatnonzero(scores >= (LEAST[kind] if least is None else least))
    points = decode(boxes, kind)[kept]
    proper = (points[:, 1] >= points[:, 0]).all(axis=1)
    found = []
    for score, mean in suppress(scores[kept][proper], points[proper]):
        low, high, *key_points = whole.to_picture(mean)
        found.append(Detection(score, low, high, np.stack(key_points)))
    return found
