from __future__ import annotations

import cv2
import numpy as np
import pytest

from atldiff.landmarks.control import FACE_CONTROL
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import JAW, LID_PAIRS_LEFT, LID_PAIRS_RIGHT, LIPS_INNER, OVAL
from atldiff.methods.figure import HEAD
from atldiff.methods.window_frames import EYES, IRISES
from atldiff.video.eyelids import part_lids
from atldiff.video.gaze import moved_irises
from atldiff.video.head import BESIDE, NECK
from atldiff.video.matte import Matte
from atldiff.video.warp import PortraitWarp

EYE = 60.0
POINTS = mean_shape()[:, :2] * EYE + np.array([200.0, 160.0])
LENGTH = float(np.linalg.norm(POINTS[JAW[10]] - POINTS[OVAL[0]]))


def turned(points: np.ndarray, degrees: float, shift: tuple[float, float]) -> np.ndarray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    neck = POINTS[JAW[10]]
    return (points - neck) @ np.array([[cos, sin], [-sin, cos]]) + neck + shift


def prepare(image: np.ndarray) -> PortraitWarp:
    return PortraitWarp.prepare(image, POINTS[OVAL], FACE_CONTROL.of(POINTS), EYE / 72, head=HEAD)


def displacement(warp: PortraitWarp, target: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the backward displacement (2,) at a point of the picture."""
    return warp.field(FACE_CONTROL.of(target), at - 0.5, at + 0.5, (1, 1))[0, 0]


class TestHead:
    def test_the_skulls_motion_is_found_whatever_the_mouth_does(self) -> None:
        spoken = turned(POINTS, 6, (4, -3))
        spoken[LIPS_INNER] += 5
        spoken[JAW[8:13]] += (0, 9)
        motion = HEAD.motion(FACE_CONTROL.of(POINTS), FACE_CONTROL.of(spoken))
        assert np.degrees(np.angle(motion.turn)) == pytest.approx(6, abs=1e-6)
        assert abs(motion.turn) == pytest.approx(1)
        assert np.allclose(motion.back(turned(POINTS, 6, (4, -3))), POINTS, atol=1e-9)

    def test_hair_goes_with_the_skull_and_shoulders_stay(self) -> None:
        warp, target = prepare(np.zeros((400, 400, 3), np.uint8)), turned(POINTS, 5, (6, 2))
        hair = POINTS[OVAL[0]] - (0, 0.25 * LENGTH)
        there = turned(hair[None], 5, (6, 2))[0]
        assert np.allclose(displacement(warp, target, there), hair - there, atol=0.1)
        collar = POINTS[JAW[10]] + (6, 2 + (NECK[1] + 0.02) * LENGTH)
        assert np.abs(displacement(warp, target, collar)).max() < 1e-6
        neck = POINTS[JAW[10]] + (6, 2 + 0.5 * NECK[1] * LENGTH)
        assert 1 < np.linalg.norm(displacement(warp, target, neck)) < 6
        beside = POINTS[4] + (BESIDE[1] * LENGTH + 6, 0)
        assert np.abs(displacement(warp, target, beside)).max() < 0.05

    def test_control_points_are_met(self) -> None:
        target = turned(POINTS, -4, (-5, 3))
        target[LIPS_INNER[11:]] += (0, 6)
        warp = prepare(np.zeros((400, 400, 3), np.uint8))
        there, here = FACE_CONTROL.of(target), FACE_CONTROL.of(POINTS)
        missed = [np.linalg.norm(displacement(warp, target, a) - (b - a)) for a, b in zip(there, here, strict=True)]
        assert np.median(missed) < 0.01
        assert max(missed) < 4  # lips that part pull apart what lies between their points

    def test_no_motion_is_no_displacement(self) -> None:
        warp = prepare(np.zeros((400, 400, 3), np.uint8))
        field = warp.field(FACE_CONTROL.of(POINTS), np.zeros(2), np.full(2, 400.0), (50, 50))
        assert np.abs(field).max() < 1e-3


class TestParted:
    def test_a_line_beside_the_head_stays_straight_while_the_head_moves(self) -> None:
        image = np.full((400, 400, 3), 120, np.uint8)
        image[:, 318:322] = 255  # a door post beside the head
        rows, columns = np.mgrid[:400, :400]
        head = np.hypot((columns - 200) / 75, (rows - 170) / 105) < 1
        image[head] = (200, 150, 130)
        image[150:170, 180:190] = 30
        warp = prepare(image)
        x0, y0, x1, y1 = warp.box
        mask = head[y0:y1, x0:x1].astype(np.float32)
        parted = warp.parted(Matte.cut_out(image[y0:y1, x0:x1], mask, POINTS[OVAL] - (x0, y0)))
        target = FACE_CONTROL.of(turned(POINTS, 8, (10, 0)))
        bent, straight = (each.warp(target).astype(int) for each in (warp, parted))
        post = slice(318 - x0 - 6, 322 - x0 + 12)
        still = image[y0:y1, x0:x1][:, post].astype(int)
        assert np.array_equal(straight[:, post], still)
        assert np.abs(bent[:, post] - still).max() > 40
        inner = (slice(150 - y0, 200 - y0), slice(170 - x0, 230 - x0))
        assert np.abs(straight[inner] - bent[inner]).max() <= 1  # the head itself moves as before

    def test_at_the_pictures_border_no_background_shines_through_the_body(self) -> None:
        image = np.full((300, 400, 3), 20, np.uint8)  # a dark body down to the border
        image[:60] = 250
        mask = np.zeros((300, 400), np.float32)
        mask[60:] = 1
        warp = prepare(image)
        x0, y0, x1, y1 = warp.box
        parted = warp.parted(Matte.cut_out(image[y0:y1, x0:x1], mask[y0:y1, x0:x1], POINTS[OVAL] - (x0, y0)))
        moved = parted.warp(FACE_CONTROL.of(turned(POINTS, 0, (0, -14))))
        assert moved[-30:].max() < 60


class TestPatch:
    """Only what moves is warped: the same pixels as if all of the box were."""

    @staticmethod
    def scene(alpha: np.ndarray | None = None) -> PortraitWarp:
        random = np.random.default_rng(0)
        image = cv2.resize(random.integers(0, 256, (50, 60, 3), np.uint8), (600, 500), interpolation=cv2.INTER_CUBIC)
        points = POINTS + (100, 60)
        return PortraitWarp.prepare(image, points[OVAL], FACE_CONTROL.of(points), EYE / 72, alpha, HEAD)

    @staticmethod
    def parted(warp: PortraitWarp) -> PortraitWarp:
        x0, y0, x1, y1 = warp.box
        rows, columns = np.mgrid[y0:y1, x0:x1]
        mask = np.clip(1.4 - np.hypot((columns - 300) / 75, (rows - 240) / 105), 0, 1).astype(np.float32)
        face = (POINTS + (100, 60) - (x0, y0))[OVAL]
        return warp.parted(Matte.cut_out(warp.image[y0:y1, x0:x1], mask, face))

    @staticmethod
    def wholly(warp: PortraitWarp, target: np.ndarray, detail: np.ndarray, lids: list) -> np.ndarray:
        """The box by one call over all of it, and by nothing that knows what stays."""
        x0, y0, x1, y1 = warp.box
        lookup = warp._field(target, detail).lookup(slice(0, y1 - y0), slice(0, x1 - x0))
        moved = cv2.remap(warp.image, *lookup, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        for motion in lids:
            motion.paint(moved, warp.image, lookup, (x0, y0))
        alpha = warp.alpha
        if warp.matte is not None and warp.share is not None:
            share = cv2.remap(warp.share, *lookup, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            moved = cv2.blendLinear(moved, warp.matte.plate, share, 1 - share)
            return moved if alpha is None else np.dstack([moved, alpha[y0:y1, x0:x1]])
        if alpha is None:
            return moved
        return np.dstack([moved, cv2.remap(alpha, *lookup, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)])

    @pytest.mark.parametrize("kind", ["bent", "parted", "alpha", "opaque"])
    def test_it_is_what_the_whole_box_gives(self, kind) -> None:
        alpha = None
        if kind == "alpha":
            alpha = np.where(np.hypot(*(np.mgrid[:500, :600] - [[[240]], [[300]]])) < 130, 255, 40).astype(np.uint8)
        if kind == "opaque":
            alpha = np.full((500, 600), 255, np.uint8)
        warp = self.scene(alpha)
        if kind in ("parted", "opaque"):
            warp = self.parted(warp)
        x0, y0, x1, y1 = warp.box
        points, random = POINTS + (100, 60), np.random.default_rng(1)
        for turn, shut in ((-6.0, 3), (0.0, 0.5), (9.0, 12), (25.0, 12)):
            target = turned(POINTS, turn, (turn, 2)) + (100, 60)
            target[LIPS_INNER[11:]] += (0, 5)
            target[LID_PAIRS_LEFT[:, 0]] += (0, shut)
            target[LID_PAIRS_RIGHT[:, 0]] += (0, shut)
            target[[IRISES[0], IRISES[1]]] += (2, 0)
            smooth, lids = part_lids(points, target, EYES)
            lids = [*moved_irises(points, smooth, EYES, IRISES), *lids]
            assert len(lids) == 4
            control = FACE_CONTROL.of(smooth)
            mouth = target[LIPS_INNER]
            detail = np.r_[mouth.min(0) - 20.3, mouth.max(0) + 20.4]
            wanted = self.wholly(warp, control, detail, lids)
            assert np.array_equal(warp.warp(control, detail, lids), wanted)
            patch = warp.patch(control, detail, lids)
            laid = warp.still.copy()
            (x, y), (height, width) = patch.corner, patch.pixels.shape[:2]
            laid[y - y0 : y - y0 + height, x - x0 : x - x0 + width] = patch.pixels
            assert np.array_equal(laid, wanted)
            assert height * width < 0.9 * (y1 - y0) * (x1 - x0)
            keep = random.integers(0, 400, 2)
            kept = warp.patch(control, detail, lids, keep=[np.r_[keep + 0.5, keep + 90.2]])
            assert kept.corner[0] <= max(keep[0], x0)
            assert kept.corner[1] <= max(keep[1], y0)

    def test_nothing_that_moves_is_next_to_nothing_to_do(self) -> None:
        warp = self.scene()
        patch = warp.patch(FACE_CONTROL.of(POINTS + (100, 60)))
        moved = warp.field(FACE_CONTROL.of(POINTS + (100, 60)), np.zeros(2), np.array([600.0, 500]), (50, 60))
        assert np.abs(moved).max() < 1e-3
        x0, y0, _, _ = warp.box
        (x, y), (height, width) = patch.corner, patch.pixels.shape[:2]
        assert np.array_equal(patch.pixels, warp.still[y - y0 : y - y0 + height, x - x0 : x - x0 + width])
