"""Architecture of the default method: ATL-Diff in compact form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from atldiff.config.check import check, check_choice


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorConfig:
    """The Landmark Generation Module: sound to coefficients of a displacement basis, then landmarks."""

    features: Literal["mel", "whisper"] = "mel"
    """What is heard: log-mel columns, or the states of the first layers of Whisper base's encoder."""
    whisper_layers: int = 2
    """How many of those layers, for features of Whisper. 1 to 4; the package brings 2."""

    components: int = 20
    """Size of the learned linear basis of pose-free displacements. 4 to 64."""
    identity_components: int = 8
    """Numbers that describe the identity's neutral shape to the network. 0 to 32."""
    members: int = 4
    """Networks of the same form whose predictions are averaged: what they overfit differs. 1 to 16."""
    width: int = 192
    """Channels of the temporal network. A multiple of 8, 16 to 1024."""
    blocks: int = 5
    """Depth-wise convolution blocks at 25 Hz. 1 to 16."""
    kernel: int = 9
    """Taps of the depth-wise convolutions, in frames. Odd, 3 to 31."""
    expansion: int = 3
    """Widening of each block's point-wise part. 1 to 8."""
    dropout: float = 0.3
    """Share of channels dropped in training. 0 to 0.9."""
    context_frames: int = 16
    """Frames of audio heard before the block that is predicted. 0 to 64."""
    lookahead_frames: int = 4
    """Frames of audio heard after it: the generator's share of the latency. 0 to 32."""

    def __post_init__(self) -> None:
        check_choice("features", self.features, ("mel", "whisper"))
        check(1 <= self.whisper_layers <= 4, "whisper_layers", self.whisper_layers, "1 to 4")
        check(4 <= self.components <= 64, "components", self.components, "4 to 64")
        check(0 <= self.identity_components <= 32, "identity_components", self.identity_components, "0 to 32")
        check(1 <= self.members <= 16, "members", self.members, "1 to 16")
        check(self.width % 8 == 0 and 16 <= self.width <= 1024, "width", self.width, "a multiple of 8 in 16 to 1024")
        check(1 <= self.blocks <= 16, "blocks", self.blocks, "1 to 16")
        check(self.kernel % 2 == 1 and 3 <= self.kernel <= 31, "kernel", self.kernel, "an odd number in 3 to 31")
        check(1 <= self.expansion <= 8, "expansion", self.expansion, "1 to 8")
        check(0 <= self.dropout <= 0.9, "dropout", self.dropout, "0 to 0.9")
        check(0 <= self.context_frames <= 64, "context_frames", self.context_frames, "0 to 64")
        check(0 <= self.lookahead_frames <= 32, "lookahead_frames", self.lookahead_frames, "0 to 32")


@dataclass(frozen=True, slots=True, kw_only=True)
class RendererConfig:
    """Landmarks-Guide Noise and 3D Identity Diffusion in compact form."""

    side: int = 80
    """Width of the window in pixels. A multiple of `stem` times 2 to the number of levels less one; 16 to 512."""
    height: int = 0
    """Its height in pixels, a multiple of the same; 0 for a square."""
    origin: tuple[int, int] = (24, 26)
    """Corner of the window (x, y) in template pixels."""
    scale: float = 1.0
    """Pixels of a template pixel: the outer eye corners are 72 times that apart. 0.25 to 4."""
    layered: bool = False
    """Whether the warped portrait has the person's teeth behind its lips (`video.cavity`) instead of between them."""
    keep_seen: float = 0.0
    """Layered: share of what was seen behind the lips, own or lent teeth, that is left as it is. 0 to 1."""
    head: Literal["shuffle", "resize"] = "shuffle"
    """How features become pixels: rearranged, whose grid an adversary brings out, or enlarged and convolved."""
    chroma: float = 1.0
    """Share of its colour that a change keeps beside its brightness: less where footage has other light than portraits.
    0 to 1."""
    stem: int = 4
    """Space-to-depth factor in front of the network. 1, 2, 4 or 8."""
    widths: tuple[int, ...] = (64, 128, 192)
    """Channels a level. Multiples of 16."""
    blocks: tuple[int, ...] = (1, 2, 2)
    """Residual blocks a level on the way down (and up)."""
    noise_floor: float = 0.05
    """Noise scale outside the mask. 0 to 1."""
    noise_gain: float = 0.6
    """Noise scale added where the mask is one. 0 to 4."""
    mask_reach_px: float = 9.0
    """How far the mask reaches beyond the lips, in template pixels. 1 to 64."""

    def __post_init__(self) -> None:
        levels = len(self.widths)
        step = self.stem * 2 ** (levels - 1)
        check(self.stem in (1, 2, 4, 8), "stem", self.stem, "1, 2, 4 or 8")
        for name, length in (("side", self.side), ("height", self.height)):
            check((name == "height" and not length) or (16 <= length <= 512 and length % step == 0), name, length,
                  f"a multiple of {step} in 16 to 512")  # fmt: skip
        check(0.25 <= self.scale <= 4, "scale", self.scale, "0.25 to 4")
        check(0 <= self.chroma <= 1, "chroma", self.chroma, "0 to 1")
        check(0 <= self.keep_seen <= 1, "keep_seen", self.keep_seen, "0 to 1")
        check_choice("head", self.head, ("shuffle", "resize"))
        check(len(self.origin) == 2, "origin", self.origin, "two numbers")
        check(1 <= levels <= 5 and all(w % 16 == 0 and w > 0 for w in self.widths), "widths", self.widths,
               "one to five multiples of 16")  # fmt: skip
        check(len(self.blocks) == levels and all(b >= 1 for b in self.blocks), "blocks", self.blocks,
               f"{levels} numbers of at least 1")  # fmt: skip
        check(0 <= self.noise_floor <= 1, "noise_floor", self.noise_floor, "0 to 1")
        check(0 <= self.noise_gain <= 4, "noise_gain", self.noise_gain, "0 to 4")
        check(1 <= self.mask_reach_px <= 64, "mask_reach_px", self.mask_reach_px, "1 to 64")


@dataclass(frozen=True, slots=True, kw_only=True)
class ATLConfig:
    """The default method: ATL-Diff in compact form (arXiv 2507.12804, with the changes docs/architecture.md names)."""

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    renderer: RendererConfig = field(default_factory=RendererConfig)
