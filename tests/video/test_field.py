from __future__ import annotations

import cv2
import numpy as np
import pytest

from atldiff.video.field import BAND, CELL, Detail, Expanded, Field, by_cell, overlap, remains, runs, within


def coarse(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (rows, columns, 2)).astype(np.float32)


def everything(height: int, width: int) -> tuple[slice, slice]:
    return slice(0, height), slice(0, width)


@pytest.mark.parametrize(
    ("cells", "size"),
    [((37, 37), (303, 298)), ((28, 37), (144, 290)), ((4, 4), (9, 7)), ((9, 7), (9, 7)), ((1, 5), (6, 40))],
)
def test_expanded_is_what_opencv_makes_of_it_as_a_whole_and_in_parts(cells, size) -> None:
    field = coarse(*cells)
    wanted = np.moveaxis(cv2.resize(field, size[::-1], interpolation=cv2.INTER_LINEAR).reshape(*size, 2), 2, 0)
    expanded = Expanded.of(field, size)
    # to the last bit where OpenCV multiplies and adds one after the other, as it does on x86
    assert np.allclose(expanded.part(*everything(*size)), wanted, rtol=0, atol=2e-6)
    rows, columns = slice(size[0] // 3, size[0] - 1), slice(1, size[1] // 2)
    assert np.array_equal(expanded.part(rows, columns), expanded.part(*everything(*size))[:, rows, columns])


def test_a_cell_moves_where_its_field_is_not_zero() -> None:
    field = np.zeros((10, 12, 2), np.float32)
    field[4, 7, 1] = -2
    size = (203, 250)
    expanded = Expanded.of(field, size)
    moving = np.abs(expanded.part(*everything(*size))).max(0) > 0
    cells = expanded.cells()
    assert cells.shape == (13, 16)
    assert not (by_cell(np.maximum, moving) & ~cells).any()  # nothing that moves is missed
    assert cells.sum() < 0.1 * cells.size


def test_a_detail_is_blended_in_by_its_ramp() -> None:
    size, place = (120, 150), (slice(30, 80), slice(40, 110))
    inner = (50, 70)
    ramp = tuple(np.minimum(np.arange(side), np.arange(side)[::-1]).astype(np.float32) / 6 for side in inner)
    outer, fine = Expanded.of(coarse(15, 18), size), Expanded.of(coarse(25, 35, 1), inner)
    field = Field(outer, (11, 7), Detail(fine, place, (ramp[0][:, None], ramp[1][None])))
    wanted = outer.part(*everything(*size))
    weight = np.clip(np.minimum(ramp[1][None], ramp[0][:, None]), 0, 1)
    view = wanted[(slice(None), *place)]
    view += weight * (fine.part(*everything(*inner)) - view)
    x, y = field.lookup(*everything(*size))
    assert np.array_equal(x, wanted[0] + np.arange(11, 161, dtype=np.float32))
    assert np.array_equal(y, wanted[1] + np.arange(7, 127, dtype=np.float32)[:, None])
    for part in ((slice(20, 50), slice(0, 60)), (slice(60, 120), slice(100, 150)), (slice(90, 99), slice(3, 9))):
        assert np.array_equal(field.lookup(*part), (x[part], y[part]))
    assert field.reach == max(np.abs(outer.across).max(), np.abs(fine.across).max())


def test_what_is_to_be_looked_at_counts_as_moving() -> None:
    still = Expanded.of(np.zeros((5, 5, 2), np.float32), (100, 100))
    assert not Field(still, (0, 0)).cells().any()
    cells = Field(still, (0, 0)).cells([(slice(17, 33), slice(0, 16))])
    assert np.argwhere(cells).tolist() == [[1, 0], [2, 0]]
    detail = Detail(still, (slice(0, 1), slice(99, 100)), (np.ones((1, 1)), np.ones((1, 1))))
    assert np.argwhere(Field(still, (0, 0), detail).cells()).tolist() == [[0, 6]]


def test_runs_cover_a_picture_once_and_know_its_border() -> None:
    size = (3 * BAND * CELL - 5, 10 * CELL - 3)
    kinds = np.array([[0, 0, 1, 1, 2, 2, 0, 1, 1, 1], [0] * 10, [2] * 10])
    seen = np.zeros(size, int)
    for part, kind in runs(kinds, size):
        seen[part] += kind
    assert np.array_equal(seen, np.kron(kinds, np.ones((BAND * CELL, CELL), int))[: size[0], : size[1]])
    assert len(list(runs(kinds, size))) == 4


def test_places() -> None:
    one, other = (slice(2, 10), slice(5, 9)), (slice(6, 20), slice(0, 7))
    assert overlap(one, other) == (slice(6, 10), slice(5, 7))
    assert overlap(one, (slice(10, 12), slice(5, 9))) is None
    for kept in (one, other, (slice(4, 5), slice(6, 7)), (slice(10, 12), slice(5, 9)), (slice(0, 30), slice(0, 30))):
        seen = np.zeros((30, 30), int)
        for part in remains(one, kept):
            seen[part] += 1
        wanted = np.zeros((30, 30), int)
        wanted[one] = 1
        wanted[kept] = 0
        assert np.array_equal(seen, wanted)
    assert within((slice(6, 10), slice(5, 7)), one) == (slice(4, 8), slice(0, 2))
