from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from atldiff.backbones import inception
from atldiff.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LISTING = 2778905671
"""CRC-32 of torch-fidelity's names and shapes, without the classifier's."""


@pytest.fixture(scope="module")
def network(random_weights: Callable) -> inception.InceptionV3:
    network = inception.InceptionV3()
    network.load_state_dict(random_weights(network))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pictures() -> list[torch.Tensor]:
    random = np.random.RandomState(5)
    shapes = ((1, 3, 75, 61), (1, 3, 320, 401))
    return [torch.from_numpy(random.randint(0, 256, shape).astype(np.uint8)) for shape in shapes]


def test_features_are_those_of_torch_fidelity(
    network: inception.InceptionV3, pictures: list[torch.Tensor], golden: Path
) -> None:
    want = np.load(golden / "inception.npz")["features"]  # every eighth of torch-fidelity's own module, same weights
    with torch.inference_mode():
        have = torch.cat([network(picture) for picture in pictures])
    assert have.shape == (2, network.num_features)
    assert have.dtype == torch.float32
    np.testing.assert_allclose(have[:, ::8].numpy(), want, rtol=1e-4, atol=1e-4)


def test_resizing_is_tensorflows(pictures: list[torch.Tensor], golden: Path) -> None:
    want = np.load(golden / "inception.npz")["resized"]
    have = inception.resize(pictures[0].float(), 299)[0, :, ::30, ::30]
    np.testing.assert_allclose(have.numpy(), want, rtol=0, atol=1e-4)


def test_resizing_to_the_same_size_changes_nothing() -> None:
    images = torch.rand(1, 3, 299, 299)
    assert torch.equal(inception.resize(images, 299), images)


def test_tensors_are_named_as_in_the_published_file(network: inception.InceptionV3) -> None:
    tensors = network.state_dict()
    assert len(tensors) == 564
    listing = "\n".join(f"{name} {tuple(value.shape)}" for name, value in sorted(tensors.items()))
    assert zlib.crc32(listing.encode()) == LISTING
    assert tensors["Mixed_5b.branch5x5_2.conv.weight"].shape == (64, 48, 5, 5)
    assert tensors["Mixed_6c.branch7x7dbl_5.conv.weight"].shape == (192, 160, 1, 7)
    assert tensors["Mixed_7c.branch3x3dbl_3b.bn.running_var"].shape == (384,)


def test_loads_strictly_and_leaves_the_classifier_out(
    network: inception.InceptionV3, pictures: list[torch.Tensor], tmp_path: Path
) -> None:
    tensors = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    path = tmp_path / "w.safetensors"
    save_file(tensors | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}, path)
    loaded = inception.load(path)
    assert not loaded.training
    assert torch.equal(loaded(pictures[0]), network(pictures[0]))
    del tensors["Mixed_7c.branch_pool.bn.bias"]
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"Inception weights .*missing tensor 'Mixed_7c.branch_pool.bn.bias'"):
        inception.load(path)


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)])
def test_other_pictures_are_refused(network: inception.InceptionV3, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected .B, 3, H, W. torch.uint8"):
        network(images)
