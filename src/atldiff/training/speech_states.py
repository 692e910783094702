"""What a speech encoder hears in each training clip, as it is and as other rooms, voices and paces would have it.

The encoder is frozen, so each variant of a clip is heard once, in the very windows that a stream hears, and kept in the
prepared folder. A clip's lag is not part of it: sound that is put in step later is not heard again.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.audio.features import log_mel
from atldiff.audio.whisper_encoder import WEIGHTS
from atldiff.data.speech import load_samples
from atldiff.files import replacing, sha256
from atldiff.landmarks.stream import BlockStream
from atldiff.timebase import COLUMNS_PER_FRAME, HOP_SAMPLES, SAMPLE_RATE, SAMPLES_PER_FRAME, frame_count

if TYPE_CHECKING:
    from collections.abc import Callable

    from atldiff.config import CompletionConfig, GeneratorConfig
    from atldiff.data.manifest import Manifest
    from atldiff.data.speech import ClipSpeech
    from atldiff.landmarks.generator import Generator
    from atldiff.landmarks.speaker import Hear

FOLDER = "speech-states"
LEARNED_FRAMES = 8
"""Frames of a block that a generator learns from, twice those of a stream's: so half as much is heard and kept."""
VARIANTS = 6
"""The clip as it is, and five times changed."""


@dataclass(frozen=True, slots=True)
class HeardClip:
    """One variant of a clip in blocks.

    states: (K, context + 8 + lookahead, S) float16. moments: (K, 8) float32, the frame of the clip's sound that each
    frame of a block is.
    """

    states: np.ndarray
    moments: np.ndarray


def heard_clips(
    manifest: Manifest,
    sounds: dict[str, np.ndarray],
    config: GeneratorConfig | CompletionConfig,
    hear: Hear,
    progress: Callable[[int, int], None] | None = None,
    *,
    variants: int | None = None,
) -> dict[str, list[HeardClip]]:
    """Return the variants of clips by name, from the prepared folder where they have been heard before.

    sounds: each clip's whole sound (640 T,) float32. variants: how many of the first ones; all when left out.
    """
    from safetensors import safe_open
    from safetensors.numpy import save_file

    folder = manifest.folder / FOLDER / _key(config)
    folder.mkdir(parents=True, exist_ok=True)
    heard = {}
    for index, (name, samples) in enumerate(sounds.items(), 1):
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            made = [_hear(*_varied(name, number, samples), config, hear) for number in range(VARIANTS)]
            tensors = {f"{part}.{k}": getattr(v, part) for k, v in enumerate(made) for part in ("states", "moments")}
            with replacing(path) as partial:
                save_file(tensors, partial)
        with safe_open(str(path), "numpy") as file:
            heard[name] = [
                HeardClip(file.get_tensor(f"states.{k}"), file.get_tensor(f"moments.{k}"))
                for k in range(variants or VARIANTS)
            ]
        if progress:
            progress(index, len(sounds))
    return heard


def hear_clip(
    manifest: Manifest, clip: ClipSpeech, config: GeneratorConfig | CompletionConfig, hear: Hear
) -> list[HeardClip]:
    """Return the variants of one clip, as `heard_clips`."""
    return heard_clips(manifest, {clip.name: whole_sound(manifest, clip)}, config, hear)[clip.name]


def whole_sound(manifest: Manifest, clip: ClipSpeech) -> np.ndarray:
    """Return a clip's sound (640 T,) float32 as it was prepared, however far it has been moved since.

    Raises:
        DataError: the clip was prepared before samples were kept.
    """
    return load_samples(manifest, replace(clip, shift_frames=0)).astype(np.float32) / 32767


def predict_heard(generator: Generator, identity: np.ndarray, clip: ClipSpeech, variant: HeardClip) -> np.ndarray:
    """Return the coefficients (T, M) that a generator predicts for a clip from what was heard of it as it is.

    identity: (1, I) that of the clip.
    """
    device = generator.basis.device
    with torch.inference_mode():
        states = torch.from_numpy(variant.states).to(device).float()
        everywhere = torch.from_numpy(identity).to(device).expand(len(states), -1)
        said = generator(states, everywhere).flatten(0, 1).float().cpu().numpy()
    frames = np.rint(variant.moments.ravel()).astype(int) + min(clip.shift_frames, 0)
    inside = (frames >= 0) & (frames < len(clip))
    out = np.zeros((len(clip), said.shape[1]), np.float32)
    out[frames[inside]] = said[inside]
    return out


def standardisation(heard: dict[str, list[HeardClip]]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (S,) and one over the deviation (S,) of the states of clips as they are, each clip counting once."""
    means, squares = [], []
    for clip in (variants[0] for variants in heard.values()):
        rows = clip.states.astype(np.float32).reshape(-1, clip.states.shape[-1])
        means.append(rows.mean(0))
        squares.append(np.square(rows).mean(0))
    mean = np.mean(means, axis=0)
    deviation = np.sqrt(np.maximum(np.mean(squares, axis=0) - mean**2, 1e-6))
    return mean.astype(np.float32), (1 / deviation).astype(np.float32)


def _key(config: GeneratorConfig | CompletionConfig) -> str:
    """Return a name for what states depend on: the weights, the layers and the window."""
    digest = sha256(WEIGHTS)[:8]
    return f"whisper-{digest}-{config.whisper_layers}-{config.context_frames}-{config.lookahead_frames}"


def _varied(name: str, number: int, samples: np.ndarray) -> tuple[np.ndarray, float, int]:
    """Return a variant of a clip's sound, its pace, and the frames of silence before it; variant 0 is the clip."""
    random = np.random.default_rng((zlib.crc32(name.encode()), number))
    lead = int(random.integers(0, LEARNED_FRAMES))  # blocks begin anywhere in what is said
    if number == 0:
        return samples, 1.0, lead
    pace = float(random.uniform(0.88, 1.14))  # and the pitch with it
    at = np.arange(int(len(samples) / pace)) * pace
    sound = np.interp(at, np.arange(len(samples)), samples)
    if random.random() < 0.4:
        sound = _in_room(sound, random)
    if random.random() < 0.7:
        sound = _coloured(sound, random)
    if random.random() < 0.7:
        noise = _noise(len(sound), random)
        level = np.sqrt(np.mean(sound**2)) * 10 ** (-random.uniform(8, 35) / 20)
        sound = sound + noise * level
    return sound.astype(np.float32), pace, lead


def _in_room(sound: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return a sound with the echoes of a small room: noise that dies away within 0.1 to 0.5 s."""
    from scipy.signal import fftconvolve

    length = int(random.uniform(0.1, 0.5) * SAMPLE_RATE)
    echoes = random.normal(0, 1, length) * 10 ** (-3 * np.arange(length) / length)
    echoes *= random.uniform(0.1, 0.6) / np.sqrt(np.sum(echoes**2))
    echoes[0] += 1
    return fftconvolve(sound, echoes)[: len(sound)]


def _coloured(sound: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return a sound through another microphone: a gain over the frequencies of about 5 dB either way."""
    spectrum = np.fft.rfft(sound)
    knots = random.normal(0, 5, 7)
    gain_db = np.interp(np.linspace(0, 6, len(spectrum)), np.arange(7), knots)
    if random.random() < 0.3:  # a narrow line
        gain_db -= 40 * (np.linspace(0, SAMPLE_RATE / 2, len(spectrum)) > random.uniform(3000, 6000))
    return np.fft.irfft(spectrum * 10 ** (gain_db / 20), len(sound))


def _noise(samples: int, random: np.random.Generator) -> np.ndarray:
    """Return noise (N,) of unit power whose level falls by 0 to 6 dB an octave."""
    spectrum = np.fft.rfft(random.normal(0, 1, samples))
    noise = np.fft.irfft(spectrum * np.maximum(np.arange(len(spectrum)), 20.0) ** -random.uniform(0, 1), samples)
    return noise / np.sqrt(np.mean(noise**2) + 1e-12)


def _hear(
    samples: np.ndarray, pace: float, lead: int, config: GeneratorConfig | CompletionConfig, hear: Hear
) -> HeardClip:
    frames = lead + frame_count(len(samples))
    sound = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
    sound[lead * SAMPLES_PER_FRAME :][: len(samples)] = samples
    states, moments = [], []

    def keep(rows: np.ndarray, peaks: np.ndarray, first: int) -> np.ndarray:
        states.append(hear(rows.ravel(), peaks).astype(np.float16))
        moments.append((first + np.arange(LEARNED_FRAMES) - lead) * pace)
        return np.zeros((LEARNED_FRAMES, 0), np.float32)

    silence = np.zeros(HOP_SAMPLES, np.float32)
    blocks = BlockStream(keep, config.context_frames, config.lookahead_frames, 0, silence, LEARNED_FRAMES)
    blocks.push(sound.reshape(frames * COLUMNS_PER_FRAME, HOP_SAMPLES), log_mel(sound)[1][:, 1])
    blocks.flush(frames)
    return HeardClip(np.stack(states), np.stack(moments).astype(np.float32))
