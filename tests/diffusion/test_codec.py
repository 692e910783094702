from __future__ import annotations

import pytest
import torch

from atldiff.config import CodecConfig
from atldiff.diffusion.codec import Codec

torch.set_num_threads(1)


def codec(**fields: object) -> Codec:
    torch.manual_seed(0)
    made = Codec(CodecConfig(widths=(16, 32), decoder_widths=(16, 32), blocks=1, **fields))  # pyright: ignore
    with torch.no_grad():
        for parameter in made.parameters():
            if not parameter.any():  # zero-initialised ends would hide everything behind them
                parameter.normal_(0, 0.1)
    return made.eval()


def video(frames: int = 3, side: int = 32) -> torch.Tensor:
    return torch.rand(2, 3, frames, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(("factor", "channels"), [(4, 4), (8, 6)])
def test_latents_are_smaller_by_the_factor_and_come_back(factor: int, channels: int) -> None:
    made = codec(factor=factor, channels=channels)
    latents = made.encode(video())
    assert latents.shape == (2, channels, 3, 32 // factor, 32 // factor)
    assert made.decode(latents).shape == (2, 3, 3, 32, 32)


def test_frames_are_coded_each_by_itself() -> None:
    made, frames = codec(), video()
    whole = made.encode(frames)
    assert torch.allclose(whole[:, :, 1:2], made.encode(frames[:, :, 1:2]), atol=1e-6)
    assert torch.allclose(made.decode(whole)[:, :, 2:], made.decode(whole[:, :, 2:]), atol=1e-6)


def test_calibrated_latents_have_zero_mean_and_unit_variance_and_mean_the_same_picture() -> None:
    made, frames = codec(), video(8)
    before = made.decode(made.encode(frames))
    assert not made.calibrated
    made.calibrate(frames.transpose(1, 2).flatten(0, 1))
    assert made.calibrated
    latents = made.encode(frames)
    assert latents.mean(dim=(0, 2, 3, 4)).abs().max() < 1e-4
    assert (latents.std(dim=(0, 2, 3, 4)) - 1).abs().max() < 1e-3
    assert torch.allclose(made.decode(latents), before, atol=1e-4)


def test_in_bfloat16_pictures_stay_smooth() -> None:
    made = codec()
    exact = made.decode(made.encode(video()))
    made.to(torch.bfloat16)
    coarse = made.decode(made.encode(video()))
    assert coarse.dtype == torch.float32
    levels = (coarse[0, 0, 0] * 127.5).flatten()
    # Rounded to bfloat16, values about one would lie on a grid of a grey level or half of one.
    assert len(levels.unique()) > 0.9 * len(levels)
    assert (coarse - exact).abs().mean() < 0.1 * exact.abs().mean()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "vq"}, "kind: got 'vq', expected 'compact' or 'diffusers'"),
        ({"kind": "diffusers"}, "source: got '', expected a hub id or folder"),
        ({"factor": 16}, "factor: got 16, expected 4 or 8"),
        ({"channels": 0}, "channels: got 0, expected 1 to 32"),
        ({"widths": (64, 100)}, "widths: got .*, expected two multiples of 16"),
        ({"kl_weight": -1.0}, "kl_weight: got -1.0, expected 0 to 1"),
    ],
)
def test_a_wrong_configuration_is_named(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CodecConfig(**fields)
