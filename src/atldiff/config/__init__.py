"""Frozen configurations and presets. Standard library only; architecture lives apart from device, dtype and paths."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, Literal, TypeAlias

from atldiff.config.atl import ATLConfig, GeneratorConfig, RendererConfig
from atldiff.config.check import build, check
from atldiff.config.paper import (
    PAPER_PRESETS,
    ConditionUNetConfig,
    IdentityDiffusionConfig,
    KFLMConfig,
    PaperConfig,
    ScheduleConfig,
)
from atldiff.config.sampling import PAPER_SAMPLING, PRESETS, Preset, SampleConfig
from atldiff.config.training import TRAIN_PRESETS, Stage, TrainConfig

FORMAT_VERSION = 1

Method = Literal["atl-diff", "atl-diff-paper"]
MethodConfig: TypeAlias = "ATLConfig | PaperConfig"

__all__ = [
    "FORMAT_VERSION",
    "PAPER_PRESETS",
    "PAPER_SAMPLING",
    "PRESETS",
    "TRAIN_PRESETS",
    "ATLConfig",
    "ConditionUNetConfig",
    "GeneratorConfig",
    "IdentityDiffusionConfig",
    "KFLMConfig",
    "Method",
    "MethodConfig",
    "PaperConfig",
    "Preset",
    "RendererConfig",
    "SampleConfig",
    "ScheduleConfig",
    "Stage",
    "TrainConfig",
    "from_dict",
    "sampling_presets",
    "to_dict",
]


def method_of(config: MethodConfig) -> Method:
    """Return the name of the method that a configuration describes."""
    return "atl-diff" if isinstance(config, ATLConfig) else "atl-diff-paper"


def sampling_presets(config: MethodConfig) -> dict[Preset, SampleConfig]:
    """Return the sampling presets of a method: windows are as long as its renderer's clips."""
    if isinstance(config, ATLConfig):
        return PRESETS
    frames = config.renderer.clip_frames
    return {
        name: replace(sampling, window_frames=frames, shared_frames=frames // 4)
        for name, sampling in PAPER_SAMPLING.items()
    }


def to_dict(config: MethodConfig) -> dict[str, Any]:
    """Return a configuration as plain JSON values, with its format version and method."""
    return {"format_version": FORMAT_VERSION, "method": method_of(config), **asdict(config)}


def from_dict(values: dict[str, Any]) -> MethodConfig:
    """Return the configuration that `to_dict` wrote.

    Raises:
        ValueError: another format version or method, an unknown field (named), or a value out of range.
    """
    values = dict(values)
    version, method = values.pop("format_version", None), values.pop("method", None)
    check(version == FORMAT_VERSION, "format_version", version, str(FORMAT_VERSION))
    check(method in ("atl-diff", "atl-diff-paper"), "method", method, "'atl-diff' or 'atl-diff-paper'")
    return build(ATLConfig if method == "atl-diff" else PaperConfig, values, "file")
