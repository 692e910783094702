"""Landmark-driven warps: inverse-distance displacement fields and the portrait resampled through them.

A field is evaluated analytically on a grid of points, so the training window and a 1080p portrait use one function.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from atldiff.video.field import BAND, Detail, Expanded, Field, overlap, runs, within
from atldiff.video.patch import Patch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atldiff.video.eyelids import LidMotion
    from atldiff.video.field import Place
    from atldiff.video.gaze import IrisMotion
    from atldiff.video.head import Head
    from atldiff.video.matte import Matte

SOFTENING_PX2 = 1.0
"""Added to squared distances, in squared template pixels. Smaller values show each control point as a bead, larger
ones keep lips that should meet apart (looked at from 0.25 to 25 on 12 people)."""

_EDGE, _WHOLE = 1, 2  # parts of a picture that move: those that the background shows through, and all others

BORDER_ANCHORS = 8
"""Fixed points on each side of a field's border."""


def border_anchors(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return points (4 * BORDER_ANCHORS, 2) evenly around the rectangle from `low` to `high` (each (2,))."""
    steps = np.arange(BORDER_ANCHORS, dtype=np.float32) / BORDER_ANCHORS
    zero, one = np.zeros_like(steps), np.ones_like(steps)
    sides = np.concatenate([
        np.stack([steps, zero], 1), np.stack([one, steps], 1),
        np.stack([1 - steps, one], 1), np.stack([zero, 1 - steps], 1),
    ])  # fmt: skip
    return low + sides * (high - low)


def displacement_field(
    target: np.ndarray, source: np.ndarray, columns: np.ndarray, rows: np.ndarray, softening: float = SOFTENING_PX2
) -> np.ndarray:
    """Interpolate the backward displacement source - target from control points to a grid.

    target, source: (K, 2) where each control point is and where its pixel comes from. columns: (W,) x and rows: (H,) y
    of the grid, in the same pixels. softening: in squared pixels. Weights are 1 / (distance^2 + softening)^2.

    Returns:
        (H, W, 2): add it to a grid point to find where to read.
    """
    # Squares a row and a column, not a grid point. Differences and not the expanded square of a distance: no
    # cancellation near a control point. No matrix product: its threads would fight the networks' for the cores.
    across = np.square(columns[:, None] - target[:, 0]) + target.dtype.type(softening)  # (W, K)
    down = np.square(rows[:, None] - target[:, 1])  # (H, K)
    weights = down[:, None] + across  # (H, W, K)
    weights *= weights
    np.divide(1, weights, out=weights)
    moves = np.ones((3, len(target)), target.dtype)  # contiguous along K: the sum is fast that way only
    moves[:2] = (source - target).T
    sums = np.einsum("hwk,ck->hwc", weights, moves)
    return sums[..., :2] / sums[..., 2:]


def warp_windows(
    images: np.ndarray,
    target: np.ndarray,
    source: np.ndarray,
    cell_px: int = 2,
    *,
    held: tuple[np.ndarray, np.ndarray] | None = None,
    softening: float = SOFTENING_PX2,
) -> tuple[np.ndarray, np.ndarray]:
    """Warp each window so that its control points move from `source` to `target`; what is far around it stays.

    images: (B, C, H, W) float32, each of as many successive windows as the others. target, source: (N, K, 2) float32 in
    window pixels. cell_px: spacing of the evaluated grid. held: corners (2,) of the rectangle whose border stays, in
    window pixels; a quarter of a square window around it unless given. softening: in squared window pixels.

    Returns:
        warped images (N, C, H, W) and the displacement (N, 2, H, W) in pixels, backward; float32.
    """
    import cv2

    count, (channels, height, width) = len(target), images.shape[1:]
    columns, rows, anchors = evaluated_grid((width, height), cell_px, held)
    warped = np.empty((count, channels, height, width), np.float32)
    moved = np.empty((count, 2, height, width), np.float32)
    images = np.ascontiguousarray(images, np.float32)
    for index, (there, here) in enumerate(zip(target.astype(np.float32), source.astype(np.float32), strict=True)):
        there, here = (np.concatenate([points, anchors]) for points in (there, here))  # noqa: PLW2901 - and the border
        field = displacement_field(there, here, columns, rows, softening)
        moved[index] = cv2.split(cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR))
        warped[index] = _read(images[index * len(images) // count], moved[index])
    return warped, moved


def evaluated_grid(
    size: tuple[int, int], cell_px: int, held: tuple[np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where a window's field is evaluated, columns (w,) and rows (h,), and what holds its border, (A, 2).

    size: width and height of the window. cell_px, held: as for `warp_windows`. All in its pixels, float32.
    """
    columns, rows = (
        np.arange(side // cell_px, dtype=np.float32) * cell_px + np.float32((cell_px - 1) / 2) for side in size
    )
    if held is None:
        reach = np.float32(size[0] / 4)
        held = np.full(2, -reach), np.full(2, size[0] + reach)
    return columns, rows, border_anchors(*(np.asarray(corner, np.float32) for corner in held))


def _read(image: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Return an image (C, H, W) read through a field (2, H, W) of pixels, likewise.

    Bilinear to the last digit, its border repeated: OpenCV's own is rounded to 1/32 pixel, which a network may see.
    """
    _, height, width = image.shape
    across = np.clip(field[0] + np.arange(width, dtype=np.float32), 0, width - 1)
    down = np.clip(field[1] + np.arange(height, dtype=np.float32)[:, None], 0, height - 1)
    # The last column is read as the end of the stretch before it, so that there is always a pixel to the right.
    left, top = (np.minimum(at.astype(np.intp), side - 2) for at, side in ((across, width), (down, height)))
    across, down = (across - left).astype(np.float32), (down - top).astype(np.float32)
    pixels, first = image.reshape(len(image), height * width), top * width + left
    # The mode spares a check of each index.
    start, end, below, opposite = (pixels.take(first + step, 1, mode="clip") for step in (0, 1, width, width + 1))
    for one, other, share in ((start, end, across), (below, opposite, across), (end, opposite, down)):
        other -= one  # noqa: PLW2901 - in place: other becomes what is between the two
        other *= share  # noqa: PLW2901
        other += one  # noqa: PLW2901
    return opposite


@dataclass(frozen=True, slots=True)
class PortraitWarp:
    """A portrait prepared for warping: its control points, the box that may move, and the grids the field lives on.

    image: (H, W, 3) uint8, alpha: (H, W) uint8 or None. source: (K, 2) float32 control points in pixels. box: (x0, y0,
    x1, y1) pixels, inside the image. field_low, field_high: (2,) the rectangle whose border never moves; it may reach
    beyond the image. unit_px: pixels of one template pixel (the field's softening scales with it). still: (h, w, C) the
    box where nothing has moved, with its alpha. head: which control points are the skull's; without it the field is
    interpolated from them all. matte: (h, w) person and background of the box; without it the background bends with the
    person. share: (H, W) float32, its alpha in the picture.
    """

    image: np.ndarray
    source: np.ndarray
    box: tuple[int, int, int, int]
    field_low: np.ndarray
    field_high: np.ndarray
    unit_px: float
    still: np.ndarray
    alpha: np.ndarray | None = None
    head: Head | None = None
    matte: Matte | None = None
    share: np.ndarray | None = None

    @classmethod
    def prepare(
        cls,
        image: np.ndarray,
        face: np.ndarray,
        source: np.ndarray,
        unit_px: float,
        alpha: np.ndarray | None = None,
        head: Head | None = None,
    ) -> PortraitWarp:
        """Prepare a portrait. face: (K, 2) points that bound the face; source: (K, 2) control points."""
        low, high = face.min(0), face.max(0)
        size = float((high - low).max())
        field_low, field_high = low - 0.8 * size, high + 0.8 * size
        height, width = image.shape[:2]
        box = (
            int(max(0, np.floor(field_low[0]))),
            int(max(0, np.floor(field_low[1]))),
            int(min(width, np.ceil(field_high[0]))),
            int(min(height, np.ceil(field_high[1]))),
        )
        x0, y0, x1, y1 = box
        still = image if alpha is None else np.dstack([image, alpha])
        still = still[y0:y1, x0:x1].copy()
        return cls(image, source.astype(np.float32), box, field_low, field_high, unit_px, still, alpha, head)

    def parted(self, matte: Matte) -> PortraitWarp:
        """Return the same portrait, which has no transparent parts, with a background that stays. matte: of the box."""
        import cv2

        x0, y0, x1, y1 = self.box
        image, (height, width) = self.image.copy(), self.image.shape[:2]
        image[y0:y1, x0:x1] = matte.figure
        share = cv2.copyMakeBorder(matte.alpha, y0, height - y1, x0, width - x1, cv2.BORDER_REPLICATE)
        still = self.still.copy()
        still[..., :3] = matte.laid()
        return replace(self, image=image, still=still, share=share.astype(np.float32) / 255, matte=matte)

    def field(self, target: np.ndarray, low: np.ndarray, high: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
        """Evaluate the displacement on cell centres of a rectangle.

        target: (K, 2) pixels. low, high: (2,) corners in pixels. cells: (rows, columns).

        Returns:
            (rows, columns, 2) float32 pixels, backward.
        """
        # Distances are taken about the face centre in template pixels: float32 keeps its digits.
        origin = self.source.mean(0)
        scaled = lambda points: ((points - origin) / self.unit_px).astype(np.float32)  # noqa: E731 - used thrice
        rows, columns = ((np.arange(count) + 0.5) / count for count in cells)
        x, y = low[0] + columns * (high[0] - low[0]), low[1] + rows * (high[1] - low[1])
        x, y = ((at - middle) / self.unit_px for at, middle in zip((x, y), origin, strict=True))
        x, y = x.astype(np.float32), y.astype(np.float32)
        anchors = scaled(border_anchors(self.field_low, self.field_high))
        there, here = scaled(target), scaled(self.source)
        motion = None if self.head is None else self.head.motion(here, there)
        if motion is not None:  # the skull's motion is one similarity: only what differs from it is interpolated
            here = here + there - motion.back(there)
        field = displacement_field(np.concatenate([there, anchors]), np.concatenate([here, anchors]), x, y)
        if motion is not None:
            grid = np.stack(np.meshgrid(x, y), -1)
            field += motion.back(grid) - grid
            corners = scaled(np.stack([self.field_low, self.field_high]))
            field *= motion.share(grid, *corners)[..., None]
        return field * np.float32(self.unit_px)

    def warp(
        self, target: np.ndarray, detail: np.ndarray | None = None, lids: Sequence[LidMotion | IrisMotion] = ()
    ) -> np.ndarray:
        """Return the part of the portrait inside `box` (h, w, C) uint8, moved so that the source meets `target`.

        Arguments as of `patch`.
        """
        return self.patch(target, detail, lids, keep=[self.box]).pixels

    def patch(
        self,
        target: np.ndarray,
        detail: np.ndarray | None = None,
        lids: Sequence[LidMotion | IrisMotion] = (),
        keep: Sequence[np.ndarray | tuple[float, ...]] = (),
    ) -> Patch:
        """Return what of the box has moved so that the source meets `target`; the rest of the box is `still`.

        Laid on its background where that stays; with its alpha where the portrait has one.

        target: (K, 2) pixels. detail: (4,) x0, y0, x1, y1 pixels of a part (the mouth) whose field is evaluated on
        cells of two template pixels; elsewhere cells are coarser. lids: closed over the eyes of the moved portrait.
        keep: rectangles (4,) x0, y0, x1, y1 pixels that the patch is to cover, as far as they are in the box.
        """
        import cv2

        field = self._field(target, detail)
        painted = _Painted.of(lids, self.image, field, self.still.shape[:2])
        kinds = self._kinds(field, painted.places)
        place = self._bounds(kinds, keep)
        canvas = self.still[place].copy()
        for part, kind in runs(kinds, self.still.shape[:2]):
            lookup = field.lookup(*part)
            moved = cv2.remap(self.image, *lookup, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            painted.onto(moved, part)
            if kind == _EDGE and self.matte is not None and self.share is not None:
                share = cv2.remap(self.share, *lookup, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                moved = cv2.blendLinear(moved, self.matte.plate[part], share, 1 - share)
            under = canvas[within(part, place)]
            if self.alpha is None:
                under[:] = moved
                continue
            under[..., :3] = moved
            if self.matte is None:
                under[..., 3] = cv2.remap(self.alpha, *lookup, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return Patch(canvas, (self.box[0] + place[1].start, self.box[1] + place[0].start))

    def _field(self, target: np.ndarray, detail: np.ndarray | None) -> Field:
        """Return the displacement of the box, with a finer evaluation of `detail`, feathered at its border."""
        x0, y0, x1, y1 = self.box
        coarse = self._expanded(target, self.box, 8 * self.unit_px)
        if detail is None:
            return Field(coarse, (x0, y0))
        left, top = int(max(x0, detail[0])), int(max(y0, detail[1]))
        right, bottom = int(min(x1, detail[2])), int(min(y1, detail[3]))
        width, height = right - left, bottom - top
        if width <= 8 or height <= 8:
            return Field(coarse, (x0, y0))
        fine = self._expanded(target, (left, top, right, bottom), 2 * self.unit_px)
        ramp = max(4.0, 6 * self.unit_px)
        across, down = (
            np.minimum(np.arange(side), np.arange(side)[::-1]).astype(np.float32) / ramp for side in (width, height)
        )
        place = (slice(top - y0, bottom - y0), slice(left - x0, right - x0))
        return Field(coarse, (x0, y0), Detail(fine, place, (down[:, None], across[None])))

    def _expanded(self, target: np.ndarray, part: tuple[int, int, int, int], cell_px: float) -> Expanded:
        x0, y0, x1, y1 = part
        width, height = x1 - x0, y1 - y0
        cells = (max(4, round(height / cell_px)), max(4, round(width / cell_px)))
        return Expanded.of(self.field(target, np.array([x0, y0]), np.array([x1, y1]), cells), (height, width))

    def _kinds(self, field: Field, painted: Sequence[Place]) -> np.ndarray:
        """Return what the squares of the box are, band by band: 0, which stays, `_EDGE` or `_WHOLE`."""
        moving = field.cells(painted)
        whole = np.ones_like(moving)
        if self.matte is not None:
            near, whole = self.matte.cells(field.reach)
            moving &= near
        bands = np.arange(0, len(moving), BAND)
        moving, whole = np.logical_or.reduceat(moving, bands), np.logical_and.reduceat(whole, bands)
        return np.where(moving, np.where(whole, _WHOLE, _EDGE), 0)

    def _bounds(self, kinds: np.ndarray, keep: Sequence[np.ndarray | tuple[float, ...]]) -> Place:
        """Return the rectangle of the box that holds all that moves, and what of `keep` is in the box."""
        height, width = self.still.shape[:2]
        corner = np.array(self.box[:2] * 2)
        rectangles = [
            (part[1].start, part[0].start, part[1].stop, part[0].stop) for part, _ in runs(kinds, (height, width))
        ]
        for each in keep:
            low, high = np.floor(each[:2]), np.ceil(each[2:])
            rectangles.append(np.clip(np.r_[low, high] - corner, 0, [width, height, width, height]))
        if not rectangles:
            return slice(0, 1), slice(0, 1)
        ends = np.array(rectangles).astype(int)
        (left, top), (right, bottom) = ends[:, :2].min(0).tolist(), ends[:, 2:].max(0).tolist()
        return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


@dataclass(frozen=True, slots=True)
class _Painted:
    """What is painted on the eyes. places: of the box. pixels: (h, w, C) of the box, made in these places alone."""

    places: list[Place]
    pixels: np.ndarray | None = None

    @classmethod
    def of(
        cls, lids: Sequence[LidMotion | IrisMotion], image: np.ndarray, field: Field, size: tuple[int, int]
    ) -> _Painted:
        import cv2

        found = [(motion, place) for motion in lids if (place := motion.place(field.corner, size)) is not None]
        if not found:
            return cls([])
        # As large as the box, but memory is taken only by what is written.
        moved, columns, rows = np.empty((*size, image.shape[2]), np.uint8), *np.zeros((2, *size), np.float32)
        for motion, place in found:
            read = motion.reads(field.corner, size) or place
            columns[read], rows[read] = field.lookup(*read)
            moved[place] = cv2.remap(
                image, columns[place], rows[place], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
            )  # fmt: skip
        for motion, _ in found:
            motion.paint(moved, image, (columns, rows), field.corner)
        return cls([place for _, place in found], moved)

    def onto(self, moved: np.ndarray, part: Place) -> None:
        """Lay it over a part of the box, in place."""
        for place in self.places:
            shared = overlap(place, part)
            if shared is not None and self.pixels is not None:
                moved[within(shared, part)] = self.pixels[shared]
