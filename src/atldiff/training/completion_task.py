"""Landmark completion: a basis from the data, position and velocity losses, and unseen people's mouths."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from atldiff.data.completion import completion_scores, completions, load_seen
from atldiff.landmarks.completion_points import FILMED, MADE_UP, MISSING, jaw_count
from atldiff.methods.models import speaker_of
from atldiff.training.alignment import measure
from atldiff.training.completion_data import CompletionSet, SeenStatesSet, completion_target
from atldiff.training.landmarks_task import describe_clips, fill_buffers, fitted_gain, hear_speech, speaking_clips
from atldiff.training.mouth_loss import MouthLoss, mean_over_frames
from atldiff.training.speech_states import LEARNED_FRAMES
from atldiff.training.states_data import StatesSet
from atldiff.training.task import Probe, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from atldiff.config import TrainConfig
    from atldiff.data.completion import SeenClip
    from atldiff.data.manifest import Manifest
    from atldiff.data.speech import ClipSpeech
    from atldiff.data.spoken import Spoken
    from atldiff.landmarks.completion import CompletionGenerator
    from atldiff.landmarks.speaker import CompletionSpeaker
    from atldiff.methods.difftalker.network import DiffTalkerModel
    from atldiff.methods.lmdiff.network import LMDiffModel
    from atldiff.training.speech_states import HeardClip

    CompletionLoss: TypeAlias = Callable[[torch.Tensor, dict[str, torch.Tensor]], dict[str, torch.Tensor]]

logger = logging.getLogger(__name__)

POINT_SCALE = 100.0
"""Displacements are hundredths of the outer-eye distance: brings their errors to the size gradient clipping is for."""
JAW_WEIGHT = 0.5
"""Weight of a completed point of the jaw against one of the mouth."""


def completion_task(
    model: DiffTalkerModel | LMDiffModel, manifest: Manifest, config: TrainConfig, write: Callable[[nn.Module], None]
) -> Task:
    """Return the stage of a completion generator over a prepared folder.

    Raises:
        DataError: no clip whose sound and mouth agree.
    """
    generator = model.generator
    if generator.config.features == "whisper":
        return seen_states_task(model, manifest, config, write)
    train, held_out = speaking_clips(manifest, config)
    share = fill_buffers(generator, train)
    logger.info("%d clips; %d components hold %.1f %% of the motion", len(train), len(generator.scale), 100 * share)
    source = CompletionSet(
        train,
        (load_seen(manifest, clip) for clip in train),
        describe_clips(generator, train),
        generator.basis.cpu().numpy(),
        generator.scale.cpu().numpy(),
        generator.config,
        frames=config.frames,
        seed=config.seed,
    )
    seen = [load_seen(manifest, clip) for clip in held_out]
    losses, speaker = completion_loss(generator), speaker_of(generator)

    def loss(module: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return losses(complete(generator, batch), batch)

    def probe(module: nn.Module) -> Probe:
        return Probe(median_scores(speaker, held_out, seen))

    return Task(generator, source, loss, probe, write)


def seen_states_task(
    model: DiffTalkerModel | LMDiffModel, manifest: Manifest, config: TrainConfig, write: Callable[[nn.Module], None]
) -> Task:
    """Return the stage where the generator hears a speech encoder; the weights that strangers like best are kept.

    As `landmarks_task.states_task`, by sound alone; how far lips open is also measured beside filmed landmarks.

    Raises:
        DataError: as there.
    """
    generator = model.generator
    speech = hear_speech(generator, generator, manifest, config)
    speaker = replace(speaker_of(generator, speech.dtype), hear=speech.hear)
    source = seen_states(
        generator, manifest, speech.train, speech.heard, frames=config.frames, seed=config.seed, spoken=speech.spoken
    )
    losses = completion_loss(generator)
    seen = {clip.name: load_seen(manifest, clip) for clip in speech.strangers}

    def loss(module: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        device = batch["states"].device.type
        with torch.autocast(device, torch.bfloat16, enabled=speech.dtype == torch.bfloat16):
            said = complete(generator, batch)
        return losses(said.float(), batch)

    def probe(module: nn.Module) -> Probe:
        generator.gain.fill_(1.0)
        said = {clip.name: completions(speaker, clip, seen[clip.name]) for clip in speech.strangers}
        scores = [found for clip in speech.strangers if (found := completion_scores(speaker, clip, said[clip.name]))]
        if not scores:
            return Probe({})
        by_sound = fitted_gain([found["sound"]["amplitude"] for found in scores])
        beside_landmarks = fitted_gain([found["sound and landmarks"]["amplitude"] for found in scores])
        generator.gain[[MADE_UP, MISSING]], generator.gain[FILMED] = by_sound, beside_landmarks
        agreement = [max(0.0, measure(generator, clip, said[clip.name]["sound"])[0]) for clip in speech.strangers]
        scalars = {"gain": by_sound, "gain_filmed": beside_landmarks}
        scalars |= {"agreement": float(np.mean(agreement))}
        shown = [load_seen(manifest, clip) for clip in speech.held_out]
        return Probe(scalars | median_scores(speaker, speech.held_out, shown))

    return Task(generator, source, loss, probe, write, kept_by="agreement")


def seen_states(
    generator: CompletionGenerator,
    manifest: Manifest,
    clips: list[ClipSpeech],
    heard: dict[str, list[HeardClip]],
    *,
    frames: int,
    seed: int,
    spoken: list[Spoken] | None = None,
) -> SeenStatesSet:
    """Return the batches of a generator that hears a speech encoder; as `StatesSet` takes them."""
    basis, scale = generator.basis.cpu().numpy(), generator.scale.cpu().numpy()
    states = StatesSet(
        clips,
        heard,
        describe_clips(generator, clips),
        [completion_target(clip, basis, scale, generator.config) for clip in clips],
        frames=frames,
        seed=seed,
        spoken=spoken,
    )
    shown = (load_seen(manifest, clip) for clip in clips)
    return SeenStatesSet(states, [clip.mel for clip in clips], shown, generator.config)


def complete(generator: CompletionGenerator, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return what a generator completes, (B, F, M) or (B, F, P, 2), of a batch of `CompletionSet` or `SeenStatesSet`.

    F: the frames that the batch has a target for.
    """
    given = [batch[name] for name in ("identity", "heard", "filmed")]
    if generator.config.features == "mel":
        return generator.complete(batch["mel"], batch["seen"], *given)
    items, blocks = batch["states"].shape[:2]
    states, seen = (batch[name].flatten(0, 1).float() for name in ("states", "seen"))
    said = generator.complete(states, seen, *(each.repeat_interleave(blocks, 0) for each in given))
    return said[:, generator.config.context_frames :][:, :LEARNED_FRAMES].unflatten(0, (items, blocks)).flatten(1, 2)


def completion_loss(generator: CompletionGenerator) -> CompletionLoss:
    """Return the losses of what a generator says, (B, T, M) or (B, T, P, 2), of a batch of its set."""
    weight, jaw = generator.config.velocity_weight, jaw_count(generator.config)
    if generator.config.points != "dense":
        return lambda said, batch: point_losses(
            said, batch["target"].unflatten(-1, said.shape[-2:]), batch["valid"], weight, jaw
        )
    mouth_loss = MouthLoss.of(generator)

    def losses(said: torch.Tensor, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        asked = (batch["closed"], batch["parted"]) if generator.config.features == "whisper" else None
        return mouth_loss(said, batch["target"], batch["valid"], weight, asked)

    return losses


def median_scores(speaker: CompletionSpeaker, clips: list[ClipSpeech], seen: list[SeenClip]) -> dict[str, float]:
    """Return the median clip's lip scores by what drives the mouth; none where no mouth moves."""
    pairs = zip(clips, seen, strict=True)
    said = ((clip, completions(speaker, clip, one)) for clip, one in pairs)
    scores = [found for clip, drives in said if (found := completion_scores(speaker, clip, drives))]
    return {
        f"{name}_{drive.replace(' ', '_')}": float(np.median([found[drive][name] for found in scores]))
        for drive in (scores[0] if scores else ())
        for name in ("opening_correlation", "lip_error")
    }


def point_losses(
    predicted: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor, velocity_weight: float, jaw: int
) -> dict[str, torch.Tensor]:
    """Return IP_LAP's losses of completed points (B, T, P, 2), the jaw's first, each the mean over clips.

    L1 of the positions, and the mean distance of frame differences; valid: (B, T) frames that count.
    """
    difference = predicted - truth
    weight = torch.ones(difference.shape[2], device=difference.device)
    weight[:jaw] = JAW_WEIGHT
    weight = weight / weight.sum()
    position = mean_over_frames((difference.abs().mean(-1) * weight).sum(-1), valid)
    change = (difference[:, 1:] - difference[:, :-1]).square().sum(-1).add(1e-12).sqrt()
    velocity = mean_over_frames((change * weight).sum(-1), valid[:, 1:] * valid[:, :-1])
    return {"loss": POINT_SCALE * (position + velocity_weight * velocity), "position": position, "velocity": velocity}
