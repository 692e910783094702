"""A portrait and a recording become a talking video. Start reading here.

    head = TalkingHead.from_pretrained("atl-diff")
    head("portrait.jpg", "speech.wav").save("out.mp4")

The walk: portrait -> landmarks; samples -> landmark track (`methods/speech.py`) -> frames
(`methods/build.py`). Offline is streaming with everything pushed at once: there is one path.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff import checkpoint
from atldiff.audio.load import Audio, PacketResampler, load_audio
from atldiff.config import Preset, SampleConfig, sampling_presets
from atldiff.devices import choose_device, choose_dtype
from atldiff.errors import MediaError
from atldiff.export.attach import attach, check_window, fit_window_frames
from atldiff.export.choose import find_export
from atldiff.landmarks.edit import at_fps, resized_track, retarget
from atldiff.landmarks.geometry import to_canonical
from atldiff.landmarks.shape import mean_shape
from atldiff.live import as_arrays
from atldiff.methods.atl_published.network import PublishedRenderer
from atldiff.methods.driving import open_driving
from atldiff.methods.framing import check_framing, framed, reframe
from atldiff.methods.models import painter_of, speaker_of
from atldiff.methods.pair import Pair
from atldiff.methods.portrait import open_portrait, resized, say_if_smaller
from atldiff.methods.references import open_with_references
from atldiff.methods.speech import TrackStream, join
from atldiff.stages import stage
from atldiff.timebase import FPS, SAMPLE_RATE, duration_s, output_frame_count
from atldiff.torch_networks import torch_workers
from atldiff.types import Controls, Framing, LandmarkTrack, Portrait, emotion_label
from atldiff.video.background import WHITE, draw_background, is_transparent, open_background, say_if_hidden, say_white
from atldiff.video.formats import check_output, keeps_alpha
from atldiff.video.gif import capped_side
from atldiff.video.patch import unpatched
from atldiff.video.sound import SoundFile
from atldiff.video.write import VideoWriter, Written

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator

    from atldiff.export.manifest import Export
    from atldiff.live import Samples
    from atldiff.methods.driving import DrivingSource
    from atldiff.methods.generators import Speaker
    from atldiff.methods.models import Model
    from atldiff.methods.portrait import PortraitSource, Size
    from atldiff.video.background import Background, BackgroundSource
    from atldiff.video.patch import Frame

    AudioSource = str | os.PathLike[str] | np.ndarray | Audio

_log = logging.getLogger(__name__)

SLICE_FRAMES = 64
"""Frames whose landmarks are made at a time while rendering, so that memory does not grow with the audio."""


class TalkingHead:
    """A loaded method. Thread-safe for reading: all state of a rendering lives in the `Video`."""

    def __init__(
        self,
        model: Model | Pair,
        *,
        device: str = "auto",
        dtype: str = "auto",
        export: Export | None = None,
        motion: Path | None = None,
    ) -> None:
        """export: networks of this very model, not a pair, in another runtime, which then compute instead of its own.

        motion: folder of the motion model's weights; None takes the package's.

        Raises:
            ValueError: unknown device or dtype, or exported networks with a pair.
        """
        if export is not None and isinstance(model, Pair):
            raise ValueError(f"backend: got {export.runtime} with a pair of models, expected torch")
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        if export is not None and export.runtime == "onnx":
            self.dtype = torch.float32
        self.export, self.motion = export, motion
        self.model = model.eval().requires_grad_(False)
        self.model.to(self.device)
        self.workers = torch_workers(self.device)
        if export is not None and not isinstance(model, Pair):
            attach(model, export, dtype=self.dtype, streams=self.workers.count)
        # The generator stays in float32: it is tiny, and its landmarks are a product. What it hears by need not.
        self.speaker: Speaker = speaker_of(self.model.generator, self.dtype)
        renderer = self.model.renderer.to(self.dtype)
        if all(weight.dim() < 5 for weight in renderer.parameters()):  # 3-D convolutions have a layout of their own
            renderer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.painter = painter_of(self.model.renderer)

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str] = "atl-diff",
        *,
        generator: str | os.PathLike[str] | None = None,
        renderer: str | os.PathLike[str] | None = None,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        backend: str = "auto",
    ) -> TalkingHead:
        """Load a checkpoint: a folder, a bundled name or a hub id (fetched at `revision`).

        generator, renderer: checkpoints whose landmark generator or renderer is taken instead of that of `name`, which
        is not read where both are given. Stages of two checkpoints are computed by PyTorch.

        backend: what computes the networks: `torch`, `openvino`, `onnx`, or `auto`: what the folder was exported for,
        otherwise PyTorch. See docs/export.md.

        Raises:
            CheckpointError: not a checkpoint of ours. ValueError: unknown device, dtype or backend, or a backend that
            cannot do what was asked for. AtlDiffError: the backend's package is missing.
        """
        chosen = choose_device(device)
        choose_dtype(dtype, chosen)
        speaks, renders = checkpoint.locate_stages(name, generator, renderer, revision)
        export = None
        if speaks == renders:
            export = find_export(speaks, backend, device=chosen, dtype=dtype)
        elif backend not in ("auto", "torch"):
            raise ValueError(
                f"backend: got {backend!r} with stages of two checkpoints, expected auto or torch: exported networks "
                "are of one"
            )
        motion = checkpoint.motion_of(speaks)
        return cls(checkpoint.load_stages(speaks, renders), device=device, dtype=dtype, export=export, motion=motion)

    def save_pretrained(self, folder: str | os.PathLike[str], card: str | None = None) -> None:
        """Write the checkpoint to a folder.

        Raises:
            ValueError: the networks run in another backend than torch, which holds no weights to write, or they are
            stages of two checkpoints, which have no configuration in common.
        """
        if isinstance(self.model, Pair):
            raise ValueError("save_pretrained: got stages of two checkpoints, expected one model; save each of the two")
        if self.export is not None:
            raise ValueError(
                f"save_pretrained: got backend {self.export.runtime}, expected torch; copy the folder instead"
            )
        checkpoint.save_model(self.model, Path(folder), card)
        checkpoint.carry_motion(self.motion, Path(folder))

    def sampling(self, chosen: SampleConfig | Preset = "balanced") -> SampleConfig:
        """Return a sampling preset of this method, or the configuration as it is.

        Presets have windows as long as those the networks were exported for.

        Raises:
            ValueError: no such preset, or windows of another length than the exported networks take.
        """
        if isinstance(chosen, SampleConfig):
            if self.export is not None:
                check_window(chosen, self.export)
            return chosen
        presets = sampling_presets(self.model.renderer.config)
        if chosen not in presets:
            raise ValueError(f"sampling: got {chosen!r}, expected {', '.join(presets)} or a SampleConfig")
        return presets[chosen] if self.export is None else fit_window_frames(presets[chosen], self.export)

    def open_portrait(
        self,
        source: PortraitSource,
        *,
        face: int | None = None,
        frame: int | None = None,
        references: Iterable[PortraitSource] | None = None,
    ) -> Portrait:
        """Return a portrait with its landmarks, and with its references where the renderer has a use for them.

        source: an image or video path, an array (H, W, 3), a Pillow image, or a `Portrait` as it is. face: which of
        several, counted row by row from left to right, from 0; None takes the largest. frame: which frame of a video;
        None takes the first that shows a face.

        references: up to 16 further pictures or videos of the same person, whose teeth show where the portrait has
        none; their order does not matter. Of a picture the largest face is taken, of a video the frames of its widest
        and its most closed mouth. None takes those two of a video given as source; an empty list takes none.

        Raises:
            FaceNotFound: no face, or no face of that number, or none in a reference. MediaError: not a picture.
            ValueError: a frame of a picture, or more than 16 references.
        """
        if not isinstance(self.model.renderer, PublishedRenderer):
            return open_with_references(source, face, frame, references)
        opened = open_portrait(source, face, frame)
        if references or (references is None and opened.references):
            _log.warning(
                "references: not used: this renderer paints the whole face after one picture; renderers of the mouth, "
                "such as atl-diff's, use them"
            )
        return replace(opened, references=()) if opened.references else opened

    def landmarks(
        self,
        portrait: PortraitSource,
        audio: AudioSource,
        *,
        face: int | None = None,
        frame: int | None = None,
        framing: Framing = "full",
        controls: Controls = Controls(),  # noqa: B008 - frozen
        driving: DrivingSource | None = None,
        fps: Fraction | float | None = None,
        sample_rate: int | None = None,
        audio_track: int | str | None = None,
    ) -> LandmarkTrack:
        """Return the landmark track of a portrait speaking a recording: ceil(N / 640) frames at 25 fps, or at `fps`.

        framing: what is shown of the portrait, and so what the track's pixels are counted in: `full`, all of it, or
        `head`, the square of head and shoulders. driving: a video, or a landmark track, whose face moves head, eyes and
        brows; played forth and back where it is shorter than the sound. None leaves them to `controls`.
        audio_track: as for `load_audio`.

        Raises:
            FaceNotFound, MediaError, ValueError: bad input, before any work.
        """
        rate = _rate(fps)
        check_framing(framing)
        opened = framed(open_portrait(portrait, face, frame), framing)
        recording = _heard(audio, sample_rate, audio_track)
        driver = None if driving is None else open_driving(driving, controls)
        stream = TrackStream(self.speaker, opened, controls, driver, self.motion)
        pieces = []
        for start in range(0, len(recording.samples), SAMPLE_RATE):
            pieces.append(self.workers.alone(stream.push, recording.samples[start : start + SAMPLE_RATE]))
        pieces.append(self.workers.alone(stream.flush))
        track = join(pieces)
        if rate == FPS:
            return track
        return at_fps(track, rate).slice(0, output_frame_count(len(recording.samples), rate))

    def render(
        self,
        portrait: PortraitSource,
        track: LandmarkTrack,
        *,
        audio: AudioSource | None = None,
        face: int | None = None,
        frame: int | None = None,
        references: Iterable[PortraitSource] | None = None,
        framing: Framing = "full",
        sampling: SampleConfig | Preset = "balanced",
        seed: int = 0,
        size: Size = None,
        background: BackgroundSource | None = None,
        sample_rate: int | None = None,
        audio_track: int | str | None = None,
        emotion: str | None = None,
    ) -> Video:
        """Render a landmark track on a portrait; a track of another identity is retargeted to it.

        references: as for `open_portrait`. framing: as for `landmarks`; a track of this portrait in the other framing
        is moved along. size, background: as for a call. audio: the sound of the saved file.
        audio_track: as for `load_audio`. emotion: as in `Controls`.

        Raises:
            FaceNotFound, MediaError, ValueError: bad input, before any work.
        """
        emotion_label(emotion)
        self._check_emotion(emotion)
        check_framing(framing)
        behind = open_background(background)
        whole = self.open_portrait(portrait, face=face, frame=frame, references=references)
        shown = framed(whole, framing)
        opened = resized(shown, size)
        say_if_hidden(behind, opened)
        fitted = self._fitted(reframe(track, whole, framing), opened)
        recording = None if audio is None else _heard(audio, sample_rate, audio_track)
        chosen, own = self.sampling(sampling), shown.size if size is None else None
        return Video(self, opened, fitted, recording, chosen, seed, emotion, own=own, background=behind)

    def __call__(
        self,
        portrait: PortraitSource,
        audio: AudioSource,
        *,
        face: int | None = None,
        frame: int | None = None,
        references: Iterable[PortraitSource] | None = None,
        framing: Framing = "full",
        controls: Controls = Controls(),  # noqa: B008 - frozen
        driving: DrivingSource | None = None,
        sampling: SampleConfig | Preset = "balanced",
        fps: Fraction | float | None = None,
        size: Size = None,
        background: BackgroundSource | None = None,
        sample_rate: int | None = None,
        audio_track: int | str | None = None,
    ) -> Video:
        """Return the video of a portrait speaking a recording. Nothing is rendered until it is iterated or saved.

        fps: frames a second of the output (landmarks are interpolated); None is 25. size: longest side in pixels, or
        `full`, which keeps that of what is shown; None keeps it up to 1920. references: as for `open_portrait`.
        framing, driving: as for `landmarks`. audio_track: as for `load_audio`.

        background: what is behind a portrait with alpha: a colour's name, `#rrggbb` or (R, G, B); a picture, as a file
        or an array, which covers it; `blur`, an enlarged and blurred copy of itself; or `transparent`, which makes
        frames (H, W, 4). None is white, except in files that can keep the alpha.

        Raises:
            FaceNotFound, MediaError, ValueError: bad input, before any work.
        """
        chosen = self.sampling(sampling)
        self._check_pair(controls.emotion)
        check_framing(framing)
        behind = open_background(background)
        recording = _heard(audio, sample_rate, audio_track)
        whole = self.open_portrait(portrait, face=face, frame=frame, references=references)
        shown = framed(whole, framing)
        opened = resized(shown, size)
        say_if_hidden(behind, opened)
        track = self.landmarks(opened, recording, controls=controls, driving=driving, fps=fps)
        seed, emotion, own = controls.seed, controls.emotion, shown.size if size is None else None
        return Video(self, opened, track, recording, chosen, seed, emotion, own=own, background=behind)

    def stream(
        self,
        portrait: PortraitSource,
        chunks: Iterable[Samples],
        *,
        sample_rate: int = SAMPLE_RATE,
        face: int | None = None,
        references: Iterable[PortraitSource] | None = None,
        framing: Framing = "full",
        controls: Controls = Controls(),  # noqa: B008 - frozen
        driving: DrivingSource | None = None,
        sampling: SampleConfig | Preset = "balanced",
        size: Size = None,
        background: BackgroundSource | None = None,
    ) -> Iterator[np.ndarray]:
        """Yield frames (H, W, 3) uint8 at 25 fps as audio arrives, the very frames of the offline call.

        A window of frames appears as soon as its sound and the look-ahead are there: with atl-diff's presets eight
        frames at a time, the first at 0.57 s of sound, every later frame at most as long after its own sound; with
        atl-diff-paper's after two seconds. Smoothing adds three of its sigmas. `atldiff.live.continuous` makes
        chunks of a live source and lets the face idle while nothing comes.

        chunks: arrays (n,) or (n, channels) of any sizes at `sample_rate`, floats in [-1, 1] or integers over their
        type's range, or bytes of mono 16-bit little-endian PCM; all that `atldiff.live.as_arrays` takes.
        references: as for `open_portrait`. framing, driving: as for `landmarks`. size, background: as for a call.
        """
        self._check_pair(controls.emotion)
        check_framing(framing)
        behind = open_background(background)
        whole = self.open_portrait(portrait, face=face, references=references)
        shown = framed(whole, framing)
        opened = resized(shown, size)
        if size is None:
            say_if_smaller(shown.size, opened.size)
        say_if_hidden(behind, opened)
        resampler = PacketResampler(sample_rate)
        driver = None if driving is None else open_driving(driving, controls)
        tracks = TrackStream(self.speaker, opened, controls, driver, self.motion)
        frames = self.painter.open(
            opened, self.sampling(sampling), controls.seed, controls.emotion, self.workers, _drawn(behind, opened)
        )
        alone = self.workers.alone
        for samples in as_arrays(chunks):
            for start in range(0, len(samples), sample_rate):  # memory does not grow with the chunk
                part = resampler.feed(samples[start : start + sample_rate])
                yield from map(unpatched, frames.push(alone(tracks.push, part).points()))
        yield from map(unpatched, frames.push(alone(tracks.push, resampler.flush()).points()))
        yield from map(unpatched, frames.push(alone(tracks.flush).points()))
        yield from map(unpatched, frames.flush())

    def _check_emotion(self, emotion: str | None) -> None:
        if emotion is not None and not isinstance(self.model.renderer, PublishedRenderer):
            raise ValueError(f"emotion: got {emotion!r}, but this renderer was not trained with emotions; leave it out")

    def _check_pair(self, emotion: str | None) -> None:
        if isinstance(self.model, Pair):  # of one model, the generator speaks for both
            self._check_emotion(emotion)

    def _fitted(self, track: LandmarkTrack, portrait: Portrait) -> LandmarkTrack:
        shape, rotation, scale, translation = to_canonical(portrait.landmarks.astype(np.float64), mean_shape())
        size = (portrait.image.shape[0], portrait.image.shape[1])
        if track.size == size and np.abs(track.neutral - shape).max() < 1e-3:
            return track
        return retarget(track, shape.astype(np.float32), rotation, float(scale), translation, size)


def _heard(audio: AudioSource, sample_rate: int | None, audio_track: int | str | None) -> Audio:
    with stage("audio"):
        return load_audio(audio, sample_rate=sample_rate, audio_track=audio_track)


def _drawn(background: Background | None, portrait: Portrait) -> np.ndarray | None:
    """Return what frames are laid on, (H, W, 3): white where nobody chose; None where they are as they are."""
    if background is None and portrait.alpha is not None:
        say_white()
    return draw_background(WHITE if background is None else background, portrait)


def _rate(fps: Fraction | float | None) -> Fraction:
    rate = Fraction(FPS) if fps is None else Fraction(fps).limit_denominator(1001)
    if not 1 <= rate <= 120:
        raise ValueError(f"fps: got {fps}, expected 1 to 120")
    return rate


class Video:
    """A talking video that is rendered as it is read: iterate for frames (H, W, 3) uint8, or `save` a file.

    Frames of a portrait with alpha on the background `transparent` are (H, W, 4), of straight alpha.

    fps: Fraction. size: (height, width). track: the landmarks. seconds: wall time a stage took, after a rendering.
    written: size, frames a second and frames of the file that `save` wrote, which may differ from those rendered.
    """

    def __init__(
        self,
        head: TalkingHead,
        portrait: Portrait,
        track: LandmarkTrack,
        audio: Audio | None,
        sampling: SampleConfig,
        seed: int,
        emotion: str | None = None,
        *,
        own: tuple[int, int] | None = None,
        background: Background | None = None,
    ) -> None:
        """own: (height, width) of what is shown of the portrait, where no other size was asked for."""
        self._head, self._portrait, self._audio = head, portrait, audio
        self._sampling, self._seed, self._emotion = sampling, seed, emotion
        self._own = own
        self._background: Background | None = background
        self.track = track
        self.fps = track.fps
        self.size = portrait.size
        self.seconds: dict[str, float] = {}
        self.written = Written(self.size, self.fps, 0)

    def __len__(self) -> int:
        return len(self.track)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(unpatched, self._rendered())

    def _rendered(self) -> Iterator[Frame]:
        if self._own is not None:
            say_if_smaller(self._own, self.size)
        behind = _drawn(self._background, self._portrait)
        stream = self._head.painter.open(
            self._portrait, self._sampling, self._seed, self._emotion, self._head.workers, behind
        )
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
            self._head, portrait, track, self._audio, self._sampling, self._seed, self._emotion, own=own,
            background=background,
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
            for index, frame in enumerate(shown._rendered(), 1):
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
