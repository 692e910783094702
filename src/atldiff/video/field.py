"""A displacement field at the size of a picture, worked out only where something moves.

A field is evaluated on coarse cells. What it is between them is needed for the pixels that move, band by band: arrays
as large as a photograph would be written to memory and read again several times a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CELL = 16
"""Side in pixels of the squares of a picture that are told apart: those where something moves, and those that stay."""
BAND = 4
"""How many rows of such squares are worked on at a time: what is read stays in the processor's cache."""

Place: TypeAlias = tuple[slice, slice]
"""Rows and columns, both with their two ends."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """What `cv2.resize` makes of a field (rows, columns, 2) by linear interpolation, to the last bit.

    across: (2, rows, W) float32, already as wide as the picture. above, below, share: (H,) the two rows that a row of
    the picture lies between, and how much the lower one counts. moving: (rows, columns) of cells that are not zero.
    left, right: (W,) the two columns that a column of the picture lies between.
    """

    across: np.ndarray
    above: np.ndarray
    below: np.ndarray
    share: np.ndarray
    moving: np.ndarray
    left: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, field: np.ndarray, size: tuple[int, int]) -> Expanded:
        """Take a field (rows, columns, 2) float32 of cell centres to a picture of size (height, width)."""
        above, below, share = _between(size[0], field.shape[0])
        left, right, weight = _between(size[1], field.shape[1])
        weight[left == right] = 0  # beyond the middles of the outer cells
        planes = np.ascontiguousarray(np.moveaxis(field, 2, 0))
        across = planes.take(left, axis=2) * (1 - weight) + planes.take(right, axis=2) * weight
        return cls(across, above, below, share, np.asarray(field.any(axis=2)), left, right)

    def part(self, rows: slice, columns: slice) -> np.ndarray:
        """Return the field of some of the picture's rows and columns, (2, h, w) float32."""
        across, share = self.across[:, :, columns], self.share[rows, None]
        field = across.take(self.above[rows], axis=1)
        field *= 1 - share
        other = across.take(self.below[rows], axis=1)
        other *= share
        field += other
        return field

    def cells(self) -> np.ndarray:
        """Return in which squares of `CELL` pixels, (H / CELL, W / CELL) rounded up, the field is not zero."""
        rows = self.moving[self.above] | self.moving[self.below]
        rows = np.logical_or.reduceat(rows, np.arange(0, len(rows), CELL), axis=0)
        found = rows[:, self.left] | rows[:, self.right]
        return np.logical_or.reduceat(found, np.arange(0, found.shape[1], CELL), axis=1)


def _between(count: int, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each of `count` pixels the two cells that it lies between and how much the second one counts."""
    at = ((np.arange(count) + 0.5) * (1 / (count / cells)) - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.intp)
    return np.clip(first, 0, cells - 1), np.clip(first + 1, 0, cells - 1), at - first.astype(np.float32)


class Detail(NamedTuple):
    """A finer field of a place. ramp: (h, 1) and (1, w), by the smaller of which it counts there, no more than 1."""

    field: Expanded
    place: Place
    ramp: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True)
class Field:
    """The backward displacement of a part of a picture, in pixels. corner: the part's top left pixel (x, y)."""

    coarse: Expanded
    corner: tuple[int, int]
    detail: Detail | None = None

    @property
    def reach(self) -> float:
        """How far anything moves at most, along either axis."""
        parts = [self.coarse] if self.detail is None else [self.coarse, self.detail.field]
        return max(float(np.abs(part.across).max()) for part in parts)

    def lookup(self, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return where a place of the part is read in the picture: x and y, each (h, w) float32."""
        field = self.coarse.part(rows, columns)
        shared = None if self.detail is None else overlap(self.detail.place, (rows, columns))
        if self.detail is not None and shared is not None:
            down, across = self.detail.ramp
            own = within(shared, self.detail.place)
            weight = np.clip(np.minimum(across[:, own[1]], down[own[0]]), 0, 1)
            view = field[(slice(None), *within(shared, (rows, columns)))]
            view += weight * (self.detail.field.part(*own) - view)
        x, y = self.corner
        field[0] += np.arange(x + columns.start, x + columns.stop, dtype=np.float32)
        field[1] += np.arange(y + rows.start, y + rows.stop, dtype=np.float32)[:, None]
        return field[0], field[1]

    def cells(self, places: Sequence[Place] = ()) -> np.ndarray:
        """Return in which squares of `CELL` pixels something moves, those of `places` among them."""
        moving = self.coarse.cells()
        for rows, columns in (*places, *([] if self.detail is None else [self.detail.place])):
            squares = (slice(axis.start // CELL, -(-axis.stop // CELL)) for axis in (rows, columns))
            moving[tuple(squares)] = True
        return moving


def overlap(one: Place, other: Place) -> Place | None:
    """Return what two places have in common, None where that is nothing."""
    rows, columns = (
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )  # fmt: skip
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def within(place: Place, whole: Place) -> Place:
    """Return a place as counted from the first row and column of one that it lies in."""
    rows, columns = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(place, whole, strict=True))
    return rows, columns


def remains(place: Place, other: Place) -> list[Place]:
    """Return up to four places: what of one is not in another."""
    rows, columns = place
    shared = overlap(place, other)
    inner = shared or (slice(rows.stop, rows.stop), columns)
    parts = [
        (slice(rows.start, inner[0].start), columns),
        (slice(inner[0].stop, rows.stop), columns),
        (inner[0], slice(columns.start, inner[1].start)),
        (inner[0], slice(inner[1].stop, columns.stop)),
    ]
    return [part for part in parts if all(axis.start < axis.stop for axis in part)]


def by_cell(reduce: np.ufunc, picture: np.ndarray) -> np.ndarray:
    """Return what a ufunc makes of the pixels (H, W) of each square of `CELL`, (H / CELL, W / CELL) rounded up."""
    rows = reduce.reduceat(picture, np.arange(0, picture.shape[0], CELL), axis=0)
    return reduce.reduceat(rows, np.arange(0, picture.shape[1], CELL), axis=1)


def runs(kinds: np.ndarray, size: tuple[int, int]) -> Iterator[tuple[Place, int]]:
    """Yield the places of a picture (height, width) that are alike, band by band, and of which kind they are.

    kinds: (bands, W / CELL) integers; what is of kind 0 is passed over.
    """
    for band, kind in enumerate(kinds):
        rows = slice(band * BAND * CELL, min((band + 1) * BAND * CELL, size[0]))
        ends = [0, *(np.flatnonzero(np.diff(kind)) + 1).tolist(), len(kind)]
        for first, last in zip(ends, ends[1:], strict=False):
            if kind[first]:
                yield (rows, slice(first * CELL, min(last * CELL, size[1]))), int(kind[first])
