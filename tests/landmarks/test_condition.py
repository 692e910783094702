"""What may spoil a video of a face, on the demo portrait with cloth painted over its mouth and lids over its eyes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from atldiff.landmarks.condition import conditions, eyes_are_closed
from atldiff.landmarks.detect import detect
from atldiff.landmarks.lips import lips_are_covered
from atldiff.landmarks.topology import LID_PAIRS_LEFT, LID_PAIRS_RIGHT

LOWER_FACE = np.array([197, 100, 123, 132, 172, 150, 148, 152, 377, 379, 397, 361, 352, 329])
CLOTHS = {"white": (228, 230, 232), "blue": (120, 165, 205), "black": (30, 30, 34), "beige": (205, 170, 145)}


@pytest.fixture(scope="module")
def portrait(examples: Path) -> np.ndarray:
    return np.asarray(Image.open(examples / "portrait.jpg").convert("RGB"))


@pytest.fixture(scope="module")
def points(portrait: np.ndarray) -> np.ndarray:
    return detect(portrait)


def masked(portrait: np.ndarray, points: np.ndarray, cloth: tuple[int, int, int]) -> np.ndarray:
    """Return the portrait with cloth from the nose to the chin, shaded as the face is."""
    shape = np.zeros(portrait.shape[:2], np.uint8)
    middle = points[LOWER_FACE, :2].mean(axis=0)
    outline = 1.06 * (points[LOWER_FACE, :2] - middle) + middle
    cv2.fillPoly(shape, [np.rint(outline).astype(np.int32)], 255, cv2.LINE_AA)
    light = cv2.GaussianBlur(cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 12)
    light = np.clip(light / np.median(light[shape > 0]), 0.5, 1.5)[..., None]
    noise = np.random.default_rng(0).normal(0, 3, portrait.shape)
    share = shape[..., None] / 255
    return np.clip(portrait * (1 - share) + (light * cloth + noise) * share, 0, 255).astype(np.uint8)


def grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def copies(portrait: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "as it is": portrait,
        "grey": grey(portrait),
        "dark": (portrait * 0.25).astype(np.uint8),
        "faint": (128 + 0.35 * (portrait.astype(np.float32) - 128)).astype(np.uint8),
        "blurred": cv2.GaussianBlur(portrait, (0, 0), 2.0),
        "dark skin": np.clip(255 * (portrait / 255.0) ** 2.2, 0, 255).astype(np.uint8),
    }


def test_nothing_is_the_matter_with_the_demo_portrait(portrait: np.ndarray, points: np.ndarray) -> None:
    for name, copy in copies(portrait).items():
        assert conditions(copy, points) == [], name


@pytest.mark.parametrize("cloth", CLOTHS)
def test_lips_under_cloth_are_missed(portrait: np.ndarray, points: np.ndarray, cloth: str) -> None:
    image = masked(portrait, points, CLOTHS[cloth])
    for name, copy in copies(image).items():
        assert lips_are_covered(copy, points), name
    turned = np.ascontiguousarray(image[::-1, ::-1])
    upside_down = points * [-1, -1, 1] + [image.shape[1] - 1, image.shape[0] - 1, 0]
    assert lips_are_covered(turned, upside_down)


def test_a_mask_is_said_once(portrait: np.ndarray, points: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    found = detect(masked(portrait, points, CLOTHS["blue"]))
    assert np.linalg.norm(found[:, :2] - points[:, :2], axis=1).mean() < 0.2 * np.linalg.norm(
        points[33, :2] - points[263, :2]
    )
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "no lips are seen" in record.getMessage()


@pytest.mark.parametrize(("open_share", "closed"), [(1.0, False), (0.5, False), (0.35, False), (0.1, True)])
def test_closed_eyes(portrait: np.ndarray, points: np.ndarray, open_share: float, *, closed: bool) -> None:
    narrowed = points.copy()
    for pairs in (LID_PAIRS_RIGHT, LID_PAIRS_LEFT):
        upper, lower = pairs.T
        narrowed[upper] = points[lower] + open_share * (points[upper] - points[lower])
    assert eyes_are_closed(narrowed) is closed
    assert [each.note for each in conditions(portrait, narrowed)] == (["eyes closed"] if closed else [])


def test_one_eye_that_winks_is_not_closed(points: np.ndarray) -> None:
    winking = points.copy()
    winking[LID_PAIRS_RIGHT[:, 0]] = winking[LID_PAIRS_RIGHT[:, 1]]
    assert not eyes_are_closed(winking)
