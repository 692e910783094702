"""Published networks as parts of a renderer: an autoencoder, and Stable Diffusion under a trained ControlNet.

Needs the extra `diffusers`. What is published stays as it is and where it is: loaded from its own folder, frozen, in no
checkpoint of ours. ControlNet: arXiv 2302.05543.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from atldiff.diffusion.blocks import fold_time, unfold_time
from atldiff.diffusion.pretrained_files import (
    UNET,
    empty_prompt,
    find_autoencoder,
    find_stable_diffusion,
    latent_shape,
    load_network,
)
from atldiff.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable

    from atldiff.config import CodecConfig

PIXELS_AT_ONCE = 2**19
"""Eight frames of 256 px. The widest feature maps of Stable Diffusion's decoder take 0.25 GiB for them."""


class Borrowing(nn.Module):
    """A module around a frozen network that goes where it goes, and is neither among its parameters nor its state."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._borrowed = [network]  # in a list, a module is not registered

    @property
    def borrowed(self) -> Any:  # noqa: ANN401 - a class of diffusers
        """The frozen network."""
        return self._borrowed[0]

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Borrowing:
        # What every change of device, number format and memory format goes through.
        self.borrowed._apply(fn, recurse)
        return super()._apply(fn, recurse)


class DiffusersCodec(Borrowing):
    """An `AutoencoderKL` or `AutoencoderTiny` of diffusers with the members of `Codec`.

    Raises:
        AtlDiffError: diffusers is missing.
        CheckpointError: the autoencoder cannot be found or read, or has latents of another shape than the
            configuration says.
    """

    def __init__(self, config: CodecConfig) -> None:
        folder, values = find_autoencoder(config.source)
        got, wanted = latent_shape(values), (config.channels, config.factor)
        if got != wanted:
            raise CheckpointError(
                f"codec {config.source}: has {got[0]} latent channels and factor {got[1]}, the configuration says "
                f"{wanted[0]} and {wanted[1]}; set channels and factor of the codec to the former, or name another"
            )
        super().__init__(load_network(values["_class_name"], folder, f"codec {config.source}"))
        self.config = config
        self._scale = float(self.borrowed.config.scaling_factor)
        self._shift = float(self.borrowed.config.get("shift_factor") or 0.0)

    @property
    def dtype(self) -> torch.dtype:
        """The number format of its weights."""
        return next(self.borrowed.parameters()).dtype

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Return latents (B, C, T, s, s) float32 of a video (B, 3, T, S, S) in [-1, 1]: the mean, no draw from it."""
        frames = fold_time(video).to(self.dtype)
        latents = torch.cat([self._latents(part) for part in frames.split(self._frames_at_once(frames.shape[-1]))])
        return unfold_time((latents.float() - self._shift) * self._scale, len(video))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return a video (B, 3, T, S, S) float32, about [-1, 1], of latents (B, C, T, s, s)."""
        folded = (fold_time(latents.float()) / self._scale + self._shift).to(self.dtype)
        side = self.config.factor * folded.shape[-1]
        parts = [self.borrowed.decode(part).sample.float() for part in folded.split(self._frames_at_once(side))]
        return unfold_time(torch.cat(parts), len(latents))

    def _latents(self, frames: torch.Tensor) -> torch.Tensor:
        encoded = self.borrowed.encode(frames)
        return encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents

    @staticmethod
    def _frames_at_once(side: int) -> int:
        return max(1, PIXELS_AT_ONCE // side**2)


class StableDiffusionDenoiser(Borrowing):
    """The frozen U-Net of a Stable Diffusion 1.x, and a trained ControlNet that starts as a copy of its encoder.

    Frames go through them one by one; what holds them together is the noise that they share. The text is empty.

    base: hub id or folder of the pipeline. hint_channels: of what the ControlNet sees, eight of its pixels a latent
    pixel each way.

    Raises:
        AtlDiffError: diffusers or transformers is missing. CheckpointError: the pipeline cannot be found or read, or is
        none of Stable Diffusion 1.x.
    """

    text: torch.Tensor

    def __init__(self, base: str, hint_channels: int) -> None:
        what = f"base {base}"
        root, width = find_stable_diffusion(base)
        text = empty_prompt(root, width, what)  # before the large one
        super().__init__(load_network(UNET, root / "unet", what))
        from diffusers import ControlNetModel  # pyright: ignore[reportPrivateImportUsage] - where it lies has changed

        self.controlnet: Any = ControlNetModel.from_unet(self.borrowed, conditioning_channels=hint_channels)
        self.controlnet.requires_grad_(True)
        self.register_buffer("text", text, persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """The number format of its weights."""
        return self.text.dtype

    def control(self, hint: torch.Tensor) -> list[torch.Tensor]:
        """Return a hint (B, C, T, S, S) as pictures (B * T, C, S, S): a ControlNet sees the noise and its level too."""
        return [fold_time(hint).to(self.dtype)]

    def forward(
        self, x: torch.Tensor, level: torch.Tensor, control: list[torch.Tensor], prior: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the prediction, (B, C, T, s, s) float32, by the schedule's type.

        x: noisy latents, the same shape. level: (B,) int64. control: of `control`. prior: not looked at; the hint shows
        the portrait.
        """
        noisy = fold_time(x).to(self.dtype)
        levels = level.repeat_interleave(x.shape[2])
        text = self.text.expand(len(noisy), -1, -1)
        (hint,) = control
        skips, middle = self.controlnet(noisy, levels, text, hint.to(self.dtype), return_dict=False)
        said = self.borrowed(
            noisy,
            levels,
            text,
            down_block_additional_residuals=skips,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
        return unfold_time(said.float(), len(x))

    def steered(
        self, x: torch.Tensor, level: torch.Tensor, prior: torch.Tensor, *control: torch.Tensor
    ) -> torch.Tensor:
        """Return the prediction as inference asks for it: as `forward`, what steers it at the end."""
        return self(x, level, list(control), prior)
