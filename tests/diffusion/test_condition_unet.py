from __future__ import annotations

import inspect
import sys
from dataclasses import asdict

import pytest
import torch

from atldiff.config.atl_published import ConditionUNetConfig
from atldiff.errors import AtlDiffError
from atldiff.methods.atl_published.condition_unet import ConditionUNet, config_from_diffusers

diffusers = pytest.importorskip("diffusers")
torch.set_num_threads(1)

SMALL = ConditionUNetConfig(
    down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
    up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    block_out_channels=(16, 32),
    layers_per_block=1,
    norm_num_groups=8,
    attention_head_dim=8,
)


@pytest.fixture(scope="module")
def network() -> ConditionUNet:
    """A network whose every layer has an effect: diffusers' temporal layers begin as nothing."""
    torch.manual_seed(0)
    network = ConditionUNet(SMALL, "bchwt").eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    return network


def inputs() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    return torch.rand(2, 3, 4, 16, 16), torch.tensor([875, 3]), torch.randn(2, 64, 32), torch.tensor([0, 7])


def test_the_released_order_of_axes_is_height_as_time(network: ConditionUNet) -> None:
    x, level, tokens, emotion = inputs()
    with torch.inference_mode():
        ours = network(x, level, tokens, emotion)
        # The released pipeline's own call: (B, C, H, W, T), a clip at a time.
        theirs = torch.cat([
            network.model(x[i : i + 1].permute(0, 1, 3, 4, 2), level[i], tokens[i : i + 1]).sample for i in range(2)
        ])  # fmt: skip
    assert ours.shape == x.shape
    assert torch.allclose(ours, theirs.permute(0, 1, 4, 2, 3), atol=1e-5)
    assert ours.std() > 0.01


def test_the_other_order_hands_time_over_as_frames(network: ConditionUNet) -> None:
    x, level, tokens, emotion = inputs()
    straight = ConditionUNet(SMALL, "bcthw").eval()
    straight.load_state_dict(network.state_dict())
    with torch.inference_mode():
        ours = straight(x, level, tokens, emotion)
        assert torch.allclose(ours, network.model(x, level, tokens).sample, atol=1e-6)
        assert not torch.allclose(ours, network(x, level, tokens, emotion), atol=1e-3)


def test_level_and_tokens_matter_and_the_emotion_does_not(network: ConditionUNet) -> None:
    x, level, tokens, emotion = inputs()
    with torch.inference_mode():
        plain = network(x, level, tokens, emotion)
        assert not torch.allclose(plain, network(x, level.flip(0), tokens, emotion), atol=1e-4)
        assert not torch.allclose(plain, network(x, level, tokens.flip(0), emotion), atol=1e-4)
        assert torch.equal(plain, network(x, level, tokens, emotion.flip(0)))  # as released


def test_a_config_json_comes_back(network: ConditionUNet) -> None:
    written = dict(network.model.config) | {"_class_name": "UNet3DConditionModel", "_diffusers_version": "0.30.2"}
    assert written["time_cond_proj_dim"] is None
    assert config_from_diffusers(written) == SMALL
    assert config_from_diffusers(written | {"sample_size": 128}) == SMALL


def test_left_out_fields_have_the_classs_defaults() -> None:
    parameters = inspect.signature(diffusers.UNet3DConditionModel.__init__).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items() if name != "self"}
    ours = asdict(config_from_diffusers({}))
    assert ours == {name: value for name, value in defaults.items() if value is not None}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"class_embed_type": "timestep", "addition": 1, "act_fn": "silu"},
            "unknown fields addition, class_embed_type",
        ),
        ({"_class_name": "DiffusionModelUNet"}, "class DiffusionModelUNet"),
        ({"block_out_channels": "32"}, "block_out_channels"),
        ({"attention_head_dim": [8, 8]}, "attention_head_dim"),
        ({"num_attention_heads": 8}, "num_attention_heads"),
    ],
)
def test_other_configurations_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_diffusers(values)


def test_without_diffusers_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers.models.unets.unet_3d_condition", None)
    with pytest.raises(AtlDiffError, match=r"pip install 'atldiff\[diffusers\]'"):
        ConditionUNet(SMALL)
