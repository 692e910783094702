"""Architecture of DiffTalker (arXiv 2309.07509).

No code was published and hardly a figure is known: nearly every field is open in the paper and our choice;
`docs/difftalker.md` says what the authors state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from atldiff.config.atl_published import ScheduleConfig
from atldiff.config.check import check, check_choice
from atldiff.config.codec import CodecConfig
from atldiff.config.latent import MOUTH_WINDOW, LatentDiffusionConfig, check_counts


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionConfig:
    """The landmark completion transformer: sound and visible landmarks to the landmarks of lower jaw and mouth."""

    features: Literal["mel", "whisper"] = "mel"
    """What is heard: log-mel columns, or the states of the first layers of Whisper base's encoder."""
    whisper_layers: int = 2
    """How many of those layers, for features of Whisper. 1 to 4; the package brings 2."""
    points: Literal["dense", "sixty-eight", "ip-lap"] = "dense"
    """What is completed: the lower face of the dense topology through a learned basis; 29 of 68 points (lower jaw 9,
    mouth 20), 39 of which are visible; or IP_LAP's 57 of 131 (jaw 17, lips 40), 74 of which are visible."""
    width: int = 192
    """Channels of a token. A multiple of `heads`, 16 to 2048."""
    layers: int = 4
    """Transformer layers. 1 to 24."""
    heads: int = 4
    """Attention heads a layer. 1 to 32."""
    feed_forward: int = 512
    """Hidden channels of a layer's point-wise network. 16 to 8192."""
    dropout: float = 0.2
    """Dropout of the layers. 0 to 0.9."""
    components: int = 20
    """Size of the learned linear basis of pose-free displacements. 4 to 64."""
    context_frames: int = 16
    """Frames heard and seen before the block that is completed. 0 to 64."""
    lookahead_frames: int = 4
    """Frames heard and seen after it: the generator's share of the latency. 0 to 32."""
    velocity_weight: float = 2.0
    """Weight of the error of frame differences against that of positions. 0 to 100."""

    def __post_init__(self) -> None:
        check_choice("features", self.features, ("mel", "whisper"))
        check_choice("points", self.points, ("dense", "sixty-eight", "ip-lap"))
        check(1 <= self.heads <= 32, "heads", self.heads, "1 to 32")
        check(16 <= self.width <= 2048 and self.width % (2 * self.heads) == 0, "width", self.width,
              f"a multiple of {2 * self.heads} in 16 to 2048")  # fmt: skip
        for name, low, high in (
            ("whisper_layers", 1, 4), ("layers", 1, 24), ("feed_forward", 16, 8192), ("dropout", 0, 0.9),
            ("components", 4, 64), ("context_frames", 0, 64), ("lookahead_frames", 0, 32), ("velocity_weight", 0, 100),
        ):  # fmt: skip
            value = getattr(self, name)
            check(low <= value <= high, name, value, f"{low} to {high}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentRendererConfig(LatentDiffusionConfig):
    """Latent diffusion of the window around the lower face, steered by landmarks through a control branch."""

    backend: Literal["compact", "stable-diffusion"] = "compact"
    """The denoiser: ours, trained here, or a frozen Stable Diffusion U-Net with a trained ControlNet (diffusers)."""
    base: str = ""
    """Hub id or folder of the Stable Diffusion pipeline; its weights belong to no checkpoint of ours."""
    reference: Literal["warped", "still", "both"] = "both"
    """How the control branch sees the portrait: moved to the target's landmarks, as it is, or both."""
    control_blocks: tuple[int, ...] = (2, 1, 1)
    """Residual blocks a level of the control branch."""

    def __post_init__(self) -> None:
        check_choice("backend", self.backend, ("compact", "stable-diffusion"))
        check_choice("reference", self.reference, ("warped", "still", "both"))
        check(self.backend == "compact" or bool(self.base), "base", self.base,
              "a hub id or folder, when backend is 'stable-diffusion'")  # fmt: skip
        latent = (self.codec.factor, self.codec.channels)
        check(self.backend == "compact" or latent == (8, 4), "codec", latent,
              "factor 8 and 4 channels, as Stable Diffusion has, when backend is 'stable-diffusion'")  # fmt: skip
        LatentDiffusionConfig.__post_init__(self)  # `super()` knows no class with slots
        check_counts("control_blocks", self.control_blocks, len(self.widths))


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffTalkerConfig:
    """DiffTalker (arXiv 2309.07509): landmark completion and a landmark-steered latent diffusion."""

    generator: CompletionConfig = field(default_factory=CompletionConfig)
    renderer: LatentRendererConfig = field(default_factory=LatentRendererConfig)


DIFFTALKER_PRESETS: dict[str, DiffTalkerConfig] = {
    # What the package ships: the mouth in layers, at twice the scale.
    "compact": DiffTalkerConfig(
        generator=CompletionConfig(features="whisper"),
        renderer=LatentRendererConfig(
            **MOUTH_WINDOW
        ),
    ),
    # The whole lower face at the template's scale, heard through log-mel columns, as it was shipped before.
    "window": DiffTalkerConfig(),
    # As reconstructed: 68 points, 39 of them visible, IP_LAP's size of transformer.
    "paper": DiffTalkerConfig(
        generator=CompletionConfig(points="sixty-eight", width=512, feed_forward=1024, dropout=0.1),
    ),
    # A frozen Stable Diffusion under a ControlNet, on windows of 256 px (latents of 32 x 32).
    "stable-diffusion": DiffTalkerConfig(
        generator=CompletionConfig(features="whisper"),
        renderer=LatentRendererConfig(
            backend="stable-diffusion",
            base="stable-diffusion-v1-5/stable-diffusion-v1-5",
            resolution=256,
            reference="still",
            pixel_weight=0.0,
            codec=CodecConfig(
                kind="diffusers", source="stable-diffusion-v1-5/stable-diffusion-v1-5", factor=8, channels=4
            ),
            schedule=ScheduleConfig(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction="epsilon",
                spacing="leading", steps_offset=1, clip_sample=0.0, end_at_one=False,
            ),
        ),
    ),
}  # fmt: skip
