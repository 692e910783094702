from __future__ import annotations

import pytest
import torch

from atldiff.backbones.alexnet import LpipsAlexNet
from atldiff.evaluation.metrics.perceptual import lpips


@pytest.fixture(scope="module")
def network() -> LpipsAlexNet:
    torch.manual_seed(0)
    network = LpipsAlexNet().eval().requires_grad_(False)
    for line in network.linear:
        line.weight.abs_()
    return network


def test_equal_pictures_are_at_zero(network: LpipsAlexNet) -> None:
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    assert lpips(images, images.clone(), network).tolist() == [0, 0]


def test_grows_with_noise_and_does_not_mix_pictures(network: LpipsAlexNet) -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8, generator=generator), size=96, mode="bilinear")
    noise = torch.randn(1, 3, 96, 96, generator=generator)
    noisy = torch.cat([image + level * noise for level in (0.0, 0.02, 0.05, 0.1, 0.2)])
    distances = lpips(noisy, image.expand_as(noisy).contiguous(), network)
    assert distances.shape == (5,)
    assert (distances.diff() > 0).all()
    torch.testing.assert_close(lpips(noisy[3:4], image, network), distances[3:4])
    torch.testing.assert_close(lpips(image.expand_as(noisy), noisy, network), distances)


@pytest.mark.parametrize(("one", "other"), [((1, 3, 64, 64), (2, 3, 64, 64)), ((3, 64, 64),) * 2, ((1, 3, 9, 64),) * 2])
def test_other_shapes_are_refused(network: LpipsAlexNet, one: tuple, other: tuple) -> None:
    with pytest.raises(ValueError, match="pictures: got"):
        lpips(torch.zeros(one), torch.zeros(other), network)
