"""The generator's stage: a basis from the data, position, velocity and lip-opening losses, and unseen people's lips."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.data.manifest import Split
from atldiff.data.speech import (
    ClipSpeech,
    coefficients,
    fit_basis,
    fit_identity,
    generator_scores,
    in_step,
    load_speech,
    said_in,
)
from atldiff.data.spoken import corpus
from atldiff.devices import choose_dtype
from atldiff.errors import DataError
from atldiff.landmarks.generator import FoldedNetworks
from atldiff.landmarks.speaker import ShapeBasis
from atldiff.methods.models import listener_of, speaker_of
from atldiff.training.alignment import load_alignment, measure
from atldiff.training.landmarks_data import LandmarksSet, clip_weights
from atldiff.training.mouth_loss import MouthLoss
from atldiff.training.speech_states import LEARNED_FRAMES, heard_clips, standardisation, whole_sound
from atldiff.training.states_data import StatesSet
from atldiff.training.task import Probe, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from atldiff.config import TrainConfig
    from atldiff.data.manifest import Manifest
    from atldiff.data.spoken import Spoken
    from atldiff.landmarks.completion import CompletionGenerator
    from atldiff.landmarks.generator import Generator
    from atldiff.landmarks.speaker import Hear
    from atldiff.methods.atl.network import ATLModel
    from atldiff.training.speech_states import HeardClip

logger = logging.getLogger(__name__)

VELOCITY_WEIGHT = 2.0
GAIN_RANGE = (0.5, 3.0)
"""What a fitted gain is kept within: a network that has learned nothing yet says nothing of it."""


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


def speaking_clips(manifest: Manifest, config: TrainConfig) -> tuple[list[ClipSpeech], list[ClipSpeech]]:
    """Return the clips that a generator is trained on, and those of held-out people that it is watched on.

    Raises:
        DataError: no training clip whose sound and mouth agree.
    """
    train, held_out = (usable_speech(manifest, split, config) for split in (Split.TRAIN, Split.VAL))
    if not train:
        raise DataError(
            f"data {manifest.folder}: no training clip with sync of at least {config.min_sync} and a lag within "
            f"{config.max_lag_frames} frames; expected speech with a visible mouth"
        )
    return train, held_out


def fill_buffers(generator: Generator | CompletionGenerator, clips: list[ClipSpeech]) -> float:
    """Fit the displacement basis and the identity basis to clips; return the variance share the former holds."""
    weights = clip_weights(clips)
    basis, scale, share = fit_basis(clips, len(generator.scale), weights)
    people: dict[str, list[np.ndarray]] = {}
    for clip in clips:
        people.setdefault(clip.identity, []).append(clip.neutral)
    neutrals = np.stack([np.mean(shapes, axis=0) for shapes in people.values()])
    mean, identity_basis = fit_identity(neutrals, len(generator.identity_basis))
    for name, value in (
        ("basis", basis), ("scale", scale), ("identity_mean", mean), ("identity_basis", identity_basis),
    ):  # fmt: skip
        getattr(generator, name).copy_(torch.from_numpy(value))
    return share


def describe_clips(generator: Generator | CompletionGenerator, clips: list[ClipSpeech]) -> np.ndarray:
    """Return the identity's numbers (N, I) of clips."""
    shapes = ShapeBasis(generator.identity_mean.cpu().numpy(), generator.identity_basis.cpu().numpy())
    return shapes.describe(np.stack([clip.neutral for clip in clips]))


def landmarks_task(
    model: ATLModel, manifest: Manifest, config: TrainConfig, write: Callable[[nn.Module], None]
) -> Task:
    """Return the generator's stage over a prepared folder.

    Raises:
        DataError: no clip whose sound and mouth agree.
    """
    generator = model.generator
    if generator.config.features == "whisper":
        return states_task(model, manifest, config, write)
    train, held_out = speaking_clips(manifest, config)
    share = fill_buffers(generator, train)
    logger.info("%d clips; %d components hold %.1f %% of the motion", len(train), len(generator.scale), 100 * share)
    source = LandmarksSet(
        train,
        describe_clips(generator, train),
        generator.basis.cpu().numpy(),
        generator.scale.cpu().numpy(),
        frames=config.frames,
        seed=config.seed,
    )
    mouth_loss, speaker = MouthLoss.of(generator), speaker_of(generator)

    def loss(module: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        # Members lie side by side in the batch: (N * B, T, M).
        predicted = generator.predictions(batch["mel"], batch["identity"]).flatten(0, 1)
        members = generator.config.members
        truth, valid = batch["coefficients"].repeat(members, 1, 1), batch["valid"].repeat(members, 1)
        return mouth_loss(predicted, truth, valid, VELOCITY_WEIGHT)

    def probe(module: nn.Module) -> Probe:
        scores = [found for clip in held_out if (found := generator_scores(speaker, clip))]
        names = ("opening_correlation", "lip_error") if scores else ()
        return Probe({name: float(np.median([found[name] for found in scores])) for name in names})

    return Task(generator, source, loss, probe, write)


def states_task(model: ATLModel, manifest: Manifest, config: TrainConfig, write: Callable[[nn.Module], None]) -> Task:
    """Return the generator's stage where it hears a speech encoder; the weights that strangers like best are kept.

    How far their lips open, and how well they follow at the best lag, is measured on all held-out clips: neither needs
    sound and mouth in step.

    Raises:
        DataError: no clip whose sound and mouth agree, or clips that were prepared before samples were kept.
    """
    generator = model.generator
    networks = generator.networks
    assert isinstance(networks, FoldedNetworks)
    speech = hear_speech(generator, networks, manifest, config)
    held_out, strangers = speech.held_out, speech.strangers
    speaker = replace(speaker_of(generator, speech.dtype), hear=speech.hear)
    basis, scale = generator.basis.cpu().numpy(), generator.scale.cpu().numpy()
    source = StatesSet(
        speech.train,
        speech.heard,
        describe_clips(generator, speech.train),
        [coefficients(clip, basis, scale) for clip in speech.train],
        frames=config.frames,
        seed=config.seed,
        spoken=speech.spoken,
    )
    mouth_loss = MouthLoss.of(generator)

    def loss(module: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        items, blocks = batch["states"].shape[:2]
        identity = batch["identity"].repeat_interleave(blocks, 0)
        with torch.autocast(identity.device.type, torch.bfloat16, enabled=speech.dtype == torch.bfloat16):
            said = generator.predictions(batch["states"].flatten(0, 1).float(), identity)  # (N, B K, 8, M)
        members = len(said)
        predicted = said.float().reshape(members * items, blocks * LEARNED_FRAMES, -1)
        truth = batch["coefficients"].repeat(members, 1, 1)
        valid, closed, parted = (batch[name].repeat(members, 1) for name in ("valid", "closed", "parted"))
        return mouth_loss(predicted, truth, valid, VELOCITY_WEIGHT, (closed, parted))

    def probe(module: nn.Module) -> Probe:
        networks.gain.fill_(1.0)
        raw = [found for clip in strangers if (found := generator_scores(speaker, clip))]
        if not raw:
            return Probe({})
        networks.gain.fill_(fitted_gain([found["amplitude"] for found in raw]))
        said = ((clip, said_in(speaker, clip)) for clip in strangers)
        agreement = [max(0.0, measure(generator, clip, predicted)[0]) for clip, predicted in said]
        scalars = {"gain": float(networks.gain), "agreement": float(np.mean(agreement))}
        scores = [found for clip in held_out if (found := generator_scores(speaker, clip))]
        for name in scores[0] if scores else ():
            scalars[name] = float(np.median([found[name] for found in scores]))
        return Probe(scalars)

    return Task(generator, source, loss, probe, write, kept_by="agreement")


@dataclass(frozen=True, slots=True)
class HeardSpeech:
    """What a generator that hears a speech encoder is trained on and watched on.

    train, held_out: as `speaking_clips`. strangers: all clips of held-out people. heard: the variants of the training
    clips, and of what was `spoken` for known sounds, by name. hear: what held-out clips are heard by. dtype: what the
    speech encoder computes in.
    """

    train: list[ClipSpeech]
    held_out: list[ClipSpeech]
    strangers: list[ClipSpeech]
    heard: dict[str, list[HeardClip]]
    spoken: list[Spoken]
    hear: Hear
    dtype: torch.dtype


def hear_speech(
    generator: Generator | CompletionGenerator,
    standardised: FoldedNetworks | CompletionGenerator,
    manifest: Manifest,
    config: TrainConfig,
) -> HeardSpeech:
    """Fit a generator's bases, hear what it is to learn from, and fit by what the states are `standardised`.

    Raises:
        DataError: no clip whose sound and mouth agree, clips that were prepared before samples were kept, or no
            espeak-ng where something is to be spoken.
    """
    train, held_out = speaking_clips(manifest, config)
    strangers = [clip for entry in manifest.usable(Split.VAL) if (clip := load_speech(manifest, entry))]
    share = fill_buffers(generator, train)
    logger.info("%d clips; %d components hold %.1f %% of the motion", len(train), len(generator.scale), 100 * share)
    dtype = choose_dtype("auto", generator.basis.device)
    hear = listener_of(generator, dtype)
    heard = heard_clips(manifest, {clip.name: whole_sound(manifest, clip) for clip in train}, generator.config, hear)
    spoken = corpus(config.seed, config.spoken) if config.spoken else []
    said = heard_clips(manifest, {each.name: each.samples for each in spoken}, generator.config, hear)
    for name, value in zip(("state_mean", "state_scale"), standardisation(heard), strict=True):
        getattr(standardised, name).copy_(torch.from_numpy(value))
    return HeardSpeech(train, held_out, strangers, heard | said, spoken, Remembered(hear), dtype)


def fitted_gain(amplitudes: list[float]) -> float:
    """Return the gain with which lips that opened `amplitudes` times as far as the true ones do so 1.0 times."""
    return float(np.clip(1 / max(float(np.median(amplitudes)), 1e-3), *GAIN_RANGE))


class Remembered:
    """What hears samples, and remembers every window: held-out clips are heard again and again."""

    def __init__(self, hear: Hear) -> None:
        self._hear = hear
        self._heard: dict[bytes, np.ndarray] = {}

    def __call__(self, samples: np.ndarray, peaks: np.ndarray) -> np.ndarray:
        """Return the states (F, S) of a window's samples (640 F,); peaks: (4 F,) in dB."""
        key = hashlib.blake2b(samples.tobytes() + peaks.tobytes(), digest_size=16).digest()
        if key not in self._heard:
            self._heard[key] = self._hear(samples, peaks)
        return self._heard[key]
