"""Speech in, landmark track out: features, generator, silence, blinks and head motion, in any portions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atldiff.audio.features import MelStream
from atldiff.landmarks.blink import blink_closure, blink_displacement
from atldiff.landmarks.geometry import to_canonical
from atldiff.landmarks.motion import GaussianSmoother, SilenceGate, head_motion, pose_track
from atldiff.landmarks.mouth import closing_coefficients, meet_lips
from atldiff.landmarks.shape import mean_shape
from atldiff.methods.generators import open_generator
from atldiff.stages import stage
from atldiff.timebase import FPS, frame_count
from atldiff.types import Controls, LandmarkTrack, Portrait

if TYPE_CHECKING:
    from atldiff.methods.generators import SpeechGenerator


class TrackStream:
    """The landmark track of one portrait, from samples pushed in any portions; pieces join to the offline track."""

    def __init__(self, generator: SpeechGenerator, portrait: Portrait, controls: Controls) -> None:
        from fractions import Fraction

        self._controls, self._amplitude = controls, generator.amplitude
        shape, self._rotation, self._scale, self._translation = to_canonical(
            portrait.landmarks.astype(np.float64), mean_shape()
        )
        self._neutral = shape.astype(np.float32)
        self._size = (portrait.image.shape[0], portrait.image.shape[1])
        self._fps = Fraction(FPS)
        self._basis = (generator.scale[:, None, None] * generator.basis).float().cpu().numpy()  # (M, 478, 3)
        self._closing = closing_coefficients(self._neutral, self._basis)
        closed = self._neutral + np.einsum("m,mkd->kd", self._closing, self._basis)
        self._mel = MelStream()
        self._gate = SilenceGate()
        self._predicted = open_generator(generator, portrait, closed, controls)
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
        with stage("generator"):
            coefficients = self._predicted.push(samples, mel)
        return self._advance(coefficients, self._gate.push(levels), last=False)

    def flush(self) -> LandmarkTrack:
        """End the stream: return the frames still missing, so that all cover ceil(N / 640) frames."""
        frames = frame_count(self._samples)
        with stage("features"):
            mel, levels = self._mel.flush(self._samples)
        with stage("generator"):
            first = self._predicted.push(np.zeros(0, np.float32), mel)
            coefficients = np.concatenate([first, self._predicted.flush(frames)])
        gates = np.concatenate([self._gate.push(levels), self._gate.flush(frames)])
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
        moments = self._frames + np.arange(len(rows), dtype=np.float64)
        self._frames += len(rows)
        controls = self._controls
        blinks = 0.0 if controls.still else controls.blink_rate_hz
        if blinks > 0:
            displacements = displacements + blink_displacement(
                self._neutral, blink_closure(moments, blinks, controls.seed)
            )
        euler_deg, shift = head_motion(moments, 0.0 if controls.still else controls.head_motion, controls.seed)
        rotation, scale, translation = pose_track(self._rotation, self._scale, self._translation, euler_deg, shift)
        return LandmarkTrack(
            neutral=self._neutral,
            displacements=displacements.astype(np.float32),
            rotation=rotation.astype(np.float32),
            translation=translation.astype(np.float32),
            scale=np.asarray(scale).astype(np.float32),
            fps=self._fps,
            size=self._size,
        )
