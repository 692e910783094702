from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from atldiff.backbones.alexnet import LpipsAlexNet
from atldiff.evaluation.metrics import mouth
from atldiff.evaluation.metrics.mouth_crop import EXTENT, LARGEST_PX, crop_side, cut_mouths, inside
from atldiff.landmarks.topology import LIPS_INNER, POINTS
from atldiff.video.window import RIGID_POINTS, TEMPLATE
from drawn_mouths import changed, draw_mouths

OPENINGS = 0.13 + 0.07 * np.sin(0.5 * np.arange(40))


@pytest.fixture(scope="module")
def network() -> LpipsAlexNet:
    torch.manual_seed(0)
    network = LpipsAlexNet()
    with torch.no_grad():
        for layer in network.linear:
            layer.get_parameter("weight").abs_()
    return network.eval().requires_grad_(False)


def blurred(sigma: float):
    return lambda frame, _: cv2.GaussianBlur(frame, (0, 0), sigma) if sigma else frame


def grainy(levels: float):
    random = np.random.default_rng(0)
    return lambda frame, _: frame + random.normal(0, levels, frame.shape[:2])[..., None]


def face(scale: float, frames: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures with a white dot at the mouth's centre, and landmarks, of a face `scale` template sizes large."""
    points = np.zeros((frames, POINTS, 3))
    at = TEMPLATE * scale + 50
    for index in range(frames):
        points[index, RIGID_POINTS, :2] = at + [3 * index, 0]
        points[index, LIPS_INNER, :2] = np.array([64, 58]) * scale + 50 + [3 * index, 0]
    pictures = np.zeros((frames, round(130 * scale) + 60, round(130 * scale) + 70, 3), np.uint8)
    for index, picture in enumerate(pictures):
        middle = tuple(int(v) for v in np.round(points[index, LIPS_INNER[0], :2]))
        cv2.circle(picture, middle, max(1, round(2 * scale)), (255, 255, 255), -1)
    return pictures, points


@pytest.mark.parametrize(("scale", "side"), [(1.0, EXTENT), (2.0, 2 * EXTENT), (6.0, LARGEST_PX), (0.2, EXTENT // 2)])
def test_the_crop_has_the_real_clips_own_resolution(scale: float, side: int) -> None:
    assert crop_side(face(scale)[1]) == side


@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0])
def test_the_mouth_stands_where_its_landmarks_say(scale: float) -> None:
    pictures, points = face(scale)
    still = points.copy()
    still[:] = points[0]
    mouths = cut_mouths(np.stack([pictures[0]] * 3), still, 96)
    ys, xs = np.nonzero(mouths.luma[1] > 60)
    assert [xs.mean(), ys.mean()] == pytest.approx(mouths.inner[1].mean(axis=0).tolist(), abs=0.6)
    assert mouths.eye_px == 108


def test_no_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="got none"):
        cut_mouths([], face(1.0)[1], 64)


def test_a_contour_can_be_shrunk_and_grown() -> None:
    square = np.array([[20, 20], [40, 20], [40, 40], [20, 40.0]])
    areas = [int(inside(square, 64, margin).sum()) for margin in (4, 0, -4)]
    assert areas[0] == pytest.approx(13**2, abs=40)
    assert areas[1] == pytest.approx(21**2, abs=25)
    assert areas[2] == pytest.approx(28**2, abs=80)


def test_sharpness_falls_with_blur_and_grows_with_grain() -> None:
    real = draw_mouths(OPENINGS)
    assert mouth.sharpness(real, real) == pytest.approx(1)
    blur = [mouth.sharpness(changed(real, blurred(sigma)), real) for sigma in (0, 1, 2, 4)]
    assert blur == sorted(blur, reverse=True)
    assert blur[0] == pytest.approx(1, abs=0.02)
    assert blur[2] < 0.6
    grain = [mouth.sharpness(changed(real, grainy(levels)), real) for levels in (0, 4, 8, 16)]
    assert grain == sorted(grain)
    assert grain[-1] > 1.2


def test_sharpness_compares_mouths_of_one_opening() -> None:
    real = draw_mouths(np.repeat([0.08, 0.2], 12))
    assert mouth.sharpness(draw_mouths(np.full(12, 0.2)), real) == pytest.approx(1, abs=0.03)


def test_lips_are_not_the_cavity() -> None:
    real = draw_mouths(OPENINGS)
    frames = real.frames.copy()
    for index, frame in enumerate(frames):
        frame[~inside(real.inner[index], len(frame), -2)] = 0
    made = type(real)(frames, real.inner, real.outer, real.opening, real.seen)
    assert mouth.sharpness(made, real) == pytest.approx(1, abs=0.02)


def test_few_open_mouths_say_nothing(network: LpipsAlexNet) -> None:
    shut, real = draw_mouths(np.full(20, 0.01)), draw_mouths(OPENINGS)
    assert mouth.sharpness(shut, real) is None
    assert mouth.sharpness(real, shut) is None
    assert mouth.realism(mouth.open_features(shut, network), mouth.open_features(real, network)) is None
    assert mouth.seam_brightness(real) is None


def test_realism_is_one_for_the_clip_itself_and_grows_with_fog(network: LpipsAlexNet) -> None:
    openings = OPENINGS + 0.01 * np.linspace(-1, 1, len(OPENINGS))
    real = draw_mouths(openings)
    own = mouth.open_features(real, network)
    assert mouth.realism(own, own) == pytest.approx(1)
    foggy = [
        mouth.realism(mouth.open_features(changed(real, blurred(sigma)), network), own) for sigma in (0, 1.5, 3, 6)
    ]
    assert foggy == sorted(foggy)
    assert foggy[-1] > 2


def test_features_are_lpips_without_place(network: LpipsAlexNet) -> None:
    """Of a picture without structure, place does not matter: both are one figure."""
    one, other = (draw_mouths(np.full(2, 0.1)) for _ in range(2))
    one.frames[:], other.frames[:] = 60, 200
    centre = slice(1, 2)
    apart = mouth.open_features(one, network)[0][centre] - mouth.open_features(other, network)[0][centre]
    assert 0 < float(np.square(apart).sum()) < 4 * mouth.mouth_lpips(one, other, network) + 1e-3


def test_the_mouths_lpips_sees_the_mouth_alone(network: LpipsAlexNet) -> None:
    real = draw_mouths(OPENINGS[:6])
    assert mouth.mouth_lpips(real, real, network) == 0
    worse = [mouth.mouth_lpips(changed(real, blurred(sigma)), real, network) for sigma in (1, 2, 4)]
    assert 0 < worse[0] < worse[1] < worse[2]
    cheek = draw_mouths(OPENINGS[:6])
    cheek.frames[:, :30] = 0
    assert mouth.mouth_lpips(cheek, real, network) == 0
    lost = type(real)(real.frames, real.inner, real.outer, real.opening, np.zeros(6, bool))
    assert mouth.mouth_lpips(lost, real, network) is None


def test_teeth_between_shut_lips_are_bright() -> None:
    openings = np.full(12, 0.015)
    dark, toothy = draw_mouths(openings, teeth=False), draw_mouths(openings, share=1)
    assert mouth.seam_brightness(dark) == 0
    strengths = [
        mouth.seam_brightness(changed(dark, lambda frame, i, s=strength: s * toothy.frames[i] + (1 - s) * frame))
        for strength in (0, 0.4, 0.7, 1)
    ]
    assert strengths == sorted(strengths)
    assert strengths[0] == 0
    assert strengths[-1] > 5


def test_only_frames_that_should_be_shut_count() -> None:
    mouths = draw_mouths(np.repeat([0.015, 0.15], 10), share=1)
    shut = mouth.seam_brightness(mouths)
    assert shut == pytest.approx(mouth.seam_brightness(mouths, np.repeat([True, False], 10)))
    assert mouth.seam_brightness(mouths, np.ones(20, bool)) > 1.5 * shut


def test_a_highlight_on_the_lips_is_no_tooth() -> None:
    mouths = draw_mouths(np.full(10, 0.0), teeth=False)
    mouths.frames[:, 66:70, 60:84] = 230  # on the lower lip, below the line
    assert mouth.seam_brightness(mouths) < 1
