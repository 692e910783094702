"""The sync expert's stage: which sound goes with which mouth, and how often it finds the offset of unseen people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from atldiff.data.speech import in_step
from atldiff.data.windows import crop, load_clip
from atldiff.errors import DataError
from atldiff.landmarks.topology import LIPS_OUTER
from atldiff.methods.lmdiff.training.sync_data import SyncSet, first_frame, heard
from atldiff.timebase import COLUMNS_PER_FRAME
from atldiff.training.checks import check_window
from atldiff.training.landmarks_task import speaking_clips
from atldiff.training.task import Probe, Task
from atldiff.video.window import WindowGeometry

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from atldiff.config import TrainConfig
    from atldiff.data.manifest import Manifest
    from atldiff.data.speech import ClipSpeech
    from atldiff.data.windows import ClipWindows
    from atldiff.methods.lmdiff.network import LMDiffModel
    from atldiff.methods.lmdiff.sync_expert import SyncExpert

APART_FRAMES = 5
"""Frames between two moments of a run that are told apart: the sound of one is wrong for the other."""
OFFSETS = range(-7, 8)
"""Offsets of the sound that the probe tries, in frames."""
PROBE_CLIPS, PROBE_MOMENTS = 32, 16


def sync_task(model: LMDiffModel, manifest: Manifest, config: TrainConfig, write: Callable[[nn.Module], None]) -> Task:
    """Return the stage of a sync expert over a prepared folder; generator and renderer stay as they are.

    Raises:
        DataError: fewer than two clips whose sound and mouth agree, or a window that is not prepared.
    """
    expert: SyncExpert = model.expert  # pyright: ignore[reportAssignmentType] - the configuration has seen to it
    window, margin = model.renderer.config, expert.config.margin_frames
    check_window(window.side, window.origin)
    train, held_out = speaking_clips(manifest, config)
    source = SyncSet(
        train, load_windows(manifest, train), window, margin=margin, frames=config.frames, seed=config.seed
    )
    if source.draw is None:
        raise DataError(
            f"data {manifest.folder}: {len(source.windows)} training clips of at least {config.frames} frames whose "
            "sound and mouth agree; expected two or more, to tell them apart"
        )
    unseen = [in_step(clip, clip.lag_frames) for clip in held_out[:: -(-len(held_out) // PROBE_CLIPS) or 1]]
    probed = list(zip(unseen, load_windows(manifest, unseen), strict=True))
    geometry = WindowGeometry(window.side, window.origin)
    expert.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def loss(module: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return contrast(*embed_moments(expert, batch["pictures"].float(), batch["mel"]), expert.config.temperature)

    def probe(module: nn.Module) -> Probe:
        found = [offset_cosines(expert, *pair, geometry) for pair in probed]
        return Probe(offset_scores(np.concatenate(found)) if found else {})

    return Task(expert, source, loss, probe, write)


def load_windows(manifest: Manifest, clips: list[ClipSpeech]) -> list[ClipWindows]:
    """Return the windows of clips with sound."""
    entries = {entry.record.name: entry for entry in manifest.entries}
    return [load_clip(manifest, entries[clip.name], LIPS_OUTER) for clip in clips]


def embed_moments(expert: SyncExpert, pictures: torch.Tensor, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return unit vectors (B, N, D) of the moments of a batch of `SyncSet`, of their pictures and of their sound.

    The moments of a run begin `APART_FRAMES` apart; all its moments are of an item, and those of its other run.
    """
    seen, columns = expert.config.frames, expert.columns
    starts = range(0, pictures.shape[3] - seen + 1, APART_FRAMES)
    shown = torch.stack([pictures[:, :, :, at : at + seen] for at in starts], dim=2)  # (B, 2, M, 3, T, S, S)
    begin = [at * COLUMNS_PER_FRAME for at in starts]
    sound = torch.stack([mel[:, :, at : at + columns] for at in begin], dim=2)  # (B, 2, M, columns, 80)
    count = (len(pictures), -1)
    return (
        expert.see(shown.flatten(0, 2)).unflatten(0, count),
        expert.hear(sound.flatten(0, 2)).unflatten(0, count),
    )


def contrast(seen: torch.Tensor, sound: torch.Tensor, temperature: float) -> dict[str, torch.Tensor]:
    """Return the symmetric cross-entropy of an item's pairs (B, N, D), and the share of mouths whose sound is found.

    Each mouth chooses among the item's sounds and each sound among its mouths (arXiv 2103.00020, figure 3): every
    pairing of an item is learnt from, where the binary loss of Wav2Lip learns from one right and one wrong a mouth. An
    item's alone, not the batch's: a batch may be cut into parts. By chance the share is 1 / N and the loss log N.
    """
    pairing = seen @ sound.transpose(1, 2) / temperature  # (B, N, N)
    right = torch.arange(pairing.shape[1], device=pairing.device).expand(len(pairing), -1)
    loss = functional.cross_entropy(pairing, right) + functional.cross_entropy(pairing.transpose(1, 2), right)
    return {"loss": loss / 2, "found": (pairing.argmax(-1) == right).float().mean()}


@torch.no_grad()
def offset_cosines(expert: SyncExpert, speech: ClipSpeech, clip: ClipWindows, geometry: WindowGeometry) -> np.ndarray:
    """Return the cosines (N, len(OFFSETS)) of moments of a clip with its sound at each offset; none of a short clip.

    Moments lie `APART_FRAMES` apart, where there is sound at every offset.
    """
    seen, margin = expert.config.frames, expert.config.margin_frames
    before = margin - OFFSETS[0]
    starts = np.arange(before, len(speech) - seen - margin - OFFSETS[-1] + 1, APART_FRAMES)
    starts = starts[:: -(-len(starts) // PROBE_MOMENTS) or 1]
    rows, device = [], next(expert.parameters()).device
    for start in starts.tolist():
        frames = first_frame(speech) + start + np.arange(seen)
        images = crop(clip, np.concatenate([frames[:1], frames]), geometry, np.zeros(2, int), flip=False)[0][1:]
        pictures = torch.from_numpy(images.astype(np.float32) / 127.5 - 1).permute(3, 0, 1, 2)
        sounds = np.stack([heard(speech.mel, start + offset, seen, margin) for offset in OFFSETS])
        cosines = expert.hear(torch.from_numpy(sounds).to(device)) @ expert.see(pictures[None].to(device))[0]
        rows.append(cosines.cpu().numpy())
    return np.reshape(rows, (-1, len(OFFSETS)))


def offset_scores(cosines: np.ndarray) -> dict[str, float]:
    """Return how often the true offset wins, of cosines (N, len(OFFSETS)); nothing of no moments.

    `true_offset`: the share of moments at which it wins; by chance 1/15. `near_offset`: at which it or a neighbour
    does, as clips are in step to a frame; by chance 3/15. `cosine` at the true offset, which is what the joint stage's
    `sync` may come to, and `cosine_off`, the mean at those of `APART_FRAMES` and more.
    """
    if not len(cosines):
        return {}
    offsets = np.array(OFFSETS)
    won = np.abs(offsets[cosines.argmax(axis=1)])
    return {
        "true_offset": float((won == 0).mean()),
        "near_offset": float((won <= 1).mean()),
        "cosine": float(cosines[:, offsets == 0].mean()),
        "cosine_off": float(cosines[:, np.abs(offsets) >= APART_FRAMES].mean()),
    }
