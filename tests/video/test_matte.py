from __future__ import annotations

import cv2
import numpy as np
import pytest

from atldiff.video.matte import Matte, behind, guided

SIDE = 240


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A dark head before a striped wall: picture, its exact alpha, and the wall alone."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    wall = np.stack([170 + 30 * np.sin(columns / 9), 150 + 20 * np.sin(columns / 9), 190 + 0 * rows], -1)
    alpha = np.clip(60.5 - np.hypot(columns - 120, rows - 120), 0, 1)[..., None]
    head = np.stack([80 + 0.2 * rows, 50 + 0.1 * columns, 40 + 0 * rows], -1)
    return np.rint(alpha * head + (1 - alpha) * wall).astype(np.uint8), alpha[..., 0], wall


def rough(alpha: np.ndarray) -> np.ndarray:
    """The mask as a network of few pixels gives it: seven pixels blurred, three shifted."""
    small = cv2.resize(alpha, (SIDE // 7, SIDE // 7), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR).astype(np.float32)


FACE = np.array([[95.0, 95], [145, 95], [145, 150], [95, 150]])


class TestCutOut:
    def test_a_head_at_rest_is_the_picture(self) -> None:
        image, alpha, _ = scene()
        matte = Matte.cut_out(image, rough(alpha), FACE)
        share = matte.alpha[..., None] / 255
        again = share * matte.figure + (1 - share) * matte.plate
        assert np.abs(again - image).mean() < 0.5
        assert np.percentile(np.abs(again - image), 99.9) < 20

    def test_nothing_of_the_head_stays_behind(self) -> None:
        image, alpha, wall = scene()
        matte = Matte.cut_out(image, rough(alpha), FACE)
        rim = (alpha > 0) & (cv2.erode(alpha, np.ones((13, 13))) < 1)  # what a turned head uncovers
        left = np.abs(matte.plate.astype(float) - wall)[rim]
        taken = np.abs(image.astype(float) - wall)[rim]
        assert left.mean() < 0.25 * taken.mean()

    def test_alpha_follows_the_pictures_edge_not_the_masks(self) -> None:
        image, alpha, _ = scene()
        mask = rough(alpha)
        matte = Matte.cut_out(image, mask, FACE)
        off = np.abs(matte.alpha / 255 - alpha).mean()
        assert off < 0.6 * np.abs(mask - alpha).mean()
        assert matte.alpha[np.hypot(*(np.mgrid[:SIDE, :SIDE] - 120)) > 70].max() == 0

    def test_the_face_is_the_persons_whatever_the_mask_says(self) -> None:
        image, alpha, _ = scene()
        mask = rough(alpha)
        mask[110:130, 110:130] = 0
        matte = Matte.cut_out(image, mask, FACE)
        assert matte.alpha[97:148, 97:143].min() == 255

    def test_without_a_person_all_is_background(self) -> None:
        image, _, _ = scene()
        matte = Matte.cut_out(image, np.zeros((SIDE, SIDE), np.float32), np.zeros((3, 2)))
        assert np.array_equal(matte.plate[5:, 5:], image[5:, 5:])


class TestBehind:
    def test_a_wall_with_stripes_goes_on_with_stripes(self) -> None:
        image, alpha, wall = scene()
        covered = np.where(alpha > 0, 255, 0).astype(np.uint8)
        plate = behind(image, covered).astype(float)
        assert np.array_equal(plate[covered == 0], image[covered == 0])
        near = (covered > 0) & (cv2.erode(covered, np.ones((17, 17), np.uint8)) == 0)
        assert plate[near][:, 0].std() > 0.5 * wall[near][:, 0].std()
        assert plate[covered > 0].min() > 110  # nothing of the dark head


class TestGuided:
    def test_a_flat_picture_blurs_the_mask(self) -> None:
        mask = np.zeros((60, 60), np.float32)
        mask[:, 30:] = 1
        out = guided(np.full((60, 60, 3), 90, np.uint8), mask, 4)
        assert out[30, 30] == pytest.approx(0.5, abs=0.1)
        assert out[30, 10] == pytest.approx(0, abs=1e-4)

    def test_a_blurred_mask_takes_the_pictures_edge(self) -> None:
        image = np.full((60, 60, 3), 40, np.uint8)
        image[:, 30:] = 200
        mask = np.asarray(cv2.GaussianBlur((image[..., 0] > 100).astype(np.float32), (0, 0), 3), np.float32)
        out = guided(image, mask, 6)
        assert out[30, 30] - out[30, 29] > 4 * (mask[30, 30] - mask[30, 29])
