from __future__ import annotations

import numpy as np
import pytest
import torch

from atldiff.diffusion.blocks import time_embedding
from atldiff.diffusion.noise import guided_noise, window_noise
from atldiff.diffusion.sampler import interpolate, sample, time_features

torch.set_num_threads(1)

STEPS = [1, 2, 3, 4, 7, 16]


@pytest.mark.parametrize("steps", STEPS)
def test_an_oracle_gives_its_answer(steps: int) -> None:
    x0, x1 = np.random.default_rng(0).standard_normal((2, 2, 3, 4, 5, 5), np.float32)
    assert np.array_equal(sample(lambda x, t: x0, x1, steps), x0)


@pytest.mark.parametrize("steps", STEPS)
def test_the_network_is_asked_on_a_uniform_grid_of_the_bridge(steps: int) -> None:
    x0, x1 = np.random.default_rng(0).standard_normal((2, 3, 1, 2, 4, 4))
    asked = []

    def denoise(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        assert t.shape == (3,)
        assert np.allclose(x, interpolate(x0, x1, t), atol=1e-6)  # an oracle's path is the bridge itself
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

    def denoise(self, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return self.best(x, float(t[0]))

    def start(self) -> np.ndarray:
        return self.START + self.NOISE * np.random.default_rng(0).standard_normal((self.COUNT, 1, 1, 1, 1))

    def test_one_step_is_the_conditional_mean(self) -> None:
        result = sample(self.denoise, self.start(), 1)
        assert np.allclose(result, self.MEAN)  # x1 says nothing of x0

    @pytest.mark.parametrize("steps", STEPS)
    def test_the_path_is_the_numpy_loop_s(self, steps: int) -> None:
        x = self.start().ravel()
        times = np.linspace(1, 0, steps + 1)
        for t, after in zip(times, times[1:], strict=False):
            # Euler's step of dx/dt = (x - E[x0 | x]) / t, written as a slope.
            x = x + (after - t) * (x - self.best(x, np.float64(np.float32(t)))) / t
        got = sample(self.denoise, self.start(), steps).ravel()
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
    np.random.standard_normal(10)  # noqa: NPY002 - the global generator has no say
    assert np.array_equal(window_noise(7, 3, 80), first)
    assert not np.array_equal(window_noise(8, 3, 80), first)
    assert first.shape == (3, 80, 80)
    assert first.dtype == np.float32
    assert abs(float(first.mean())) < 0.03
    assert float(first.std()) == pytest.approx(1, abs=0.03)
    assert np.isfinite(window_noise(2**32 - 1, 3, 16)).all()
    assert window_noise(-1, 3, (24, 16)).shape == (3, 16, 24)


def test_window_noise_leaves_the_global_generator_alone() -> None:
    before = np.random.get_state()[1].tolist()  # noqa: NPY002  # pyright: ignore
    window_noise(5, 3, 16)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002  # pyright: ignore


@pytest.mark.parametrize("width", [32, 96])
def test_features_of_the_time_are_those_that_training_sees(width: int) -> None:
    times = np.array([0.0, 0.125, 0.5, 1.0], np.float32)
    features = time_features(times, width)
    assert features.dtype == np.float32
    assert np.abs(features - time_embedding(torch.from_numpy(times), width).numpy()).max() < 2e-4
