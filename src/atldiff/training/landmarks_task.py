"""The generator's stage: a basis from the data, position, velocity and lip-opening losses, and unseen people's lips."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.data.manifest import Split
from atldiff.data.speech import (
    ClipSpeech,
    fit_basis,
    fit_identity,
    generator_scores,
    in_step,
    load_speech,
)
from atldiff.errors import DataError
from atldiff.landmarks.topology import LIPS
from atldiff.training.alignment import load_alignment, opening_slopes
from atldiff.training.landmarks_data import LandmarksSet, clip_weights
from atldiff.training.task import Probe, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from atldiff.config import TrainConfig
    from atldiff.data.manifest import Manifest
    from atldiff.landmarks.generator import Generator
    from atldiff.methods.atl import ATLModel

logger = logging.getLogger(__name__)

VELOCITY_WEIGHT = 2.0
OPENING_WEIGHT = 2.0
CORRELATION_WEIGHT = 0.05


def usable_speech(manifest: Manifest, split: Split, config: TrainConfig) -> list[ClipSpeech]:
    """Return a split's clips whose sound and mouth agree.

    Training clips measured by `alignment.align` are judged and put in step by that; others by what `prepare` measured.
    """
    alignment = (load_alignment(manifest.folder) or {}) if split is Split.TRAIN else {}
    clips = []
    for entry in manifest.usable(split):
        record = entry.record
        if record.name in alignment:
            agreement, lag = alignment[record.name]
            wanted, shift = config.min_agreement, lag
        elif record.source in config.exclude_sources:
            continue
        else:
            agreement, lag, wanted, shift = record.sync, record.lag_frames, config.min_sync, 0
        if agreement < wanted or abs(lag) > config.max_lag_frames:
            continue
        clip = load_speech(manifest, entry)
        if clip is not None:
            clips.append(in_step(clip, shift))
    return clips


def fill_buffers(generator: Generator, clips: list[ClipSpeech]) -> float:
    """Fit the displacement basis and the identity basis to clips; return the variance share the former holds."""
    config = generator.config
    weights = clip_weights(clips)
    basis, scale, share = fit_basis(clips, config.components, weights)
    people: dict[str, list[np.ndarray]] = {}
    for clip in clips:
        people.setdefault(clip.identity, []).append(clip.neutral)
    neutrals = np.stack([np.mean(shapes, axis=0) for shapes in people.values()])
    mean, identity_basis = fit_identity(neutrals, config.identity_components)
    for name, value in (
        ("basis", basis), ("scale", scale), ("identity_mean", mean), ("identity_basis", identity_basis),
    ):  # fmt: skip
        getattr(generator, name).copy_(torch.from_numpy(value))
    return share


def _describe(generator: Generator, clips: list[ClipSpeech]) -> np.ndarray:
    with torch.no_grad():
        neutrals = torch.from_numpy(np.stack([clip.neutral for clip in clips])).to(generator.basis.device)
        return generator.describe(neutrals).cpu().numpy()


def landmarks_task(
    model: ATLModel, manifest: Manifest, config: TrainConfig, write: Callable[[nn.Module], None]
) -> Task:
    """Return the generator's stage over a prepared folder.

    Raises:
        DataError: no clip whose sound and mouth agree.
    """
    generator = model.generator
    train = usable_speech(manifest, Split.TRAIN, config)
    held_out = usable_speech(manifest, Split.VAL, config)
    if not train:
        raise DataError(
            f"data {manifest.folder}: no training clip with sync of at least {config.min_sync} and a lag within "
            f"{config.max_lag_frames} frames; expected speech with a visible mouth"
        )
    share = fill_buffers(generator, train)
    logger.info("%d clips; %d components hold %.1f %% of the motion", len(train), len(generator.scale), 100 * share)
    source = LandmarksSet(
        train,
        _describe(generator, train),
        generator.basis.cpu().numpy(),
        generator.scale.cpu().numpy(),
        frames=config.frames,
        seed=config.seed,
    )
    lip_basis = (generator.scale[:, None, None] * generator.basis)[:, LIPS]  # (M, 80, 3)
    opening_basis = torch.from_numpy(opening_slopes(generator)).to(generator.basis.device)  # (M,)

    def loss(module: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        # Members lie side by side in the batch: (N * B, T, M).
        predicted = generator.predictions(batch["mel"], batch["identity"]).flatten(0, 1)
        members = generator.config.members
        truth, valid = batch["coefficients"].repeat(members, 1, 1), batch["valid"].repeat(members, 1)
        difference = predicted - truth
        both = valid[:, 1:] * valid[:, :-1]
        lips = torch.einsum("btm,mkd->btkd", difference, lip_basis).flatten(2)  # (B, T, 240)
        position = _mean(lips.abs().mean(-1), valid)
        velocity = _mean((lips[:, 1:] - lips[:, :-1]).abs().mean(-1), both)
        rest = _mean((difference.abs() * generator.scale).mean(-1), valid)
        opening = difference @ opening_basis
        gap_error = _mean(opening.abs(), valid) + 2 * _mean((opening[:, 1:] - opening[:, :-1]).abs(), both)
        agreement = _correlation(predicted @ opening_basis, truth @ opening_basis, valid)
        total = (
            position + VELOCITY_WEIGHT * velocity + 0.1 * rest + OPENING_WEIGHT * gap_error * 0.25
            + CORRELATION_WEIGHT * 0.2 * (1 - agreement)
        )  # fmt: skip
        return {"loss": 10 * total, "position": position, "velocity": velocity, "opening_correlation": agreement}

    def probe(module: nn.Module) -> Probe:
        scores = [found for clip in held_out if (found := generator_scores(generator, clip))]
        names = ("opening_correlation", "lip_error") if scores else ()
        return Probe({name: float(np.median([found[name] for found in scores])) for name in names})

    return Task(generator, source, loss, probe, write)


def _mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the mean over clips of each clip's mean over its frames (B, T) that count."""
    return ((values * weights).sum(1) / weights.sum(1).clamp_min(1)).mean()


def _correlation(first: torch.Tensor, second: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the mean over the batch of the correlation over time of (B, T) series."""
    total = weights.sum(dim=1, keepdim=True).clamp_min(1)
    first = (first - (first * weights).sum(1, keepdim=True) / total) * weights
    second = (second - (second * weights).sum(1, keepdim=True) / total) * weights
    norm = (first.square().sum(1) * second.square().sum(1)).clamp_min(1e-12).sqrt()
    return ((first * second).sum(1) / (norm + 1e-3)).mean()
