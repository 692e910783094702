"""The U-Net of released weights: diffusers' `UNet3DConditionModel` behind this package's order of axes.

That this class is the released one is inferred: of the 5-D models that diffusers can load it alone fits the released
pipeline's call. Needs the extra `diffusers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Literal

import torch
from torch import nn

from atldiff.config.atl_published import ConditionUNetConfig
from atldiff.config.check import build
from atldiff.errors import AtlDiffError

MODEL_CLASS = "UNet3DConditionModel"

# (B, C, T, H, W) to what the network sees, and back.
_AXES = {"bcthw": ((0, 1, 2, 3, 4), (0, 1, 2, 3, 4)), "bchwt": ((0, 1, 3, 4, 2), (0, 1, 4, 2, 3))}


class ConditionUNet(nn.Module):
    """Noisy frames, a noise level, identity tokens and an emotion to a prediction of the frames' shape.

    model: the diffusers network, under whose names the weights are.
    axes: `bcthw` hands it time as its frames; `bchwt`, as released, hands it (C, H, W, T), so that its "frames" are
        rows of the picture and its 2-D convolutions run over columns and time.

    The emotion goes in as `class_labels`, as in the released pipeline; `UNet3DConditionModel` ignores these, so it
    changes nothing.

    Raises:
        AtlDiffError: diffusers is missing. ValueError: the configuration describes no such network.
    """

    def __init__(self, config: ConditionUNetConfig, axes: Literal["bcthw", "bchwt"] = "bcthw") -> None:
        super().__init__()
        self.config = config
        self._there, self._back = _AXES[axes]
        self.model = _model_class()(**asdict(config))

    def forward(
        self, x: torch.Tensor, level: torch.Tensor, tokens: torch.Tensor, emotion: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the prediction (B, C, T, S, S) in the model's dtype.

        Args:
            x: noisy frames (B, C, T, S, S).
            level: noise level of each clip (B,), int64.
            tokens: identity tokens (B, N, W).
            emotion: labels (B,), int64; without effect, see the class.
        """
        dtype = next(self.model.parameters()).dtype
        seen = x.to(dtype).permute(self._there)
        return self.model(seen, level, tokens.to(dtype), class_labels=emotion).sample.permute(self._back)


def config_from_diffusers(values: Mapping[str, Any]) -> ConditionUNetConfig:
    """Return the configuration of a `config.json` that diffusers wrote; fields that are left out have its defaults.

    `sample_size`, fields that are null and those that begin with an underscore say nothing about the network.

    Raises:
        ValueError: unknown fields (all named), another class, or a value of a wrong type.
    """
    kind = values.get("_class_name", MODEL_CLASS)
    if kind != MODEL_CLASS:
        raise ValueError(
            f"U-Net config: got class {kind}, expected {MODEL_CLASS}: a network of the authors' own cannot be rebuilt "
            "from its weights alone"
        )
    said = {n: v for n, v in values.items() if not n.startswith("_") and n != "sample_size" and v is not None}
    known = {field.name for field in fields(ConditionUNetConfig)}
    unknown = sorted(said.keys() - known)
    if unknown:
        raise ValueError(
            f"U-Net config: got unknown fields {', '.join(unknown)}; expected those of {MODEL_CLASS}: "
            f"{', '.join(sorted(known))}"
        )
    # The defaults of ours that are not the class's own.
    return build(
        ConditionUNetConfig, {"cross_attention_dim": 1024, "in_channels": 4, "out_channels": 4, **said}, "unet"
    )


def _model_class() -> Any:  # noqa: ANN401 - diffusers is optional
    try:
        from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
    except ImportError:
        raise AtlDiffError("the U-Net of released weights needs diffusers: pip install 'atldiff[diffusers]'") from None
    return UNet3DConditionModel
