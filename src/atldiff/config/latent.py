"""What the latent renderers of two methods have in common: window, codec, U-Net and schedule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from atldiff.config.atl_published import ScheduleConfig
from atldiff.config.check import check, check_choice
from atldiff.config.codec import CodecConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentDiffusionConfig:
    """Latent diffusion of the window around the lower face."""

    side: int = 80
    """Side of the window in template pixels: what `resolution` pixels show. 16 to 96."""
    origin: tuple[int, int] = (24, 26)
    """Corner of the window (x, y) in template pixels."""
    resolution: int = 80
    """Side in pixels at which the codec sees the window. A multiple of the codec's factor times 2 to the number of
    levels less one; 32 to 1024."""
    height: int = 0
    """Height in those pixels of a window that is as wide as `resolution` says and not square, likewise a multiple; 0
    for a square one."""
    layered: bool = False
    """Whether the mouth has two layers, lips over what is behind them, and the network is shown both."""
    codec: CodecConfig = field(default_factory=CodecConfig)
    """Pictures to latents and back."""
    widths: tuple[int, ...] = (96, 160, 224)
    """Channels a level of the compact U-Net. Multiples of 16."""
    blocks: tuple[int, ...] = (1, 2, 1)
    """Residual blocks a level of the compact U-Net, on the way down (and up)."""
    schedule: ScheduleConfig = field(
        default_factory=lambda: ScheduleConfig(
            beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=0.0
        )
    )
    """The forward process; the variances are those of latent diffusion (arXiv 2112.10752)."""
    noise_over_time: Literal["shared", "independent"] = "shared"
    """Whether all frames start from the same noise or each from its own, which flickers."""
    mask_reach_px: float = 12.0
    """How far beyond the lips the picture may change, in template pixels. 1 to 64."""
    pixel_weight: float = 2.0
    """Weight of the decoded picture's error, of one frame a clip, beside that of the latents: it asks for lip edges and
    teeth. 0 leaves it to the latents, as latent diffusion does; needs `prediction` to be `sample`. 0 to 100."""

    def __post_init__(self) -> None:
        levels = len(self.widths)
        step = self.codec.factor * 2 ** (levels - 1)
        check_choice("noise_over_time", self.noise_over_time, ("shared", "independent"))
        check(16 <= self.side <= 96, "side", self.side, "16 to 96")
        check(len(self.origin) == 2, "origin", self.origin, "two numbers")
        for name, length in (("resolution", self.resolution), ("height", self.height or self.resolution)):
            check(32 <= length <= 1024 and length % step == 0, name, length, f"a multiple of {step} in 32 to 1024")
        check(1 <= levels <= 5 and all(w % 16 == 0 and w > 0 for w in self.widths), "widths", self.widths,
              "one to five multiples of 16")  # fmt: skip
        check_counts("blocks", self.blocks, levels)
        check(1 <= self.mask_reach_px <= 64, "mask_reach_px", self.mask_reach_px, "1 to 64")
        check(0 <= self.pixel_weight <= 100, "pixel_weight", self.pixel_weight, "0 to 100")
        check(self.pixel_weight == 0 or self.schedule.prediction == "sample", "pixel_weight", self.pixel_weight,
              f"0 when the network predicts {self.schedule.prediction!r}")  # fmt: skip


MOUTH_WINDOW: dict[str, Any] = {
    "layered": True, "side": 72, "resolution": 144, "height": 112, "origin": (28, 41), "mask_reach_px": 6.0,
    "pixel_weight": 0.0,
}  # fmt: skip
"""What a renderer has that sees the mouth in layers, at twice the template's scale."""


def check_counts(name: str, counts: tuple[int, ...], levels: int) -> None:
    """Raise ValueError unless there is a number of at least 1 for each level."""
    check(len(counts) == levels and all(n >= 1 for n in counts), name, counts, f"{levels} numbers of at least 1")
