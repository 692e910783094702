"""The AlexNet features and linear layers of LPIPS v0.1 (Zhang et al. 2018, arXiv 1801.03924)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from atldiff.backbones.weights import fill, find, read_tensors
from atldiff.errors import CheckpointError

if TYPE_CHECKING:
    import os

KIND = "LPIPS"
TAPS = (1, 4, 7, 9, 11)
"""Layers of `features` whose outputs, each after its ReLU, are compared."""
CHANNELS = (64, 192, 384, 256, 256)


class LpipsAlexNet(nn.Module):
    """Pictures to five feature maps, and the weights of their channels; torchvision's names for the convolutions.

    lin0 to lin4: 1x1 convolutions to one channel without bias, non-negative as trained.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
        )
        for index, channels in enumerate(CHANNELS):
            self.add_module(f"lin{index}", nn.Conv2d(channels, 1, 1, bias=False))
        # ImageNet's colours, rounded as LPIPS has them, for values in [-1, 1]. Facts of the metric, not of the file.
        mean, deviation = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        self.register_buffer("mean", mean.reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", deviation.reshape(1, 3, 1, 1), persistent=False)

    @property
    def linear(self) -> list[nn.Module]:
        """The five linear layers in order."""
        return [self.get_submodule(f"lin{index}") for index in range(len(CHANNELS))]

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return five maps (B, C, h, w) of images (B, 3, H, W) float RGB in [-1, 1]."""
        x = (images - self.mean) / self.deviation
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in TAPS:
                maps.append(x)
        return maps


def load(source: str | os.PathLike[str]) -> LpipsAlexNet:
    """Load the network strictly from a file or hub reference, on the CPU.

    The file holds features.* and lin0.weight to lin4.weight, or is torchvision's AlexNet: its classifier is then left
    out, and the linear layers are those that torchmetrics carries.

    Raises:
        CheckpointError: no such file, or not the published tensors.
    """
    path = find(source, KIND)
    tensors = {name: value for name, value in read_tensors(path).items() if not name.startswith("classifier.")}
    if not any(name.startswith("lin") for name in tensors):
        tensors |= _linear_of_torchmetrics()
    network = LpipsAlexNet()
    fill(network, tensors, KIND, path)
    return network


def _linear_of_torchmetrics() -> dict[str, torch.Tensor]:
    spec = find_spec("torchmetrics")
    if spec is None or spec.origin is None:
        raise CheckpointError(
            "LPIPS linear layers: torchmetrics, which carries them, is not installed; install it or pass a file with "
            "lin0.weight to lin4.weight"
        )
    held = read_tensors(Path(spec.origin).parent / "functional" / "image" / "lpips_models" / "alex.pth")
    return {name.replace(".model.1.", "."): value for name, value in held.items()}
