from __future__ import annotations

import math

import pytest
import torch

from atldiff.config import RendererConfig
from atldiff.diffusion.blocks import TemporalConvolution, fold_time, time_embedding, unfold_time
from atldiff.diffusion.unet3d import UNet3D

torch.set_num_threads(1)

CHANNELS = 5
WIDTHS = (16, 32)


def make_network(seed: int = 0, *, perturbed: bool = True, **changes) -> UNet3D:
    torch.manual_seed(seed)
    settings = {"channels_in": CHANNELS, "stem": 4, "widths": WIDTHS, "blocks": (1, 1)} | changes
    network = UNet3D(**settings)
    if perturbed:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


def embedding(network: UNet3D, *times: float) -> torch.Tensor:
    return time_embedding(torch.tensor(times), network.embedding_width)


@pytest.fixture(scope="module")
def network() -> UNet3D:
    return make_network()


@pytest.mark.parametrize(("batch", "frames", "side"), [(1, 1, 32), (2, 3, 16), (1, 7, 40), (2, 5, 8)])
def test_shapes(network: UNet3D, batch: int, frames: int, side: int) -> None:
    x = torch.randn(batch, CHANNELS, frames, side, side)
    with torch.inference_mode():
        out = network(x, embedding(network, *([0.5] * batch)))
    assert out.shape == (batch, 3, frames, side, side)
    assert out.isfinite().all()


@pytest.mark.parametrize(
    "changes",
    [{"stem": 1, "widths": (16, 32)}, {"stem": 2, "widths": (32, 48, 64), "blocks": (2, 1, 3)},
     {"stem": 8, "widths": (32,), "blocks": (2,)}],
)  # fmt: skip
def test_other_shapes_of_network(changes: dict) -> None:
    network = make_network(**changes)
    with torch.inference_mode():
        out = network(torch.randn(1, CHANNELS, 2, 16, 16), embedding(network, 1.0))
    assert out.shape == (1, 3, 2, 16, 16)
    assert out.abs().max() > 0


@pytest.mark.parametrize("widths", [(16,), (32, 16), (64, 112)])
def test_every_last_width_that_the_config_allows(widths: tuple[int, ...]) -> None:
    try:
        RendererConfig(widths=widths, blocks=(1,) * len(widths))
    except ValueError:
        return  # refused by name: as good
    network = make_network(widths=widths, blocks=(1,) * len(widths))
    out = network(torch.randn(1, CHANNELS, 2, 16, 16), embedding(network, 1.0))
    assert out.shape == (1, 3, 2, 16, 16)


def test_a_fresh_network_returns_zeros() -> None:
    network = make_network(perturbed=False)
    with torch.inference_mode():
        assert not network(torch.randn(2, CHANNELS, 3, 16, 16), embedding(network, 0.3, 1.0)).any()


def test_fold_and_unfold() -> None:
    video = torch.randn(2, 3, 5, 4, 6)
    frames = fold_time(video)
    assert frames.shape == (10, 3, 4, 6)
    assert torch.equal(frames[5 + 3], video[1, :, 3])
    assert frames.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(unfold_time(frames, 2), video)


class TestTemporalConvolution:
    def make(self) -> TemporalConvolution:
        torch.manual_seed(1)
        layer = TemporalConvolution(8)
        with torch.no_grad():
            layer.convolution.weight.normal_()
            layer.convolution.bias.normal_()
        return layer

    def test_is_the_identity_when_fresh(self) -> None:
        x = torch.randn(6, 8, 3, 3)
        assert torch.equal(TemporalConvolution(8)(x, 2), x)

    def test_is_a_convolution_over_time_at_each_pixel(self) -> None:
        layer, x = self.make(), torch.randn(2 * 5, 8, 3, 4)
        video = x.reshape(2, 5, 8, 3, 4)
        wanted = video + layer.convolution.bias[:, None, None]
        taps = layer.convolution.weight[..., 0]  # (out, in, 3)
        for frame in range(5):
            for tap in range(3):
                if 0 <= frame + tap - 1 < 5:
                    wanted[:, frame] += torch.einsum("oi,bihw->bohw", taps[:, :, tap], video[:, frame + tap - 1])
        assert torch.allclose(layer(x, 2), wanted.reshape(x.shape), atol=1e-4)

    def test_reaches_one_frame_either_way_and_no_other_item(self) -> None:
        layer, x = self.make(), torch.randn(2 * 6, 8, 2, 2)
        changed = x.clone()
        changed[2] += 1  # frame 2 of item 0
        difference = (layer(changed, 2) - layer(x, 2)).abs().amax(dim=(1, 2, 3))
        assert (difference[1:4] > 0).all()
        assert not difference[[0, 4, 5]].any()
        assert not difference[6:].any()


def test_frames_mix_over_time_only_once_weights_have_moved() -> None:
    x = torch.randn(1, CHANNELS, 6, 16, 16)
    changed = x.clone()
    changed[:, :, 3] += 1
    for mixes in (False, True):
        network = make_network(perturbed=True)
        if not mixes:
            for module in network.modules():
                if isinstance(module, TemporalConvolution):
                    torch.nn.init.zeros_(module.convolution.weight)
        with torch.inference_mode():
            time = embedding(network, 0.5)
            difference = (network(changed, time) - network(x, time)).abs().amax(dim=(0, 1, 3, 4))
        assert difference[3] > 0
        assert bool((difference[[2, 4]] > 1e-6).all()) is mixes


def test_items_of_a_batch_are_apart(network: UNet3D) -> None:
    x = torch.randn(2, CHANNELS, 3, 16, 16)
    with torch.inference_mode():
        both = network(x, embedding(network, 0.2, 0.9))
        for index, time in enumerate((0.2, 0.9)):
            alone = network(x[index : index + 1], embedding(network, time))
            assert torch.allclose(alone[0], both[index], atol=1e-5)


def test_time_matters(network: UNet3D) -> None:
    x = torch.randn(1, CHANNELS, 2, 16, 16)
    with torch.inference_mode():
        early, late = (network(x, embedding(network, t)) for t in (0.1, 1.0))
    assert (early - late).abs().max() > 1e-4


def test_gradients_reach_every_parameter() -> None:
    network = make_network().train()
    out = network(torch.randn(2, CHANNELS, 3, 16, 16), embedding(network, 0.4, 1.0))
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_bfloat16_is_close_to_float32() -> None:
    network = make_network()
    x = torch.randn(1, CHANNELS, 3, 16, 16)
    with torch.inference_mode():
        time = embedding(network, 0.7)
        exact = network(x, time)
        rounded = network.to(torch.bfloat16)(x.bfloat16(), time.bfloat16()).float()
    assert float((rounded - exact).norm() / exact.norm()) < 0.05


def test_memory_format_does_not_matter(network: UNet3D) -> None:
    x = torch.randn(1, CHANNELS, 3, 16, 16)
    other = make_network().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        time = embedding(network, 0.7)
        plain = network(x, time)
        assert torch.allclose(other(x, time), plain, atol=1e-5)
        strided = x.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
        assert torch.allclose(network(strided, time), plain, atol=1e-5)


class TestTimeEmbedding:
    def test_values(self) -> None:
        features = time_embedding(torch.tensor([0.0, 0.37, 1.0]), 32)
        assert features.shape == (3, 32)
        for row, t in zip(features.tolist(), (0.0, 0.37, 1.0), strict=True):
            for index in range(16):
                angle = 1000 * t * 1000 ** (-index / 16)
                assert row[index] == pytest.approx(math.sin(angle), abs=2e-3)
                assert row[16 + index] == pytest.approx(math.cos(angle), abs=2e-3)

    def test_is_float32_whatever_the_network_s_precision(self) -> None:
        time = torch.tensor([0.371], dtype=torch.bfloat16)
        features = time_embedding(time, 32)
        assert features.dtype == torch.float32
        assert torch.equal(features, time_embedding(time.float(), 32))

    def test_tells_the_samplers_times_apart(self) -> None:
        features = time_embedding(torch.arange(1, 65) / 64, 32)
        distance = torch.cdist(features, features) + 10 * torch.eye(64)
        assert distance.min() > 0.1
