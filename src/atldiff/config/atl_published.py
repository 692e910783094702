"""Architecture of ATL-Diff as published (arXiv 2507.12804): what the authors state or released, and what is open.

Fields whose docstring says "open" are not known from the paper or the released code: they are our choices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from atldiff.config.check import check, check_choice


@dataclass(frozen=True, slots=True, kw_only=True)
class KFLMConfig:
    """The Landmark Generation Module (KFLM): a second of speech features to a second of 68 landmarks."""

    features: Literal["wav2vec2", "log-mel"] = "wav2vec2"
    """What hears: frozen wav2vec 2.0 base, as published, or a learned projection of log-mel columns, which needs no
    weights of 190 MB."""
    speech_model: str = "facebook/wav2vec2-base"
    """Hub id or folder of the frozen wav2vec 2.0 model; empty when its weights lie in the checkpoint."""
    feature_width: int = 768
    """Channels of a feature token. A multiple of 4, 16 to 4096."""
    frames: int = 30
    """Landmark frames of a second of sound; the released module has 30, data at 25 fps wants 25. 5 to 60."""
    hop_frames: int = 24
    """Frames by which neighbouring seconds advance; the frames they share are cross-faded. Open: the released code
    joins seconds without overlap. Half of `frames` to `frames`."""
    attention_over: Literal["time", "batch"] = "time"
    """The axis that attention runs over; `batch` is what the released module does."""
    positions: bool = True
    """Add sinusoidal positions before attention; the released module has none."""
    emotion: Literal["learned", "softmax"] = "learned"
    """How the label enters: an embedding added to the features of the context domain, or the released module's softmax
    over the batch, which does nothing for a single clip."""
    emotions: int = 8
    """Emotion labels; one more stands for clips without a label. 0 to 8; training on data without labels makes it 0."""
    coordinates: Literal["canonical", "window"] = "canonical"
    """Space of the landmarks: pose-free, or pixels of the whole-face window over its side, as released."""
    residual: bool = False
    """Add the output to the initial landmarks instead of predicting positions. Open for new training; off as
    released."""
    feed_forward: int = 2048
    """Hidden channels of the transformer layers. 16 to 8192."""
    fusion_width: int = 256
    """Channels of the gated convolutional fusion of the face. 8 to 2048."""
    mouth_fusion_width: int = 128
    """Channels of the convolutional fusion of the mouth. 8 to 2048."""
    kan_width: int = 512
    """Hidden features of the KAN head. 8 to 4096."""
    kan_grid: int = 5
    """Intervals of the KAN's spline grid. 1 to 32."""
    kan_order: int = 3
    """Order of the KAN's splines. 1 to 5."""
    dropout: float = 0.2
    """Dropout of the transformer layers. 0 to 0.9."""
    mouth_weight: float = 0.8
    """Share of the loss that the 20 mouth points have; the rest goes to all 68. 0 to 1."""
    components: int = 20
    """Size of the basis that carries 68 points to the dense topology. Open. 4 to 64."""

    def __post_init__(self) -> None:
        check_choice("features", self.features, ("wav2vec2", "log-mel"))
        check_choice("attention_over", self.attention_over, ("time", "batch"))
        check_choice("emotion", self.emotion, ("learned", "softmax"))
        check_choice("coordinates", self.coordinates, ("canonical", "window"))
        check(
            16 <= self.feature_width <= 4096 and self.feature_width % 4 == 0, "feature_width", self.feature_width,
            "a multiple of 4 in 16 to 4096",
        )  # fmt: skip
        check(
            self.features != "wav2vec2" or bool(self.speech_model) or self.feature_width == 768, "feature_width",
            self.feature_width, "768 when the speech model lies in the checkpoint",
        )  # fmt: skip
        check(5 <= self.frames <= 60, "frames", self.frames, "5 to 60")
        check(self.frames <= 2 * self.hop_frames <= 2 * self.frames, "hop_frames", self.hop_frames,
              f"{-(-self.frames // 2)} to {self.frames}")  # fmt: skip
        check(0 <= self.emotions <= 8, "emotions", self.emotions, "0 to 8")
        for name, low, high in (
            ("feed_forward", 16, 8192), ("fusion_width", 8, 2048), ("mouth_fusion_width", 8, 2048),
            ("kan_width", 8, 4096), ("kan_grid", 1, 32), ("kan_order", 1, 5), ("components", 4, 64),
            ("dropout", 0, 0.9), ("mouth_weight", 0, 1),
        ):  # fmt: skip
            value = getattr(self, name)
            check(low <= value <= high, name, value, f"{low} to {high}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig:
    """The forward process of 3D Identity Diffusion. Open in the paper; the defaults are DDIM's, which the code uses."""

    train_steps: int = 1000
    """Noise levels. 2 to 10000."""
    beta_start: float = 1e-4
    """Variance of the first level. Above 0."""
    beta_end: float = 0.02
    """Variance of the last level. Above 0, below 1."""
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    """How the variance grows in between."""
    prediction: Literal["sample", "epsilon", "v_prediction"] = "sample"
    """What the network predicts: the frames, the guided image that is the process's end, or their rotation. With
    `epsilon` an error at the first of 8 steps is multiplied by 49."""
    spacing: Literal["leading", "trailing", "linspace"] = "trailing"
    """How sampling steps are laid over the levels. DDIM's own `leading` starts 8 steps at level 875 and a single one at
    level 0, where there is nothing to denoise."""
    steps_offset: int = 0
    """Added to each sampled level when `leading`. 0 to 100."""
    clip_sample: float = 1.0
    """Predicted frames are kept within plus and minus this; 0 leaves them alone. 0 to 100."""
    end_at_one: bool = True
    """Whether the level after the last is free of noise, or is level 0."""

    def __post_init__(self) -> None:
        check(2 <= self.train_steps <= 10_000, "train_steps", self.train_steps, "2 to 10000")
        check(0 < self.beta_end < 1, "beta_end", self.beta_end, "above 0, below 1")
        check(0 < self.beta_start <= self.beta_end, "beta_start", self.beta_start, "above 0, at most beta_end")
        check_choice("beta_schedule", self.beta_schedule, ("linear", "scaled_linear", "squaredcos_cap_v2"))
        check_choice("prediction", self.prediction, ("sample", "epsilon", "v_prediction"))
        check_choice("spacing", self.spacing, ("leading", "trailing", "linspace"))
        check(0 <= self.steps_offset <= 100, "steps_offset", self.steps_offset, "0 to 100")
        check(0 <= self.clip_sample <= 100, "clip_sample", self.clip_sample, "0 to 100")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionUNetConfig:
    """A `diffusers.UNet3DConditionModel`: the one class of diffusers that the released pipeline's call fits.

    Names and defaults are those of its config.json.
    """

    in_channels: int = 3
    """Channels of the noisy frames."""
    out_channels: int = 3
    """Channels of the prediction."""
    down_block_types: tuple[str, ...] = (
        "CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D",
    )  # fmt: skip
    """Blocks on the way down."""
    up_block_types: tuple[str, ...] = (
        "UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D",
    )  # fmt: skip
    """Blocks on the way up."""
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Channels a level."""
    layers_per_block: int = 2
    """Residual layers a level."""
    downsample_padding: int = 1
    """Padding of the strided convolutions."""
    mid_block_scale_factor: float = 1.0
    """Scale of the middle block's output."""
    act_fn: str = "silu"
    """Activation."""
    norm_num_groups: int = 32
    """Groups of the normalisation."""
    norm_eps: float = 1e-5
    """Its floor."""
    cross_attention_dim: int = 32
    """Width of an identity token."""
    attention_head_dim: int = 64
    """Channels of an attention head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityDiffusionConfig:
    """Landmarks-Guide Noise and 3D Identity Diffusion as published: whole faces in pixels."""

    side: int = 128
    """Side of the whole-face window in pixels. A multiple of `stem` times 2 to the levels less one; 32 to 512."""
    clip_frames: int = 32
    """Frames of one diffusion call; neighbouring calls share a quarter of them. 4 to 64."""
    blur_kernel: int = 11
    """Side of the Gaussian that widens the landmark dots: 11 for MEAD, 25 for CREMA-D; its sigma follows from it. Odd,
    3 to 63."""
    mask_scale: Literal["frame", "clip"] = "frame"
    """Over what the mask is scaled to [0, 1]; the released code takes the clip, so that frames depend on each other."""
    noise_floor: float = 0.1
    """Noise scale far from every landmark. 0 to 1."""
    noise_over_time: Literal["independent", "shared"] = "independent"
    """Whether each frame has a noise of its own, as released, or all have the same. Open for new training."""
    noise: Literal["guided", "uniform"] = "guided"
    """Ablation: `uniform` gives every pixel the scale that the guided mask has on average (root mean square)."""
    prior: Literal["identity", "warped"] = "identity"
    """Ablation: the picture under the noise is the unmoved identity, or the one that the landmarks have warped."""
    identity: Literal["encoder", "resnet50"] = "encoder"
    """Who describes the identity: a small network trained with the renderer (open), or ImageNet's ResNet-50, as
    released."""
    identity_tokens: int = 64
    """Identity tokens that frames attend to. A square number with `encoder`; 1 to 1024."""
    identity_width: int = 32
    """Channels of a token; with `resnet50`, tokens times width is 2048. 4 to 1024."""
    emotions: int = 8
    """Emotion labels in the time embedding; one more stands for clips without a label. 0 to 8, as in the generator."""
    network: Literal["compact", "unet3d-condition"] = "compact"
    """The U-Net: ours, or diffusers' (extra `diffusers`), which is what released weights need. Open in the paper."""
    axes: Literal["bcthw", "bchwt"] = "bcthw"
    """Order in which the U-Net sees the axes; the released pipeline hands it height as time."""
    stem: int = 4
    """Space-to-depth factor in front of the compact U-Net. 1, 2, 4 or 8."""
    widths: tuple[int, ...] = (96, 160, 256)
    """Channels a level of the compact U-Net; the paper's figure draws three. Multiples of 16."""
    blocks: tuple[int, ...] = (2, 2, 2)
    """Residual blocks a level of the compact U-Net, on the way down (and up)."""
    unet: ConditionUNetConfig = field(default_factory=ConditionUNetConfig)
    """Architecture of diffusers' U-Net; unused by the compact one."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The forward process."""

    def __post_init__(self) -> None:
        levels = len(self.widths)
        step = self.stem * 2 ** (levels - 1)
        check(self.stem in (1, 2, 4, 8), "stem", self.stem, "1, 2, 4 or 8")
        check(1 <= levels <= 5 and all(w % 16 == 0 and w > 0 for w in self.widths), "widths", self.widths,
              "one to five multiples of 16")  # fmt: skip
        check(len(self.blocks) == levels and all(b >= 1 for b in self.blocks), "blocks", self.blocks,
              f"{levels} numbers of at least 1")  # fmt: skip
        check(32 <= self.side <= 512 and self.side % step == 0, "side", self.side, f"a multiple of {step} in 32 to 512")
        check(4 <= self.clip_frames <= 64, "clip_frames", self.clip_frames, "4 to 64")
        check(self.blur_kernel % 2 == 1 and 3 <= self.blur_kernel <= 63, "blur_kernel", self.blur_kernel,
              "an odd number in 3 to 63")  # fmt: skip
        check_choice("mask_scale", self.mask_scale, ("frame", "clip"))
        check_choice("noise_over_time", self.noise_over_time, ("independent", "shared"))
        check_choice("noise", self.noise, ("guided", "uniform"))
        check_choice("prior", self.prior, ("identity", "warped"))
        check_choice("identity", self.identity, ("encoder", "resnet50"))
        check_choice("network", self.network, ("compact", "unet3d-condition"))
        check_choice("axes", self.axes, ("bcthw", "bchwt"))
        check(0 <= self.noise_floor <= 1, "noise_floor", self.noise_floor, "0 to 1")
        check(0 <= self.emotions <= 8, "emotions", self.emotions, "0 to 8")
        check(4 <= self.identity_width <= 1024, "identity_width", self.identity_width, "4 to 1024")
        square = round(self.identity_tokens**0.5) ** 2 == self.identity_tokens
        check(1 <= self.identity_tokens <= 1024 and (square or self.identity != "encoder"), "identity_tokens",
              self.identity_tokens, "a square number in 1 to 1024")  # fmt: skip
        check(self.identity != "resnet50" or self.identity_tokens * self.identity_width == 2048, "identity_tokens",
              self.identity_tokens, "2048 in all with identity_width")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedConfig:
    """ATL-Diff as published (arXiv 2507.12804)."""

    generator: KFLMConfig = field(default_factory=KFLMConfig)
    renderer: IdentityDiffusionConfig = field(default_factory=IdentityDiffusionConfig)


PAPER_PRESETS: dict[str, PublishedConfig] = {
    # Attention over time, a learned emotion, a true neutral first frame.
    "fixed": PublishedConfig(),
    # What the authors' files need, defects included.
    "released": PublishedConfig(
        generator=KFLMConfig(
            speech_model="", attention_over="batch", positions=False, emotion="softmax", coordinates="window",
            hop_frames=30,
        ),
        renderer=IdentityDiffusionConfig(
            blur_kernel=25, mask_scale="clip", identity="resnet50", network="unet3d-condition", axes="bchwt",
            schedule=ScheduleConfig(prediction="epsilon", spacing="leading"),
        ),
    ),
    # `fixed` without the 190 MB of wav2vec 2.0, at a size that two cores can train: what the package ships.
    "compact": PublishedConfig(
        generator=KFLMConfig(
            features="log-mel", speech_model="", feature_width=256, feed_forward=1024, frames=25, hop_frames=20,
            residual=True,
        ),
        renderer=IdentityDiffusionConfig(widths=(64, 128, 192), blocks=(1, 2, 2)),
    ),
}  # fmt: skip
