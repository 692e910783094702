"""Frozen configurations and presets. Standard library only; architecture lives apart from device, dtype and paths."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

FORMAT_VERSION = 1

Method = Literal["atl-diff"]
Preset = Literal["fast", "balanced", "best"]
Stage = Literal["landmarks", "renderer"]


def _check(condition: bool, name: str, got: object, allowed: str) -> None:
    if not condition:
        raise ValueError(f"config field {name}: got {got!r}, expected {allowed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorConfig:
    """The Landmark Generation Module: log-mel columns to coefficients of a displacement basis, then landmarks."""

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
        _check(4 <= self.components <= 64, "components", self.components, "4 to 64")
        _check(0 <= self.identity_components <= 32, "identity_components", self.identity_components, "0 to 32")
        _check(1 <= self.members <= 16, "members", self.members, "1 to 16")
        _check(self.width % 8 == 0 and 16 <= self.width <= 1024, "width", self.width, "a multiple of 8 in 16 to 1024")
        _check(1 <= self.blocks <= 16, "blocks", self.blocks, "1 to 16")
        _check(self.kernel % 2 == 1 and 3 <= self.kernel <= 31, "kernel", self.kernel, "an odd number in 3 to 31")
        _check(1 <= self.expansion <= 8, "expansion", self.expansion, "1 to 8")
        _check(0 <= self.dropout <= 0.9, "dropout", self.dropout, "0 to 0.9")
        _check(0 <= self.context_frames <= 64, "context_frames", self.context_frames, "0 to 64")
        _check(0 <= self.lookahead_frames <= 32, "lookahead_frames", self.lookahead_frames, "0 to 32")


@dataclass(frozen=True, slots=True, kw_only=True)
class RendererConfig:
    """Landmarks-Guide Noise and 3D Identity Diffusion in compact form."""

    side: int = 80
    """Side of the window in pixels. A multiple of `stem` times 2 to the number of levels less one; 16 to 512."""
    origin: tuple[int, int] = (24, 26)
    """Corner of the window (x, y) in template pixels."""
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
    """How far the mask reaches beyond the lips, in window pixels. 1 to 64."""

    def __post_init__(self) -> None:
        levels = len(self.widths)
        step = self.stem * 2 ** (levels - 1)
        _check(self.stem in (1, 2, 4, 8), "stem", self.stem, "1, 2, 4 or 8")
        _check(
            16 <= self.side <= 512 and self.side % step == 0, "side", self.side, f"a multiple of {step} in 16 to 512"
        )
        _check(len(self.origin) == 2, "origin", self.origin, "two numbers")
        _check(1 <= levels <= 5 and all(w % 16 == 0 and w > 0 for w in self.widths), "widths", self.widths,
               "one to five multiples of 16")  # fmt: skip
        _check(len(self.blocks) == levels and all(b >= 1 for b in self.blocks), "blocks", self.blocks,
               f"{levels} numbers of at least 1")  # fmt: skip
        _check(0 <= self.noise_floor <= 1, "noise_floor", self.noise_floor, "0 to 1")
        _check(0 <= self.noise_gain <= 4, "noise_gain", self.noise_gain, "0 to 4")
        _check(1 <= self.mask_reach_px <= 64, "mask_reach_px", self.mask_reach_px, "1 to 64")


@dataclass(frozen=True, slots=True, kw_only=True)
class ATLConfig:
    """The default method: ATL-Diff in compact form (arXiv 2507.12804, with the changes docs/architecture.md names)."""

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    renderer: RendererConfig = field(default_factory=RendererConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """How frames are sampled; not part of a checkpoint."""

    steps: int = 2
    """Network evaluations a frame. 1 to 64."""
    window_frames: int = 16
    """Frames sampled together. 4 to 64."""
    shared_frames: int = 4
    """Frames that neighbouring windows both sample and cross-fade. 0 to half of window_frames."""

    def __post_init__(self) -> None:
        _check(1 <= self.steps <= 64, "steps", self.steps, "1 to 64")
        _check(4 <= self.window_frames <= 64, "window_frames", self.window_frames, "4 to 64")
        _check(0 <= self.shared_frames <= self.window_frames // 2, "shared_frames", self.shared_frames,
               f"0 to {self.window_frames // 2}")  # fmt: skip


PRESETS: dict[Preset, SampleConfig] = {
    "fast": SampleConfig(steps=1),
    "balanced": SampleConfig(steps=2),
    "best": SampleConfig(steps=4),
}


def to_dict(config: ATLConfig) -> dict[str, Any]:
    """Return a configuration as plain JSON values, with its format version and method."""
    return {"format_version": FORMAT_VERSION, "method": "atl-diff", **asdict(config)}


def _build(kind: type, values: object, where: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"config {where}: got {type(values).__name__}, expected an object")
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"config {where}: unknown field {unknown[0]!r}; expected fields {', '.join(sorted(known))}")
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    example = kind()
    for name, value in plain.items():
        _check(_same_kind(value, getattr(example, name)), name, values[name], _kind(getattr(example, name)))
    return kind(**plain)


def _same_kind(value: object, example: object) -> bool:
    if isinstance(example, tuple):
        return isinstance(value, tuple) and all(_same_kind(item, example[0]) for item in value)
    if isinstance(example, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is type(example)


def _kind(example: object) -> str:
    if isinstance(example, tuple):
        return f"a list of values such as {example[0]!r}"
    return {int: "a whole number", float: "a number"}.get(type(example), f"a value such as {example!r}")


def from_dict(values: dict[str, Any]) -> ATLConfig:
    """Return the configuration that `to_dict` wrote.

    Raises:
        ValueError: another format version or method, an unknown field (named), or a value out of range.
    """
    values = dict(values)
    version, method = values.pop("format_version", None), values.pop("method", None)
    _check(version == FORMAT_VERSION, "format_version", version, str(FORMAT_VERSION))
    _check(method == "atl-diff", "method", method, "'atl-diff'")
    return _build(
        ATLConfig,
        {
            **values,
            "generator": _build(GeneratorConfig, values.get("generator", {}), "generator"),
            "renderer": _build(RendererConfig, values.get("renderer", {}), "renderer"),
        },
        "file",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One training run; a resumed run takes the same one."""

    stage: Stage = "renderer"
    """Which part is trained: `landmarks` (the generator) or `renderer`."""
    model: ATLConfig = field(default_factory=ATLConfig)
    """Architecture of the whole method; the other stage's part is carried along unchanged."""
    steps: int = 12_000
    """Optimiser steps of the whole run; the learning rate decays towards its end. 1 to 10 million."""
    clips_per_batch: int = 12
    """Clips a step. 1 to 4096."""
    frames: int = 4
    """Frames a clip. Renderer: 2 to 64. Landmarks: 16 to 256."""
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
    bfloat16: bool = True
    """Renderer stage: compute in bfloat16 with float32 master weights; the generator is small and stays in float32."""
    save_every: int = 500
    """Steps between two saved states. At least 1."""
    probe_every: int = 500
    """Steps between two measurements on held-out people. At least 1."""
    min_sync: float = 0.3
    """Landmarks stage: clips whose sound and lips correlate less are left out. 0 to 1."""
    min_agreement: float = 0.45
    """Landmarks stage: the same for clips that `atldiff align` has measured. 0 to 1."""
    exclude_sources: tuple[str, ...] = ()
    """Landmarks stage: first-level folders whose sound cannot be trusted before it is aligned."""
    max_lag_frames: int = 3
    """Landmarks stage: clips whose lag is larger are left out, smaller lags are corrected. 0 to 8."""

    def __post_init__(self) -> None:
        _check(self.stage in ("landmarks", "renderer"), "stage", self.stage, "'landmarks' or 'renderer'")
        _check(1 <= self.steps <= 10_000_000, "steps", self.steps, "1 to 10000000")
        _check(1 <= self.clips_per_batch <= 4096, "clips_per_batch", self.clips_per_batch, "1 to 4096")
        low, high = (2, 64) if self.stage == "renderer" else (16, 256)
        _check(low <= self.frames <= high, "frames", self.frames, f"{low} to {high} in the {self.stage} stage")
        _check(self.optimiser in ("muon", "adamw"), "optimiser", self.optimiser, "'muon' or 'adamw'")
        _check(0 < self.learning_rate <= 1, "learning_rate", self.learning_rate, "above 0, at most 1")
        _check(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "0 or more")
        _check(0 <= self.decay_share <= 1, "decay_share", self.decay_share, "0 to 1")
        _check(0 <= self.weight_decay <= 1, "weight_decay", self.weight_decay, "0 to 1")
        _check(self.clip_norm > 0, "clip_norm", self.clip_norm, "above 0")
        _check(0 <= self.ema < 1, "ema", self.ema, "0 to below 1")
        _check(0 <= self.seed < 2**32, "seed", self.seed, "0 to 2**32 - 1")
        _check(self.save_every >= 1, "save_every", self.save_every, "at least 1")
        _check(self.probe_every >= 1, "probe_every", self.probe_every, "at least 1")
        _check(0 <= self.min_sync <= 1, "min_sync", self.min_sync, "0 to 1")
        _check(0 <= self.min_agreement <= 1, "min_agreement", self.min_agreement, "0 to 1")
        _check(0 <= self.max_lag_frames <= 8, "max_lag_frames", self.max_lag_frames, "0 to 8")


TRAIN_PRESETS: dict[str, TrainConfig] = {
    "renderer": TrainConfig(stage="renderer"),
    "landmarks": TrainConfig(
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
