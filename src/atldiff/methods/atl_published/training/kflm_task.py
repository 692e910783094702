"""The published landmark module's stage: a basis from the data, the published loss, and unseen people's lips."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.data.speech import carried, fit_basis, load_samples
from atldiff.errors import DataError
from atldiff.landmarks.scores import lip_scores
from atldiff.methods.atl_published.kflm import landmark_loss
from atldiff.methods.atl_published.training.kflm_data import SecondsSet
from atldiff.methods.generators import speak
from atldiff.methods.models import speaker_of
from atldiff.training.landmarks_data import clip_weights
from atldiff.training.landmarks_task import speaking_clips
from atldiff.training.task import Probe, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from atldiff.config import TrainConfig
    from atldiff.data.manifest import Manifest
    from atldiff.methods.atl_published.network import PublishedModel

logger = logging.getLogger(__name__)

LOSS_SCALE = 1000.0
"""Normalised landmarks move by hundredths: brings their square errors to the size that gradient clipping is for."""


def kflm_task(
    model: PublishedModel, manifest: Manifest, config: TrainConfig, write: Callable[[nn.Module], None]
) -> Task:
    """Return the published generator's stage over a prepared folder.

    Raises:
        DataError: no clip whose sound and mouth agree, or a model whose landmarks are not pose-free.
    """
    generator = model.generator
    if generator.config.coordinates != "canonical":
        raise DataError("config coordinates: got 'window', expected 'canonical': prepared clips train pose-free shapes")
    train, held_out = speaking_clips(manifest, config)
    device = generator.basis.device
    basis, scale, share = fit_basis(train, generator.config.components, clip_weights(train))
    generator.basis.copy_(torch.from_numpy(basis).to(device))
    generator.scale.copy_(torch.from_numpy(scale).to(device))
    logger.info("%d clips; %d components hold %.1f %% of the motion", len(train), len(scale), 100 * share)
    labels = {entry.record.name: entry.record.emotion for entry in manifest.entries}
    source = SecondsSet(train, [labels[clip.name] for clip in train], generator.config, manifest, seed=config.seed)
    speaker = speaker_of(generator)
    hears_samples = generator.config.features == "wav2vec2"
    unheard = [load_samples(manifest, clip).astype(np.float32) / 32767 if hears_samples else None for clip in held_out]

    def loss(module: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        sound = batch["samples" if hears_samples else "mel"]
        predicted = generator(sound, batch["initial"], batch["emotion"])
        square = landmark_loss(predicted, batch["target"], generator.config.mouth_weight, batch["valid"])
        return {"loss": LOSS_SCALE * square, "square": square}

    def probe(module: nn.Module) -> Probe:
        scores = []
        for clip, samples in zip(held_out, unheard, strict=True):
            spoken = speak(speaker, samples, clip.mel, clip.neutral)
            scores.append(lip_scores(spoken, carried(clip, basis, scale), clip.displacements))
        scores = [found for found in scores if found]
        names = ("opening_correlation", "amplitude", "lip_error") if scores else ()
        return Probe({name: float(np.median([found[name] for found in scores])) for name in names})

    return Task(module=generator, source=source, loss=loss, probe=probe, write=write)
