"""Landmarks in, frames out, by the published renderer: guided noise on the whole face, denoising, paste-back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atldiff.emotions import emotion_label
from atldiff.landmarks.control import FACE_CONTROL
from atldiff.landmarks.topology import OVAL
from atldiff.methods.atl_published.inputs import NEEDED, build_start
from atldiff.methods.overlap import OverlapStream
from atldiff.stages import stage
from atldiff.video.background import lay
from atldiff.video.paste import paste
from atldiff.video.tone import tone_of
from atldiff.video.warp import PortraitWarp
from atldiff.video.window import apply, extract, face_window, fit_still_window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atldiff.config import SampleConfig
    from atldiff.methods.atl_published.painter import PublishedPainter
    from atldiff.methods.overlap import Finish
    from atldiff.types import Portrait
    from atldiff.video.patch import Frame
    from atldiff.workers import Workers


class PublishedFrameStream:
    """Frames of one portrait, from landmarks pushed in any portions, by the published renderer.

    The whole-face window stays where the portrait's face is; the head moves inside it, and its alpha with it.

    background: (H, W, 3) uint8 behind a portrait with alpha; without one its frames are (H, W, 4).
    """

    def __init__(
        self,
        painter: PublishedPainter,
        portrait: Portrait,
        sampling: SampleConfig,
        seed: int,
        emotion: str | None,
        workers: Workers | None = None,
        background: np.ndarray | None = None,
    ) -> None:
        self._painter, self._steps, self._seed = painter, sampling.steps, seed
        self._side = painter.config.side
        self._portrait, self._background = portrait.pixels, background
        self._tone = tone_of(portrait.image, portrait.landmarks[:, :2])
        self._matrix = fit_still_window(portrait.landmarks[None], face_window(self._side))
        identity = extract(portrait.image, self._matrix, self._side).astype(np.float32) / 255
        self._identity = np.ascontiguousarray(identity.transpose(2, 0, 1))[None]
        self._tokens = painter.describe(self._identity)  # of the portrait, so once for all windows
        self._source = apply(self._matrix, portrait.landmarks[NEEDED, :2])[None]
        self._alpha_warp = None if portrait.alpha is None else self._open_alpha_warp(portrait, portrait.alpha)
        self._emotion = np.array([emotion_label(emotion, painter.config.emotions)], np.int64)
        self._windows = OverlapStream(sampling, self._sample, workers)

    def push(self, points: np.ndarray, *, more: bool = False) -> Iterator[Frame]:
        """Take landmarks (F, 478, 3) in pixels; yield the frames that are complete.

        more: as in `OverlapStream.push`.
        """
        return self._windows.push(points, more=more)

    def flush(self) -> Iterator[Frame]:
        """End the stream: yield the frames still missing."""
        return self._windows.flush()

    def _sample(self, points: np.ndarray, first: int) -> tuple[np.ndarray, Finish]:
        target = apply(self._matrix, points[:, NEEDED, :2])[None]  # (1, T, K, 2)
        with stage("inputs"):
            prior, mask = build_start(self._identity, self._source, target, self._painter.config)
            noise = self._painter.frame_noise(self._seed, first, len(points))
        with stage("denoise"):
            frames = self._painter.render(prior, mask, self._tokens, self._emotion, noise, self._steps)
            pictures = np.ascontiguousarray(frames[0].transpose(1, 2, 3, 0)) * 255  # (T, S, S, 3)
        if self._tone is not None:
            pictures = self._tone.of(pictures)
        return pictures, lambda index, picture: self._frame(points[index], picture)

    def _frame(self, points: np.ndarray, picture: np.ndarray) -> np.ndarray:
        alpha = None
        if self._alpha_warp is not None:
            with stage("warp"):
                x0, y0, x1, y1 = self._alpha_warp.box
                alpha = self._portrait[..., 3].copy()
                alpha[y0:y1, x0:x1] = self._alpha_warp.warp(FACE_CONTROL.of(points[:, :2]))
        with stage("composite"):
            return lay(paste(self._portrait, picture, self._matrix, alpha), self._background)

    def _open_alpha_warp(self, portrait: Portrait, alpha: np.ndarray) -> PortraitWarp:
        return PortraitWarp.prepare(
            alpha,
            face=portrait.landmarks[OVAL, :2],
            source=FACE_CONTROL.of(portrait.landmarks[:, :2]),
            unit_px=face_window(self._side).scale / float(np.hypot(self._matrix[0, 0], self._matrix[1, 0])),
        )
