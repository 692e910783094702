"""A talking video that is rendered as it is read, or written to a file."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from atldiff.errors import MediaError
from atldiff.landmarks.edit import resized_track
from atldiff.methods.portrait import resized, say_if_smaller
from atldiff.stages import stage
from atldiff.timebase import duration_s
from atldiff.video.background import WHITE, draw_background, is_transparent, say_white
from atldiff.video.formats import check_output, keeps_alpha
from atldiff.video.gif import capped_side
from atldiff.video.patch import unpatched
from atldiff.video.sound import SoundFile
from atldiff.video.write import VideoWriter, Written

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    import numpy as np

    from atldiff.audio.load import Audio
    from atldiff.config import SampleConfig
    from atldiff.methods.build import Painter
    from atldiff.types import LandmarkTrack, Portrait
    from atldiff.video.background import Background
    from atldiff.video.patch import Frame
    from atldiff.workers import Workers

SLICE_FRAMES = 64
"""Frames whose landmarks are made at a time while rendering, so that memory does not grow with the audio."""


class Video:
    """A talking video that is rendered as it is read: iterate for frames (H, W, 3) uint8, or `save` a file.

    Frames of a portrait with alpha on the background `transparent` are (H, W, 4), of straight alpha.

    fps: Fraction. size: (height, width). track: the landmarks. seconds: wall time a stage took, after a rendering.
    written: size, frames a second and frames of the file that `save` wrote, which may differ from those rendered.
    """

    def __init__(
        self,
        painter: Painter,
        workers: Workers,
        portrait: Portrait,
        track: LandmarkTrack,
        audio: Audio | None,
        sampling: SampleConfig,
        seed: int,
        emotion: str | None = None,
        *,
        own: tuple[int, int] | None = None,
        background: Background | None = None,
        preview: bool = False,
    ) -> None:
        """own: (height, width) of what is shown of the portrait, where no other size was asked for.

        preview: the landmarks, drawn over the portrait, are on the right of each frame.
        """
        self._painter, self._workers = painter, workers
        self._portrait, self._audio = portrait, audio
        self._sampling, self._seed, self._emotion = sampling, seed, emotion
        self._own = own
        self._background: Background | None = background
        self.track = track
        self.fps = track.fps
        self._preview = preview
        height, width = portrait.size
        self.size = (height, 2 * width if preview else width)
        self.seconds: dict[str, float] = {}
        self.written = Written(self.size, self.fps, 0)

    def __len__(self) -> int:
        return len(self.track)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(unpatched, self._shown())

    def _shown(self) -> Iterator[Frame]:
        if not self._preview:
            return self._rendered()
        from atldiff.methods.landmark_preview import beside, drawn_frames

        return map(beside, map(unpatched, self._rendered()), drawn_frames(self.track, self._portrait.image))

    def _rendered(self) -> Iterator[Frame]:
        if self._own is not None:
            say_if_smaller(self._own, self._portrait.size)
        behind = drawn(self._background, self._portrait)
        stream = self._painter.open(self._portrait, self._sampling, self._seed, self._emotion, self._workers, behind)
        for start in range(0, len(self.track), SLICE_FRAMES):
            part = self.track.slice(start, min(start + SLICE_FRAMES, len(self.track)))
            yield from stream.push(part.points(), more=True)
        yield from stream.flush()

    @property
    def transparent(self) -> bool:
        """Whether frames are (H, W, 4)."""
        return self._portrait.alpha is not None and is_transparent(self._background)

    def _shown_in(self, path: str | os.PathLike[str]) -> Video:
        """Return the video as it goes into a file: what nobody asked for is chosen by its format.

        Raises:
            ValueError: it is to be transparent in a file that cannot be.
        """
        if self.transparent and not keeps_alpha(path):
            raise ValueError(
                f"background: got transparent with {path}, expected .webm, .mov or a folder of PNG frames for it"
            )
        portrait, track = self._portrait, self.track
        background: Background | None = self._background
        own = self._own
        side = None if own is None else capped_side(path, own)
        if side is not None:
            own = None  # it was said what became of it
            portrait = resized(portrait, side)
            track = resized_track(track, portrait.size)
        if background is None and keeps_alpha(path):
            background = "transparent"
        return Video(
            self._painter, self._workers, portrait, track, self._audio, self._sampling, self._seed, self._emotion, 
            own=own, background=background, preview=self._preview,
        )  # fmt: skip

    @property
    def duration(self) -> Fraction:
        """The sound's length in seconds, or the frames' where there is no sound."""
        return Fraction(len(self)) / self.fps if self._audio is None else duration_s(len(self._audio.samples))

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        progress: Callable[[int, int], None] | None = None,
        keep_part: bool = True,
    ) -> Path:
        """Write the video (.mp4, .mov, .mkv, .webm, .gif, or a folder of PNG frames when `path` ends in a slash).

        A GIF is at most 480 pixels a side unless a size was asked for, and at most 50 frames a second. A portrait with
        alpha keeps it in .webm (VP9), .mov (ProRes 4444) and PNG, unless a background was asked for.
        Frames are encoded as they are made; the file appears under its name when it is whole. keep_part: what an error
        or an interruption leaves of it stays as NAME.partial.SUFFIX, if it lasts at least one second.

        Raises:
            MediaError: it cannot be written there. ValueError: it is to be transparent in a file that cannot be.
        """
        check_output(path)
        shown = self._shown_in(path)
        sound = None
        if self._audio is not None:
            if self._audio.origin is not None:
                sound = SoundFile(self._audio.origin, self._audio.track, self._audio.intact)
            elif self._audio.original is not None and self._audio.original_rate is not None:
                sound = (self._audio.original, self._audio.original_rate)
        rendering, started = 0.0, time.perf_counter()
        with VideoWriter(
            path,
            size=shown.size,
            fps=self.fps,
            audio=sound,
            duration=self.duration,
            keep_part=keep_part,
            alpha=shown.transparent,
        ) as writer:
            before = time.perf_counter()
            for index, frame in enumerate(shown._shown(), 1):
                rendering += time.perf_counter() - before
                with stage("encode"):
                    writer.write(frame)
                if progress:
                    progress(index, len(self))
                before = time.perf_counter()
        total = time.perf_counter() - started
        self.seconds = {"render": rendering, "write": total - rendering}
        self.written = writer.written
        if not Path(path).exists():
            raise MediaError(f"output {path}: the file vanished after it was written")
        return Path(path)


def drawn(background: Background | None, portrait: Portrait) -> np.ndarray | None:
    """Return what frames are laid on, (H, W, 3): white where nobody chose; None where they are as they are."""
    if background is None and portrait.alpha is not None:
        say_white()
    return draw_background(WHITE if background is None else background, portrait)
