"""Architecture of the face codec: frames to latents and back, for the methods whose diffusion runs on latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from atldiff.config.check import check, check_choice


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecConfig:
    """An autoencoder for face windows: ours, trained by the stage `codec`, or one of diffusers'."""

    kind: Literal["compact", "diffusers"] = "compact"
    """Ours, or an `AutoencoderKL` or `AutoencoderTiny` that `source` names."""
    source: str = ""
    """Hub id or folder of diffusers' autoencoder, or of a pipeline that has one in its folder `vae`. Its weights are
    loaded from there and belong to no checkpoint of ours."""
    factor: int = 4
    """Window pixels a latent pixel, each way: 4 or 8."""
    channels: int = 4
    """Channels of a latent. 1 to 32."""
    widths: tuple[int, int] = (64, 128)
    """Channels of the encoder at half the window's side and at the latents' side. Multiples of 16."""
    decoder_widths: tuple[int, int] = (96, 160)
    """The same of the decoder, which has the harder part."""
    blocks: int = 2
    """Residual blocks a resolution. 1 to 8."""
    kl_weight: float = 1e-6
    """Weight of the latents' divergence from a standard normal distribution. 0 to 1."""

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, ("compact", "diffusers"))
        check(self.kind == "compact" or bool(self.source), "source", self.source,
              "a hub id or folder, when kind is 'diffusers'")  # fmt: skip
        check(self.factor in (4, 8), "factor", self.factor, "4 or 8")
        check(1 <= self.channels <= 32, "channels", self.channels, "1 to 32")
        for name in ("widths", "decoder_widths"):
            widths = getattr(self, name)
            check(len(widths) == 2 and all(w > 0 and w % 16 == 0 for w in widths), name, widths,
                  "two multiples of 16")  # fmt: skip
        check(1 <= self.blocks <= 8, "blocks", self.blocks, "1 to 8")
        check(0 <= self.kl_weight <= 1, "kl_weight", self.kl_weight, "0 to 1")
