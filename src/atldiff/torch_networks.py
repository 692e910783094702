"""PyTorch behind the call of `networks.Network`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from torch import nn


class Called(Protocol):
    """A trained generator or renderer, which inference calls network by network."""

    def networks(self) -> Mapping[str, nn.Module]:
        """Return its networks by name: modules that take tensors in order and return one, or a list of them."""
        ...


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
