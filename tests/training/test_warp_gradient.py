"""The warp of tensors, which has a gradient on the control points: that of arrays, and its gradient."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from atldiff.landmarks.control import FACE_CONTROL
from atldiff.landmarks.shape import mean_shape
from atldiff.methods.lmdiff.training.gradient import warp_windows_from
from atldiff.video.warp import warp_windows

torch.set_num_threads(1)

SIDE = 80


def windows() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    picture = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return picture.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1


def points() -> np.ndarray:
    return FACE_CONTROL.of(mean_shape()[:, :2] * 72 + np.array((40, -24)))[None].astype(np.float32)


@pytest.mark.parametrize("cell_px", [2, 4])
def test_of_tensors_is_the_same_warp(cell_px: int) -> None:
    images, source = windows(), points()
    target = source + 2 * np.sin(source[..., ::-1] / 9)
    expected = warp_windows(images, target, source, cell_px)
    made = warp_windows_from(torch.from_numpy(images), torch.from_numpy(target), torch.from_numpy(source), cell_px)
    for one, other in zip(made, expected, strict=True):
        assert np.abs(one.numpy() - other).max() < 1e-4


def test_its_gradient_is_that_of_finite_differences() -> None:
    source = torch.from_numpy(points()).double()
    target = (source + 2 * torch.sin(source.flip(-1) / 9)).requires_grad_()
    smooth = torch.linspace(0, 3, SIDE).double()
    image = (torch.sin(smooth)[:, None] * torch.cos(smooth))[None, None]

    def total(where: torch.Tensor) -> torch.Tensor:
        return warp_windows_from(image, where, source)[0].square().sum()

    (gradient,) = torch.autograd.grad(total(target), target)
    inside = ((target > 20) & (target < 60)).all(-1)[0].nonzero()[:, 0]
    for point, axis in ((inside[0], 0), (inside[-1], 1)):
        step = torch.zeros_like(target)
        step[0, point, axis] = 1e-4
        with torch.no_grad():
            measured = (total(target + step) - total(target - step)) / 2e-4
        assert float(measured) == pytest.approx(float(gradient[0, point, axis]), rel=1e-3, abs=1e-6)
        assert float(measured) != 0
