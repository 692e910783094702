"""Batches for the sync expert: runs of pictures and their sound, of a clip and of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from atldiff.data.windows import ClipWindows, clip_weights
from atldiff.landmarks.stream import SILENT
from atldiff.timebase import COLUMNS_PER_FRAME
from atldiff.training.draws import Draw, item_random
from atldiff.training.landmarks_data import augment
from atldiff.training.places import JITTER_PX, Place, cut_at
from atldiff.video.window import WindowGeometry

if TYPE_CHECKING:
    from atldiff.config import LatentDiffusionConfig
    from atldiff.data.speech import ClipSpeech

BLURRED = 0.5
"""Share of runs whose pictures are softened: so are those that a codec decodes, which the expert is to judge."""


class SyncSet:
    """Deterministic batches: an item is a function of (seed, step, its number in the batch).

    An item has all the pairs that it is compared with, so that a batch may be cut into parts.
    """

    def __init__(
        self,
        speech: list[ClipSpeech],
        windows: list[ClipWindows],
        config: LatentDiffusionConfig,
        *,
        margin: int,
        frames: int,
        seed: int,
    ) -> None:
        """speech, windows: of the same clips. margin: frames heard before and after the `frames` of a run."""
        pairs = [pair for pair in zip(speech, windows, strict=True) if len(pair[0]) >= frames]
        self.speech, self.windows = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        self.draw = Draw(clip_weights(self.windows)) if len(pairs) > 1 else None  # an item takes two
        self.geometry = WindowGeometry(config.side, config.origin)
        self.margin, self.frames, self.seed = margin, frames, seed

    def batch(self, step: int, items: range) -> dict[str, torch.Tensor]:
        """Return two runs an item, of different clips, in step with their sound.

        pictures (B, 2, 3, F, S, S) float16 in [-1, 1]; mel (B, 2, 4 (F + 2 margin), 80) float32; clips (B, 2).
        """
        rows = [self._item(item_random(self.seed, step, index)) for index in items]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Return the names of a batch's clips."""
        return [self.windows[index].name for index in batch["clips"].flatten().tolist()]

    def _item(self, random: np.random.Generator) -> dict[str, torch.Tensor]:
        assert self.draw is not None  # noqa: S101 - for the type checker: a set of one clip is refused by the task
        chosen = other = self.draw(random)
        while other == chosen:
            other = self.draw(random)
        runs = [self._run(index, random) for index in (chosen, other)]
        return {name: torch.stack([run[name] for run in runs]) for name in runs[0]}

    def _run(self, chosen: int, random: np.random.Generator) -> dict[str, torch.Tensor]:
        speech = self.speech[chosen]
        start = int(random.integers(len(speech) - self.frames + 1))
        frames = first_frame(speech) + start + np.arange(self.frames)
        jitter = random.integers(-JITTER_PX, JITTER_PX + 1, 2)
        place = Place(np.concatenate([frames[:1], frames]), jitter, flip=bool(random.random() < 0.5))
        images = cut_at(self.windows[chosen], place, self.geometry, random)[0][1:]
        pictures = torch.from_numpy(np.ascontiguousarray(images)).permute(3, 0, 1, 2)  # (3, F, S, S)
        if random.random() < BLURRED:
            pictures = functional.avg_pool2d(pictures, 3, stride=1, padding=1, count_include_pad=False)
        return {
            "pictures": pictures.half(),
            "mel": torch.from_numpy(augment(heard(speech.mel, start, self.frames, self.margin), random)),
            "clips": torch.tensor(chosen),
        }


def first_frame(speech: ClipSpeech) -> int:
    """Return which frame of a clip's pictures is the first with sound."""
    return max(0, speech.shift_frames)


def heard(mel: np.ndarray, start: int, frames: int, margin: int) -> np.ndarray:
    """Return the columns (4 (frames + 2 margin), 80) around frames of a clip's mel (C, 80); beyond it is silence."""
    count = frames + 2 * margin
    columns = (start - margin) * COLUMNS_PER_FRAME + np.arange(count * COLUMNS_PER_FRAME)
    inside = (columns >= 0) & (columns < len(mel))
    return np.where(inside[:, None], mel[np.clip(columns, 0, len(mel) - 1)], np.float32(SILENT))
