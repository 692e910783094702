"""What the motion model learns from: heads, brows and eyes of prepared clips, with or without their sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open

from atldiff.landmarks.geometry import to_canonical
from atldiff.landmarks.motion_codes import (
    BANDS,
    BROWS,
    KNOT_FRAMES,
    FaceCodes,
    amplitudes,
    face_codes,
    heard_steps,
    smoothed,
)
from atldiff.landmarks.rest import lower_face
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import EYE_LEFT, EYE_RIGHT, OVAL, POINTS
from atldiff.training.draws import Draw, item_random, stack

if TYPE_CHECKING:
    import torch

    from atldiff.data.manifest import Manifest, Split

LEAST_FRAMES = 32
"""Shorter clips say nothing of how somebody moves."""
UNHEARD_SHARE = 0.15
"""Share of clips with sound that are heard as silence, as all without it are: what an idle face does."""


@dataclass(frozen=True, slots=True)
class MotionClip:
    """One clip's face apart from speech. mel: (C, 80) log-mel columns, or None without sound.

    upper: (T, 478, 3) float32, its pose-free shapes from their mean.
    """

    name: str
    source: str
    identity: str
    face: FaceCodes
    mel: np.ndarray | None
    upper: np.ndarray

    def __len__(self) -> int:
        return len(self.face.codes)

    @property
    def unit(self) -> np.ndarray:
        """What codes (CODES,) are divided by: the clip's own liveliness."""
        head, brows = amplitudes(self.face.codes)
        return np.array([head] * BROWS + [brows])


def load_motion_clips(manifest: Manifest, split: Split) -> list[MotionClip]:
    """Return a split's clips of at least `LEAST_FRAMES`."""
    clips = []
    for entry in manifest.usable(split):
        if entry.record.frames < LEAST_FRAMES:
            continue
        with safe_open(str(manifest.tensors(entry)), "numpy") as file:
            mel = file.get_tensor("mel").astype(np.float32) if "mel" in file.keys() else None  # noqa: SIM118
            shapes, *pose = to_canonical(file.get_tensor("points").astype(np.float64), mean_shape())
        clips.append(
            MotionClip(
                name=entry.record.name,
                source=entry.record.source,
                identity=entry.identity,
                face=face_codes(shapes, *pose),
                mel=mel,
                upper=(shapes - shapes.mean(axis=0)).astype(np.float32),
            )
        )
    return clips


def brow_basis(clips: list[MotionClip], weights: np.ndarray) -> np.ndarray:
    """Return what brows raised by one unit do to the points above the eyes, (478, 3), the same on both sides.

    What goes with turns of the head, as the tracker's errors do, is left out.
    """
    shape = mean_shape()
    products, squares = np.zeros((7, POINTS * 3)), np.zeros((7, 7))
    for clip, weight in zip(clips, weights, strict=True):
        turned = clip.face.codes[:, :5]
        inputs = np.c_[clip.face.codes[:, BROWS], turned, np.ones(len(clip))]
        products += weight * inputs.T @ smoothed(clip.upper.reshape(len(clip), -1)) / len(clip)
        squares += weight * inputs.T @ inputs / len(clip)
    squares[np.diag_indices(7)] *= 1 + 1e-6
    basis = np.linalg.solve(squares, products)[0].reshape(POINTS, 3)
    flipped = shape * [-1, 1, 1]
    mirrored = np.argmin(np.square(flipped[:, None] - shape).sum(-1), axis=1)
    basis = (basis + basis[mirrored] * [-1, 1, 1]) / 2
    basis *= (1 - lower_face())[:, None] * (shape[:, 1] < 0.1)[:, None]
    basis[np.concatenate([EYE_RIGHT, EYE_LEFT, OVAL, np.arange(468, POINTS)])] = 0
    return basis


class MotionSet:
    """Deterministic batches: an item is a function of (seed, step, index)."""

    def __init__(
        self, clips: list[MotionClip], spread: np.ndarray, weights: np.ndarray, *, steps: int, seed: int
    ) -> None:
        """spread: (CODES,) typical deviation of codes over their clip's unit. steps: of the model, an item."""
        self.names = [clip.name for clip in clips]
        self.codes = [[(clip.face.codes / clip.unit / spread)[phase::KNOT_FRAMES].astype(np.float32)
                       for phase in range(KNOT_FRAMES)] for clip in clips]  # fmt: skip
        self.heard = [
            [np.full((len(codes), BANDS), -1, np.float32) if clip.mel is None
             else heard_steps(clip.mel, len(codes), phase) for phase, codes in enumerate(both)]
            for clip, both in zip(clips, self.codes, strict=True)
        ]  # fmt: skip
        self.sound = [clip.mel is not None for clip in clips]
        self.draw, self.steps, self.seed = Draw(weights), steps, seed

    def batch(self, step: int, items: range) -> dict[str, torch.Tensor]:
        """Return codes (B, K, CODES), heard (B, K, BANDS), valid (B, K) float32 and clips (B,)."""
        return stack([self._item(item_random(self.seed, step, index)) for index in items])

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Return the names of a batch's clips."""
        return [self.names[index] for index in batch["clips"].tolist()]

    def whole(self, index: int) -> dict[str, np.ndarray]:
        """Return a whole clip as an item."""
        return self._cut(index, 0, 0, len(self.codes[index][0]), sound=self.sound[index])

    def _item(self, random: np.random.Generator) -> dict[str, np.ndarray]:
        chosen, phase = self.draw(random), int(random.integers(KNOT_FRAMES))
        start = int(random.integers(0, max(1, len(self.codes[chosen][phase]) - self.steps + 1)))
        sound = self.sound[chosen] and random.random() >= UNHEARD_SHARE
        item = self._cut(chosen, phase, start, self.steps, sound=sound)
        if random.random() < 0.5:  # the same in a mirror: yaw, roll and what goes sideways
            item["codes"] = item["codes"] * np.array([-1, 1, -1, -1, 1, 1], np.float32)
        colour = np.interp(np.arange(BANDS), [0, BANDS - 1], random.normal(0, 0.08, 2)).astype(np.float32)
        item["heard"] = np.where(item["heard"] > -1, np.maximum(item["heard"] + colour, -1), -1).astype(np.float32)
        return item

    def _cut(self, clip: int, phase: int, start: int, steps: int, *, sound: bool) -> dict[str, np.ndarray]:
        codes, heard = (rows[clip][phase][start : start + steps] for rows in (self.codes, self.heard))
        if not sound:
            heard = np.full_like(heard, -1)
        missing = ((0, steps - len(codes)), (0, 0))
        return {
            "codes": np.pad(codes, missing),
            "heard": np.pad(heard, missing, constant_values=-1),
            "valid": (np.arange(steps) < len(codes)).astype(np.float32),
            "clips": np.array(clip),
        }
