from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from atldiff.backbones import alexnet
from atldiff.errors import CheckpointError
from atldiff.evaluation.metrics.perceptual import lpips

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def tensors(random_weights: Callable) -> dict[str, torch.Tensor]:
    return random_weights(alexnet.LpipsAlexNet())


@pytest.fixture(scope="module")
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.RandomState(6)
    one, other = (torch.from_numpy(random.uniform(-1, 1, (3, 3, 80, 97)).astype(np.float32)) for _ in range(2))
    return one, other


def test_distances_are_those_of_the_lpips_package(
    tensors: dict[str, torch.Tensor], pictures: tuple[torch.Tensor, torch.Tensor], golden: Path, tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "lpips.safetensors")
    network = alexnet.load(tmp_path / "lpips.safetensors")
    want = np.load(golden / "lpips.npz")["lpips"]  # the lpips package's own module, same weights
    np.testing.assert_allclose(lpips(*pictures, network).numpy(), want, rtol=1e-5)


def test_torchvisions_file_takes_torchmetrics_linear_layers(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "alexnet.pth"
    features = {name: value for name, value in tensors.items() if name.startswith("features.")}
    torch.save(features | {"classifier.1.weight": torch.zeros(2, 2)}, path)
    network = alexnet.load(path)
    assert torch.equal(network.state_dict()["features.3.weight"], features["features.3.weight"])
    lines = [line.weight for line in network.linear]
    assert [line.shape[1] for line in lines] == list(alexnet.CHANNELS)
    assert all((line >= 0).all() and line.any() for line in lines)  # as trained


def test_other_files_are_refused(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({name: value for name, value in tensors.items() if name != "lin3.weight"}, path)
    with pytest.raises(CheckpointError, match="LPIPS weights .*missing tensor 'lin3.weight'"):
        alexnet.load(path)
