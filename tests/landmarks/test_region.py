"""The fetch of a region: where each pixel comes from is known, and its last bit."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from atldiff.landmarks.region import Region, around


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Waves of many lengths, by whole numbers alone."""
    y, x = np.mgrid[:150, :200]
    wave = np.abs((np.stack([3 * x + y, 5 * y + x * y // 40, x * x // 30 + y], axis=-1) % 400) - 200)
    return wave.astype(np.uint8)


def test_a_region_of_its_own_size_is_the_picture(picture: np.ndarray) -> None:
    fetched = Region(70, 90, 100).fetch(picture, 100, replicate=True)
    assert np.array_equal(fetched, picture[40:140, 20:120])


def test_outside_is_black_or_as_the_edge(picture: np.ndarray) -> None:
    region = Region(0, 75, 100)
    black, edge = (region.fetch(picture, 100, replicate=replicate) for replicate in (False, True))
    assert not black[:, :50].any()
    assert np.array_equal(edge[:, :50], np.repeat(picture[25:125, :1], 50, axis=1))
    assert np.array_equal(black[:, 50:], picture[25:125, :50])


@pytest.mark.parametrize(("angle", "quarters"), [(np.pi / 2, 1), (np.pi, 2), (-np.pi / 2, 3)])
def test_what_is_turned_clockwise_is_fetched_upright(picture: np.ndarray, angle: float, quarters: int) -> None:
    fetched = Region(100, 80, 64, angle).fetch(picture, 64, replicate=True)
    inner = np.rot90(picture[48:112, 68:132], quarters)
    # Corners map to corners, as pixel edges: a turned pixel lies beside where its middle does.
    shifts = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    apart = min(np.abs(np.roll(inner, s, (0, 1)).astype(int) - fetched)[2:-2, 2:-2].max() for s in shifts)
    assert apart <= 1


def test_shares_of_a_region_lie_where_its_pixels_come_from() -> None:
    ramp = np.zeros((400, 400, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(400) // 2, np.arange(400)[:, None] // 2
    region = Region(190.3, 210.7, 120.0, 0.6)
    fetched = region.fetch(ramp, 60, replicate=True)
    rows, columns = np.array([5, 30, 50]), np.array([12, 33, 55])
    places = region.to_picture(np.stack([columns, rows], axis=1) / 60)
    assert np.abs(fetched[rows, columns, :2] - places / 2).max() <= 1
    assert region.to_picture(np.array([[0.5, 0.5]]))[0] == pytest.approx([190.3, 210.7])


@pytest.mark.parametrize(
    ("region", "pixels", "replicate", "expected"),
    [
        (Region(100, 75, 200), 128, False, "5df7762bdff9c939"),
        (Region(96.37, 71.9, 123.4, 0.31), 192, True, "84dfe196e676f0c2"),
        (Region(30.5, 140.2, 88.8, -2.7), 192, True, "7e19dc7645ed9c99"),
    ],
)
def test_a_fetch_is_the_same_everywhere(
    picture: np.ndarray, region: Region, pixels: int, replicate: bool, expected: str
) -> None:
    """By whatever release of OpenCV; these are of warpPerspective of OpenCV 4.10."""
    fetched = region.fetch(picture, pixels, replicate=replicate)
    assert hashlib.sha256(fetched.tobytes()).hexdigest()[:16] == expected


def test_strided_pictures_are_taken(picture: np.ndarray) -> None:
    turned = np.rot90(picture)
    region = Region(70, 90, 60, 0.2)
    assert np.array_equal(
        region.fetch(turned, 64, replicate=True), region.fetch(np.ascontiguousarray(turned), 64, replicate=True)
    )


def test_a_region_is_around_a_box_and_upright() -> None:
    region = around(np.array([10.0, 20.0]), np.array([50.0, 120.0]), np.array([[0.0, 0.0], [3.0, 3.0]]))
    assert (region.x, region.y, region.side) == (30, 70, 150)
    assert region.angle == pytest.approx(np.pi / 4)
