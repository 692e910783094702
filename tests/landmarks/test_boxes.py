"""Anchors, decoding and suppression of the face detectors, on numbers made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atldiff.landmarks import boxes
from atldiff.landmarks.boxes import anchors, decode, find_boxes, suppress


def test_anchors_lie_in_the_middle_of_cells_row_by_row() -> None:
    near, far = anchors("near"), anchors("far")
    assert near.shape == (16 * 16 * 2 + 8 * 8 * 6, 2)
    assert near[:3].tolist() == [[0.03125, 0.03125], [0.03125, 0.03125], [0.09375, 0.03125]]
    assert near[32].tolist() == [0.03125, 0.09375]  # the second row
    assert near[512:519:6].tolist() == [[0.0625, 0.0625], [0.1875, 0.0625]]  # the coarser grid
    assert far.shape == (48 * 48, 2)
    assert far[[0, 1, 48]] * 96 == pytest.approx(np.array([[1, 1], [3, 1], [1, 3]]))


def test_a_box_is_decoded_from_its_anchor() -> None:
    raw = np.zeros((896, 16), np.float32)
    raw[1] = [12.8, 25.6, 64, 32, *([-12.8, 6.4] * 6)]
    points = decode(raw, "near")
    middle = np.array([0.03125 + 0.1, 0.03125 + 0.2])
    assert points.shape == (896, 8, 2)
    assert points[1, 0] == pytest.approx(middle - (0.25, 0.125))
    assert points[1, 1] == pytest.approx(middle + (0.25, 0.125))
    assert points[1, 2:] == pytest.approx(np.tile([0.03125 - 0.1, 0.03125 + 0.05], (6, 1)))
    assert points[600, :] == pytest.approx(np.tile(anchors("near")[600], (8, 1)))


def square(x: float, y: float, side: float, key: float) -> list[list[float]]:
    return [[x, y], [x + side, y + side], [key, key]]


def test_boxes_of_one_face_are_averaged_by_their_scores() -> None:
    scores = np.array([0.5, 0.9, 0.8, 0.7], np.float32)
    points = np.array([square(0, 0, 1, 0.1), square(5, 5, 1, 5.5), square(0.1, 0, 1, 0.4), square(6, 5, 1, 6.5)])
    first, second, third = suppress(scores, points)
    assert first[0] == pytest.approx(0.9)
    assert first[1] == pytest.approx(points[1])  # a box that only touches another is another face
    assert second[0] == pytest.approx(0.8)  # the best of the two, not their mean
    assert second[1] == pytest.approx((0.5 * points[0] + 0.8 * points[2]) / 1.3)
    assert third[0] == pytest.approx(0.7)


def test_overlap_is_counted_against_the_best_box_only() -> None:
    # A chain: each overlaps its neighbour by half, the outer ones not at all.
    points = np.array([square(0, 0, 1, 0), square(1 / 3, 0, 1, 0), square(1, 0, 1, 0)])
    found = suppress(np.array([0.9, 0.8, 0.7]), points)
    assert [score for score, _ in found] == [0.9, 0.7]
    assert suppress(np.zeros(0), np.zeros((0, 8, 2))) == []


def test_boxes_without_extent_are_faces_of_their_own() -> None:
    points = np.zeros((2, 8, 2))
    assert len(suppress(np.array([0.9, 0.8]), points)) == 2


@pytest.fixture(scope="module")
def portrait(examples: Path) -> np.ndarray:
    return np.asarray(Image.open(examples / "portrait.jpg").convert("RGB"))


@pytest.mark.parametrize("kind", ["near", "far"])
def test_a_box_lies_where_the_face_does(portrait: np.ndarray, kind: boxes.Range) -> None:
    (face,) = find_boxes(portrait, kind)
    assert face.score > 0.8
    assert face.key_points.shape == (6, 2)
    assert (face.low < face.key_points[:4]).all()
    assert (face.key_points[:4] < face.high).all()
    right, left, nose, mouth = face.key_points[:4]
    assert right[0] < nose[0] < left[0]
    assert max(right[1], left[1]) < nose[1] < mouth[1]
    wide = np.pad(portrait, ((0, 0), (100, 60), (0, 0)), mode="edge")  # no square: what is looked at is padded
    (moved,) = find_boxes(wide, kind)
    eyes = float(np.linalg.norm(left - right))
    assert np.abs(moved.key_points - face.key_points - (100, 0))[:4].max() < 0.2 * eyes


def test_scores_that_are_asked_for_move_the_box(portrait: np.ndarray) -> None:
    assert find_boxes(portrait, "near", 0.9999) == []
    strict, lax = (find_boxes(portrait, "near", least)[0] for least in (0.9, 0.05))
    assert strict.score == lax.score
    assert np.abs(strict.low - lax.low).max() > 1e-3
    assert np.abs(strict.low - lax.low).max() < 0.1 * (strict.high - strict.low).max()
