"""What is exported of a model: its two inference networks at the shapes that inference calls them with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from atldiff.config import method_of, sampling_presets
from atldiff.diffusion.blocks import time_embedding
from atldiff.diffusion.unet3d import UNet3D
from atldiff.errors import CheckpointError
from atldiff.landmarks.generator import STATE
from atldiff.landmarks.stream import BLOCK_FRAMES
from atldiff.methods.atl.inputs import condition_channels, window_of
from atldiff.methods.atl.network import ATLModel
from atldiff.methods.atl_published.coordinates import POINTS, TOKENS
from atldiff.methods.atl_published.network import PublishedModel
from atldiff.methods.difftalker.network import DiffTalkerModel
from atldiff.methods.lmdiff.network import LMDiffModel
from atldiff.timebase import COLUMNS_PER_FRAME, MEL_BANDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from atldiff.config import MethodConfig
    from atldiff.methods.models import Model

DENOISER, GENERATOR = "denoiser", "generator"
NO_LATENT_EXPORT = (
    "export: got {}, whose codec and what steers it have no exported form, expected atl-diff or atl-diff-paper; use "
    "backend torch"
)
LEAST_FRAMES, MOST_FRAMES = 4, 64
"""Frames of a window, as `SampleConfig` has them."""


@dataclass(frozen=True, slots=True)
class Network:
    """One network, how it is called, and inputs of a realistic scale to try it on.

    inputs: the names of its arguments, in order. draw: random numbers to arguments, float32 or int64. added_to: which
    argument the output is a change of, if any: what the network computes is the rest.
    """

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    draw: Callable[[np.random.Generator], tuple[torch.Tensor, ...]]
    added_to: int | None = None


def choose_window(config: MethodConfig, asked: int | None) -> int:
    """Return how many frames the denoiser is exported for: what was asked for, or the presets' windows.

    Raises:
        ValueError: not 4 to 64.
    """
    preset = sampling_presets(config.renderer)["balanced"].window_frames
    frames = preset if asked is None else asked
    if not LEAST_FRAMES <= frames <= MOST_FRAMES:
        raise ValueError(f"window_frames: got {frames}, expected {LEAST_FRAMES} to {MOST_FRAMES} ({preset} in presets)")
    return frames


def networks_of(model: Model, window_frames: int) -> tuple[Network, Network]:
    """Return a model's denoiser, at windows of so many frames, and its generator.

    Raises:
        CheckpointError: a denoiser that cannot be exported.
    """
    match model:
        case ATLModel():
            return _atl_denoiser(model, window_frames), _atl_generator(model)
        case PublishedModel():
            return _paper_denoiser(model, window_frames), _paper_generator(model)
        case DiffTalkerModel() | LMDiffModel():
            raise CheckpointError(NO_LATENT_EXPORT.format(method_of(model.config)))


def denoiser_of(model: Model) -> nn.Module:
    """Return the U-Net that `networks_of` exports.

    Raises:
        CheckpointError: there is none of ours.
    """
    match model:
        case ATLModel():
            unet = model.renderer.unet
        case PublishedModel():
            unet = getattr(model.renderer.unet, "unet", None)
        case DiffTalkerModel() | LMDiffModel():
            raise CheckpointError(NO_LATENT_EXPORT.format(method_of(model.config)))
    if not isinstance(unet, UNet3D):
        raise CheckpointError(
            "export: got the U-Net of diffusers (released weights), expected the compact one; use backend torch"
        )
    return unet


def _atl_denoiser(model: ATLModel, frames: int) -> Network:
    unet, config = denoiser_of(model), model.config.renderer

    def draw(random: np.random.Generator) -> tuple[torch.Tensor, ...]:
        return _pictures(random, 3 + condition_channels(config), frames, window_of(config).size), _time(random, unet)

    return Network(DENOISER, unet, ("x", "embedding"), draw)


def _paper_denoiser(model: PublishedModel, frames: int) -> Network:
    unet, config = denoiser_of(model), model.config.renderer

    def draw(random: np.random.Generator) -> tuple[torch.Tensor, ...]:
        return (
            _pictures(random, 6, frames, (config.side, config.side)),
            _time(random, unet),
            _normal(random, 1, config.identity_tokens, config.identity_width),
            _label(random, config.emotions),
        )

    return Network(DENOISER, unet, ("x", "embedding", "context", "label"), draw)


def _atl_generator(model: ATLModel) -> Network:
    config, networks = model.config.generator, model.generator.networks
    frames = config.context_frames + BLOCK_FRAMES + config.lookahead_frames
    mel = config.features == "mel"
    shape = (COLUMNS_PER_FRAME * frames, MEL_BANDS) if mel else (frames, STATE)  # what hears the states is not exported

    def draw(random: np.random.Generator) -> tuple[torch.Tensor, ...]:
        return _normal(random, 1, *shape), _normal(random, 1, config.identity_components)

    return Network(GENERATOR, networks.eval(), ("mel" if mel else "states", "identity"), draw)


def _paper_generator(model: PublishedModel) -> Network:
    config = model.config.generator

    def draw(random: np.random.Generator) -> tuple[torch.Tensor, ...]:
        initial = torch.from_numpy(random.random((1, POINTS, 2), np.float32))
        return _normal(random, 1, TOKENS, config.feature_width), initial, _label(random, config.emotions)

    names = ("features", "initial", "emotion")
    return Network(GENERATOR, model.generator.kflm, names, draw, added_to=1 if config.residual else None)


def _normal(random: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(random.standard_normal(shape, np.float32))


def _pictures(random: np.random.Generator, channels: int, frames: int, size: tuple[int, int]) -> torch.Tensor:
    """Return (1, C, T, S, S): smooth pictures in [-1, 1] that hardly move, with noise on the first three channels."""
    coarse = torch.from_numpy(random.uniform(-1, 1, (channels, 1, 8, 8)).astype(np.float32))
    width, height = size
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bilinear")  # (C, 1, H, W)
    x = smooth.expand(channels, frames, height, width) + 0.05 * _normal(random, channels, frames, height, width)
    x[:3] += 0.5 * _normal(random, 3, frames, height, width)
    return x[None]


def _time(random: np.random.Generator, unet: nn.Module) -> torch.Tensor:
    width: int = unet.embedding_width  # pyright: ignore[reportAssignmentType]
    return time_embedding(torch.tensor([random.random()]), width)


def _label(random: np.random.Generator, known: int) -> torch.Tensor:
    return torch.tensor([int(random.integers(known + 1))])
