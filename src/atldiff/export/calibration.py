"""What the denoiser sees in earnest: the inputs of the pipeline's own calls while it animates the bundled portrait."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.config import sampling_presets
from atldiff.errors import AtlDiffError
from atldiff.export.networks import denoiser_of
from atldiff.files import demo_portrait
from atldiff.landmarks.detect import detect
from atldiff.landmarks.geometry import to_canonical
from atldiff.landmarks.mouth import meet_lips
from atldiff.landmarks.shape import mean_shape
from atldiff.methods.models import painter_of
from atldiff.timebase import FPS
from atldiff.types import LandmarkTrack, Portrait
from atldiff.video.still import read_image

if TYPE_CHECKING:
    from atldiff.methods.models import Model

TONES = (1.0, 0.6)
"""Brightness of the pictures that are animated: the portrait's own, and a dark one."""
SYLLABLES_HZ = (0.5, 6.0)
"""The mouth moves by tones in this range, as it does in speech."""
_TONES_EACH = 4


def seen_by_denoiser(model: Model, window_frames: int, seed: int = 0) -> list[tuple[torch.Tensor, ...]]:
    """Return what the denoiser is called with, at every preset's times, while a model animates the bundled portrait.

    seed: of the motion and of the noise; another seed gives other windows of the same kind.

    Raises:
        AtlDiffError: the portrait is not there. FaceNotFound, MediaError: it cannot be used.
    """
    opened = bundled_portrait()
    calls: list[tuple[torch.Tensor, ...]] = []
    denoiser = denoiser_of(model)
    hook = denoiser.register_forward_pre_hook(
        lambda _, inputs: calls.append(tuple(value.detach().clone() for value in inputs))
    )
    try:
        for number, (tone, sampling) in enumerate(
            (tone, sampling)
            for tone in TONES
            for sampling in dict.fromkeys(
                replace(preset, every=1) for preset in sampling_presets(model.config.renderer).values()
            )
        ):
            portrait = replace(opened, image=(opened.image * tone).astype(np.uint8))
            track = speaking_track(model, portrait, window_frames, seed * 1000 + number)
            whole = replace(sampling, window_frames=window_frames, shared_frames=0)
            for _ in painter_of(model.renderer).open(portrait, whole, seed).push(track.points()):
                pass
    finally:
        hook.remove()
    return calls


def bundled_portrait() -> Portrait:
    """Return the demo portrait with its landmarks."""
    path = demo_portrait()
    if path is None:
        raise AtlDiffError("int8: the demo portrait it is calibrated on was not found; reinstall atldiff")
    image = read_image(path)
    return Portrait(image, detect(image))


def speaking_track(model: Model, portrait: Portrait, frames: int, seed: int) -> LandmarkTrack:
    """Return a made-up track: the generator's displacements swing by tones, about as far as in data."""
    random = np.random.default_rng([seed, 5])
    generator = model.generator
    basis = (generator.scale[:, None, None] * generator.basis).float().cpu().numpy()  # (M, 478, 3)
    shape, rotation, scale, translation = to_canonical(portrait.landmarks.astype(np.float64), mean_shape())
    hertz = random.uniform(*SYLLABLES_HZ, (len(basis), _TONES_EACH))
    phase = random.uniform(0, 2 * np.pi, (len(basis), _TONES_EACH, 1))
    moments = np.arange(frames) / FPS
    swings = np.sin(2 * np.pi * hertz[..., None] * moments + phase).sum(axis=1) * (2 / _TONES_EACH) ** 0.5  # (M, T)
    neutral = shape.astype(np.float32)
    displacements = np.einsum("mt,mkd->tkd", swings.astype(np.float32), basis)
    return LandmarkTrack(
        neutral=neutral,
        displacements=meet_lips(neutral, displacements).astype(np.float32),
        rotation=np.tile(rotation.astype(np.float32), (frames, 1, 1)),
        translation=np.tile(translation.astype(np.float32), (frames, 1)),
        scale=np.full(frames, scale, np.float32),
        fps=Fraction(FPS),
        size=(portrait.image.shape[0], portrait.image.shape[1]),
    )
