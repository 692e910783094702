"""A Kolmogorov-Arnold network (arXiv 2404.19756) whose edges are B-splines and a SiLU, as ATL-Diff's head has it."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

SPLINE_NOISE = 0.1
"""Range of the random curves that splines start as, before it is divided by the grid's intervals."""


class KANLayer(nn.Module):
    """One layer: `base_weight` on SiLU(x), plus a spline of every input for every output.

    grid: intervals in [-1, 1]. order: of the splines. Beyond the grid, extended by `order` intervals on both sides, a
    spline is zero.
    """

    grid: torch.Tensor

    def __init__(self, inputs: int, outputs: int, grid: int, order: int) -> None:
        super().__init__()
        self.order = order
        knots = torch.arange(-order, grid + order + 1, dtype=torch.float32) * (2 / grid) - 1
        self.register_buffer("grid", knots.repeat(inputs, 1))  # (in, grid + 2 order + 1)
        self.base_weight = nn.Parameter(torch.empty(outputs, inputs))
        self.spline_weight = nn.Parameter(torch.empty(outputs, inputs, grid + order))
        self.spline_scaler = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.kaiming_uniform_(self.base_weight, a=math.sqrt(5))
        nn.init.kaiming_uniform_(self.spline_scaler, a=math.sqrt(5))
        with torch.no_grad():
            # Splines start near small random values at the grid's points: the shortest coefficients that give them.
            points = knots[order : order + grid + 1].repeat(inputs, 1).T  # (grid + 1, in)
            at_points = self.bases(points)[:, 0]  # (grid + 1, grid + order)
            values = (torch.rand(outputs, inputs, grid + 1) - 0.5) * (SPLINE_NOISE / grid)
            self.spline_weight.copy_(values @ torch.linalg.pinv(at_points).T)

    def bases(self, x: torch.Tensor) -> torch.Tensor:
        """Return the B-spline bases (N, in, grid + order) of inputs (N, in), by the recursion of Cox and de Boor."""
        x, knots = x[..., None], self.grid
        bases = ((x >= knots[:, :-1]) & (x < knots[:, 1:])).to(x.dtype)
        for order in range(1, self.order + 1):
            rising = (x - knots[:, : -order - 1]) / (knots[:, order:-1] - knots[:, : -order - 1])
            falling = (knots[:, order + 1 :] - x) / (knots[:, order + 1 :] - knots[:, 1:-order])
            bases = rising * bases[..., :-1] + falling * bases[..., 1:]
        return bases

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (..., in). Returns (..., out)."""
        rows = x.reshape(-1, x.shape[-1])
        splines = self.spline_weight * self.spline_scaler[..., None]  # (out, in, grid + order)
        out = functional.linear(functional.silu(rows), self.base_weight)
        out = out + functional.linear(self.bases(rows).flatten(1), splines.flatten(1))
        return out.reshape(*x.shape[:-1], -1)


class KAN(nn.Module):
    """Layers one after the other; widths: numbers of values from the input to the output."""

    def __init__(self, widths: tuple[int, ...], grid: int, order: int) -> None:
        super().__init__()
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.layers = nn.ModuleList(KANLayer(inputs, outputs, grid, order) for inputs, outputs in pairs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (..., widths[0]). Returns (..., widths[-1])."""
        for layer in self.layers:
            x = layer(x)
        return x
