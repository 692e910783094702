"""Landmarks in, frames out, by the published renderer: guided noise on the whole face, denoising, paste-back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.methods.overlap import OverlapStream
from atldiff.methods.paper_inputs import NEEDED, build_start
from atldiff.stages import stage
from atldiff.types import emotion_label
from atldiff.video.paste import paste
from atldiff.video.tone import tone_of
from atldiff.video.window import apply, extract, face_window, fit_still_window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atldiff.config import SampleConfig
    from atldiff.methods.overlap import Finish
    from atldiff.methods.paper import PaperRenderer
    from atldiff.types import Portrait
    from atldiff.workers import Workers


class PaperFrameStream:
    """Frames of one portrait, from landmarks pushed in any portions, by the published renderer.

    The whole-face window stays where the portrait's face is; the head moves inside it.
    """

    def __init__(
        self,
        renderer: PaperRenderer,
        portrait: Portrait,
        sampling: SampleConfig,
        seed: int,
        emotion: str | None,
        workers: Workers | None = None,
    ) -> None:
        self._renderer, self._steps, self._seed = renderer, sampling.steps, seed
        self._side = renderer.config.side
        device = renderer.device
        self._portrait = portrait.image
        self._tone = tone_of(portrait.image, portrait.landmarks[:, :2])
        self._matrix = fit_still_window(portrait.landmarks[None], face_window(self._side))
        identity = extract(portrait.image, self._matrix, self._side).astype(np.float32) / 255
        self._identity = torch.from_numpy(identity).permute(2, 0, 1)[None].to(device)
        with torch.inference_mode():
            self._tokens = renderer.describe(self._identity)  # of the portrait, so once for all windows
        self._source = apply(self._matrix, portrait.landmarks[NEEDED, :2])[None]
        self._emotion = torch.tensor([emotion_label(emotion, renderer.config.emotions)], device=device)
        self._windows = OverlapStream(sampling, self._sample, workers)

    def push(self, points: np.ndarray, *, more: bool = False) -> Iterator[np.ndarray]:
        """Take landmarks (F, 478, 3) in pixels; yield the frames (H, W, 3) uint8 that are complete.

        more: as in `OverlapStream.push`.
        """
        return self._windows.push(points, more=more)

    def flush(self) -> Iterator[np.ndarray]:
        """End the stream: yield the frames still missing."""
        return self._windows.flush()

    def _sample(self, points: np.ndarray, first: int) -> tuple[np.ndarray, Finish]:
        target = apply(self._matrix, points[:, NEEDED, :2])[None]  # (1, T, K, 2)
        with torch.inference_mode():
            with stage("inputs"):
                prior, mask = build_start(self._identity, self._source, target, self._renderer.config)
                noise = self._renderer.frame_noise(self._seed, first, len(points))
            with stage("denoise"):
                frames = self._renderer.render(prior, mask, self._tokens, self._emotion, noise, self._steps)
                pictures = frames[0].permute(1, 2, 3, 0).float().cpu().numpy() * 255  # (T, S, S, 3)
        if self._tone is not None:
            pictures = self._tone.of(pictures)
        return pictures, self._finish

    def _finish(self, index: int, picture: np.ndarray) -> np.ndarray:
        with stage("composite"):
            return paste(self._portrait, picture, self._matrix)
