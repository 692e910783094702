"""The preview of faces: frames and plates where they belong, at any size of the picture."""

from __future__ import annotations

import numpy as np
import pytest

from atldiff.video.preview import CHOSEN, OTHER, SIDES, draw_faces


def box(x: float, y: float, side: float) -> np.ndarray:
    return np.array([(x, y), (x + side, y), (x + side, y + side), (x, y + side)])


@pytest.mark.parametrize("size", [(60, 90), (700, 1000), (3000, 1900)])
def test_faces_are_framed_and_labelled(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 90, np.uint8)
    height, width = size
    side = height / 5
    boxes = [box(0.15 * width, 0.4 * height, side), box(0.6 * width, 0.4 * height, side)]
    drawn = draw_faces(image, boxes, [("0", "12 px"), ("1", "12 px")], [False, True])
    scale = max(drawn.shape[:2]) / max(size)
    assert SIDES[0] <= max(drawn.shape[:2]) <= SIDES[1]
    assert drawn.shape[0] / drawn.shape[1] == pytest.approx(height / width, rel=0.01)
    assert (image == 90).all()
    middle = round(scale * (0.15 + 0.6) / 2 * width + scale * side / 2)
    for colour, part in ((OTHER, drawn[:, :middle]), (CHOSEN, drawn[:, middle:])):
        of_colour = (part == colour).all(axis=-1)
        assert 0.002 < of_colour.mean() < 0.2
        rows = np.flatnonzero(of_colour.any(axis=1))
        assert rows[0] < scale * 0.4 * height - 18  # a plate above the frame, a line of 18 px or more
        assert rows[-1] > scale * (0.4 * height + side) + 8
        assert rows[-1] - rows[0] < scale * side + 150


def test_a_plate_stays_inside_the_picture() -> None:
    image = np.full((900, 900, 3), 90, np.uint8)
    drawn = draw_faces(
        image, [box(-40, -40, 200), box(760, 760, 200)], [("0", "200 px"), ("1", "200 px")], [True, True]
    )
    inside = (drawn == CHOSEN).all(axis=-1)
    assert inside[:30, :30].mean() > 0.4
    assert inside[-30:, 760:860].mean() > 0.4


def test_no_faces_no_marks() -> None:
    image = np.random.default_rng(0).integers(0, 256, (900, 1000, 3), np.uint8)
    assert np.array_equal(draw_faces(image, [], [], []), image)
