"""LMDiff's joint stage: the renderer's loss on predicted landmarks goes on into what predicts them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.data.completion import load_seen
from atldiff.data.mouths import load_mouths
from atldiff.data.posed import load_posed
from atldiff.data.windows import MIN_APART_FRAMES, load_clip
from atldiff.devices import choose_dtype
from atldiff.errors import CheckpointError, DataError
from atldiff.landmarks.control import CHIN
from atldiff.landmarks.topology import LIPS_INNER
from atldiff.methods.lmdiff.inputs import DRAWN, NEEDED, build_inputs
from atldiff.methods.lmdiff.training.gradient import with_gradient
from atldiff.methods.lmdiff.training.joint_data import JointSet
from atldiff.methods.lmdiff.training.sync_loss import sync_loss
from atldiff.methods.models import listener_of, speaker_of
from atldiff.methods.mouth_layers import window_layers
from atldiff.training.completion_data import CompletionSet, SeenStatesSet
from atldiff.training.completion_task import complete, completion_loss, median_scores, seen_states
from atldiff.training.landmarks_task import Remembered, describe_clips, speaking_clips
from atldiff.training.latent_renderer_task import (
    PROBE_BATCHES,
    PROBE_CLIPS,
    PROBE_FRAMES,
    PROBE_SEED,
    check_renderer,
    freeze_codec,
    paint,
)
from atldiff.training.mouth_task import RendererLoss
from atldiff.training.painted import on_device
from atldiff.training.speech_states import LEARNED_FRAMES, heard_clips, whole_sound
from atldiff.training.task import Probe, Task
from atldiff.video.window import STORED_MOUTH, STORED_WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from atldiff.backbones.alexnet import LpipsAlexNet
    from atldiff.config import TrainConfig
    from atldiff.data.manifest import Manifest
    from atldiff.data.speech import ClipSpeech
    from atldiff.landmarks.completion import CompletionGenerator
    from atldiff.methods.lmdiff.network import LMDiffModel

_INNER, _CHIN = (np.searchsorted(NEEDED, i) for i in (LIPS_INNER, CHIN))


def joint_task(
    model: LMDiffModel,
    manifest: Manifest,
    config: TrainConfig,
    write: Callable[[nn.Module], None],
    network: LpipsAlexNet | None = None,
) -> Task:
    """Return the joint stage over a prepared folder: generator and denoiser learn, the codec stays as it is.

    network: of LPIPS, for a layered renderer whose configuration weighs it.

    Raises:
        DataError: no clip whose sound and mouth agree, or, where the generator hears samples, clips that were prepared
            before they were kept. CheckpointError: generator or codec was never trained, or the sync loss has no
            expert. ValueError: clips are shorter than what the expert sees.
    """
    generator, renderer = model.generator, model.renderer
    if not generator.basis.any():
        raise CheckpointError(
            "weights: got a generator that was never trained, expected one: train the stages landmarks and renderer "
            "first (`atldiff train lmdiff-landmarks ...`, `atldiff train lmdiff ...`), then name their checkpoint with "
            "--weights"
        )
    check_renderer(renderer)
    sync = sync_loss(model, config)
    judged = RendererLoss(renderer, config, network) if renderer.layered else None
    speaker = speaker_of(generator, choose_dtype("auto", generator.basis.device))
    if speaker.hear is not None:
        speaker = replace(speaker, hear=Remembered(speaker.hear))
    train, held_out = speaking_clips(manifest, config)
    share = model.config.joint.true_share
    source = joint_set(model, manifest, train, frames=config.frames, seed=config.seed, true_share=share)
    if source.draw is None:
        raise DataError(
            f"data {manifest.folder}: no training clip of at least {config.frames + MIN_APART_FRAMES} frames whose "
            "sound and mouth agree; expected longer clips"
        )
    probed = joint_set(model, manifest, held_out, frames=PROBE_FRAMES, seed=PROBE_SEED) if held_out else None
    batches = []
    if probed is not None and probed.draw is not None:
        batches = [probed.batch(step, range(PROBE_CLIPS)) for step in range(PROBE_BATCHES)]
    seen = [load_seen(manifest, clip) for clip in held_out]
    losses = completion_loss(generator)
    write = freeze_codec(renderer, write, bfloat16=config.bfloat16)
    if config.bfloat16:
        renderer.denoiser.to(torch.bfloat16)  # the generator stays in single precision

    def loss(module: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        said, points = predict(model, batch)
        if model.config.joint.detach_landmarks:
            points = points.detach()
        points = torch.where(batch["is_true"][:, None, None, None], true_points(model, batch), points)
        given = rendered_from(model, batch, points)
        if judged is not None:
            drawn = judged(renderer.denoiser, given)
        else:
            drawn = renderer.loss(given, None if sync is None else partial(sync, batch))
        landmarks = losses(said, batch | {"target": batch["target_landmarks"]})
        total = drawn.pop("loss") + model.config.joint.landmark_weight * landmarks.pop("loss")
        if sync is not None:
            total = total + model.config.joint.sync_weight * drawn["sync"]
        return {"loss": total, **drawn, **landmarks}

    def probe(module: nn.Module) -> Probe:
        given = []
        for batch in batches:
            moved = on_device(batch, renderer.device)
            given.append(moved | rendered_from(model, moved, predict(model, moved)[1]))
        painted = paint(renderer, given, base="true_prior")  # a baseline that no run's landmarks change
        return Probe(painted.scalars | median_scores(speaker, held_out, seen), painted.pictures)

    return Task(model, source, loss, probe, write)


def joint_set(
    model: LMDiffModel,
    manifest: Manifest,
    clips: list[ClipSpeech],
    *,
    frames: int,
    seed: int,
    true_share: float = 0.0,
) -> JointSet:
    """Return the batches of joint training over clips with sound."""
    entries = {entry.record.name: entry for entry in manifest.entries}
    load, stored = (load_mouths, STORED_MOUTH) if model.renderer.layered else (load_clip, STORED_WINDOW)
    return JointSet(
        clips,
        [load(manifest, entries[clip.name], NEEDED) for clip in clips],
        [load_posed(manifest, clip.name, NEEDED, stored) for clip in clips],
        _completion_set(model.generator, manifest, clips, frames=frames, seed=seed),
        model.renderer.config,
        true_share=true_share,
        frames=frames,
        seed=seed,
    )


def _completion_set(
    generator: CompletionGenerator, manifest: Manifest, clips: list[ClipSpeech], *, frames: int, seed: int
) -> CompletionSet | SeenStatesSet:
    """Return the generator's items, which hold any `frames` successive frames of a clip."""
    config = generator.config
    if config.features == "whisper":
        sounds = {clip.name: whole_sound(manifest, clip) for clip in clips}
        hear = listener_of(generator, choose_dtype("auto", generator.basis.device))
        heard = heard_clips(manifest, sounds, config, hear, variants=1)  # as they are: pictures have no other pace
        covering = -(-(frames + LEARNED_FRAMES - 1) // LEARNED_FRAMES) * LEARNED_FRAMES
        return seen_states(generator, manifest, clips, heard, frames=covering, seed=seed)
    return CompletionSet(
        clips,
        (load_seen(manifest, clip) for clip in clips),
        describe_clips(generator, clips),
        generator.basis.cpu().numpy(),
        generator.scale.cpu().numpy(),
        config,
        frames=config.context_frames + frames + config.lookahead_frames,
        seed=seed,
    )


def predict(model: LMDiffModel, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the generator says of a batch of `JointSet`, and the points (B, T, K, 2) window pixels it means.

    Differentiable from one end to the other: coefficients to displacements, by the head's pose and the window's
    similarity to pixels.
    """
    generator = model.generator
    said = complete(generator, batch)
    return said, _in_windows(model, batch, generator.opened(said, batch["filmed"]))


def true_points(model: LMDiffModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the points (B, T, K, 2) that the truth of a batch of `JointSet` means, as far as the basis holds them."""
    truth = batch["target_landmarks"]
    if model.generator.config.points != "dense":
        truth = truth.unflatten(-1, (-1, 2))
    return _in_windows(model, batch, truth)


def _in_windows(model: LMDiffModel, batch: dict[str, torch.Tensor], completed: torch.Tensor) -> torch.Tensor:
    """Return the points (B, T, K, 2) in window pixels of what is completed, frames before and after included."""
    generator = model.generator
    every = torch.arange(len(completed), device=completed.device)[:, None]
    frames = batch["first"][:, None] + torch.arange(batch["rest"].shape[1], device=completed.device)  # (B, T)
    spoken = generator.coefficients(completed)[every, frames]  # (B, T, M)
    moves = (generator.scale[:, None, None] * generator.basis)[:, NEEDED]
    displacements = torch.einsum("btm,mkd->btkd", spoken, moves)
    return batch["rest"] + torch.einsum("btij,btkj->btki", batch["project"], displacements)


def rendered_from(model: LMDiffModel, batch: dict[str, torch.Tensor], points: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return a batch of `JointSet` as the renderer takes one: its frames driven by points (B, T, K, 2).

    The mask, what is hidden and what is behind the lips are drawn from the points without gradient. The warped portrait
    has one where the configuration says so.
    """
    reference, visible = (batch[name].float().cpu().numpy() for name in ("reference", "visible"))
    source, target = (x.detach().float().cpu().numpy() for x in (batch["still"], points))
    portrait, layers = batch["reference"].float(), []
    if model.renderer.layered:
        levels = np.clip(np.rint((reference + 1) * 127.5), 0, 255).astype(np.uint8)
        pictures = np.ascontiguousarray(levels.transpose(0, 2, 3, 1))
        layers = [
            window_layers([picture], points[None, _INNER], points[None, _CHIN], model.renderer.geometry)
            for picture, points in zip(pictures, source, strict=True)
        ]
        lips = torch.from_numpy(np.stack([layer.lips for layer in layers])).permute(0, 3, 1, 2)
        portrait = (lips.float() / 127.5 - 1).to(portrait.device)
    inputs = build_inputs(
        reference, source, target, model.renderer.config, visible, batch["is_filmed"].cpu().numpy(), layers
    )  # fmt: skip
    tokens = batch["tokens"][..., None].expand(-1, -1, 2)  # (B, P, 2)
    over_time = tokens[:, None].expand(-1, points.shape[1], -1, -1)
    kept = [name for name in ("target", "mouth", "reference", "noise", "level", "guessed", "centre", "sharp")
            if name in batch]  # fmt: skip
    made = {name: torch.from_numpy(getattr(inputs, name)).to(points.device) for name in ("prior", "shown", "mask")}
    if model.config.joint.through_warp and points.requires_grad:
        made["prior"] = with_gradient(
            made["prior"], portrait, batch["still"][:, DRAWN], points[:, :, DRAWN], model.renderer.config
        )
    return {
        **{name: batch[name] for name in kept},
        **made,
        "source": batch["still"].gather(1, tokens),
        "points": points.gather(2, over_time),
    }
