"""The mouth's measures on real clips: about 1 or 0 for the clip itself, and worse the more it is spoilt."""

from __future__ import annotations

import os
from itertools import islice
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import torch

from atldiff.evaluation.metrics import mouth
from atldiff.evaluation.metrics.mouth_crop import Mouths, crop_side, cut_mouths, inside
from atldiff.evaluation.metrics.teeth import cavity_jitter, skull_shift, teeth_slide
from atldiff.landmarks.detect import FaceTracker
from atldiff.landmarks.geometry import fill_gaps
from atldiff.video.read import read_frames_at
from drawn_mouths import carried, changed

if TYPE_CHECKING:
    from pathlib import Path

    from atldiff.backbones.alexnet import LpipsAlexNet

pytestmark = pytest.mark.shared

FRAMES = 75
CLIPS = ("hdtf/WDA_KatieHill_000.mp4", "sharp/celebvtext_0BZ0cYR1fB4_21_0.mp4", "talkvid/Language_en.mp4")
LPIPS = os.environ.get("ATLDIFF_LPIPS")
"""Weights that this repository does not hold."""
needs_lpips = pytest.mark.skipif(LPIPS is None, reason="ATLDIFF_LPIPS names no file of weights")

Clip = tuple[list[np.ndarray], np.ndarray]


@pytest.fixture(scope="module", params=[CLIPS[0], *(pytest.param(clip, marks=pytest.mark.slow) for clip in CLIPS[1:])])
def clip(request: pytest.FixtureRequest, shared_data: Path) -> Clip:
    frames = list(islice(read_frames_at(shared_data / "clips" / request.param), FRAMES))
    with FaceTracker() as tracker:
        tracked = [tracker.track(frame) for frame in frames]
    seen = np.array([points is not None for points in tracked])
    points = np.stack([np.zeros((478, 3), np.float32) if p is None else p for p in tracked])
    return frames, points if seen.all() else fill_gaps(points, seen)


@pytest.fixture(scope="module")
def real(clip: Clip) -> Mouths:
    return cut_mouths(clip[0], clip[1], crop_side(clip[1]))


@pytest.fixture(scope="module")
def network() -> LpipsAlexNet:
    from atldiff.backbones import alexnet

    torch.set_num_threads(1)
    return alexnet.load(LPIPS or "")


def blurred(sigma: float):
    return lambda frame, _: cv2.GaussianBlur(frame, (0, 0), sigma) if sigma else frame


def grainy(levels: float):
    random = np.random.default_rng(0)
    return lambda frame, _: frame + random.normal(0, levels, frame.shape[:2])[..., None]


def test_sharpness(real: Mouths) -> None:
    assert mouth.sharpness(real, real) == pytest.approx(1)
    blur = [mouth.sharpness(changed(real, blurred(sigma)), real) for sigma in (0, 0.7, 1.5, 3, 6)]
    assert blur == sorted(blur, reverse=True)
    assert blur[0] == pytest.approx(1, abs=0.05)
    assert blur[3] < 0.6
    grain = [mouth.sharpness(changed(real, grainy(levels)), real) for levels in (0, 5, 10, 20)]
    assert grain == sorted(grain)
    assert grain[-1] > 1.15


@pytest.mark.parametrize("scale", [2.0, 3.0])
def test_a_larger_picture_is_no_sharper_one(clip: Clip, real: Mouths, scale: float) -> None:
    frames, points = clip
    size = (round(frames[0].shape[1] * scale), round(frames[0].shape[0] * scale))
    larger = [cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in frames]
    made = cut_mouths(larger, (points + 0.5) * scale - 0.5, crop_side(points))
    assert mouth.sharpness(made, real) == pytest.approx(1, abs=0.15)


def test_a_smaller_picture_is_less_sharp(clip: Clip, real: Mouths) -> None:
    frames, points = clip
    values = []
    for scale in (0.7, 0.5, 0.35):
        smaller = [cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for frame in frames]
        ratio = smaller[0].shape[1] / frames[0].shape[1]
        values.append(mouth.sharpness(cut_mouths(smaller, (points + 0.5) * ratio - 0.5, crop_side(points)), real))
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.8


@needs_lpips
@pytest.mark.parametrize("spoil", [blurred, grainy])
def test_realism_and_lpips(real: Mouths, network: LpipsAlexNet, spoil) -> None:
    own = mouth.open_features(real, network)
    assert mouth.realism(own, own) == pytest.approx(1)
    assert mouth.mouth_lpips(real, real, network) == 0
    worse = [changed(real, spoil(strength)) for strength in ((1, 2, 4) if spoil is blurred else (4, 8, 16, 32))]
    distances = [mouth.mouth_lpips(made, real, network) for made in worse]
    assert distances == sorted(distances)
    ratios = [mouth.realism(mouth.open_features(made, network), own) for made in worse]
    assert ratios == sorted(ratios)
    assert ratios[0] > 0.98
    assert ratios[-1] > 2


def test_slide(real: Mouths) -> None:
    """The widest mouth's teeth, laid into every frame: still in the skull's frame, printed on the lips, and between."""
    widest = int(np.where(real.seen, real.opening, 0).argmax())
    base, contour = real.frames[widest], real.inner[widest]

    def laid(index: int, share: float) -> np.ndarray:
        shift = skull_shift(real, widest, index)
        placed = cv2.warpAffine(base, np.array([[1, 0, shift[0]], [0, 1, shift[1]]]), base.shape[1::-1])
        return carried(placed, contour + shift, real.inner[index], share)

    shares = [teeth_slide(changed(real, lambda _, i, s=share: laid(i, s))) for share in (0, 0.5, 1)]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(0, abs=0.25)
    assert shares[-1] == pytest.approx(1, abs=0.25)
    own = teeth_slide(real)
    assert own is not None
    assert own < 0.6


def test_jitter(real: Mouths) -> None:
    own = cavity_jitter(real)
    if own is None:
        pytest.skip("the lips never rest open in this clip")
    flickering = [
        cavity_jitter(changed(real, lambda frame, i, s=levels: frame + s * (-1) ** i)) for levels in (4, 8, 16)
    ]
    assert [own, *flickering] == sorted([own, *flickering])
    assert flickering[-1] > own + 8


def test_squeezed_teeth(real: Mouths) -> None:
    """The widest mouth's teeth squeezed into the line of shut lips, at growing strength."""
    shut = np.flatnonzero(real.shut)
    if len(shut) < 8:
        pytest.skip("the mouth is hardly ever shut in this clip")
    widest = int(np.where(real.seen, real.opening, 0).argmax())
    base, contour, side = real.frames[widest], real.inner[widest], real.frames.shape[1]

    def squeezed(strength: float) -> Mouths:
        frames = real.frames.copy()
        for index in shut:
            inner = real.inner[index].copy()
            inner[:, 1] += np.r_[0, [-2.5] * 9, 0, [2.5] * 9]
            soft = strength * cv2.GaussianBlur(inside(inner, side).astype(np.float32), (0, 0), 0.7)[..., None]
            frames[index] = soft * carried(base, contour, inner, 1) + (1 - soft) * frames[index]
        return Mouths(frames, real.inner, real.outer, real.opening, real.seen)

    values = [mouth.seam_brightness(squeezed(strength)) for strength in (0, 0.3, 0.6, 1)]
    assert values == sorted(values)
    assert values[0] < 4
    assert values[-1] > values[0] + 1.5
