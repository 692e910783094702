from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atldiff.landmarks.control import FACE_CONTROL
from atldiff.landmarks.detect import detect
from atldiff.landmarks.person import LOOKED_AT, person_mask
from atldiff.landmarks.topology import OUTER_EYE_CORNERS, OVAL
from atldiff.methods.figure import HEAD, stand_out
from atldiff.video.still import read_rgba
from atldiff.video.warp import PortraitWarp


@pytest.fixture(scope="module")
def portrait(examples: Path) -> tuple[np.ndarray, np.ndarray]:
    image, _ = read_rgba(examples / "portrait.jpg")
    return image, detect(image)[:, :2]


def prepare(image: np.ndarray, points: np.ndarray, alpha: np.ndarray | None = None) -> PortraitWarp:
    unit = float(np.linalg.norm(np.subtract(*points[list(OUTER_EYE_CORNERS)]))) / 72
    return PortraitWarp.prepare(image, points[OVAL], FACE_CONTROL.of(points), unit, alpha, HEAD)


def test_the_demo_portraits_face_is_a_persons_and_the_corner_is_not(portrait: tuple[np.ndarray, np.ndarray]) -> None:
    image, points = portrait
    low, high = points.min(0), points.max(0)
    middle, reach = (low + high) / 2, 1.3 * (high - low).max()
    mask = person_mask(image, middle - reach, middle + reach)
    assert mask.shape == (LOOKED_AT, LOOKED_AT)
    assert mask[LOOKED_AT // 2, LOOKED_AT // 2] > 0.95
    assert np.array_equal(mask, person_mask(image, middle - reach, middle + reach))


def test_a_mask_lies_where_the_picture_does(portrait: tuple[np.ndarray, np.ndarray]) -> None:
    image, points = portrait
    low, high = points.min(0), points.max(0)
    middle, reach = (low + high) / 2, 1.3 * (high - low).max()
    mask = person_mask(image, middle - reach, middle + reach)
    padded = np.pad(image, ((20, 0), (50, 0), (0, 0)), mode="edge")
    moved = person_mask(padded, middle - reach + (50, 20), middle + reach + (50, 20))
    assert np.abs(moved - mask).max() < 0.02
    shifted = person_mask(image, middle - reach + (0, 40), middle + reach + (0, 40))
    rows = round(40 * LOOKED_AT / (2 * reach))
    assert np.abs(shifted[:-rows] - mask[rows:]).mean() < 0.02 < np.abs(shifted - mask).mean()


def test_a_portraits_background_stays(portrait: tuple[np.ndarray, np.ndarray]) -> None:
    image, points = portrait
    warp = prepare(image, points)
    parted = stand_out(warp, points[OVAL])
    assert parted.matte is not None
    x0, y0, x1, y1 = parted.box
    rest = parted.warp(FACE_CONTROL.of(points)).astype(int)
    assert np.abs(rest - image[y0:y1, x0:x1]).mean() < 0.3
    behind = parted.matte.alpha == 0
    away = parted.warp(FACE_CONTROL.of(points + 4)).astype(int)
    changed = np.abs(away - image[y0:y1, x0:x1])[behind].max(axis=-1) > 0
    assert behind.mean() > 0.02
    assert changed.mean() < 0.5  # only where the head is now


def test_what_shows_no_person_bends_as_before(portrait: tuple[np.ndarray, np.ndarray]) -> None:
    image, points = portrait
    blank = np.full_like(image, 128)
    assert stand_out(prepare(blank, points), points[OVAL]).matte is None
    alpha = np.full(image.shape[:2], 255, np.uint8)
    alpha[:9] = 0
    assert stand_out(prepare(image, points, alpha), points[OVAL]).matte is None
