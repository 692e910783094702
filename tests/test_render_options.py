"""Presets and steps of the command line, by the method of the checkpoint that is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from atldiff.commands.options import RenderOptions
from atldiff.config import (
    PAPER_PRESETS,
    PAPER_SAMPLING,
    PRESETS,
    ATLConfig,
    MethodConfig,
    Preset,
    PublishedConfig,
    sampling_presets,
)

METHODS = pytest.mark.parametrize(
    ("config", "presets"),
    [(ATLConfig(), PRESETS), (PublishedConfig(), PAPER_SAMPLING), (PAPER_PRESETS["compact"], PAPER_SAMPLING)],
    ids=["atl-diff", "fixed", "compact"],
)


@METHODS
def test_a_preset_is_the_method_s(config: MethodConfig, presets: dict) -> None:
    for name in get_args(Preset):
        assert RenderOptions(preset=name).sampling(sampling_presets(config.renderer).__getitem__) == presets[name]


@METHODS
def test_steps_replace_the_preset_s_and_leave_its_windows(config: MethodConfig, presets: dict) -> None:
    for name in get_args(Preset):
        of_three = RenderOptions(preset=name, steps=3).sampling(sampling_presets(config.renderer).__getitem__)
        assert of_three == replace(presets[name], steps=3)


def test_steps_are_checked_before_anything_is_loaded() -> None:
    for steps in (None, 1, 64):
        RenderOptions(steps=steps).check()
    for steps in (0, 65):
        with pytest.raises(ValueError, match=f"config field steps: got {steps}, expected 1 to 64"):
            RenderOptions(steps=steps).check()
