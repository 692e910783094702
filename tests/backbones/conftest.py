from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def weights_for(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return tensors that depend on their names and shapes alone: the same in every version of torch and numpy."""
    tensors = {}
    for name, tensor in network.state_dict().items():
        random = np.random.RandomState(zlib.crc32(name.encode()))  # its stream is frozen for good
        shape = tuple(tensor.shape)
        if name.endswith("num_batches_tracked"):
            value = np.zeros(shape)
        elif name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            value = random.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            value = 0.1 * random.standard_normal(shape)
        else:
            value = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        if name.startswith("lin"):  # those of LPIPS are never negative
            value = np.abs(value)
        tensors[name] = torch.from_numpy(np.asarray(value)).to(tensor.dtype)
    return tensors


@pytest.fixture(scope="session")
def random_weights() -> Callable[[nn.Module], dict[str, torch.Tensor]]:
    return weights_for


@pytest.fixture(scope="session")
def golden() -> Path:
    return GOLDEN


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
