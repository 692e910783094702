"""PyTorch behind the call of `networks.Network`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from atldiff.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np


class Called(Protocol):
    """A trained generator or renderer, which inference calls network by network."""

    def networks(self) -> Mapping[str, nn.Module]:
        """Return its networks by name: modules that take tensors in order and return one, or a list of them."""
        ...


class Call(nn.Module):
    """A module of which one method is called, as a network of its own."""

    def __init__(self, part: nn.Module, method: str) -> None:
        super().__init__()
        self.part, self.method = part, method
        self.training = part.training  # an exporter puts back what it finds

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return what the method returns."""
        return getattr(self.part, self.method)(*inputs)


class TorchNetwork:
    """A module at work, on its own device.

    dtype: what its inputs of floats are given in; None leaves them float32 to modules that choose by themselves.
    """

    def __init__(self, module: nn.Module, device: torch.device, dtype: torch.dtype | None = None) -> None:
        self.module, self._device, self._dtype = module, device, dtype

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Return its outputs, new float32 arrays, for its inputs in order."""
        with torch.inference_mode():
            said = self.module(*(self._given(array) for array in inputs))
            outputs = said if isinstance(said, list | tuple) else [said]
            return [output.float().cpu().contiguous().numpy() for output in outputs]

    def _given(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array).to(self._device)
        return tensor.to(self._dtype) if self._dtype is not None and tensor.is_floating_point() else tensor


def torch_networks(
    part: Called, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> dict[str, TorchNetwork]:
    """Return the networks of a generator or a renderer as they are; device: where they are, the CPU unless given."""
    return {
        name: TorchNetwork(module, device or torch.device("cpu"), dtype) for name, module in part.networks().items()
    }


def torch_workers(device: torch.device) -> Workers:
    """Return threads for networks on a device: on the CPU one for each that PyTorch would use, else a single one.

    PyTorch computes with one thread in each of them, and with as many as before in every other.
    """
    if device.type != "cpu":
        return Workers(1)
    threads = torch.get_num_threads()
    workers = Workers(threads, _compute_alone)
    torch.set_num_threads(threads)  # what the last call said holds for threads that start later, too
    return workers


def _compute_alone() -> None:
    torch.get_num_threads()  # the first question gives a thread the number that was set last, anywhere; so ask first
    torch.set_num_threads(1)
