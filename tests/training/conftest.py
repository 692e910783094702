from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from atldiff.backbones.alexnet import LpipsAlexNet
from atldiff.data.speech import fit_basis

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

_fitted: dict[tuple, tuple] = {}


@pytest.fixture(scope="session")
def fit_once() -> Callable[..., tuple]:
    """`fit_basis` that fits the same clips only once: an eigenproblem of a thousand rows."""

    def fit(clips: list, components: int, weights: np.ndarray) -> tuple:
        key = (components, *((clip.name, len(clip), float(clip.displacements.sum())) for clip in clips))
        if key not in _fitted:
            _fitted[key] = fit_basis(clips, components, weights)
        return _fitted[key]

    return fit


@pytest.fixture(scope="session")
def network() -> LpipsAlexNet:
    """The network of LPIPS with random weights, none of which counts against."""
    torch.manual_seed(0)
    network = LpipsAlexNet()
    for linear in network.linear:
        linear.weight.data.abs_()  # pyright: ignore[reportCallIssue]
    return network
