"""What the compact renderer is trained on: bridge states that end at real frames, or at its own first prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atldiff.config import RendererConfig
from atldiff.diffusion.sampler import interpolate
from atldiff.methods.atl.network import Renderer
from atldiff.methods.atl.painter import ATLPainter
from atldiff.torch_networks import torch_networks

torch.set_num_threads(1)

FRAMES = 3


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    torch.manual_seed(0)
    renderer = Renderer(RendererConfig(widths=(16, 32), blocks=(1, 1)))
    with torch.no_grad():
        for parameter in renderer.parameters():
            if not parameter.any():  # zero-initialised ends would hide everything behind them
                parameter.normal_(0, 0.05)
    return renderer.eval()


def batch(renderer: Renderer) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    side = renderer.config.side
    draw = lambda channels, frames=FRAMES: torch.rand(4, channels, frames, side, side, generator=generator)  # noqa: E731
    return {
        "target": draw(3) * 2 - 1,
        "prior": draw(3) * 2 - 1,
        "conditions": draw(13),
        "mask": draw(1),
        "mouth": (draw(1) > 0.7).float(),
        "noise": draw(3, 1) - 0.5,
        "time": torch.tensor([1.0, 0.6, 0.6, 0.25]),
        "guessed": torch.tensor([True, True, False, True]),
        "clips": torch.arange(4),
    }


def test_a_state_ends_at_the_real_frame_or_at_the_first_prediction(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, calls, denoise = batch(renderer), [], renderer.denoise

    def noted(x: torch.Tensor, t: torch.Tensor, *conditions: torch.Tensor) -> torch.Tensor:
        said = denoise(x, t, *conditions)
        calls.append((x, t, said, torch.is_grad_enabled()))
        return said

    monkeypatch.setattr(renderer, "denoise", noted)
    renderer.loss(data)
    (first, first_time, guess, first_grad), (state, time, _, grad) = calls
    start = renderer.initial_noise(data["prior"], data["mask"], data["noise"])
    assert torch.equal(first, start)
    assert first_time.tolist() == [1.0] * 4
    assert (first_grad, grad) == (False, True)  # the guess is where it starts from, not what it is blamed for
    assert torch.equal(time, data["time"])
    for item, guessed in enumerate(data["guessed"].tolist()):
        end = (guess if guessed else data["target"])[item : item + 1]
        wanted = interpolate(end, start[item : item + 1], data["time"][item : item + 1])
        assert torch.equal(state[item : item + 1], wanted)


def test_a_guessed_state_is_what_the_second_step_of_a_sampler_sees(renderer: Renderer) -> None:
    data = batch(renderer)
    noise = data["noise"][:1]
    networks, seen = torch_networks(renderer), []
    given = [data[name][:1] for name in ("prior", "conditions", "mask")]

    def noted(x: np.ndarray, embedding: np.ndarray) -> list[np.ndarray]:
        seen.append(x[:, :3].copy())
        return networks["denoiser"](x, embedding)

    painter = ATLPainter(renderer.config, {"denoiser": noted})
    painter.render(*(x.numpy() for x in given), noise.numpy(), steps=2)
    first, second = (torch.from_numpy(x) for x in seen)
    with torch.no_grad():
        guess = renderer.denoise(first, torch.ones(1), *given)
    assert torch.allclose(second, interpolate(guess, first, torch.tensor([0.5])), atol=1e-5)


def test_the_loss_is_still_against_the_real_frame(renderer: Renderer) -> None:
    data = batch(renderer)
    data["guessed"][:] = True
    before = renderer.loss(data)["square"]
    data["target"] = data["target"] * 0.5
    assert not torch.isclose(renderer.loss(data)["square"], before)
