"""Speech in, landmark track out: features, generator, silence, eyes and head motion, in any portions."""

from __future__ import annotations

import logging
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from atldiff.audio.features import MelStream
from atldiff.audio.voice import VoiceStream
from atldiff.emotions import labelled
from atldiff.landmarks.emotion import emotion_displacements
from atldiff.landmarks.gate import HEARD_FRAMES, SpeechGate
from atldiff.landmarks.geometry import to_canonical
from atldiff.landmarks.motion import GaussianSmoother
from atldiff.landmarks.mouth import closing_coefficients, meet_lips
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.visible import open_visible
from atldiff.methods.motion_style import open_motion
from atldiff.stages import stage
from atldiff.timebase import FPS, duration_s, frame_count
from atldiff.types import Controls, LandmarkTrack, Portrait

if TYPE_CHECKING:
    from pathlib import Path

    from atldiff.methods.generators import Speaker

_log = logging.getLogger(__name__)


class TrackStream:
    """The landmark track of one portrait, from samples pushed in any portions; pieces join to the offline track.

    driving: at 25 frames a second, the face that moves eyes, brows and head; None leaves them to the motion model.
    motion: folder of its weights; None takes the package's.

    Raises:
        ValueError: an emotion that the generator was not trained with, or a driving track for a face to be still.
    """

    def __init__(
        self,
        speaker: Speaker,
        portrait: Portrait,
        controls: Controls,
        driving: LandmarkTrack | None = None,
        motion: Path | None = None,
        *,
        warn: bool = True,
    ) -> None:
        """warn: whether to say at the end where nobody spoke."""
        self._warn = warn
        self._controls, self._amplitude = controls, speaker.amplitude
        shape, rotation, scale, translation = to_canonical(portrait.landmarks.astype(np.float64), mean_shape())
        self._neutral = shape.astype(np.float32)
        self._size = (portrait.image.shape[0], portrait.image.shape[1])
        self._fps = Fraction(FPS)
        self._basis = speaker.moves
        self._closing = closing_coefficients(self._neutral, self._basis)
        closed = self._neutral + np.einsum("m,mkd->kd", self._closing, self._basis)
        self._mel = MelStream()
        self._voice, self._gate = VoiceStream(), SpeechGate()
        moved = None if driving is not None or _motionless(controls) else open_motion(controls.motion_style, motion)
        pose = (rotation, scale, translation)
        self._visible = open_visible(driving, controls, self._neutral, *pose, self._size, moved)
        label, self._emotion = labelled(controls.emotion, getattr(speaker.config, "emotions", 0))
        self._predicted = speaker.open(portrait, closed, replace(controls, emotion=label), self._visible)
        self._smoother = GaussianSmoother(controls.smoothing_frames)
        self._coefficients = np.zeros((0, len(self._closing)), np.float32)
        self._gates = np.zeros(0, np.float32)
        self._samples = 0
        self._frames = 0

    def push(self, samples: np.ndarray) -> LandmarkTrack:
        """Take samples (N,) at 16 kHz; return the frames of the track that are complete (possibly none)."""
        self._samples += len(samples)
        with stage("features"):
            mel, levels = self._mel.push(samples)
            voice = self._voice.push(samples)
        self._visible.hear(mel)
        with stage("generator"):
            coefficients = self._predicted.push(samples, mel, levels[:, 1])
        return self._advance(coefficients, self._gate.push(voice, levels[:, 0]), last=False)

    def flush(self) -> LandmarkTrack:
        """End the stream: return the frames still missing, so that all cover ceil(N / 640) frames.

        Where nobody spoke in all of it, a warning says that the mouth stayed closed.
        """
        frames = frame_count(self._samples)
        with stage("features"):
            mel, levels = self._mel.flush(self._samples)
            voice = self._voice.flush()
        self._visible.hear(mel)
        self._visible.end()
        with stage("generator"):
            first = self._predicted.push(np.zeros(0, np.float32), mel, levels[:, 1])
            coefficients = np.concatenate([first, self._predicted.flush(frames)])
        gates = np.concatenate([self._gate.push(voice, levels[:, 0]), self._gate.flush(frames)])
        if self._warn and self._controls.silence_gate and not self._gate.heard and frames >= HEARD_FRAMES:
            say_nobody_speaks(self._samples)
        return self._advance(coefficients, gates, last=True)

    def _advance(self, coefficients: np.ndarray, gates: np.ndarray, *, last: bool) -> LandmarkTrack:
        self._coefficients = np.concatenate([self._coefficients, coefficients])
        self._gates = np.concatenate([self._gates, gates])
        ready = min(len(self._coefficients), len(self._gates))
        gain = self._gates[:ready, None] if self._controls.silence_gate else np.float32(1)
        spoken = self._coefficients[:ready] * (gain * np.float32(self._amplitude * self._controls.expression_scale))
        self._coefficients, self._gates = self._coefficients[ready:], self._gates[ready:]
        smooth = self._smoother.push(spoken)
        if last:
            smooth = np.concatenate([smooth, self._smoother.flush()])
        with stage("motion"):
            return self._track(smooth)

    def _track(self, coefficients: np.ndarray) -> LandmarkTrack:
        # One frame at a time: a product's last bit may depend on how many rows it has, and packets must not show.
        rows = [np.einsum("m,mkd->kd", row + self._closing, self._basis) for row in coefficients]
        displacements = np.stack(rows) if rows else np.zeros((0, *self._neutral.shape), np.float32)
        displacements = meet_lips(self._neutral, displacements)
        frames = self._frames + np.arange(len(rows))
        self._frames += len(rows)
        displacements = displacements + self._visible.displacements(frames)
        if self._emotion is not None:
            intensities = self._emotion.intensities(frames / FPS)
            displacements = displacements + emotion_displacements(self._neutral, displacements, intensities)
        rotation, scale, translation = self._visible.pose(frames)
        return LandmarkTrack(
            neutral=self._neutral,
            displacements=displacements.astype(np.float32),
            rotation=rotation,
            translation=translation,
            scale=scale,
            fps=self._fps,
            size=self._size,
        )


def say_nobody_speaks(samples: int) -> None:
    """Warn that in a recording of so many samples nobody was heard."""
    _log.warning(
        "audio: no speech heard in %.1f s, expected a voice: the mouth stays closed; try another recording, or "
        "--no-silence-gate, which opens it for any sound",
        duration_s(samples),
    )


def _motionless(controls: Controls) -> bool:
    """Return whether a face does nothing but speak."""
    return controls.still and controls.blink_rate_hz == 0


def join(pieces: list[LandmarkTrack]) -> LandmarkTrack:
    """Return consecutive pieces of one track, at least one, as a whole."""
    first = pieces[0]
    joined = {
        name: np.concatenate([getattr(piece, name) for piece in pieces])
        for name in ("displacements", "rotation", "translation", "scale")
    }
    return LandmarkTrack(neutral=first.neutral, fps=first.fps, size=first.size, **joined)
