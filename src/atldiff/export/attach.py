"""Exported networks in the places of those they were made of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from atldiff.export.networks import DENOISER, GENERATOR, networks_of
from atldiff.export.runtime import open_network, other_window
from atldiff.methods.atl.network import ATLModel

if TYPE_CHECKING:
    from atldiff.config import SampleConfig
    from atldiff.export.manifest import Export
    from atldiff.methods.models import Model


def attach(model: Model, export: Export, *, dtype: torch.dtype, streams: int) -> None:
    """Put exported networks into a model; the weights they replace are let go.

    dtype: what the denoiser computes in, where the runtime can; the generator computes in float32. streams: windows in
    work at once.

    Raises:
        AtlDiffError: the runtime is missing. CheckpointError: the files cannot be opened.
    """
    denoiser, generator = networks_of(model, export.window_frames)
    width: int = denoiser.module.embedding_width  # pyright: ignore[reportAssignmentType]
    renders = open_network(
        export.network(DENOISER), export.runtime, denoiser.inputs, dtype=dtype, streams=streams, embedding_width=width
    )
    speaks = open_network(export.network(GENERATOR), export.runtime, generator.inputs, dtype=torch.float32, streams=1)
    if isinstance(model, ATLModel):
        model.renderer.unet = renders  # pyright: ignore[reportAttributeAccessIssue]
        model.generator.networks = speaks  # pyright: ignore[reportAttributeAccessIssue]
    else:
        model.renderer.unet.unet = renders  # pyright: ignore[reportAttributeAccessIssue]
        model.generator.kflm = speaks  # pyright: ignore[reportAttributeAccessIssue]


def check_window(sampling: SampleConfig, export: Export) -> None:
    """Raise ValueError where windows have other frames than the exported denoiser takes."""
    if sampling.every != 1:
        raise ValueError(f"every: got {sampling.every}, but exported networks paint every frame; expected 1")
    if sampling.window_frames != export.window_frames:
        raise ValueError(other_window(sampling.window_frames, export.window_frames))


def fit_window_frames(sampling: SampleConfig, export: Export) -> SampleConfig:
    """Return a sampling with windows as the exported denoiser takes them, sharing at most half, all painted."""
    frames = export.window_frames
    return replace(sampling, window_frames=frames, shared_frames=min(sampling.shared_frames, frames // 2), every=1)
