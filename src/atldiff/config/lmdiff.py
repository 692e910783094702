"""Architecture of LMDiff (arXiv 2408.05416).

No code was published and hardly a figure is known: nearly every field is open in the paper and our choice;
`docs/lmdiff.md` says what the authors state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from atldiff.config.atl_published import ScheduleConfig
from atldiff.config.check import check, check_choice
from atldiff.config.difftalker import CompletionConfig
from atldiff.config.latent import MOUTH_WINDOW, LatentDiffusionConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TalkRendererConfig(LatentDiffusionConfig):
    """Latent diffusion of the window around the lower face, steered by landmarks through TalkFormer."""

    widths: tuple[int, ...] = (80, 144, 192)
    """Channels a level of the U-Net. Multiples of 16."""
    reference: Literal["still", "both"] = "both"
    """How the U-Net sees the portrait: as it is, through TalkFormer's warp alone, or also moved to the target's
    landmarks, of which it then predicts the change."""
    talk_levels: tuple[int, ...] = (0, 1, 2)
    """Levels of the U-Net that have a TalkFormer: 20, 10 and 5 latent pixels a side of a window of 80."""
    motion: bool = True
    """TalkFormer's motion alignment, its part (i): latents attend to the target's landmarks."""
    warp: bool = True
    """TalkFormer's implicit warping, its part (ii): latents attend to the portrait's features."""
    token_width: int = 128
    """Channels of a landmark token. 16 to 1024."""

    def __post_init__(self) -> None:
        LatentDiffusionConfig.__post_init__(self)  # `super()` knows no class with slots
        levels = range(len(self.widths))
        check_choice("reference", self.reference, ("still", "both"))
        check(
            bool(self.talk_levels) and set(self.talk_levels) <= set(levels) and sorted(set(self.talk_levels)) ==
            list(self.talk_levels), "talk_levels", self.talk_levels,
            f"numbers of 0 to {levels[-1]} that rise",
        )  # fmt: skip
        check(16 <= self.token_width <= 1024, "token_width", self.token_width, "16 to 1024")


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncConfig:
    """The sync expert: whether a few pictures of a mouth and a sound belong together. Ours; the paper has none."""

    frames: int = 5
    """Successive pictures that it sees at once: a fifth of a second, as the experts of Wav2Lip and SyncNet. 2 to 11."""
    margin_frames: int = 2
    """Frames that it hears before the first picture and after the last. At most what the generator hears there; 0 to
    8."""
    side: int = 48
    """Side in pixels at which it sees the mouth. 16 to 128."""
    widths: tuple[int, ...] = (32, 48, 80, 112)
    """Channels a level of either branch; each halves the side. Two to five multiples of 16."""
    width: int = 128
    """Length of the vectors that are compared. 8 to 1024."""
    temperature: float = 0.1
    """Divisor of their cosines where it is trained. 0.01 to 1."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("frames", 2, 11), ("margin_frames", 0, 8), ("side", 16, 128), ("width", 8, 1024), ("temperature", 0.01, 1),
        ):  # fmt: skip
            value = getattr(self, name)
            check(low <= value <= high, name, value, f"{low} to {high}")
        check(2 <= len(self.widths) <= 5 and all(w % 16 == 0 and w > 0 for w in self.widths), "widths", self.widths,
              "two to five multiples of 16")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class JointConfig:
    """How generator and renderer are trained together, after each was trained alone."""

    landmark_weight: float = 1.0
    """Weight of the landmarks' own loss beside the renderer's; at 1 their gradients on the generator are about as large
    as each other. 0 to 100."""
    true_share: float = 0.5
    """Share of clips that are rendered from their true landmarks, lest the renderer learns to mistrust all landmarks
    because predicted ones err. 0 to below 1."""
    through_warp: bool = True
    """Let the renderer's loss reach the generator by the warped portrait too, which the U-Net changes where `reference`
    is 'both'; by TalkFormer's tokens alone otherwise."""
    detach_landmarks: bool = False
    """Keep the renderer's loss from the generator: both learn on from where they are, but apart."""
    sync: SyncConfig | None = None
    """The sync expert that the weights hold, where the stage sync has trained one."""
    sync_weight: float = 0.0
    """Weight of what the frozen expert says of the predicted pictures; above 0 needs weights that hold one. 0 to
    100."""

    def __post_init__(self) -> None:
        check(0 <= self.landmark_weight <= 100, "landmark_weight", self.landmark_weight, "0 to 100")
        check(0 <= self.true_share < 1, "true_share", self.true_share, "0 to below 1")
        check(0 <= self.sync_weight <= 100, "sync_weight", self.sync_weight, "0 to 100")


@dataclass(frozen=True, slots=True, kw_only=True)
class LMDiffConfig:
    """LMDiff (arXiv 2408.05416): landmark completion, and a latent diffusion whose loss reaches the landmarks."""

    generator: CompletionConfig = field(default_factory=CompletionConfig)
    """IP_LAP's form (`points` is 'ip-lap'), or the package's own, over the dense topology ('dense')."""
    renderer: TalkRendererConfig = field(default_factory=TalkRendererConfig)
    joint: JointConfig = field(default_factory=JointConfig)

    def __post_init__(self) -> None:
        if self.joint.sync is not None:
            check(not self.renderer.layered, "joint.sync", "an expert",
                  "none for a layered renderer: it sees whole windows, preset `window`")  # fmt: skip
            margin, heard = self.joint.sync.margin_frames, self.generator
            known = min(heard.context_frames, heard.lookahead_frames)
            check(margin <= known, "margin_frames", margin, f"at most {known}, which the generator hears around a clip")


LMDIFF_PRESETS: dict[str, LMDiffConfig] = {
    # What the package trains: the mouth in layers, at twice the scale.
    "compact": LMDiffConfig(
        generator=CompletionConfig(features="whisper"),
        renderer=TalkRendererConfig(
            **MOUTH_WINDOW,
            talk_levels=(1, 2),
        ),
    ),
    # The whole lower face at the template's scale, heard through log-mel columns, as it was shipped before.
    "window": LMDiffConfig(),
    # As reconstructed: IP_LAP's points, size of transformer and two frames to either side; no analytic warp, and the
    # loss of latent diffusion.
    "paper": LMDiffConfig(
        generator=CompletionConfig(
            points="ip-lap",
            width=512,
            feed_forward=1024,
            dropout=0.1,
            velocity_weight=1.0,
            context_frames=2,
            lookahead_frames=2,
        ),
        renderer=TalkRendererConfig(
            reference="still",
            pixel_weight=0.0,
            schedule=ScheduleConfig(
                beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", prediction="epsilon", clip_sample=0.0
            ),
        ),
        joint=JointConfig(through_warp=False),
    ),
}
