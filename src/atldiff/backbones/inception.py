"""Inception-v3 as the Frechet Inception Distance knows it: TensorFlow's network of 2015-12-05, up to its last pooling.

Szegedy et al. 2016, arXiv 1512.00567. It differs from torchvision's Inception-v3 in its weights, in average pools that
leave the padding out of the mean, and in a maximum instead of an average in the last block's pooling branch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn

from atldiff.backbones.weights import INCEPTION, fill, find, read_tensors

if TYPE_CHECKING:
    import os

SIDE = 299
"""Side in pixels of the picture that the first convolution sees."""


class _Step(NamedTuple):
    """One convolution: its name in the published file, its output channels, kernel (height, width) and stride.

    fork: a second convolution of the same input, whose channels are appended; its name ends in b, the first's in a.
    """

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    fork: tuple[int, int] | None = None


class _Convolution(nn.Module):
    """Convolution, batch normalisation, ReLU. Strided ones use no padding, the others keep the size."""

    def __init__(self, channels: int, out: int, kernel: tuple[int, int], stride: int = 1, *, pad: bool = True) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if pad and stride == 1 else 0
        self.conv = nn.Conv2d(channels, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Mixed(nn.Module):
    """Branches over one input, concatenated in order, the pooling branch last.

    pool: "average" and "maximum" keep the size and are followed by a convolution to `pooled` channels; "halve" is the
    maximum of stride 2 without one.
    """

    def __init__(self, channels: int, branches: list[list[_Step]], pool: str, pooled: int = 0) -> None:
        super().__init__()
        self.pool = pool
        self.branches: list[list[tuple[str, ...]]] = []
        for branch in branches:
            names, width = [], channels
            for step in branch:
                kernels = [step.kernel] if step.fork is None else [step.kernel, step.fork]
                twins = (step.name,) if step.fork is None else (f"{step.name}a", f"{step.name}b")
                for name, kernel in zip(twins, kernels, strict=True):
                    self.add_module(name, _Convolution(width, step.channels, kernel, step.stride))
                names.append(twins)
                width = step.channels
            self.branches.append(names)
        if pooled:
            self.branch_pool = _Convolution(channels, pooled, (1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = []
        for branch in self.branches:
            y = x
            for twins in branch:
                y = torch.cat([self.get_submodule(name)(y) for name in twins], dim=1)
            outputs.append(y)
        if self.pool == "halve":
            return torch.cat([*outputs, F.max_pool2d(x, 3, 2)], dim=1)
        if self.pool == "average":
            around = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        else:
            around = F.max_pool2d(x, 3, 1, 1)
        return torch.cat([*outputs, self.branch_pool(around)], dim=1)


def _block_a(channels: int, pooled: int) -> _Mixed:
    five = [_Step("branch5x5_1", 48), _Step("branch5x5_2", 64, (5, 5))]
    three = [_Step("branch3x3dbl_1", 64), _Step("branch3x3dbl_2", 96, (3, 3)), _Step("branch3x3dbl_3", 96, (3, 3))]
    return _Mixed(channels, [[_Step("branch1x1", 64)], five, three], "average", pooled)


def _block_b(channels: int) -> _Mixed:
    three = [_Step("branch3x3dbl_1", 64), _Step("branch3x3dbl_2", 96, (3, 3)), _Step("branch3x3dbl_3", 96, (3, 3), 2)]
    return _Mixed(channels, [[_Step("branch3x3", 384, (3, 3), 2)], three], "halve")


def _block_c(middle: int) -> _Mixed:
    kernels = [(1, 1), (7, 1), (1, 7), (7, 1), (1, 7)]
    widths = [middle, middle, middle, middle, 192]
    double = [_Step(f"branch7x7dbl_{i}", *step) for i, step in enumerate(zip(widths, kernels, strict=True), 1)]
    seven = [
        _Step("branch7x7_1", middle),
        _Step("branch7x7_2", middle, (1, 7)),
        _Step("branch7x7_3", 192, (7, 1)),
    ]
    return _Mixed(768, [[_Step("branch1x1", 192)], seven, double], "average", 192)


def _block_d() -> _Mixed:
    seven = [
        _Step("branch7x7x3_1", 192),
        _Step("branch7x7x3_2", 192, (1, 7)),
        _Step("branch7x7x3_3", 192, (7, 1)),
        _Step("branch7x7x3_4", 192, (3, 3), 2),
    ]
    return _Mixed(768, [[_Step("branch3x3_1", 192), _Step("branch3x3_2", 320, (3, 3), 2)], seven], "halve")


def _block_e(channels: int, pool: str) -> _Mixed:
    single = [_Step("branch3x3_1", 384), _Step("branch3x3_2", 384, (1, 3), fork=(3, 1))]
    double = [
        _Step("branch3x3dbl_1", 448),
        _Step("branch3x3dbl_2", 384, (3, 3)),
        _Step("branch3x3dbl_3", 384, (1, 3), fork=(3, 1)),
    ]
    return _Mixed(channels, [[_Step("branch1x1", 320)], single, double], pool, 192)


class InceptionV3(nn.Module):
    """Pictures to the 2048 features of FID; its tensors are named as in pt_inception-2015-12-05-6726825d.pth.

    `torchmetrics.image.fid.FrechetInceptionDistance(feature=network)` takes it as it is.
    """

    num_features = 2048

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, (3, 3), 2)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, (3, 3), pad=False)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = _Convolution(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = _Convolution(80, 192, (3, 3), pad=False)
        self.Mixed_5b = _block_a(192, 32)
        self.Mixed_5c = _block_a(256, 64)
        self.Mixed_5d = _block_a(288, 64)
        self.Mixed_6a = _block_b(288)
        self.Mixed_6b = _block_c(128)
        self.Mixed_6c = _block_c(160)
        self.Mixed_6d = _block_c(160)
        self.Mixed_6e = _block_c(192)
        self.Mixed_7a = _block_d()
        self.Mixed_7b = _block_e(1280, "average")
        self.Mixed_7c = _block_e(2048, "maximum")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features (B, 2048) float32 of images (B, 3, H, W) uint8 RGB of any size.

        Raises:
            ValueError: another shape or type.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise ValueError(f"images: got {tuple(images.shape)} {images.dtype}, expected (B, 3, H, W) torch.uint8")
        x = (resize(images.float(), SIDE) - 128) / 128  # (B, 3, 299, 299) in [-1, 1)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # (B, 64, 147, 147)
        x = F.max_pool2d(x, 3, 2)  # (B, 64, 73, 73)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))  # (B, 192, 71, 71)
        x = F.max_pool2d(x, 3, 2)  # (B, 192, 35, 35)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # (B, 288, 35, 35)
        x = self.Mixed_6b(self.Mixed_6a(x))  # (B, 768, 17, 17)
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(x)))  # (B, 768, 17, 17)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (B, 2048, 8, 8)
        return x.mean(dim=(2, 3))  # (B, 2048)


def resize(images: torch.Tensor, side: int) -> torch.Tensor:
    """Return images (B, C, H, W) float as (B, C, side, side), as TensorFlow 1's bilinear resizing does it.

    Output pixel i reads input position i * H / side: corners not aligned, no half-pixel shift, no smoothing before
    shrinking. This is the convention of the network's training and of torch-fidelity; pytorch-fid resizes otherwise
    (half-pixel centres), and its values differ in the second or third digit.
    """
    return _resize_axis(_resize_axis(images, side, 3), side, 2)


def _resize_axis(images: torch.Tensor, side: int, axis: int) -> torch.Tensor:
    size = images.shape[axis]
    position = torch.arange(side, device=images.device, dtype=images.dtype) * torch.tensor(
        size / side, dtype=images.dtype, device=images.device
    )
    low = position.long().clamp_max(size - 1)
    share = (position - low).reshape([-1 if other == axis else 1 for other in range(4)])
    first, second = images.index_select(axis, low), images.index_select(axis, (low + 1).clamp_max(size - 1))
    return first + (second - first) * share


def load(source: str | os.PathLike[str]) -> InceptionV3:
    """Load the network strictly from a file or hub reference, on the CPU; the classifier in the file is left out.

    Raises:
        CheckpointError: no such file, or not the published tensors.
    """
    path = find(source, INCEPTION.kind)
    tensors = {name: value for name, value in read_tensors(path).items() if name not in ("fc.weight", "fc.bias")}
    network = InceptionV3()
    fill(network, tensors, INCEPTION.kind, path)
    return network
