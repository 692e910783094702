"""The forward process with the guided image as its end, and its sampler, against diffusers' own."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from atldiff.config import ScheduleConfig
from atldiff.diffusion import ddim

SHAPE = (2, 3, 4, 8, 8)


def theirs(config: ScheduleConfig) -> object:
    scheduler = pytest.importorskip("diffusers").DDIMScheduler
    return scheduler(
        num_train_timesteps=config.train_steps,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule=config.beta_schedule,
        prediction_type=config.prediction,
        timestep_spacing=config.spacing,
        steps_offset=config.steps_offset,
        clip_sample=bool(config.clip_sample),
        clip_sample_range=config.clip_sample or 1.0,
        set_alpha_to_one=config.end_at_one,
    )


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_levels_of_noise_are_those_of_diffusers(schedule: str) -> None:
    config = ScheduleConfig(beta_schedule=schedule)  # pyright: ignore[reportArgumentType]
    wanted = theirs(config).alphas_cumprod  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(ddim.alphas(config), wanted, rtol=1e-4, atol=1e-6)


def test_the_released_sampler_visits_the_published_levels() -> None:
    """papers.md 1.6: t = 875 to 0 with a_t = 0.00042 ... 0.9999."""
    config = ScheduleConfig(spacing="leading")
    levels = ddim.sampling_levels(config, 8)
    assert levels == [875, 750, 625, 500, 375, 250, 125, 0]
    left = ddim.alphas(config)[levels]
    expected = [0.00042, 0.0033, 0.019, 0.078, 0.236, 0.521, 0.844, 0.9999]
    np.testing.assert_allclose(left, expected, rtol=0.03)


@pytest.mark.parametrize(
    ("prediction", "spacing", "steps"),
    [*product(["sample", "epsilon", "v_prediction"], ["leading", "trailing"], [1, 2, 8]), ("sample", "linspace", 8)],
)
def test_the_walk_equals_diffusers_step_by_step(prediction: str, spacing: str, steps: int) -> None:
    config = ScheduleConfig(prediction=prediction, spacing=spacing, clip_sample=1.0)  # pyright: ignore[reportArgumentType]
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(SHAPE, generator=generator)
    weight = torch.randn(3, 3, generator=generator) / 3

    def network(x: torch.Tensor, level: int) -> torch.Tensor:
        return torch.einsum("ij,bjthw->bithw", weight, x) * (0.5 + level / 1000)

    scheduler = theirs(config)
    scheduler.set_timesteps(steps)  # pyright: ignore[reportAttributeAccessIssue]
    x = start
    for level in scheduler.timesteps:  # pyright: ignore[reportAttributeAccessIssue]
        x = scheduler.step(network(x, int(level)), level, x).prev_sample  # pyright: ignore[reportAttributeAccessIssue]
    ours = ddim.sample(
        lambda x, level: network(torch.from_numpy(x), int(level[0])).numpy(), start.numpy(), config, steps
    )  # fmt: skip
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
def test_a_perfect_prediction_gives_the_frames_back(prediction: str) -> None:
    config = ScheduleConfig(prediction=prediction, clip_sample=0)  # pyright: ignore[reportArgumentType]
    generator = torch.Generator().manual_seed(1)
    frames, end = torch.rand(SHAPE, generator=generator), torch.randn(SHAPE, generator=generator)
    alpha = torch.from_numpy(ddim.alphas(config))[[300, 700]]
    x = ddim.at_level(frames, end, alpha)
    said = ddim.target(frames, end, alpha, prediction)
    found, other = ddim.ends(said, x, alpha, prediction)
    torch.testing.assert_close(found, frames, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other, end, rtol=1e-3, atol=1e-4)
    arrays = frames.numpy(), end.numpy(), alpha.numpy()  # and of arrays it is the same arithmetic
    np.testing.assert_allclose(ddim.at_level(*arrays), x, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ddim.target(*arrays, prediction), said, rtol=1e-5, atol=1e-6)
    for one, theirs_ in zip(ddim.ends(said.numpy(), x.numpy(), alpha.numpy(), prediction), (found, other), strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, theirs_, rtol=1e-4, atol=1e-5)


def test_more_steps_than_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="steps: got 11, expected 1 to 10"):
        ddim.sampling_levels(ScheduleConfig(train_steps=10), 11)
