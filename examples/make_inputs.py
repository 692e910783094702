"""Make the demo inputs anew: `python examples/make_inputs.py` (needs scikit-image and the program flite)."""

from __future__ import annotations

import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.data import astronaut

HERE = Path(__file__).resolve().parent

SAMPLE_RATE = 16_000
VOICE = "slt"

# Bilabials (m, b, p) are frequent on purpose: they are where a mouth that does not close is noticed first.
PHRASES = (
    "My name is atlas, and I am a picture with a moving mouth.",
    "Maybe you remember me: people put a portrait and a recording in, and a movie comes out.",
    "Please keep my lips apart only when I speak.",
)
LEAD_S = 0.2
PAUSE_S = 0.45
END_S = 0.4
PEAK = 0.8


def speak(phrase: str) -> np.ndarray:
    """Return a phrase as float samples (N,) at 16 kHz, trimmed to the speech, with 10 ms fades."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "phrase.wav"
        subprocess.run(["flite", "-voice", VOICE, "-t", phrase, "-o", str(path)], check=True)
        with wave.open(str(path)) as file:
            if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (SAMPLE_RATE, 1, 2):
                raise ValueError(f"voice {VOICE}: got {file.getparams()}, expected 16 kHz, mono, 16 bit")
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
    hop = SAMPLE_RATE // 100
    energy = np.sqrt((samples[: len(samples) // hop * hop].reshape(-1, hop) ** 2).mean(1))  # (columns,)
    loud = np.flatnonzero(energy > 0.01 * np.abs(samples).max())
    samples = samples[max(loud[0] - 2, 0) * hop : (loud[-1] + 3) * hop].copy()
    fade = np.linspace(0, 1, hop)
    samples[:hop] *= fade
    samples[-hop:] *= fade[::-1]
    return samples


def silence(duration_s: float) -> np.ndarray:
    """Return digital silence (N,)."""
    return np.zeros(round(duration_s * SAMPLE_RATE))


def make_speech(path: Path) -> None:
    """Write the recording: three phrases with two pauses between them and a silent end."""
    parts = [silence(LEAD_S)]
    for index, phrase in enumerate(PHRASES):
        parts += [silence(PAUSE_S)] if index else []
        parts.append(speak(phrase))
    samples = np.concatenate([*parts, silence(END_S)])
    samples *= PEAK / np.abs(samples).max()
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", "not compressed"))
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())


def make_portrait(path: Path) -> None:
    """Write the portrait: NASA's photograph of Eileen Collins, 512x512, as a JPEG."""
    Image.fromarray(astronaut()).save(path, quality=95, subsampling=0)


if __name__ == "__main__":
    make_portrait(HERE / "portrait.jpg")
    make_speech(HERE / "speech.wav")
