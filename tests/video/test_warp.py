from __future__ import annotations

import cv2
import numpy as np
import pytest

from atldiff.landmarks.control import FACE_CONTROL
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import LIPS_INNER, OVAL
from atldiff.video.warp import (
    BORDER_ANCHORS,
    SOFTENING_PX2,
    PortraitWarp,
    border_anchors,
    displacement_field,
    warp_windows,
)


def face_points(centre: tuple[float, float], eye_distance: float) -> np.ndarray:
    return mean_shape()[:, :2] * eye_distance + np.array(centre)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth, colourful picture: what a warp does to it is visible everywhere."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 12 + 2, width // 12 + 2, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def prepare(image: np.ndarray, points: np.ndarray, eye_distance: float) -> PortraitWarp:
    return PortraitWarp.prepare(image, points[OVAL], FACE_CONTROL.of(points), unit_px=eye_distance / 72)


class TestField:
    def test_formula(self) -> None:
        random = np.random.default_rng(0)
        target, source = random.uniform(0, 80, (2, 15, 2))
        columns, rows = random.uniform(-10, 90, 8), random.uniform(-10, 90, 5)
        wanted = np.zeros((5, 8, 2))
        for row, column in np.ndindex(5, 8):
            sums, total = np.zeros(2), 0.0
            for point in range(15):
                distance2 = (columns[column] - target[point, 0]) ** 2 + (rows[row] - target[point, 1]) ** 2
                weight = 1.0 / (distance2 + SOFTENING_PX2) ** 2
                sums += weight * (source[point] - target[point])
                total += weight
            wanted[row, column] = sums / total
        field = displacement_field(*(array.astype(np.float32) for array in (target, source, columns, rows)))
        assert field.dtype == np.float32
        assert np.abs(field - wanted).max() < 1e-4 * 80

    def test_formula_in_double_precision_and_softening(self) -> None:
        random = np.random.default_rng(1)
        target, source = random.uniform(0, 80, (2, 9, 2))
        columns, rows = random.uniform(0, 80, 7), random.uniform(0, 80, 4)
        grid = np.stack(np.meshgrid(columns, rows), -1)  # (4, 7, 2)
        for softening in (0.5, 16.0, 100.0):
            squared = np.square(grid[:, :, None] - target).sum(-1)
            weights = 1 / (squared + softening) ** 2
            wanted = (weights[..., None] * (source - target)).sum(2) / weights.sum(2)[..., None]
            assert np.abs(displacement_field(target, source, columns, rows, softening) - wanted).max() < 1e-6

    def test_a_lone_point_is_met(self) -> None:
        target = np.array([[10.0, 10.0], [70.0, 70.0]])
        source = target + np.array([[3.0, -2.0], [0.0, 0.0]])
        field = displacement_field(target, source, target[:, 0], target[:, 1], softening=1e-3)
        assert np.allclose(field[[0, 1], [0, 1]], source - target, atol=1e-3)

    def test_never_exceeds_the_control_points(self) -> None:
        random = np.random.default_rng(2)
        target = random.uniform(0, 80, (30, 2))
        source = target + random.uniform(-4, 4, (30, 2))
        field = displacement_field(target, source, random.uniform(0, 80, 20), random.uniform(0, 80, 10))
        assert np.abs(field).max() <= 4

    def test_anchors_lie_evenly_on_the_border(self) -> None:
        anchors = border_anchors(np.array([-5.0, 10.0]), np.array([35.0, 90.0]))
        assert anchors.shape == (4 * BORDER_ANCHORS, 2)
        on_side = (anchors[:, 0] == -5) | (anchors[:, 0] == 35) | (anchors[:, 1] == 10) | (anchors[:, 1] == 90)
        assert on_side.all()
        assert len(np.unique(anchors, axis=0)) == 4 * BORDER_ANCHORS
        steps = np.abs(anchors - np.roll(anchors, 1, 0)).sum(1)
        assert np.allclose(np.sort(steps), [5.0] * 16 + [10.0] * 16)


class TestWarpWindows:
    side = 80

    def windows(self) -> np.ndarray:
        return picture(self.side, self.side).transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1

    def points(self) -> np.ndarray:
        return FACE_CONTROL.of(face_points((40, -24), 72))[None].astype(np.float32)

    @pytest.mark.parametrize("cell_px", [1, 2, 4])
    def test_no_displacement_changes_nothing(self, cell_px: int) -> None:
        images, points = self.windows(), self.points()
        warped, field = warp_windows(images, points, points, cell_px)
        assert warped.shape == (1, 3, self.side, self.side)
        assert field.shape == (1, 2, self.side, self.side)
        assert not field.any()
        assert np.abs(warped - images).max() < 1e-4

    def test_a_common_shift_moves_the_centre_by_it(self) -> None:
        images, source = self.windows(), self.points()
        warped, field = warp_windows(images, source + np.array([3.0, 2.0]), source)
        inner = slice(30, 50)
        assert np.allclose(field[0, 0, inner, inner], -3, atol=0.05)  # backward: where to read
        assert np.allclose(field[0, 1, inner, inner], -2, atol=0.05)
        moved = images[..., 28:48, 27:47]
        assert np.abs(warped[..., inner, inner] - moved).mean() < 0.02

    def test_coarse_cells_agree_with_fine_ones(self) -> None:
        images, source = self.windows(), self.points()
        target = source + 2 * np.sin(source[..., ::-1] / 9)
        fine, coarse = (warp_windows(images, target, source, cell)[1] for cell in (1, 2))
        assert np.abs(fine - coarse).mean() < 0.05
        assert np.abs(fine - coarse).max() < 0.5

    def test_items_of_a_batch_are_apart(self) -> None:
        images, source = self.windows(), self.points()
        targets = np.concatenate([source, source + 2])
        both = warp_windows(np.concatenate([images, images[..., ::-1]]), targets, np.repeat(source, 2, axis=0))
        for index, image in enumerate((images, images[..., ::-1])):
            alone = warp_windows(image, targets[index : index + 1], source)
            for one, of_two in zip(alone, both, strict=True):
                assert np.array_equal(one[0], of_two[index])

    def test_it_reads_between_pixels_to_the_last_digit(self) -> None:
        """Against the formula, no displacement a multiple of 1/32 pixel; beyond the border it is repeated."""
        images, source = self.windows(), self.points()
        target = source + np.float32(7.3) * np.sin(source[..., ::-1] / 9)
        warped, field = warp_windows(images, target, source)
        x, y = (
            field[0, axis].astype(np.float64) + grid for axis, grid in enumerate(np.meshgrid(*[np.arange(80.0)] * 2))
        )
        assert (x < 0).any()
        x, y = np.clip(x, 0, 79), np.clip(y, 0, 79)
        left, top = np.minimum(x.astype(int), 78), np.minimum(y.astype(int), 78)
        wanted = sum(
            images[0][:, top + down, left + right]
            * np.abs(1 - right - (x - left)) * np.abs(1 - down - (y - top))
            for right in (0, 1) for down in (0, 1)
        )  # fmt: skip
        assert np.abs(warped[0] - wanted).max() < 2e-5

    def test_one_picture_is_read_for_each_of_its_frames(self) -> None:
        images, source = self.windows(), self.points()
        both = np.concatenate([images, images[..., ::-1]])
        targets = np.concatenate([source, source + 1, source + 2, source + 3])
        stills = np.repeat(source, 4, axis=0)
        together = warp_windows(both, targets, stills)
        apart = warp_windows(np.repeat(both, 2, axis=0), targets, stills)
        for one, other in zip(together, apart, strict=True):
            assert np.array_equal(one, other)


class TestPortraitWarp:
    eye = 60.0
    points = face_points((150, 110), eye)

    def test_no_displacement_changes_nothing(self) -> None:
        image = picture(300, 320)
        warp = prepare(image, self.points, self.eye)
        x0, y0, x1, y1 = warp.box
        assert 0 <= x0 < x1 <= 320
        assert 0 <= y0 < y1 <= 300
        for detail in (None, np.array([100.0, 120.0, 200.0, 200.0])):
            moved = warp.warp(FACE_CONTROL.of(self.points), detail)
            assert moved.dtype == np.uint8
            assert np.array_equal(moved, image[y0:y1, x0:x1])

    def test_a_common_shift_moves_the_centre_by_it(self) -> None:
        image = picture(300, 320)
        warp = prepare(image, self.points, self.eye)
        shift = np.array([6, -4])
        moved = warp.warp(FACE_CONTROL.of(self.points) + shift)
        x0, y0 = warp.box[:2]
        centre_x, centre_y = 150 - x0, 140 - y0
        part = moved[centre_y - 15 : centre_y + 15, centre_x - 15 : centre_x + 15].astype(int)
        wanted = image[140 - 15 + 4 : 140 + 15 + 4, 150 - 15 - 6 : 150 + 15 - 6]
        assert np.abs(part - wanted).mean() < 3

    def test_the_border_stays(self) -> None:
        image = picture(500, 520)
        points = face_points((260, 190), 50.0)
        warp = prepare(image, points, 50.0)
        spoken = points.copy()
        spoken[LIPS_INNER[11:], 1] += 8
        target = FACE_CONTROL.of(spoken)
        moved = warp.warp(target).astype(int)
        x0, y0, x1, y1 = warp.box
        before = image[y0:y1, x0:x1].astype(int)
        change = np.abs(moved - before).max(axis=-1)
        border = np.concatenate([change[0], change[-1], change[:, 0], change[:, -1]])
        assert border.max() <= 2
        assert change.max() > 20  # while the mouth does move

    def test_detail_refines_only_its_part(self) -> None:
        image = picture(500, 520)
        points = face_points((260, 190), 50.0)
        warp = prepare(image, points, 50.0)
        spoken = points.copy()
        spoken[LIPS_INNER[11:], 1] += 6
        target = FACE_CONTROL.of(spoken)
        part = np.array([230.0, 200.0, 290.0, 250.0])
        coarse, fine = warp.warp(target), warp.warp(target, part)
        x0, y0 = warp.box[:2]
        different = np.argwhere((coarse != fine).any(axis=-1)) + [y0, x0]
        assert len(different)
        assert (different >= [200, 230]).all()
        assert (different < [250, 290]).all()

    def test_field_is_the_analytic_one_at_cell_centres(self) -> None:
        warp = prepare(picture(300, 320), self.points, self.eye)
        target = FACE_CONTROL.of(self.points)
        target += 2 * np.sin(target[:, ::-1] / 15)
        got = warp.field(target, np.array([100.0, 80.0]), np.array([200.0, 220.0]), (7, 5))
        assert got.shape == (7, 5, 2)
        unit = self.eye / 72
        x = 100 + 100 * (np.arange(5) + 0.5) / 5
        y = 80 + 140 * (np.arange(7) + 0.5) / 7
        anchors = border_anchors(warp.field_low, warp.field_high)
        there, here = np.concatenate([target, anchors]), np.concatenate([warp.source, anchors])
        wanted = displacement_field(there, here, x, y, SOFTENING_PX2 * unit**2)
        assert np.abs(got - wanted).max() < 2e-3

    def test_twice_the_resolution_is_the_same_warp(self) -> None:
        large = cv2.GaussianBlur(picture(600, 640), (0, 0), 4)
        small = cv2.resize(large, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        target = self.points.copy()
        target[LIPS_INNER[11:], 1] += 5
        moved_small = prepare(small, self.points, self.eye)
        moved_large = prepare(large, 2 * self.points, 2 * self.eye)
        frames = []
        for warp, ratio in ((moved_small, 1), (moved_large, 2)):
            frame = warp.image.copy()
            x0, y0, x1, y1 = warp.box
            frame[y0:y1, x0:x1] = warp.warp(ratio * FACE_CONTROL.of(target))
            frames.append(frame)
        shrunk = cv2.resize(frames[1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(int)
        assert np.abs(shrunk - small).max() > 20
        assert np.abs(shrunk - frames[0]).mean() < 1
        assert np.abs(shrunk - frames[0]).max() < 20

    @pytest.mark.parametrize("centre", [(5, 40), (300, 290), (-20, -20), (150, 320)])
    def test_a_face_partly_outside_the_picture(self, centre: tuple[int, int]) -> None:
        image = picture(300, 320)
        points = face_points(centre, 50.0)
        warp = prepare(image, points, 50.0)
        low, high = points[OVAL].min(0), points[OVAL].max(0)
        reach = 0.8 * (high - low).max()
        x0, y0, x1, y1 = warp.box
        assert x0 == max(0, int(np.floor(low[0] - reach)))
        assert y0 == max(0, int(np.floor(low[1] - reach)))
        assert x1 == min(320, int(np.ceil(high[0] + reach)))
        assert y1 == min(300, int(np.ceil(high[1] + reach)))
        moved = warp.warp(
            FACE_CONTROL.of(points) + 3, np.array([centre[0] - 30, centre[1], centre[0] + 30, centre[1] + 60])
        )
        assert moved.shape == (y1 - y0, x1 - x0, 3)
        assert moved.std() > 5
