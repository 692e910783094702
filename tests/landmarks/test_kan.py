from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from atldiff.methods.atl_published.kan import KAN, SPLINE_NOISE, KANLayer


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def scipy_bases(x: np.ndarray, grid: int, order: int) -> np.ndarray:
    """The bases (N, grid + order) at x (N,) as scipy knows them; zero beyond a basis's own knots."""
    knots = -1 + 2 / grid * np.arange(-order, grid + order + 1)
    one = np.eye(grid + order)
    values = [BSpline(knots, one[i], order, extrapolate=True)(x) for i in range(grid + order)]
    inside = (x >= -1) & (x < 1)  # scipy's spline is itself only between its inner knots
    return np.stack(values, 1) * inside[:, None]


@pytest.mark.parametrize(("grid", "order"), [(5, 3), (1, 1), (8, 2), (3, 5)])
def test_bases_are_b_splines(grid: int, order: int) -> None:
    layer = KANLayer(2, 3, grid, order)
    x = torch.rand(200, 2) * 1.98 - 0.99
    bases = layer.bases(x)
    assert bases.shape == (200, 2, grid + order)
    for i in range(2):
        assert np.abs(bases[:, i].numpy() - scipy_bases(x[:, i].double().numpy(), grid, order)).max() < 1e-4
    assert torch.allclose(bases.sum(-1), torch.ones(200, 2), atol=1e-5)


def test_a_basis_reaches_beyond_the_range_by_the_orders_knots() -> None:
    layer = KANLayer(1, 1, 5, 3)
    bases = layer.bases(torch.tensor([[-2.21], [-2.1], [-1.1], [1.1], [2.1], [2.21]]))[:, 0]
    assert not bases[[0, -1]].any()  # the grid, extended by three intervals of 0.4, ends at 2.2
    assert (bases[1:-1].sum(-1) > 0).all()
    assert (bases[1:-1].sum(-1) < 1).all()


def test_a_layer_is_its_formula() -> None:
    layer = KANLayer(4, 3, 5, 3)
    x = torch.rand(7, 4) * 1.9 - 0.95
    wanted = np.zeros((7, 3))
    for out in range(3):
        for into in range(4):
            v = x[:, into].double().numpy()
            spline = scipy_bases(v, 5, 3) @ layer.spline_weight[out, into].detach().double().numpy()
            wanted[:, out] += layer.base_weight[out, into].item() * v / (1 + np.exp(-v))
            wanted[:, out] += layer.spline_scaler[out, into].item() * spline
    assert np.abs(layer(x).detach().numpy() - wanted).max() < 1e-5


def test_names_and_shapes_are_the_published_ones() -> None:
    shapes = {name: tuple(value.shape) for name, value in KAN((68, 512, 68), 5, 3).state_dict().items()}
    assert shapes == {
        "layers.0.base_weight": (512, 68), "layers.0.spline_weight": (512, 68, 8),
        "layers.0.spline_scaler": (512, 68), "layers.0.grid": (68, 12),
        "layers.1.base_weight": (68, 512), "layers.1.spline_weight": (68, 512, 8),
        "layers.1.spline_scaler": (68, 512), "layers.1.grid": (512, 12),
    }  # fmt: skip
    assert sum(p.numel() for p in KAN((68, 512, 68), 5, 3).parameters()) == 696_320


def test_leading_axes_are_kept() -> None:
    kan = KAN((6, 5, 4), 5, 3)
    x = torch.randn(2, 3, 7, 6)
    out = kan(x)
    assert out.shape == (2, 3, 7, 4)
    assert torch.allclose(out[1, 2], kan(x[1, 2]), atol=1e-6)


def test_the_start_is_kaiming_and_a_little_noise() -> None:
    layer = KANLayer(64, 50, 5, 3)
    for weight in (layer.base_weight, layer.spline_scaler):
        assert 0.95 / 8 < weight.abs().max() <= 1 / 8  # a of the square root of 5: one over the root of the fan-in
    points = torch.linspace(-1, 1, 6).repeat(64, 1).T
    values = torch.einsum("nik,oik->noi", layer.bases(points), layer.spline_weight)
    bound = SPLINE_NOISE / 2 / 5
    assert 0.9 * bound < values.abs().max() <= bound * 1.001
    assert values.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_every_parameter_is_trained() -> None:
    kan = KAN((6, 5, 4), 5, 3)
    kan(torch.rand(9, 6)).square().sum().backward()
    for name, parameter in kan.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
