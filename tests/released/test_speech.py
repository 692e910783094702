from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import conv1d, gelu, group_norm, layer_norm, linear

from atldiff.released.names import rename_all
from atldiff.released.speech import MASK, TABLE, with_mask

transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)

WIDTH, HEADS, LAYERS, CHANNELS, HIDDEN = 64, 4, 3, 16, 96
KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
GROUPS, REACH = 16, 128

Tensors = dict[str, torch.Tensor]


def random_weights() -> Tensors:
    """Weights in torchaudio's names, at a reduced size."""
    torch.manual_seed(0)
    weights: Tensors = {}

    def norm(name: str, width: int) -> None:
        weights[f"{name}.weight"] = 1 + 0.3 * torch.randn(width)
        weights[f"{name}.bias"] = 0.3 * torch.randn(width)

    def dense(name: str, out: int, inputs: int) -> None:
        weights[f"{name}.weight"] = torch.randn(out, inputs) / inputs**0.5
        weights[f"{name}.bias"] = 0.1 * torch.randn(out)

    for index, kernel in enumerate(KERNELS):
        inputs = CHANNELS if index else 1
        weights[f"feature_extractor.conv_layers.{index}.conv.weight"] = (
            torch.randn(CHANNELS, inputs, kernel) / (inputs * kernel) ** 0.5 * 2
        )
    norm("feature_extractor.conv_layers.0.layer_norm", CHANNELS)
    norm("encoder.feature_projection.layer_norm", CHANNELS)
    dense("encoder.feature_projection.projection", WIDTH, CHANNELS)
    position = "encoder.transformer.pos_conv_embed.conv"
    weights[f"{position}.weight_v"] = torch.randn(WIDTH, WIDTH // GROUPS, REACH)
    weights[f"{position}.weight_g"] = 0.5 + torch.rand(1, 1, REACH)
    weights[f"{position}.bias"] = 0.1 * torch.randn(WIDTH)
    norm("encoder.transformer.layer_norm", WIDTH)
    for index in range(LAYERS):
        layer = f"encoder.transformer.layers.{index}"
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            dense(f"{layer}.attention.{name}", WIDTH, WIDTH)
        norm(f"{layer}.layer_norm", WIDTH)
        dense(f"{layer}.feed_forward.intermediate_dense", HIDDEN, WIDTH)
        dense(f"{layer}.feed_forward.output_dense", WIDTH, HIDDEN)
        norm(f"{layer}.final_layer_norm", WIDTH)
    return weights


def independent_forward(weights: Tensors, samples: torch.Tensor) -> torch.Tensor:
    """WAV2VEC2_BASE's computation written out: samples (B, N) to features (B, T, D)."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def dense(x: torch.Tensor, name: str) -> torch.Tensor:
        return linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    x = samples[:, None]
    for index, stride in enumerate(STRIDES):
        stem = f"feature_extractor.conv_layers.{index}"
        x = conv1d(x, weights[f"{stem}.conv.weight"], stride=stride)
        if index == 0:  # the other convolutions are not normalised
            x = group_norm(x, CHANNELS, weights[f"{stem}.layer_norm.weight"], weights[f"{stem}.layer_norm.bias"])
        x = gelu(x)
    x = dense(norm(x.transpose(1, 2), "encoder.feature_projection.layer_norm"), "encoder.feature_projection.projection")

    stem = "encoder.transformer.pos_conv_embed.conv"
    direction = weights[f"{stem}.weight_v"]
    length = direction.square().sum((0, 1), keepdim=True).sqrt()  # one scale for each place in the kernel
    kernel = weights[f"{stem}.weight_g"] * direction / length
    place = conv1d(x.transpose(1, 2), kernel, weights[f"{stem}.bias"], padding=REACH // 2, groups=GROUPS)
    x = x + gelu(place[:, :, :-1]).transpose(1, 2)  # an even kernel makes one frame too many
    x = norm(x, "encoder.transformer.layer_norm")

    batch, frames, _ = x.shape
    for index in range(LAYERS):
        stem = f"encoder.transformer.layers.{index}"
        query, key, value = (
            dense(x, f"{stem}.attention.{name}").reshape(batch, frames, HEADS, -1).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        weight = (query @ key.transpose(2, 3) * (WIDTH / HEADS) ** -0.5).softmax(-1)
        mixed = (weight @ value).transpose(1, 2).reshape(batch, frames, WIDTH)
        x = norm(x + dense(mixed, f"{stem}.attention.out_proj"), f"{stem}.layer_norm")
        wide = gelu(dense(x, f"{stem}.feed_forward.intermediate_dense"))
        x = norm(x + dense(wide, f"{stem}.feed_forward.output_dense"), f"{stem}.final_layer_norm")
    return x


def new_names(weights: Tensors) -> Tensors:
    """The names that torch's newer weight norm gives."""
    parts = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}

    def new(name: str) -> str:
        stem, _, last = name.rpartition(".")
        return f"{stem}.{parts[last]}" if last in parts else name

    return {new(name): tensor for name, tensor in weights.items()}


@pytest.mark.parametrize("written_by", [dict, new_names])
def test_transformers_computes_what_torchaudio_documents(written_by: Callable[[Tensors], Tensors]) -> None:
    weights = random_weights()
    renamed, unknown = rename_all(written_by(weights), TABLE)
    assert unknown == []
    config = transformers.Wav2Vec2Config(
        hidden_size=WIDTH, num_attention_heads=HEADS, num_hidden_layers=LAYERS, intermediate_size=HIDDEN,
        conv_dim=(CHANNELS,) * 7,
    )  # fmt: skip
    model = transformers.Wav2Vec2Model(config).eval()
    model.load_state_dict(with_mask(renamed))  # strict
    samples = 0.1 * torch.randn(2, 16000)
    with torch.inference_mode():
        ours, wanted = model(samples).last_hidden_state, independent_forward(weights, samples)
    assert ours.shape == (2, 49, WIDTH)
    assert wanted.std() > 0.1
    assert (ours - wanted).abs().max() < 1e-4


def test_the_mask_is_made_only_where_it_is_missing() -> None:
    bias = torch.ones(8)
    assert with_mask({"feature_projection.projection.bias": bias})[MASK].shape == (8,)
    assert with_mask({"feature_projection.projection.bias": bias, MASK: bias})[MASK].sum() == 8
    assert with_mask({}) == {}
