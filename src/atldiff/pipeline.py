"""A portrait and a recording become a talking video. Start reading here.

    head = TalkingHead.from_pretrained("atl-diff")
    head("portrait.jpg", "speech.wav").save("out.mp4")

The walk: portrait -> landmarks; samples -> landmark track (`methods/speech.py`) -> frames (a method's painter), written
as they come (`rendering.py`). Offline is streaming with everything pushed at once: there is one path.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from atldiff import checkpoint
from atldiff.audio.load import Audio, PacketResampler, load_audio
from atldiff.config import Preset, SampleConfig, sampling_presets
from atldiff.emotions import labelled
from atldiff.landmarks.edit import at_fps
from atldiff.landmarks.emotion import with_emotion
from atldiff.live import as_arrays
from atldiff.loading import Loaded, load, of_model, workers_for
from atldiff.methods.build import paints_whole_faces
from atldiff.methods.driving import open_driving
from atldiff.methods.edits import edited
from atldiff.methods.fitting import fitted as fitted_to
from atldiff.methods.fitting import shape_and_pose
from atldiff.methods.framing import check_framing, framed, reframe
from atldiff.methods.portrait import open_portrait, resized, say_if_smaller
from atldiff.methods.references import open_with_references
from atldiff.methods.speech import TrackStream, join
from atldiff.rendering import Video, drawn
from atldiff.runtime.choose import choose
from atldiff.stages import stage
from atldiff.timebase import FPS, SAMPLE_RATE, output_frame_count
from atldiff.types import Controls, Framing, LandmarkTrack, Portrait
from atldiff.video.background import open_background, say_if_hidden
from atldiff.video.patch import unpatched

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator

    from atldiff.dubbing.choice import FaceChoice
    from atldiff.dubbing.dub import Dub
    from atldiff.dubbing.timing import Fit
    from atldiff.dubbing.tracking import OnMissing
    from atldiff.emotions import EmotionSchedule
    from atldiff.live import Samples
    from atldiff.methods.driving import DrivingSource
    from atldiff.methods.edits import Edits
    from atldiff.methods.models import Model
    from atldiff.methods.pair import Pair
    from atldiff.methods.portrait import GivenLandmarks, PortraitSource, Size
    from atldiff.methods.window_frames import WindowPainter
    from atldiff.video.background import BackgroundSource
    from atldiff.workers import Workers

    AudioSource = str | os.PathLike[str] | np.ndarray | Audio

_log = logging.getLogger(__name__)


class TalkingHead:
    """A loaded method. Thread-safe for reading: all state of a rendering lives in the `Video`.

    speaker: sound to landmarks. painter: landmarks to frames. compute: what computes their networks. model: their
    modules where PyTorch does, else None.
    """

    def __init__(
        self,
        model: Model | Pair | Loaded,
        *,
        device: str = "auto",
        dtype: str = "auto",
        motion: Path | None = None,
        workers: Workers | None = None,
    ) -> None:
        """model: of PyTorch, or what `loading.load` gave. device, dtype: of a model of PyTorch; as `from_pretrained`.

        motion: folder of the motion model's weights; None takes the package's. workers: threads that do the work; None
        makes some.

        Raises:
            ValueError: unknown device or dtype.
        """
        loaded = model if isinstance(model, Loaded) else of_model(model, choose("torch", device, dtype, graphs=False))
        self.speaker, self.painter, self.compute = loaded.speaker, loaded.painter, loaded.compute
        self.model, self.motion = loaded.model, motion
        self._live, self._prepare_live = loaded.live or loaded.painter, loaded.prepare_live
        self.workers = workers or workers_for(self.compute)
        self._video = partial(Video, self.painter, self.workers)
        self._paired = loaded.paired
        self._named = f"{loaded.speaker.config} {loaded.painter.config} {loaded.compute}"

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
        is not read where both are given.

        backend: what computes the networks: `torch`, `openvino`, `onnx`, or `auto`, the fastest that is installed. See
        docs/export.md. device: `cpu`, `cuda`, `cuda:N` (torch alone), or `auto`, a GPU where torch has one. dtype:
        `float32`, `bfloat16`, `int8` (the denoiser in 8 bits, for checkpoints that have it so), or `auto`, the fastest
        that backend and hardware have.

        Raises:
            CheckpointError: not a checkpoint of ours. ValueError: unknown device, dtype or backend, or a backend that
            cannot do what was asked for. AtlDiffError: the backend's package is missing.
        """
        speaks, renders = checkpoint.locate_stages(name, generator, renderer, revision)
        loaded = load(speaks, renders, backend=backend, device=device, dtype=dtype)
        return cls(loaded, motion=checkpoint.motion_of(speaks))

    def save_pretrained(self, folder: str | os.PathLike[str], card: str | None = None) -> None:
        """Write the checkpoint to a folder.

        Raises:
            ValueError: the networks run in another backend than torch, which holds no weights to write, or they are
            stages of two checkpoints, which have no configuration in common.
        """
        if self.model is None:
            raise ValueError(
                f"save_pretrained: got backend {self.compute.backend}, expected torch; copy the folder instead"
            )
        if self._paired:
            raise ValueError("save_pretrained: got stages of two checkpoints, expected one model; save each of the two")
        checkpoint.save_model(cast("Model", self.model), Path(folder), card)
        checkpoint.carry_motion(self.motion, Path(folder))

    def sampling(self, chosen: SampleConfig | Preset = "balanced") -> SampleConfig:
        """Return a sampling preset of this method, or the configuration as it is.

        Raises:
            ValueError: no such preset.
        """
        if isinstance(chosen, SampleConfig):
            return chosen
        presets = sampling_presets(self.painter.config)
        if chosen not in presets:
            raise ValueError(f"sampling: got {chosen!r}, expected {', '.join(presets)} or a SampleConfig")
        return presets[chosen]

    def open_portrait(
        self,
        source: PortraitSource,
        *,
        face: int | None = None,
        frame: int | None = None,
        references: Iterable[PortraitSource] | None = None,
        landmarks: GivenLandmarks | None = None,
    ) -> Portrait:
        """Return a portrait with its landmarks, and with its references where the renderer has a use for them.

        source: an image or video path, an array (H, W, 3), a Pillow image, or a `Portrait` as it is. face: which of
        several, counted row by row from left to right, from 0; None takes the largest. frame: which frame of a video;
        None takes the first that shows a face.

        references: up to 16 further pictures or videos of the same person, whose teeth show where the portrait has
        none; their order does not matter. Of a picture the largest face is taken, of a video the frames of its widest
        and its most closed mouth. None takes those two of a video given as source; an empty list takes none.

        landmarks: points of the face, instead of looking for it: 68 or 478 of (x, y) or (x, y, z) in pixels of the
        upright picture, as an array or a file of them (docs/given-landmarks.md); 68 are met exactly and the others
        follow them. Of a video without `frame`, they are of its first one.

        Raises:
            FaceNotFound: no face, or no face of that number, or none in a reference. MediaError: not a picture.
            ValueError: a frame of a picture, more than 16 references, or landmarks that cannot be a face's.
        """
        if not paints_whole_faces(self.painter.config):
            return open_with_references(source, face, frame, references, landmarks)
        opened = open_portrait(source, face, frame, landmarks)
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
        edits: Edits | None = None,
        sample_rate: int | None = None,
        audio_track: int | str | None = None,
    ) -> LandmarkTrack:
        """Return the landmark track of a portrait speaking a recording: ceil(N / 640) frames at 25 fps, or at `fps`.

        framing: what is shown of the portrait, and so what the track's pixels are counted in: `full`, all of it, or
        `head`, the square of head and shoulders. driving: a video, or a landmark track, whose face moves head, eyes and
        brows; played forth and back where it is shorter than the sound. None leaves them to `controls`.
        edits: what is done to the track in the end. audio_track: as for `load_audio`.

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
        if rate != FPS:
            track = at_fps(track, rate).slice(0, output_frame_count(len(recording.samples), rate))
        if edits is None:
            return track
        pose = shape_and_pose(opened)[1]
        return edited(track, edits, portrait=pose, samples=recording.samples, seed=controls.seed)

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
        edits: Edits | None = None,
        preview: bool = False,
    ) -> Video:
        """Render a landmark track on a portrait; a track of another identity is retargeted to it.

        references: as for `open_portrait`. framing: as for `landmarks`; a track of this portrait in the other framing
        is moved along. edits: what is done to the track once it is this portrait's. size, background: as for a call.
        audio: the sound of the saved file. audio_track: as for `load_audio`. emotion: as in `Controls`, on top of what
        the track has: a renderer that was trained with emotions is told a plain word, all else moves the landmarks.
        preview: as for a call.

        Raises:
            FaceNotFound, MediaError, ValueError: bad input, before any work.
        """
        label, offsets = self._emotion(emotion)
        check_framing(framing)
        behind = open_background(background)
        whole = self.open_portrait(portrait, face=face, frame=frame, references=references)
        shown = framed(whole, framing)
        opened = resized(shown, size)
        say_if_hidden(behind, opened)
        recording = None if audio is None else _heard(audio, sample_rate, audio_track)
        fitted = fitted_to(reframe(track, whole, framing), opened, self.speaker.moves)
        if offsets is not None:
            fitted = with_emotion(fitted, offsets)
        if edits is not None:
            samples = None if recording is None else recording.samples
            fitted = edited(fitted, edits, portrait=shape_and_pose(opened)[1], samples=samples, seed=seed)
        chosen, own = self.sampling(sampling), shown.size if size is None else None
        return self._video(opened, fitted, recording, chosen, seed, label, own=own, background=behind, preview=preview)

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
        edits: Edits | None = None,
        size: Size = None,
        background: BackgroundSource | None = None,
        preview: bool = False,
        sample_rate: int | None = None,
        audio_track: int | str | None = None,
    ) -> Video:
        """Return the video of a portrait speaking a recording. Nothing is rendered until it is iterated or saved.

        fps: frames a second of the output (landmarks are interpolated); None is 25. size: longest side in pixels, or
        `full`, which keeps that of what is shown; None keeps it up to 1920. references: as for `open_portrait`.
        framing, driving, edits: as for `landmarks`. audio_track: as for `load_audio`.

        background: what is behind a portrait with alpha: a colour's name, `#rrggbb` or (R, G, B); a picture, as a file
        or an array, which covers it; `blur`, an enlarged and blurred copy of itself; or `transparent`, which makes
        frames (H, W, 4). None is white, except in files that can keep the alpha. preview: put the landmarks, drawn over
        the portrait, on the right of each frame, which is twice as wide.

        Raises:
            FaceNotFound, MediaError, ValueError: bad input, before any work.
        """
        chosen = self.sampling(sampling)
        check_framing(framing)
        behind = open_background(background)
        recording = _heard(audio, sample_rate, audio_track)
        whole = self.open_portrait(portrait, face=face, frame=frame, references=references)
        shown = framed(whole, framing)
        opened = resized(shown, size)
        say_if_hidden(behind, opened)
        track = self.landmarks(opened, recording, controls=controls, driving=driving, fps=fps, edits=edits)
        seed, emotion, own = controls.seed, self._emotion(controls.emotion)[0], shown.size if size is None else None
        return self._video(opened, track, recording, chosen, seed, emotion, own=own, background=behind, preview=preview)

    def dub(
        self,
        video: str | os.PathLike[str],
        audio: AudioSource,
        *,
        face: FaceChoice = None,
        on_missing: OnMissing = "hold",
        fit: Fit = "loop",
        controls: Controls = Controls(),  # noqa: B008 - frozen
        sampling: SampleConfig | Preset = "balanced",
        sample_rate: int | None = None,
        audio_track: int | str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Dub:
        """Return a video in which a face speaks a recording; of every frame only the mouth and the jaw change.

        The video is read once, to follow the face; nothing is rendered until what is returned is iterated or saved.

        face: None or `largest`; a number as `atldiff faces` gives it, in the first frame that shows so many; a place
        (x, y) in pixels, or `x,y`, in the first frame with a face; or a picture of the person. on_missing: what becomes
        of frames that show no such face: `hold` interpolates landmarks over up to 0.4 s and leaves longer ones as they
        are, `passthrough` leaves them all, `skip` leaves them out, `error` raises. fit: `loop` lasts as long as the
        speech, a shorter video goes forth and back; `freeze` as long as the longer, on the last frame; `cut` as long as
        the shorter. controls: what moves head and eyes is not used. audio_track: as for `load_audio`. progress: called
        with (done, all) frames while the face is followed.

        Raises:
            FaceNotFound, MediaError, ValueError: bad input, before any rendering; HDR, or a renderer of whole faces.
        """
        if paints_whole_faces(self.painter.config):
            raise ValueError("dub: this renderer paints whole faces, expected one of the mouth, such as atl-diff's")
        from atldiff.dubbing.dub import DubMethod, check_dub_options, open_dub

        check_dub_options(on_missing, fit)
        chosen = self.sampling(sampling)
        recording = _heard(audio, sample_rate, audio_track)
        method = DubMethod(self.speaker, cast("WindowPainter", self.painter), self.motion, self.workers, self._named)
        return open_dub(
            method, video, recording, face=face, on_missing=on_missing, fit=fit, controls=controls, sampling=chosen,
            progress=progress,
        )  # fmt: skip

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

        A window of frames appears as soon as its sound and the look-ahead are there: with atl-diff's presets four
        frames at a time, the first at 0.33 s of sound, every later frame at most 0.29 s after the end of its own; with
        atl-diff-paper's after two seconds. Smoothing adds three of its sigmas. `atldiff.live.continuous` makes
        chunks of a live source and lets the face idle while nothing comes.

        chunks: arrays (n,) or (n, channels) of any sizes at `sample_rate`, floats in [-1, 1] or integers over their
        type's range, or bytes of mono 16-bit little-endian PCM; all that `atldiff.live.as_arrays` takes.
        references: as for `open_portrait`. framing, driving: as for `landmarks`. size, background: as for a call.
        """
        check_framing(framing)
        behind = open_background(background)
        if self._prepare_live is not None:
            self._prepare_live()
        whole = self.open_portrait(portrait, face=face, references=references)
        shown = framed(whole, framing)
        opened = resized(shown, size)
        if size is None:
            say_if_smaller(shown.size, opened.size)
        say_if_hidden(behind, opened)
        resampler = PacketResampler(sample_rate)
        driver = None if driving is None else open_driving(driving, controls)
        tracks = TrackStream(self.speaker, opened, controls, driver, self.motion)
        chosen, emotion = self.sampling(sampling), self._emotion(controls.emotion)[0]
        frames = self._live.open(opened, chosen, controls.seed, emotion, self.workers, drawn(behind, opened))
        alone = self.workers.alone
        for samples in as_arrays(chunks):
            for start in range(0, len(samples), sample_rate):  # memory does not grow with the chunk
                part = resampler.feed(samples[start : start + sample_rate])
                yield from map(unpatched, frames.push(alone(tracks.push, part).points()))
        yield from map(unpatched, frames.push(alone(tracks.push, resampler.flush()).points()))
        yield from map(unpatched, frames.push(alone(tracks.flush).points()))
        yield from map(unpatched, frames.flush())

    def _emotion(self, emotion: str | None) -> tuple[str | None, EmotionSchedule | None]:
        """Return what of an emotion the renderer is told, and what is left to the landmarks."""
        return labelled(emotion, getattr(self.painter.config, "emotions", 0))


def _heard(audio: AudioSource, sample_rate: int | None, audio_track: int | str | None) -> Audio:
    with stage("audio"):
        return load_audio(audio, sample_rate=sample_rate, audio_track=audio_track)


def _rate(fps: Fraction | float | None) -> Fraction:
    rate = Fraction(FPS) if fps is None else Fraction(fps).limit_denominator(1001)
    if not 1 <= rate <= 120:
        raise ValueError(f"fps: got {fps}, expected 1 to 120")
    return rate
