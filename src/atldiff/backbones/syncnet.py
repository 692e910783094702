"""SyncNet: lips and sound in one space (Chung and Zisserman 2016, "Out of time"); layers as in syncnet_v2.model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from atldiff.backbones.weights import SYNCNET, fill, find, read_tensors

if TYPE_CHECKING:
    import os

EMBEDDING = 1024
"""Numbers of an embedding."""


def _sound(channels: int, out: int, kernel: tuple[int, int] = (3, 3), padding: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(channels, out, kernel, padding=padding), nn.BatchNorm2d(out), nn.ReLU()]


def _lips(channels: int, out: int, kernel: tuple[int, int, int], stride: int = 1, padding: int = 1) -> list[nn.Module]:
    layer = nn.Conv3d(channels, out, kernel, (1, stride, stride), (0, padding, padding))
    return [layer, nn.BatchNorm3d(out), nn.ReLU()]


def _shrink(padding: int = 0) -> nn.Module:
    return nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, padding, padding))


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, EMBEDDING))


class SyncNet(nn.Module):
    """Two towers; the closer their embeddings, the better lips and sound agree."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_sound(1, 64),
            nn.Identity(),  # a pooling of size 1 in the original; the numbering of the tensors counts it
            *_sound(64, 192),
            nn.MaxPool2d((3, 3), (1, 2)),
            *_sound(192, 384),
            *_sound(384, 256),
            *_sound(256, 256),
            nn.MaxPool2d((3, 3), (2, 2)),
            *_sound(256, 512, (5, 4), 0),
        )
        self.netfcaud = _head()
        self.netcnnlip = nn.Sequential(
            *_lips(3, 96, (5, 7, 7), 2, 0),
            _shrink(),
            *_lips(96, 256, (1, 5, 5), 2),
            _shrink(1),
            *_lips(256, 256, (1, 3, 3)),
            *_lips(256, 256, (1, 3, 3)),
            *_lips(256, 256, (1, 3, 3)),
            _shrink(),
            *_lips(256, 512, (1, 6, 6), padding=0),
        )
        self.netfclip = _head()

    @property
    def device(self) -> torch.device:
        """Where the weights are; inputs are brought there."""
        return next(self.parameters()).device

    def embed_lips(self, windows: torch.Tensor) -> torch.Tensor:
        """Return embeddings (B, 1024) of windows (B, 3, 5, 224, 224) float BGR, 0 to 255, five frames each."""
        return self.netfclip(self.netcnnlip(windows.to(self.device)).flatten(1))

    def embed_sound(self, columns: torch.Tensor) -> torch.Tensor:
        """Return embeddings (B, 1024) of MFCC columns (B, 1, 13, 20) float, 100 a second."""
        return self.netfcaud(self.netcnnaud(columns.to(self.device)).flatten(1))


def load(source: str | os.PathLike[str]) -> SyncNet:
    """Load the network strictly from a file or hub reference, on the CPU.

    Raises:
        CheckpointError: no such file, or not the published tensors.
    """
    path = find(source, SYNCNET.kind)
    network = SyncNet()
    fill(network, read_tensors(path), SYNCNET.kind, path)
    return network
