"""wav2vec 2.0 in torchaudio's names (`WAV2VEC2_BASE`) to those of transformers' `Wav2Vec2Model`.

The two compute the same from the same weights: both normalise after the positional convolution and after each
sub-layer, and group-normalise the first convolution alone. torchaudio's base model hears the samples as they are;
transformers' *feature extractor* would scale them to unit variance, the model itself does not.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

PREFIX = "w2v."
_CONVOLUTION = "encoder.transformer.pos_conv_embed.conv."
TABLE = {
    "feature_extractor.": "feature_extractor.",
    "encoder.feature_projection.": "feature_projection.",
    _CONVOLUTION + "weight_g": "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
    _CONVOLUTION + "weight_v": "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
    "encoder.transformer.": "encoder.",
}
"""The weight norm of the positional convolution has other names in torch from 2.0 on; both are understood."""

MASK = "masked_spec_embed"


def with_mask(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors in transformers' names with the vector that replaces masked features, of zeros.

    torchaudio's model has none; transformers' reads it only while it trains.
    """
    projection = tensors.get("feature_projection.projection.bias")
    if projection is None or MASK in tensors:
        return dict(tensors)
    return {**tensors, MASK: torch.zeros_like(projection)}
