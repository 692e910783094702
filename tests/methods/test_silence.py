"""The mouth of the bundled atl-diff where nobody speaks: closed, in any noise and from the first frame on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from atldiff.audio.features import log_mel
from atldiff.audio.load import load_audio
from atldiff.audio.voice import voice_of
from atldiff.checkpoint import load_model, locate
from atldiff.landmarks.gate import SpeechGate
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import lip_opening
from atldiff.methods.models import speaker_of
from atldiff.methods.speech import TrackStream, join
from atldiff.timebase import SAMPLE_RATE, SAMPLES_PER_FRAME, frame_count
from atldiff.types import Controls, Portrait

if TYPE_CHECKING:
    from atldiff.methods.generators import Speaker

CLOSED = 0.02
"""Lip opening, in outer-eye distances, that nobody takes for speech: words open the lips of this face by 0.08."""
BEFORE_FRAMES, AFTER_FRAMES = 4, 5
"""Lips open up to 160 ms before a word, and are closed 200 ms after one."""


@pytest.fixture(scope="module")
def speaker() -> Speaker:
    return speaker_of(load_model(locate("atl-diff")).generator)


@pytest.fixture(scope="module")
def phrase(examples: Path) -> np.ndarray:
    """The demo's first sentence, 3.7 s from the first sound to the last."""
    samples = load_audio(examples / "speech.wav").samples[: 4 * SAMPLE_RATE]
    heard = np.flatnonzero(np.abs(samples) > 0.01)
    return samples[heard[0] : heard[-1]]


def opening(speaker: Speaker, samples: np.ndarray, packets: list[int] | None = None) -> np.ndarray:
    """Return the lip opening (F,) of a face with closed lips that speaks samples, given in packets that end there."""
    points = (100 * mean_shape() + 256).astype(np.float32)
    portrait = Portrait(np.zeros((512, 512, 3), np.uint8), points)
    stream = TrackStream(speaker, portrait, Controls(still=True, blink_rate_hz=0))
    pieces = [stream.push(part.astype(np.float32)) for part in np.split(samples, packets or [])]
    track = join([*pieces, stream.flush()])
    return lip_opening(track.neutral + track.displacements)


def noise(kind: str, seconds: float, seed: int = 0) -> np.ndarray:
    """Return stationary noise of unit power."""
    random = np.random.default_rng(seed)
    count = int(seconds * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    hz = np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), 20)
    slope = {"white": 0.0, "pink": -0.5, "hiss": 0.5, "room": -1.0, "fan": -0.8, "hum": 0.0}[kind]
    samples = np.fft.irfft(np.fft.rfft(random.normal(size=count)) * hz**slope, count)
    samples /= samples.std()
    if kind == "hum":
        samples = 0.03 * samples + sum(np.sin(2 * np.pi * 50 * k * time + k * k) / k for k in range(1, 16))
    if kind == "fan":
        blades = sum(np.sin(2 * np.pi * 115 * k * time + k) / k for k in range(1, 5))
        samples = samples * (1 + 0.15 * np.sin(2 * np.pi * 23 * time)) + 0.5 * blades
    return samples / samples.std()


def loudness(phrase: np.ndarray) -> float:
    """Return the RMS of the voice, its pauses left out."""
    frames = phrase[: len(phrase) // 640 * 640].reshape(-1, 640).std(axis=1)
    return float(np.sqrt(np.mean(frames[frames > 0.1 * frames.max()] ** 2)))


def amid(
    phrase: np.ndarray, kind: str, under_db: float, before_s: float, after_s: float
) -> tuple[np.ndarray, int, int]:
    """Return a phrase amid noise, and its first frame and the one after its last."""
    start = int(before_s * SAMPLE_RATE)
    samples = noise(kind, before_s + after_s + len(phrase) / SAMPLE_RATE)
    samples *= loudness(phrase) * 10 ** (-under_db / 20)
    samples[start : start + len(phrase)] += phrase
    samples *= 0.9 / np.abs(samples).max()
    return samples, start // SAMPLES_PER_FRAME, frame_count(start + len(phrase))


@pytest.mark.parametrize(
    ("kind", "under_db"),
    [("white", 12), ("pink", 12), ("hiss", 12), ("room", 12), ("fan", 12), ("hum", 12), ("white", 30), ("room", 50)],
)
def test_the_mouth_is_closed_before_and_after_speech_in_any_noise(
    speaker: Speaker, phrase: np.ndarray, kind: str, under_db: float
) -> None:
    samples, first, stop = amid(phrase, kind, under_db, before_s=1.5, after_s=3)
    lips = opening(speaker, samples)
    assert lips[: first - BEFORE_FRAMES].max() < CLOSED
    assert lips[stop + AFTER_FRAMES :].max() < CLOSED
    spoken = lips[first:stop]
    assert spoken.mean() > 0.05
    assert spoken.std() > 0.02


def test_digital_silence_is_as_good(speaker: Speaker, phrase: np.ndarray) -> None:
    samples = np.concatenate([np.zeros(24_000), phrase, np.zeros(40_000)])
    lips = opening(speaker, samples)
    stop = frame_count(24_000 + len(phrase))
    assert lips[:33].max() < CLOSED
    assert lips[stop + AFTER_FRAMES :].max() < CLOSED
    assert lips[37:stop].mean() > 0.05


@pytest.mark.parametrize("kind", ["white", "room", "hum"])
def test_the_gate_stays_shut_for_a_minute_of_noise(phrase: np.ndarray, kind: str) -> None:
    samples, _, stop = amid(phrase, kind, 12, before_s=0.5, after_s=60)
    assert not gate_of(samples)[stop + AFTER_FRAMES :].any()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["white", "pink", "hiss", "room", "fan", "hum"])
@pytest.mark.parametrize("under_db", [12, 20, 30, 40])
def test_the_gate_stays_shut_for_five_minutes(phrase: np.ndarray, kind: str, under_db: float) -> None:
    samples, first, stop = amid(phrase, kind, under_db, before_s=3, after_s=300)
    gate = gate_of(samples)
    assert not gate[: first - BEFORE_FRAMES].any()
    assert not gate[stop + AFTER_FRAMES :].any()


def gate_of(samples: np.ndarray) -> np.ndarray:
    heard = samples.astype(np.float32)
    gate, voice = SpeechGate(), voice_of(heard)
    return np.concatenate([gate.push(voice, log_mel(heard)[1][:, 0]), gate.flush(len(voice))])


def chords(time: np.ndarray) -> np.ndarray:
    """Chords of plucked strings with a melody and a drum, 120 a minute."""
    beat = time % 0.5
    steps = np.array([220.0, 246.9, 261.6, 293.7, 329.6, 392.0])[(time / 0.5).astype(int) * 7 % 6]
    notes = [steps, 220.0 + 0 * time, 277.2 + 0 * time, 329.6 + 0 * time]
    strings = sum(
        np.sin(2 * np.pi * k * np.cumsum(hz) / SAMPLE_RATE) * np.exp(-3 * k * beat) / k
        for hz in notes
        for k in (1, 2, 3, 4)
    )
    drum = np.random.default_rng(1).normal(size=len(time)) * np.exp(-40 * (time % 0.25))
    return strings + drum


def syllables_of_noise(time: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).normal(size=len(time)) * np.clip(np.sin(2 * np.pi * 4 * time), 0, 1)


VOICELESS = {
    "music": chords,
    "tone": lambda time: np.sin(2 * np.pi * 440 * time),
    "low tone": lambda time: np.sin(2 * np.pi * 150 * time),
    "siren": lambda time: np.sin(2 * np.pi * np.cumsum(700 + 300 * np.sin(2 * np.pi * 0.5 * time)) / SAMPLE_RATE),
    "beeps": lambda time: np.sin(2 * np.pi * 1000 * time) * (time % 1 < 0.2),
    "buzz": lambda time: sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 20)),
    "syllables of noise": syllables_of_noise,
}


@pytest.mark.parametrize("kind", VOICELESS)
def test_what_is_no_voice_keeps_the_mouth_nearly_closed(
    speaker: Speaker, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    sound = VOICELESS[kind](np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE)
    lips = opening(speaker, 0.3 * sound / np.abs(sound).max())
    assert np.percentile(lips, 95) < CLOSED
    assert lips.mean() < CLOSED
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith("audio: no speech heard in 5.0 s, expected a voice: the mouth stays closed")


def test_a_voice_is_heard_without_a_word_about_it(
    speaker: Speaker, phrase: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    music = chords(np.arange(6 * SAMPLE_RATE) / SAMPLE_RATE)
    music *= 0.2 * loudness(phrase) / music.std()
    music[2 * SAMPLE_RATE : 2 * SAMPLE_RATE + len(phrase)] += phrase
    lips = opening(speaker, music * 0.9 / np.abs(music).max())
    assert lips[: 50 - BEFORE_FRAMES].max() < CLOSED
    assert lips[50 : 50 + len(phrase) // SAMPLES_PER_FRAME].std() > 0.02
    assert not caplog.records


@pytest.mark.parametrize(("peak_db", "bits"), [(-60.0, 24), (-50.0, 16), (-30.0, 16), (0.0, 16)])
def test_the_motion_is_the_same_at_any_level(speaker: Speaker, phrase: np.ndarray, peak_db: float, bits: int) -> None:
    samples = np.concatenate([np.zeros(8_000), phrase, np.zeros(8_000)])
    samples += 10 ** (-50 / 20) * loudness(phrase) * noise("room", len(samples) / SAMPLE_RATE)[: len(samples)]
    usual = opening(speaker, 0.3 * samples / np.abs(samples).max())
    scaled = np.rint(samples / np.abs(samples).max() * 10 ** (peak_db / 20) * 2 ** (bits - 1)) / 2 ** (bits - 1)
    lips = opening(speaker, np.clip(scaled, -1, 1))
    assert usual.std() > 0.02
    assert np.corrcoef(lips, usual)[0, 1] > 0.98
    assert 0.95 < lips.std() / usual.std() < 1.05


def test_a_stream_s_first_second_is_no_worse_than_later_ones(speaker: Speaker, phrase: np.ndarray) -> None:
    for kind in ("white", "room"):
        ground = noise(kind, 13) * loudness(phrase) * 10 ** (-20 / 20)
        later = 5 * SAMPLE_RATE + len(phrase)
        later -= later % SAMPLES_PER_FRAME
        samples = ground.copy()
        samples[: len(phrase)] += phrase
        samples[later : later + len(phrase)] += phrase
        samples *= 0.9 / np.abs(samples).max()
        frame = later // SAMPLES_PER_FRAME
        for heard, most in ((gate_of(samples), 0.2), (opening(speaker, samples), 0.11)):  # words open lips by 0.15
            start, again = heard[:25], heard[frame : frame + 25]
            assert np.abs(start - again).max() < most
            assert start.mean() > 0.9 * again.mean()
        assert np.corrcoef(start, again)[0, 1] > 0.6  # before the recording is silence, later there is noise


def test_any_packets_give_the_same_mouth_and_no_later(speaker: Speaker, phrase: np.ndarray) -> None:
    samples, _, _ = amid(phrase, "pink", 20, before_s=0.7, after_s=0.7)
    whole = opening(speaker, samples)
    random = np.random.default_rng(0)
    for count in (5, 300):
        assert np.array_equal(
            opening(speaker, samples, np.sort(random.integers(0, len(samples), count)).tolist()), whole
        )
    points = (100 * mean_shape() + 256).astype(np.float32)
    stream = TrackStream(speaker, Portrait(np.zeros((512, 512, 3), np.uint8), points), Controls())
    assert len(stream.push(samples[: 8 * SAMPLES_PER_FRAME + 119].astype(np.float32))) == 0
    assert len(stream.push(samples[8 * SAMPLES_PER_FRAME + 119 :][:1].astype(np.float32))) == 4


def test_the_gate_can_be_turned_off(speaker: Speaker, caplog: pytest.LogCaptureFixture) -> None:
    points = (100 * mean_shape() + 256).astype(np.float32)
    portrait = Portrait(np.zeros((512, 512, 3), np.uint8), points)
    stream = TrackStream(speaker, portrait, Controls(still=True, blink_rate_hz=0, silence_gate=False))
    track = join([stream.push((0.1 * noise("white", 2)).astype(np.float32)), stream.flush()])
    assert np.ptp(lip_opening(track.neutral + track.displacements)) > 1e-4  # what it opens by is the generator's affair
    assert not caplog.records
