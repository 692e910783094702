"""One training run, and the presets that gave the weights this package ships."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from atldiff.config.atl import ATLConfig, GeneratorConfig, RendererConfig
from atldiff.config.atl_published import PAPER_PRESETS, PublishedConfig
from atldiff.config.check import check, check_choice
from atldiff.config.difftalker import DIFFTALKER_PRESETS, CompletionConfig, DiffTalkerConfig
from atldiff.config.lmdiff import LMDIFF_PRESETS, JointConfig, LMDiffConfig, SyncConfig

Stage = Literal["landmarks", "renderer", "codec", "joint", "sync", "motion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One training run; a resumed run takes the same one."""

    stage: Stage = "renderer"
    """Which part is trained: `landmarks` (the generator), `renderer`, the `codec` under a latent renderer, generator
    and renderer `joint`ly, through the landmarks, or the `sync` expert that may judge the latter; or the `motion` of
    head, brows and blinks, which belongs to no method."""
    model: ATLConfig | PublishedConfig | DiffTalkerConfig | LMDiffConfig = field(default_factory=ATLConfig)
    """Architecture of the whole method; the other stage's part is carried along unchanged."""
    steps: int = 12_000
    """Optimiser steps of the whole run; the learning rate decays towards its end. 1 to 10 million."""
    clips_per_batch: int = 12
    """Clips a step, over all processes. 1 to 4096."""
    accumulate: int = 1
    """Parts in which each process works through its clips of a step, for less memory; the result is the same.
    1 to 4096; processes times parts divide `clips_per_batch`."""
    frames: int = 4
    """Frames a clip. Renderer and joint: 2 to 64. Landmarks: 16 to 256. Codec: 1 to 64. Sync: 16 to 256.
    Motion: 32 to 256."""
    optimiser: Literal["muon", "adamw"] = "muon"
    """Muon for hidden weights and AdamW for the rest, or AdamW alone."""
    learning_rate: float = 2.5e-3
    """Peak learning rate. Above 0, at most 1."""
    warmup_steps: int = 100
    """Steps of linear warm-up. 0 or more."""
    decay_share: float = 0.25
    """Share of the run, at its end, over which the learning rate falls linearly to zero. 0 to 1."""
    weight_decay: float = 0.01
    """Decoupled weight decay. 0 to 1."""
    clip_norm: float = 1.0
    """Largest norm of the gradient. Above 0."""
    ema: float = 0.998
    """Decay of the averaged weights, which are the ones shipped. 0 to below 1."""
    seed: int = 0
    """Seed of weights, data order and noise. 0 to 2**32 - 1."""
    perceptual_weight: float = 0.0
    """Layered renderer, alone and joint: weight of the mouth's LPIPS distance to the real one, for which `train` is
    given the network. 0 or more."""
    adversarial_weight: float = 0.0
    """Layered renderer: weight of an adversary that is shown mouths, and of its features. 0 or more."""
    sharpen: float = 0.0
    """Layered renderer: largest share of fine detail added to a clip's pictures, to all alike, for footage that is
    softer than the portraits to come. 0 to 4."""
    tint: float = 0.06
    """Layered renderer: largest change of the gain of a colour channel, alike for an item's pictures. Footage of one
    studio needs more of it. 0 to 0.5."""
    bfloat16: bool = True
    """Renderer: compute in bfloat16 with float32 master weights; the generator is small and stays in float32."""
    save_every: int = 500
    """Steps between two saved states. At least 1."""
    probe_every: int = 500
    """Steps between two measurements on held-out people. At least 1."""
    spoken: int = 0
    """Landmarks of features `whisper`: how often each sentence of ours is spoken by espeak-ng, which says when lips
    have to meet. 0 to 16; 0 needs no espeak-ng."""
    min_sync: float = 0.3
    """Landmarks, joint and sync: clips whose sound and lips correlate less are left out. 0 to 1."""
    min_agreement: float = 0.45
    """Landmarks, joint and sync: the same for clips that `atldiff align` has measured. 0 to 1."""
    exclude_sources: tuple[str, ...] = ()
    """Landmarks, joint and sync: first-level folders whose sound cannot be trusted before it is aligned."""
    max_lag_frames: int = 3
    """Landmarks, joint and sync: clips whose lag is larger are left out, smaller lags are corrected. 0 to 8."""

    def __post_init__(self) -> None:
        check_choice("stage", self.stage, get_args(Stage))
        check(self.stage != "codec" or _has_codec(self.model), "stage", self.stage,
              "a method whose renderer has a codec of ours, such as difftalker, for the stage codec")  # fmt: skip
        check(self.stage != "joint" or isinstance(self.model, LMDiffConfig), "stage", self.stage,
              "a method whose renderer reaches its landmarks, lmdiff, for the stage joint")  # fmt: skip
        check(self.stage != "sync" or (isinstance(self.model, LMDiffConfig) and self.model.joint.sync is not None),
              "stage", self.stage, "a model of lmdiff with joint.sync, see the preset lmdiff-sync, for the stage sync"
        )  # fmt: skip
        check(1 <= self.steps <= 10_000_000, "steps", self.steps, "1 to 10000000")
        check(1 <= self.clips_per_batch <= 4096, "clips_per_batch", self.clips_per_batch, "1 to 4096")
        check(1 <= self.accumulate <= 4096, "accumulate", self.accumulate, "1 to 4096")
        low, high = {
            "renderer": (2, 64), "landmarks": (16, 256), "codec": (1, 64), "joint": (2, 64), "sync": (16, 256),
            "motion": (32, 256),
        }[self.stage]  # fmt: skip
        check(low <= self.frames <= high, "frames", self.frames, f"{low} to {high} in the {self.stage} stage")
        check(self.optimiser in ("muon", "adamw"), "optimiser", self.optimiser, "'muon' or 'adamw'")
        check(0 < self.learning_rate <= 1, "learning_rate", self.learning_rate, "above 0, at most 1")
        check(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "0 or more")
        check(0 <= self.decay_share <= 1, "decay_share", self.decay_share, "0 to 1")
        check(0 <= self.weight_decay <= 1, "weight_decay", self.weight_decay, "0 to 1")
        check(self.clip_norm > 0, "clip_norm", self.clip_norm, "above 0")
        check(0 <= self.ema < 1, "ema", self.ema, "0 to below 1")
        check(0 <= self.seed < 2**32, "seed", self.seed, "0 to 2**32 - 1")
        for name in ("perceptual_weight", "adversarial_weight", "sharpen"):
            weight = getattr(self, name)
            check(weight >= 0, name, weight, "0 or more")
            stages = ("renderer", "joint") if name == "perceptual_weight" else ("renderer",)
            layered = getattr(self.model.renderer, "layered", False) and self.stage in stages
            check(
                not weight or layered, name, weight, f"0 but for the stage {' or '.join(stages)} of a layered renderer"
            )
        check(0 <= self.tint <= 0.5, "tint", self.tint, "0 to 0.5")
        check(self.sharpen <= 4, "sharpen", self.sharpen, "0 to 4")
        check(self.save_every >= 1, "save_every", self.save_every, "at least 1")
        check(self.probe_every >= 1, "probe_every", self.probe_every, "at least 1")
        check(0 <= self.spoken <= 16, "spoken", self.spoken, "0 to 16")
        hears = self.stage == "landmarks" and self.model.generator.features == "whisper"
        dense = not isinstance(self.model, DiffTalkerConfig | LMDiffConfig) or self.model.generator.points == "dense"
        check(not self.spoken or (hears and dense), "spoken", self.spoken,
              "0 but for the stage landmarks of a generator of dense points with features of Whisper")  # fmt: skip
        check(not hears or self.frames % 8 == 0, "frames", self.frames,
              "a multiple of 8, the frames of a block, with features of Whisper")  # fmt: skip
        check(0 <= self.min_sync <= 1, "min_sync", self.min_sync, "0 to 1")
        check(0 <= self.min_agreement <= 1, "min_agreement", self.min_agreement, "0 to 1")
        check(0 <= self.max_lag_frames <= 8, "max_lag_frames", self.max_lag_frames, "0 to 8")


def _has_codec(model: ATLConfig | PublishedConfig | DiffTalkerConfig | LMDiffConfig) -> bool:
    return isinstance(model, DiffTalkerConfig | LMDiffConfig) and model.renderer.codec.kind == "compact"


MOUTH = ATLConfig(
    renderer=RendererConfig(
        side=144, height=112, origin=(28, 41), scale=2.0, layered=True, head="resize", mask_reach_px=6.0
    )
)
"""Whose renderer has the mouth in layers, at twice the scale."""

SMALL_MOUTH = ATLConfig(
    renderer=replace(
        MOUTH.renderer, side=72, height=56, scale=1.0, keep_seen=0.85, chroma=0.6, stem=2, widths=(48, 96, 128)
    )
)
"""The same at half that scale, for footage whose mouths are no wider than 45 px, and half as large."""

MOUTH_ALONE = TrainConfig(
    model=MOUTH,
    steps=600,
    clips_per_batch=8,
    frames=3,
    perceptual_weight=2.0,
    warmup_steps=50,
    ema=0.99,
    save_every=100,
    probe_every=200,
)
"""The first stage of a layered renderer: no adversary yet."""

HEARING = TrainConfig(
    stage="landmarks",
    model=ATLConfig(generator=GeneratorConfig(features="whisper", blocks=3)),
    steps=560,
    clips_per_batch=16,
    frames=32,
    decay_share=0.5,
    optimiser="adamw",
    learning_rate=1e-3,
    weight_decay=0.05,
    warmup_steps=30,
    ema=0.98,
    spoken=1,
    exclude_sources=("lrw_ar",),
    save_every=100,
    probe_every=50,
)
"""How generators over Whisper's states are trained."""

COMPLETING_MEL = TrainConfig(
    stage="landmarks",
    model=replace(DIFFTALKER_PRESETS["compact"], generator=CompletionConfig()),
    steps=1_500,
    clips_per_batch=32,
    frames=32,
    decay_share=0.5,
    optimiser="adamw",
    learning_rate=1e-3,
    weight_decay=0.05,
    exclude_sources=("lrw_ar",),
    save_every=250,
    probe_every=250,
)
"""How completion generators over log-mel columns are trained."""

JOINT = TrainConfig(
    stage="joint",
    model=LMDIFF_PRESETS["compact"],
    perceptual_weight=6.0,
    steps=120,
    learning_rate=5e-5,  # ten times as much unlearns landmarks: their error on unseen people rises
    warmup_steps=10,
    decay_share=0.5,
    exclude_sources=("lrw_ar",),
    save_every=60,
    probe_every=60,
)
"""How lmdiff's generator and renderer are trained together."""

LATENT_MOUTH = TrainConfig(
    stage="renderer",
    model=DIFFTALKER_PRESETS["compact"],
    steps=800,
    clips_per_batch=6,
    frames=3,
    learning_rate=2e-3,
    decay_share=0.35,
    perceptual_weight=6.0,
    adversarial_weight=0.3,
    ema=0.99,
    save_every=100,
    probe_every=150,
)
"""How the layered renderers on latents are trained: in one run, against features and an adversary from its start."""

TRAIN_PRESETS: dict[str, TrainConfig] = {
    "mouth": MOUTH_ALONE,
    "mouth-small": replace(
        MOUTH_ALONE,
        model=SMALL_MOUTH,
        perceptual_weight=8.0,  # of footage that counts as half sharp at best
        sharpen=1.2,
        tint=0.2,
    ),
    "mouth-adversarial": TrainConfig(
        model=MOUTH,
        steps=3_000,
        clips_per_batch=8,
        frames=3,
        learning_rate=1e-3,
        decay_share=0.35,
        perceptual_weight=6.0,  # at 2 the distance to real mouths stands still after 800 steps
        adversarial_weight=0.3,
        ema=0.995,
        save_every=200,
        probe_every=200,
    ),
    "renderer": TrainConfig(stage="renderer"),
    "landmarks": HEARING,
    "landmarks-mel": TrainConfig(
        stage="landmarks",
        steps=900,
        clips_per_batch=32,
        frames=32,
        decay_share=0.5,
        optimiser="adamw",
        learning_rate=1e-3,
        weight_decay=0.05,
        exclude_sources=("lrw_ar",),
        save_every=250,
        probe_every=250,
    ),
    "paper-renderer": TrainConfig(
        stage="renderer",
        model=PAPER_PRESETS["compact"],
        steps=1_800,
        clips_per_batch=8,
        frames=4,
    ),
    "paper-landmarks": TrainConfig(
        stage="landmarks",
        model=PAPER_PRESETS["compact"],
        steps=1_800,
        clips_per_batch=16,
        frames=25,
        decay_share=0.5,
        optimiser="adamw",
        learning_rate=1e-3,  # 3e-4 as released: 0.19 instead of 0.39 (opening correlation) after 500 steps
        weight_decay=0.05,
        exclude_sources=("lrw_ar",),
        save_every=250,
        probe_every=250,
    ),
    "difftalker-codec": TrainConfig(
        stage="codec",
        model=DIFFTALKER_PRESETS["window"],
        steps=1_000,
        clips_per_batch=16,
        frames=2,
        save_every=250,
        probe_every=250,
    ),
    "difftalker-landmarks": replace(HEARING, model=DIFFTALKER_PRESETS["compact"]),
    "difftalker-landmarks-mel": COMPLETING_MEL,
    "difftalker": LATENT_MOUTH,
    "difftalker-window": TrainConfig(stage="renderer", model=DIFFTALKER_PRESETS["window"], steps=3_400),
    "difftalker-sd": TrainConfig(
        stage="renderer",
        model=DIFFTALKER_PRESETS["stable-diffusion"],
        steps=20_000,
        clips_per_batch=8,
        frames=2,
        optimiser="adamw",
        learning_rate=1e-5,
    ),
    "lmdiff-landmarks": replace(HEARING, model=LMDIFF_PRESETS["compact"]),
    "lmdiff-landmarks-mel": replace(
        COMPLETING_MEL, model=replace(LMDIFF_PRESETS["compact"], generator=CompletionConfig())
    ),
    "lmdiff": replace(LATENT_MOUTH, model=LMDIFF_PRESETS["compact"]),
    "lmdiff-window": TrainConfig(
        stage="renderer", model=LMDIFF_PRESETS["window"], steps=1_600, save_every=200, probe_every=400
    ),
    "lmdiff-joint": JOINT,
    "lmdiff-window-joint": replace(JOINT, model=LMDIFF_PRESETS["window"], perceptual_weight=0.0),
    "lmdiff-sync": TrainConfig(
        stage="sync",
        model=replace(LMDIFF_PRESETS["window"], joint=JointConfig(sync=SyncConfig())),
        steps=1_500,
        clips_per_batch=12,
        frames=25,
        decay_share=0.5,
        optimiser="adamw",
        learning_rate=1e-3,
        weight_decay=0.05,
        exclude_sources=("lrw_ar",),
        save_every=250,
        probe_every=250,
    ),
    "motion": TrainConfig(
        stage="motion",
        steps=300,
        clips_per_batch=32,
        frames=96,
        optimiser="adamw",
        learning_rate=2e-3,
        warmup_steps=20,
        decay_share=0.5,
        weight_decay=0.02,
        ema=0.97,
        save_every=100,
        probe_every=100,
    ),
    "debug": TrainConfig(
        stage="renderer",
        model=ATLConfig(renderer=RendererConfig(widths=(16, 32), blocks=(1, 1))),
        steps=4,
        clips_per_batch=2,
        frames=2,
        warmup_steps=1,
        save_every=2,
        probe_every=4,
    ),
}
