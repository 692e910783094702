from __future__ import annotations

import numpy as np
import pytest
import torch

from atldiff.diffusion.noise import guided_noise, window_noise
from atldiff.diffusion.sampler import interpolate, sample

torch.set_num_threads(1)

STEPS = [1, 2, 3, 4, 7, 16]


@pytest.mark.parametrize("steps", STEPS)
def test_an_oracle_gives_its_answer(steps: int) -> None:
    x0, x1 = torch.randn(2, 2, 3, 4, 5, 5)
    assert torch.equal(sample(lambda x, t: x0, x1, steps), x0)


@pytest.mark.parametrize("steps", STEPS)
def test_the_network_is_asked_on_a_uniform_grid_of_the_bridge(steps: int) -> None:
    x0, x1 = torch.randn(2, 3, 1, 2, 4, 4, dtype=torch.float64)
    asked = []

    def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert t.shape == (3,)
        assert torch.allclose(x, interpolate(x0, x1, t.double()), atol=1e-6)  # an oracle's path is the bridge itself
        asked.append(float(t[0]))
        return x0

    sample(denoise, x1, steps)
    assert np.allclose(asked, np.arange(steps, 0, -1) / steps)


class TestGaussian:
    """x0 ~ N(MEAN, SPREAD^2), x1 = START + NOISE * eps, independent: the best denoiser is a formula."""

    MEAN, SPREAD, START, NOISE = 0.7, 0.3, -0.4, 0.9
    COUNT = 1000

    def best(self, x: np.ndarray, t: float) -> np.ndarray:
        """E[x0 | (1 - t) x0 + t x1 = x], by the rule of jointly normal variables."""
        variance = ((1 - t) * self.SPREAD) ** 2 + (t * self.NOISE) ** 2
        centre = (1 - t) * self.MEAN + t * self.START
        return self.MEAN + (1 - t) * self.SPREAD**2 / variance * (x - centre)

    def denoise(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.best(x.numpy(), float(t[0])))

    def start(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(self.COUNT, 1, 1, 1, 1, generator=generator, dtype=torch.float64)
        return self.START + self.NOISE * noise

    def test_one_step_is_the_conditional_mean(self) -> None:
        result = sample(self.denoise, self.start(), 1)
        assert torch.allclose(result, torch.full_like(result, self.MEAN))  # x1 says nothing of x0

    @pytest.mark.parametrize("steps", STEPS)
    def test_the_path_is_the_numpy_loop_s(self, steps: int) -> None:
        x = self.start().numpy().ravel()
        times = np.linspace(1, 0, steps + 1)
        for t, after in zip(times, times[1:], strict=False):
            # Euler's step of dx/dt = (x - E[x0 | x]) / t, written as a slope.
            x = x + (after - t) * (x - self.best(x, np.float64(np.float32(t)))) / t
        got = sample(self.denoise, self.start(), steps).numpy().ravel()
        assert np.allclose(got, x, atol=1e-9)

    def test_many_steps_recover_the_distribution(self) -> None:
        result = sample(self.denoise, self.start(), 400).ravel()
        assert float(result.mean()) == pytest.approx(self.MEAN, abs=0.03)
        assert float(result.std()) == pytest.approx(self.SPREAD, rel=0.08)
        few = sample(self.denoise, self.start(), 4).ravel()
        assert 0.1 * self.SPREAD < float(few.std()) < float(result.std())


def test_interpolation_has_the_right_ends() -> None:
    x0, x1 = torch.randn(2, 3, 3, 2, 4, 4)
    mixed = interpolate(x0, x1, torch.tensor([0.0, 1.0, 0.25]))
    assert torch.equal(mixed[0], x0[0])
    assert torch.equal(mixed[1], x1[1])
    assert torch.allclose(mixed[2], 0.75 * x0[2] + 0.25 * x1[2])


def test_guided_noise_is_the_formula() -> None:
    prior, noise = torch.randn(2, 2, 3, 4, 8, 8)
    mask = torch.rand(2, 1, 4, 8, 8)
    start = guided_noise(prior, mask, noise, 0.05, 0.6)
    item = (1, 2, 3, 4, 5)
    byhand = prior[item] + (0.05 + 0.6 * mask[1, 0, 3, 4, 5]) * noise[item]
    assert float(start[item]) == pytest.approx(float(byhand), rel=1e-6)
    assert torch.allclose(start - prior, (0.05 + 0.6 * mask) * noise, atol=1e-6)


def test_noise_is_strong_in_the_mask_and_faint_outside() -> None:
    prior = torch.zeros(4, 3, 2, 64, 64)
    mask = torch.zeros(4, 1, 2, 64, 64)
    mask[..., 32:] = 1
    noise = torch.randn(4, 3, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    start = guided_noise(prior, mask, noise, floor=0.05, gain=0.6)
    assert float(start[..., :32].std()) == pytest.approx(0.05, rel=0.03)
    assert float(start[..., 32:].std()) == pytest.approx(0.65, rel=0.03)
    assert torch.equal(start[:, :, 0], start[:, :, 1])  # one noise for all frames
    assert not guided_noise(prior, mask, noise, floor=0.0, gain=0.6)[..., :32].any()


def test_window_noise_is_a_function_of_the_seed() -> None:
    first = window_noise(7, 3, 80)
    torch.randn(10)  # the global generator has no say
    assert torch.equal(window_noise(7, 3, 80), first)
    assert not torch.equal(window_noise(8, 3, 80), first)
    assert first.shape == (3, 80, 80)
    assert first.dtype == torch.float32
    assert abs(float(first.mean())) < 0.03
    assert float(first.std()) == pytest.approx(1, abs=0.03)
    assert window_noise(2**32 - 1, 3, 16).isfinite().all()


def test_window_noise_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    window_noise(5, 3, 16)
    assert torch.equal(torch.randn(3), expected)
