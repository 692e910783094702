"""Faces in reading order, from boxes whose rows are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from atldiff.landmarks.order import reading_order


def ordered(centres: Sequence[tuple[float, float]], size: float | list[float] = 100.0) -> list[int]:
    middle = np.array(centres, np.float64)
    half = np.broadcast_to(np.asarray(size, np.float64), len(centres))[:, None] * np.array([0.4, 0.5])
    return reading_order(middle - half, middle + half)


def test_two_rows_of_faces_of_nearly_one_size() -> None:
    centres = [(1000, 194), (198, 193), (597, 199), (1010, 596), (198, 602), (598, 595)]
    assert ordered(centres, [170, 169, 160, 150, 151, 152]) == [1, 2, 0, 4, 5, 3]


def test_one_row_whose_people_are_not_equally_tall() -> None:
    assert ordered([(500, 70), (100, 100), (300, 40), (700, 110)], [90, 100, 110, 80]) == [1, 2, 0, 3]


@pytest.mark.parametrize("slope", [-0.3, -0.15, 0.15, 0.3])
def test_tilted_rows(slope: float) -> None:
    straight = [(x, y) for y in (100, 240, 380) for x in range(100, 1000, 150)]
    tilted = [(x, y + slope * x) for x, y in straight]
    assert ordered(tilted) == list(range(len(tilted)))


def test_rows_that_stand_in_the_gaps_of_the_row_behind() -> None:
    centres = [(100, 100), (250, 100), (400, 100), (175, 180), (325, 180)]
    shuffled = [4, 2, 0, 3, 1]
    assert [shuffled[index] for index in ordered([centres[index] for index in shuffled])] == [0, 1, 2, 3, 4]


def test_an_unsteady_hand_does_not_change_the_order() -> None:
    random = np.random.default_rng(0)
    straight = np.array([(x, y) for y in (100, 260) for x in range(100, 900, 140)], np.float64)
    for _ in range(50):
        sizes = random.uniform(85, 115, len(straight)).tolist()
        assert ordered([tuple(place) for place in straight + random.normal(0, 9, straight.shape)], sizes) == list(
            range(len(straight))
        )


def test_two_people_at_the_ends_of_a_wide_picture() -> None:
    assert ordered([(1900, 90), (100, 120)]) == [1, 0]


def test_one_face_above_another_is_first() -> None:
    assert ordered([(100, 300), (120, 100)]) == [1, 0]
    assert ordered([(5, 5)]) == [0]
