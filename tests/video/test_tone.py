"""Black-and-white and toned photographs are known from those in colour, and what is painted takes their tone."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from PIL import Image

from atldiff.video.still import read_image
from atldiff.video.tone import tone_of

if TYPE_CHECKING:
    from pathlib import Path

FACE = np.array([[40, 30], [160, 30], [170, 100], [100, 190], [30, 100]], np.float32)
SEPIA = np.array([[14, 8, 2], [150, 122, 92], [255, 243, 214]], float)  # of luma 0, 128 and 255


@pytest.fixture(scope="module")
def photograph(examples: Path) -> np.ndarray:
    """Return a face cut from the bundled portrait, (200, 200, 3)."""
    image = read_image(examples / "portrait.jpg")
    return cv2.resize(image[40:200, 170:330], (200, 200), interpolation=cv2.INTER_CUBIC)


def grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(np.rint(image @ [0.299, 0.587, 0.114]).astype(np.uint8)[..., None], 3, axis=2)


def sepia(image: np.ndarray) -> np.ndarray:
    luma = image @ [0.299, 0.587, 0.114]
    return np.stack([np.interp(luma, (0, 128, 255), SEPIA[:, c]) for c in range(3)], axis=-1).round().astype(np.uint8)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file).convert("RGB"))


def painted() -> np.ndarray:
    """Return a pink mouth, (16, 16, 3) float32."""
    ramp = np.linspace(30, 220, 256, dtype=np.float32).reshape(16, 16, 1)
    return ramp * np.array([1.0, 0.6, 0.65], np.float32)


@pytest.mark.parametrize("quality", [None, 90, 50])
def test_grey_stays_exactly_grey(photograph: np.ndarray, quality: int | None) -> None:
    image = grey(photograph)
    tone = tone_of(image if quality is None else jpeg(image, quality), FACE)
    assert tone is not None
    toned = tone.of(painted())
    assert np.ptp(toned, axis=2).max() == 0
    assert np.allclose(toned[..., 0], painted() @ np.array([0.299, 0.587, 0.114], np.float32), atol=0.01)


def test_grey_with_noise_in_colour(photograph: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(0, 4, photograph.shape)
    tone = tone_of(np.clip(grey(photograph) + noise, 0, 255).astype(np.uint8), FACE)
    assert tone is not None
    assert np.ptp(tone.of(painted()), axis=2).max() <= 3


@pytest.mark.parametrize("quality", [None, 90, 50])
def test_sepia_is_painted_in_sepia(photograph: np.ndarray, quality: int | None) -> None:
    image = sepia(photograph)
    tone = tone_of(image if quality is None else jpeg(image, quality), FACE)
    assert tone is not None
    toned = tone.of(np.clip(painted(), 60, 200))
    luma = toned @ [0.299, 0.587, 0.114]
    wanted = np.stack([np.interp(luma, SEPIA @ [0.299, 0.587, 0.114], c) for c in SEPIA.T], axis=-1)
    assert np.abs(toned - wanted).mean() < (1.5 if quality is None else 4)


def test_a_photograph_in_colour_has_no_tone(photograph: np.ndarray) -> None:
    assert tone_of(photograph, FACE) is None
    assert tone_of(jpeg(photograph, 50), FACE) is None
    pale = np.rint(0.65 * grey(photograph) + 0.35 * photograph.astype(float)).astype(np.uint8)
    lips = pale.astype(float)
    lips[130:150, 70:130] += [14, -8, -4]
    assert tone_of(np.clip(lips, 0, 255).astype(np.uint8), FACE) is None


def test_only_the_face_counts(photograph: np.ndarray) -> None:
    framed = np.full((300, 300, 3), (200, 40, 40), np.uint8)
    framed[50:250, 50:250] = grey(photograph)
    assert tone_of(framed, FACE + 50) is not None
    framed[50:250, 50:250] = photograph
    framed[:50], framed[250:] = 128, 128
    assert tone_of(framed, FACE + 50) is None


def test_faces_over_the_edge(photograph: np.ndarray) -> None:
    assert tone_of(grey(photograph), FACE - 60) is not None
    assert tone_of(grey(photograph), FACE + 1000) is None
