"""What Whisper base's encoder is given of a window of samples, and who listens by it: arrays, for any runtime.

Whisper was trained on the world's voices, so its states tell strangers' sounds better than log-mel columns do. Windows
have one length, fixed by whoever listens, and are heard each by itself: so a stream hears exactly what a file gives.
The network is `whisper_encoder.py`.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atldiff.audio.features import triangles
from atldiff.runtime.graphs import GRAPHS_FILE, Graph

if TYPE_CHECKING:
    from atldiff.networks import Network

FOLDER = Path(str(files("atldiff.audio").joinpath("whisper_base")))
WIDTH = 512
TOKENS_PER_FRAME = 2
STATE = WIDTH * TOKENS_PER_FRAME
"""Numbers a frame: the states of its two tokens side by side."""
BANDS = 80

_FFT, _HOP = 400, 160
_LOUD_DB = -14.0
"""What a window's loudest peak is brought to, in dB re full scale."""
_LEAST_GAIN_DB, _MOST_GAIN_DB = -20.0, 70.0
"""The rounding of 16 bits, at -101 dB, stays 17 dB below speech."""
_BREAK_HZ, _BREAK_MEL, _LOG_STEP = 1000.0, 15.0, np.log(6.4) / 27
"""Slaney's mel scale: linear up to 1 kHz, 27 steps to a factor of 6.4 above."""


def gain_of(peaks: np.ndarray) -> np.float32:
    """Return the factor that brings a window, whose columns have running peaks (C,) in dB, to the level that is heard.

    The loudest of them counts: samples of one window are never moved against one another.
    """
    return np.float32(10 ** (np.clip(_LOUD_DB - float(np.max(peaks)), _LEAST_GAIN_DB, _MOST_GAIN_DB) / 20))


def mel_filters() -> np.ndarray:
    """Return Whisper's mel filters (80, 201) float32: triangles of equal area on Slaney's scale, 0 to 8 kHz."""
    top = _BREAK_MEL + np.log(8000.0 / _BREAK_HZ) / _LOG_STEP
    mels = np.linspace(0.0, top, BANDS + 2)
    linear = mels * _BREAK_HZ / _BREAK_MEL
    edges = np.where(mels < _BREAK_MEL, linear, _BREAK_HZ * np.exp(_LOG_STEP * (mels - _BREAK_MEL)))
    bins = np.linspace(0.0, 8000.0, _FFT // 2 + 1)
    return (triangles(edges, bins) * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


_FILTERS = mel_filters()
_TAPER = np.hanning(_FFT + 1)[:-1].astype(np.float32)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Return columns (80, N / 160) float32, about -1 to 1, of a window of samples (N,) float32, made audible."""
    mirrored = np.pad(samples, _FFT // 2, mode="reflect")
    views = np.lib.stride_tricks.sliding_window_view(mirrored, _FFT)[::_HOP][:-1]  # (C, 400)
    spectrum = np.fft.rfft(views * _TAPER, axis=1)  # (C, 201)
    power = spectrum.real**2 + spectrum.imag**2
    # Not as a matrix product: the threads of its library would fight with those of the networks for the cores.
    levels = np.log10(np.maximum(np.einsum("cf,bf->bc", power, _FILTERS), np.float32(1e-10)))
    return (np.maximum(levels, levels.max() - 8) + 4) / 4


@lru_cache(maxsize=4)
def positions(tokens: int) -> np.ndarray:
    """Return the sinusoids (tokens, 512) float32 that tell a window's tokens apart."""
    half = WIDTH // 2
    rates = np.exp(np.float32(-np.log(10_000.0) / (half - 1)) * np.arange(half, dtype=np.float32))
    angles = np.arange(tokens, dtype=np.float32)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def hearing_graph(layers: int) -> Graph:
    """Return the encoder's first `layers` layers as a graph, for runtimes other than PyTorch.

    Raises:
        ValueError: there is none with so many.
    """
    told = json.loads((FOLDER / GRAPHS_FILE).read_text(encoding="utf-8"))
    if str(layers) not in told:
        raise ValueError(f"layers: got {layers}, expected one of {', '.join(told)}, which the package has of Whisper")
    return Graph.read(FOLDER, told[str(layers)])


class Listener:
    """A speech encoder that is given samples as they are recorded: what a generator hears by.

    hearing: columns (1, 80, C) and positions (1, C / 2, 512) to states (1, F, 1024), as `SpeechEncoder`.
    """

    def __init__(self, hearing: Network) -> None:
        self._hearing = hearing

    def __call__(self, samples: np.ndarray, peaks: np.ndarray) -> np.ndarray:
        """Return the states (F, 1024) of a window's samples (640 F,); peaks: (4 F,) in dB, as `gain_of` takes them."""
        columns = log_mel(samples * gain_of(peaks))
        return self._hearing(columns[None], positions(columns.shape[1] // 2)[None])[0][0]
