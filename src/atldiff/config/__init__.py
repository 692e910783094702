"""Frozen configurations and presets. Standard library only; architecture lives apart from device, dtype and paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Literal, TypeAlias, get_args

from atldiff.config.atl import ATLConfig, GeneratorConfig, RendererConfig
from atldiff.config.atl_published import (
    PAPER_PRESETS,
    ConditionUNetConfig,
    IdentityDiffusionConfig,
    KFLMConfig,
    PublishedConfig,
    ScheduleConfig,
)
from atldiff.config.check import build, check, check_choice
from atldiff.config.codec import CodecConfig
from atldiff.config.difftalker import (
    DIFFTALKER_PRESETS,
    CompletionConfig,
    DiffTalkerConfig,
    LatentRendererConfig,
)
from atldiff.config.latent import LatentDiffusionConfig
from atldiff.config.lmdiff import LMDIFF_PRESETS, JointConfig, LMDiffConfig, SyncConfig, TalkRendererConfig
from atldiff.config.sampling import LATENT_SAMPLING, LAYERED_SAMPLING, PAPER_SAMPLING, PRESETS, Preset, SampleConfig
from atldiff.config.training import TRAIN_PRESETS, Stage, TrainConfig

FORMAT_VERSION = 1

Method = Literal["atl-diff", "atl-diff-paper", "difftalker", "lmdiff"]
METHODS: tuple[Method, ...] = get_args(Method)
Bundled = Literal["atl-diff", "atl-diff-open", "atl-diff-paper", "difftalker", "lmdiff"]
"""The weights that the package brings: one set a method, and of atl-diff one trained on open footage alone."""
BUNDLED: tuple[Bundled, ...] = get_args(Bundled)
MethodConfig: TypeAlias = "ATLConfig | PublishedConfig | DiffTalkerConfig | LMDiffConfig"
RendererOptions: TypeAlias = "RendererConfig | IdentityDiffusionConfig | LatentRendererConfig | TalkRendererConfig"

__all__ = [
    "BUNDLED",
    "DIFFTALKER_PRESETS",
    "FORMAT_VERSION",
    "LATENT_SAMPLING",
    "LAYERED_SAMPLING",
    "LMDIFF_PRESETS",
    "METHODS",
    "PAPER_PRESETS",
    "PAPER_SAMPLING",
    "PRESETS",
    "TRAIN_PRESETS",
    "ATLConfig",
    "Bundled",
    "CodecConfig",
    "CompletionConfig",
    "ConditionUNetConfig",
    "DiffTalkerConfig",
    "GeneratorConfig",
    "IdentityDiffusionConfig",
    "JointConfig",
    "KFLMConfig",
    "LMDiffConfig",
    "LatentDiffusionConfig",
    "LatentRendererConfig",
    "Method",
    "MethodConfig",
    "PublishedConfig",
    "Preset",
    "RendererConfig",
    "RendererOptions",
    "SampleConfig",
    "ScheduleConfig",
    "Stage",
    "SyncConfig",
    "TalkRendererConfig",
    "TrainConfig",
    "from_dict",
    "model_presets",
    "sampling_presets",
    "to_dict",
]


def method_of(config: MethodConfig) -> Method:
    """Return the name of the method that a configuration describes."""
    match config:
        case ATLConfig():
            return "atl-diff"
        case PublishedConfig():
            return "atl-diff-paper"
        case DiffTalkerConfig():
            return "difftalker"
        case LMDiffConfig():
            return "lmdiff"


def sampling_presets(renderer: RendererOptions) -> dict[Preset, SampleConfig]:
    """Return the sampling presets of a renderer; windows of published ATL-Diff are as long as its clips."""
    match renderer:
        case RendererConfig():
            return LAYERED_SAMPLING if renderer.layered else PRESETS
        case LatentRendererConfig() | TalkRendererConfig():
            return LAYERED_SAMPLING if renderer.layered else LATENT_SAMPLING
        case IdentityDiffusionConfig():
            frames = renderer.clip_frames
            return {
                name: replace(sampling, window_frames=frames, shared_frames=frames // 4)
                for name, sampling in PAPER_SAMPLING.items()
            }


def model_presets(config: MethodConfig) -> Mapping[str, MethodConfig]:
    """Return the named architectures of a configuration's method."""
    match config:
        case ATLConfig():
            return {"default": ATLConfig()}
        case PublishedConfig():
            return PAPER_PRESETS
        case DiffTalkerConfig():
            return DIFFTALKER_PRESETS
        case LMDiffConfig():
            return LMDIFF_PRESETS


def to_dict(config: MethodConfig) -> dict[str, Any]:
    """Return a configuration as plain JSON values, with its format version and method."""
    return {"format_version": FORMAT_VERSION, "method": method_of(config), **asdict(config)}


def from_dict(values: dict[str, Any]) -> MethodConfig:
    """Return the configuration that `to_dict` wrote.

    Raises:
        ValueError: another format version or method, an unknown field (named), or a value out of range.
    """
    values = dict(values)
    version, method = values.pop("format_version", None), values.pop("method", "")
    check(version == FORMAT_VERSION, "format_version", version, str(FORMAT_VERSION))
    check_choice("method", method, METHODS)
    kinds: dict[Method, type[MethodConfig]] = {
        "atl-diff": ATLConfig, "atl-diff-paper": PublishedConfig, "difftalker": DiffTalkerConfig,
        "lmdiff": LMDiffConfig,
    }  # fmt: skip
    return build(kinds[method], values, "file")
