"""Mouths of prepared clips: pictures and points of one moment, what is sharp, and windows cut out of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from atldiff.data.clip import sharpness
from atldiff.data.manifest import Manifest, ManifestEntry
from atldiff.data.mouths import ClipMouths, corner, cut, load_mouths, mouth_weights, pick_more, sharp_share
from atldiff.data.synthetic import make_synthetic
from atldiff.errors import DataError
from atldiff.landmarks.topology import LIPS_INNER, LIPS_OUTER
from atldiff.video.window import STORED_MOUTH, WindowGeometry

if TYPE_CHECKING:
    from pathlib import Path

FRAMES = 24
WINDOW = WindowGeometry(144, (28, 41), 2.0, 112)
LIPS = np.concatenate([LIPS_OUTER, LIPS_INNER])
STILL = np.zeros(2, int)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_synthetic(tmp_path_factory.mktemp("drawn"), people=3, clips=1, frames=FRAMES)


@pytest.fixture(scope="module")
def clip(drawn: Manifest) -> ClipMouths:
    return load_mouths(drawn, drawn.entries[0], LIPS)


def test_shapes(clip: ClipMouths, drawn: Manifest) -> None:
    assert len(clip) == FRAMES
    assert clip.points.shape == (FRAMES, 40, 2)
    assert clip.rigid.shape == (FRAMES, 13, 2)
    assert clip.offsets[-1] == len(load_file(drawn.tensors(drawn.entries[0]))["mouths"])
    pictures = clip.pictures(np.arange(FRAMES))
    assert pictures.shape == (FRAMES, *STORED_MOUTH.size[::-1], 3)
    assert np.array_equal(clip.pictures(np.array([7, 0, 7])), pictures[[7, 0, 7]])


def test_the_mouth_is_twice_the_template_s_and_in_the_picture(clip: ClipMouths) -> None:
    width = np.linalg.norm(clip.points[:, 10] - clip.points[:, 0], axis=-1)
    assert 70 < np.median(width) < 110
    assert np.abs(clip.points.mean((0, 1)) / 2 + STORED_MOUTH.origin - (64, 58)).max() < 12
    assert np.abs(clip.rigid.mean(0)[:, 0].mean() + STORED_MOUTH.origin[0] - 64).max() < 3  # template pixels


def test_pictures_and_points_are_of_one_moment(clip: ClipMouths) -> None:
    """The drawn cavity is dark: at the centre of the inner lips, and only while they are open."""
    pictures = clip.pictures(np.arange(FRAMES)).astype(float)
    inner = clip.points[:, 20:]
    gap = np.linalg.norm(inner[:, 5] - inner[:, 15], axis=-1)
    centre = np.rint(inner.mean(1)).astype(int)
    level = np.array([p[y - 1 : y + 2, x - 1 : x + 2].mean() for p, (x, y) in zip(pictures, centre, strict=True)])
    assert np.ptp(gap) > 4
    assert np.corrcoef(gap, level)[0, 1] < -0.5


@pytest.mark.parametrize("flip", [False, True])
def test_a_window_is_cut_with_its_points(clip: ClipMouths, flip: bool) -> None:
    frames = np.array([3, 4, 9])
    images, points = cut(clip, frames, WINDOW, STILL, flip=flip)
    assert images.shape == (3, 112, 144, 3)
    x, y = corner(WINDOW, STILL)
    assert (x, y) == (16, 22)
    whole = clip.pictures(frames)[:, y : y + 112, x : x + 144]
    assert np.array_equal(images, whole[:, :, ::-1] if flip else whole)
    wanted = clip.points[frames] - (x, y)
    if flip:
        wanted[..., 0] = 143 - wanted[..., 0]
    assert np.allclose(points, wanted)


@pytest.mark.parametrize("flip", [False, True])
def test_a_window_of_half_the_scale_is_the_stored_one_averaged(clip: ClipMouths, flip: bool) -> None:
    half = WindowGeometry(72, WINDOW.origin, 1.0, 56)
    frames = np.array([3, 4, 9])
    images, points = cut(clip, frames, half, STILL, flip=flip)
    whole, there = cut(clip, frames, WINDOW, STILL, flip=flip)
    assert images.shape == (3, 56, 72, 3)
    assert np.abs(images - whole.reshape(3, 56, 2, 72, 2, 3).mean((2, 4))).max() <= 0.5
    assert np.allclose(points, (there - 0.5) / 2)  # the middle of two pixels is the middle of one
    assert corner(half, STILL) == corner(WINDOW, STILL)
    assert corner(half, np.array([100, 100])) == (32, 48)


def test_a_shifted_window_stays_inside(clip: ClipMouths) -> None:
    assert corner(WINDOW, np.array([4, -3])) == (20, 19)
    assert corner(WINDOW, np.array([100, 100])) == (32, 48)
    images, _ = cut(clip, np.array([0]), WINDOW, np.array([-100, 100]), flip=False)
    assert images.shape == (1, 112, 144, 3)


def test_further_references_show_a_wide_mouth_first(clip: ClipMouths) -> None:
    random = np.random.default_rng(0)
    assert pick_more(clip, 5, 0, random) == []
    drawn = np.array([pick_more(clip, 5, 2, random) for _ in range(40)])
    assert clip.opening[drawn[:, 0]].mean() > clip.opening.mean()
    assert drawn.min() >= 0
    assert drawn.max() < FRAMES
    assert len(set(drawn[:, 1].tolist())) > 8


@pytest.mark.parametrize(("mouth", "detail", "share"), [(100, 0.3, 1), (100, 0.1, 0), (20, 0.3, 0), (56, 0.3, 0.5)])
def test_sharp_is_large_and_detailed(mouth: float, detail: float, share: float) -> None:
    assert sharp_share(mouth, detail) == pytest.approx(share, abs=0.01)


def test_a_clip_too_blurred_for_one_window_is_sharp_in_a_smaller() -> None:
    assert sharp_share(38, 0.3) == 0
    assert sharp_share(38, 0.3, 1.0) == 1
    assert sharp_share(28, 0.3, 1.0) == sharp_share(56, 0.3)


def test_sharper_clips_are_drawn_more_often(clip: ClipMouths) -> None:
    sharp, blurred = (replace(clip, sharp=value, identity=str(value)) for value in (1.0, 0.0))
    weights = mouth_weights([sharp, blurred])
    assert weights.sum() == pytest.approx(1)
    assert weights[0] > 5 * weights[1]


def test_sharpness_falls_with_blur_and_enlargement() -> None:
    random = np.random.default_rng(0)
    noise = cv2.GaussianBlur(random.uniform(0, 255, (160, 176, 3)), (0, 0), 1.2)
    picture = np.clip(128 + 4 * (noise - noise.mean()), 0, 255).astype(np.uint8)
    values = [sharpness(cv2.GaussianBlur(picture, (0, 0), sigma)) for sigma in (0.5, 1.0, 2.0, 3.0)]
    assert 0 < values[-1] < values[0] < sharpness(picture) < 1
    assert values == sorted(values, reverse=True)
    small = cv2.resize(picture, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    assert sharpness(cv2.resize(small, (176, 160), interpolation=cv2.INTER_CUBIC)) < sharpness(picture)


def test_a_clip_prepared_before_is_an_error(drawn: Manifest, tmp_path: Path) -> None:
    tensors = load_file(drawn.tensors(drawn.entries[0]))
    (tmp_path / "clips").mkdir()
    entry = drawn.entries[0]
    save_file(
        {k: v for k, v in tensors.items() if not k.startswith("mouth")},
        tmp_path / "clips" / f"{entry.record.name}.safetensors",
    )
    with pytest.raises(DataError, match="no mouths; .*run `atldiff prepare` again"):
        load_mouths(Manifest((ManifestEntry(entry.record, "a", entry.split),), tmp_path), entry, LIPS)
