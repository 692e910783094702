"""A video that says something else: tracked once, then rendered frame by frame as it is read again."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atldiff.audio.voice import voice_of
from atldiff.dubbing.choice import WantedFace
from atldiff.dubbing.frames import DubbedFrames, Filmed
from atldiff.dubbing.kept import KeptStreams
from atldiff.dubbing.targets import SILENCE, FilmedPoints, SpokenShapes, mouth_share, target_points
from atldiff.dubbing.timing import FITS, Fit, showing, weights
from atldiff.dubbing.tracking import ON_MISSING, OnMissing, track_face
from atldiff.dubbing.view import FrameView
from atldiff.dubbing.writer import DubWriter, Part, check_dub_output
from atldiff.errors import FaceNotFound, MediaError
from atldiff.landmarks.gate import HEARD_FRAMES, START
from atldiff.methods.speech import say_nobody_speaks
from atldiff.stages import stage
from atldiff.timebase import SAMPLE_RATE, SAMPLES_PER_FRAME, duration_s
from atldiff.video.footage import Footage
from atldiff.video.sound import SoundFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from atldiff.audio.load import Audio
    from atldiff.config import SampleConfig
    from atldiff.dubbing.choice import FaceChoice
    from atldiff.dubbing.tracking import TrackedFace
    from atldiff.methods.generators import Speaker
    from atldiff.methods.window_frames import WindowPainter
    from atldiff.types import Controls
    from atldiff.video.planar import Planar
    from atldiff.workers import Workers

_log = logging.getLogger(__name__)

FADE_S = 0.12
"""How long a dubbed mouth takes to become the filmed one where the face is lost."""
HEARD_S = 60
"""Seconds of a recording that are listened to before all else: is there a voice?"""
STATE_VERSION = 1
_END_BYTES = 1 << 20


@dataclass(frozen=True)
class DubMethod:
    """What makes a dub: the two stages of a checkpoint, the folder of its motion weights, and the threads.

    named: what tells these weights from others, for going on with an interrupted dub.
    """

    speaker: Speaker
    painter: WindowPainter
    motion: Path | None
    workers: Workers
    named: str = ""


class Dub:
    """A video that says something else, rendered as it is read: iterate for frames (H, W, 3) uint8, or `save` a file.

    Frames are of square pixels, the right way up. times: seconds from the first frame to each, exact. size: (height,
    width). duration: seconds. found: frames of the video that show the face, and all of them. seconds: wall time of
    the passes.
    """

    def __init__(
        self,
        method: DubMethod,
        footage: Footage,
        tracked: TrackedFace,
        audio: Audio,
        fit: Fit,
        on_missing: OnMissing,
        controls: Controls,
        sampling: SampleConfig,
        named: dict[str, Any],
    ) -> None:
        self._method, self._footage, self._tracked, self._audio = method, footage, tracked, audio
        self._controls, self._sampling, self._on_missing, self._named = controls, sampling, on_missing, named
        speech_s = duration_s(len(audio.samples))
        kept = tracked.known if on_missing == "skip" else None
        self._shown = showing(tracked.stamps, footage.tick, speech_s, fit, kept)
        fade = max(1, round(FADE_S * footage.rate))
        self._weights = weights(tracked.known, fade)
        self.found = (int(tracked.seen.sum()), len(tracked.seen))
        self.size = FrameSize(footage).shown
        self.seconds: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._shown.order)

    @property
    def times(self) -> list[Fraction]:
        """Seconds from the first frame to each."""
        return [int(tick) * self._footage.tick for tick in self._shown.ticks]

    @property
    def duration(self) -> Fraction:
        """How long it lasts, in seconds."""
        return self._shown.end * self._footage.tick

    def __iter__(self) -> Iterator[np.ndarray]:
        for frame in self.planes():
            yield FrameView(frame, self._footage.shown).whole()

    def planes(self, first: int = 0) -> Iterator[Planar]:
        """Yield the frames from number `first` on as planes, the very ones that were decoded where nothing changed."""
        hop = self._sampling.window_frames - self._sampling.shared_frames
        start = max(0, first // hop - 1) * hop  # a window earlier: what it shares with the next, or hands on, counts
        method, footage = self._method, self._footage
        tracked = self._tracked
        points = FilmedPoints(tracked, footage.rate)
        samples = self._audio.samples
        if self.duration > duration_s(len(samples)):
            samples = np.concatenate([samples, SILENCE])
        spoken = SpokenShapes(method.speaker, samples, tracked.neutral, self._controls, method.motion, method.workers)
        share = mouth_share()
        frames = DubbedFrames(
            method.painter, tracked.open_mouths, tracked.closed_mouth, self._sampling, self._controls.seed,
            shown=footage.shown, rate=float(footage.rate), workers=method.workers, first=start,
        )  # fmt: skip
        order, ticks = self._shown.order[start:], self._shown.ticks[start:]
        number = start
        for index, tick, frame in zip(order.tolist(), ticks.tolist(), footage.read(order, tracked.stamps), strict=True):
            own = points.of(index)
            target = None
            if own is not None:
                target = target_points(own, spoken.at(float(tick * footage.tick)), share)
            for made in frames.push(Filmed(frame, own, target, float(self._weights[index]))):
                if number >= first:
                    yield made
                number += 1
        for made in frames.flush():
            if number >= first:
                yield made
            number += 1

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        keep_audio: bool = False,
        resume: bool = False,
        progress: Callable[[int, int], None] | None = None,
        keep_part: bool = True,
    ) -> Path:
        """Write the video (.mp4, .mov, .mkv or .webm) with the new sound, the old timestamps and subtitles.

        keep_audio: its own sound stays as well, as a second track. resume: go on from what an interrupted dub of the
        same inputs and options has left beside `path`. keep_part: leave something to go on from.

        Raises:
            MediaError: it cannot be written there. ValueError: what was left is of other inputs or options.
        """
        check_dub_output(path)
        target = Path(path)
        if target.exists() and target.samefile(self._footage.path):
            raise MediaError(f"output {path}: would replace the input {self._footage.path}: choose another -o")
        state = {**self._named, "keep_audio": keep_audio, "frames": len(self)}
        part = self._part(target, state) if resume else None
        started = time.perf_counter()
        kept = None
        if self._on_missing != "skip":
            kept = KeptStreams(self._footage.path, self._footage.start_s, sound=keep_audio)
        elif keep_audio:
            _log.warning("keep_audio: not kept: with on_missing skip it would not fit the pictures")
        with DubWriter(
            target, self._footage, self._shown, _sound(self._audio), kept=kept, state=state, part=part,
            keep_part=keep_part,
        ) as writer:  # fmt: skip
            done = writer.frames
            for number, frame in enumerate(self.planes(done), done + 1):
                with stage("encode"):
                    writer.write(frame)
                if progress:
                    progress(number, len(self))
        self.seconds["render"] = time.perf_counter() - started
        return target

    def _part(self, target: Path, state: dict[str, Any]) -> Part | None:
        part = Part(target)
        part.rescue()
        found = part.read()
        if found is None:
            _log.warning("resume: no %s with its .json to go on from; starting anew", part.path)
            return None
        changed = sorted(name for name in {*found, *state} if found.get(name) != state.get(name))
        if changed:
            raise ValueError(
                f"resume: {part.path} was made with other {', '.join(changed)}; give the same ones, or leave "
                "--resume out"
            )
        return part


class FrameSize:
    """The size (height, width) of a video's frames in square pixels."""

    def __init__(self, footage: Footage) -> None:
        across, down = footage.shown
        self.shown = (round(footage.size[0] * down), round(footage.size[1] * across))


def open_dub(
    method: DubMethod,
    video: str | os.PathLike[str],
    audio: Audio,
    *,
    face: FaceChoice,
    on_missing: OnMissing,
    fit: Fit,
    controls: Controls,
    sampling: SampleConfig,
    progress: Callable[[int, int], None] | None = None,
) -> Dub:
    """Track the face of a video and return what is to be rendered; arguments and errors as of `TalkingHead.dub`."""
    check_dub_options(on_missing, fit)
    wanted = WantedFace.of(face)
    footage = Footage.open(video)
    if controls.silence_gate:
        _warn_of_silence(audio.samples)
    started = time.perf_counter()
    tracked = track_face(footage, wanted, on_missing, progress=progress)
    missing = np.flatnonzero(~tracked.seen)
    if missing.size and on_missing == "error":
        first_s = float(tracked.stamps.ticks[int(missing[0])] * footage.tick)
        raise FaceNotFound(
            f"video {video}: no face in {missing.size} of {len(tracked.seen)} frames, the first at {first_s:.2f} s; "
            "expected one in all: cut the video, or choose another --on-missing"
        )
    named = {
        "version": STATE_VERSION,
        "video": _fingerprint(Path(video)),
        "speech": hashlib.sha256(np.ascontiguousarray(audio.samples).tobytes()).hexdigest(),
        "face": wanted.named,
        "on_missing": on_missing,
        "fit": fit,
        "controls": asdict(controls),
        "sampling": asdict(sampling),
        "weights": method.named,
    }
    dub = Dub(method, footage, tracked, audio, fit, on_missing, controls, sampling, named)
    dub.seconds["track"] = time.perf_counter() - started
    return dub


def check_dub_options(on_missing: str, fit: str) -> None:
    """Raise ValueError unless both are known."""
    if on_missing not in ON_MISSING:
        raise ValueError(f"on_missing: got {on_missing!r}, expected one of {', '.join(ON_MISSING)}")
    if fit not in FITS:
        raise ValueError(f"fit: got {fit!r}, expected one of {', '.join(FITS)}")


def _warn_of_silence(samples: np.ndarray) -> None:
    """Say before anything is done where nobody is heard in the first minute of a recording."""
    part = samples[: HEARD_S * SAMPLE_RATE]
    if len(part) >= HEARD_FRAMES * SAMPLES_PER_FRAME and (voice_of(part) > START).sum() < HEARD_FRAMES:
        say_nobody_speaks(len(part))


def _sound(audio: Audio) -> SoundFile | tuple[np.ndarray, int]:
    if audio.origin is not None:
        return SoundFile(audio.origin, audio.track, audio.intact)
    if audio.original is not None and audio.original_rate is not None:
        return audio.original, audio.original_rate
    return audio.samples, SAMPLE_RATE


def _fingerprint(path: Path) -> str:
    """Return what tells a file from others: its size, and a digest of its ends."""
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(_END_BYTES))
        file.seek(max(0, size - _END_BYTES))
        digest.update(file.read())
    return f"{size}-{digest.hexdigest()}"
