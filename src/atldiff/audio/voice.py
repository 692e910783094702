"""Is there a voice? Silero VAD's 16 kHz network in NumPy, on its own grid of 512 samples, one answer a video frame.

The network hears every recording at one level: a running peak is brought to `HEARD_DB` before it listens. It neither
opens for noise, tones or music nor misses speech 12 dB above them (docs/architecture.md, "A voice").

Weights: `silero_vad/`, made by `python -m atldiff.audio.convert_silero`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from atldiff.timebase import SAMPLE_RATE, SAMPLES_PER_FRAME, frame_count

CHUNK_SAMPLES = 512
"""What the network takes at once."""
CONTEXT_SAMPLES = 64
"""Samples before a chunk that it sees again."""
REACH_SAMPLES = 120
"""A frame is judged by what is over this long after it: with the last sample of its last log-mel column."""
HEARD_DB = -18.0
"""Level of the loudest chunks at the network's input, RMS re full scale: it hears as well 30 dB under it."""
PEAK_DECAY_DB_A_SECOND = 4.0
PEAK_LOWEST_DB = -130.0
"""The quietest sound that is made as loud as that: one step of 16 bits in a chunk is at -117."""
CONSTANT_SHARE = np.float32(0.1)
"""How much of a chunk's mean enters what is subtracted as the microphone's constant."""

WARM_CHUNKS = 31
"""A second of silence, heard before every stream: fresh, the network misses the first word."""

_FFT, _HOP, _STEPS = 256, 128, 4
_BINS = _FFT // 2 + 1
_MIRRORED = 64  # samples after a chunk, mirrored at its end
_WIDTH = 128
_FOLDER = Path(__file__).with_name("silero_vad")


class SileroVAD:
    """The network, for one stream: it remembers. Chunks of 64 + 512 samples in, the probability of a voice out.

    Every call computes the same shapes, so its answer depends on what it heard alone. Matrix products would start
    threads that fight with those of the networks for the cores, but for the one: below 2**18 multiplications OpenBLAS
    stays in the thread that calls it.
    """

    def __init__(self) -> None:
        self._weights = _weights()
        self._taper = np.hanning(_FFT + 1)[:-1].astype(np.float32)
        self._samples = np.zeros(CONTEXT_SAMPLES + CHUNK_SAMPLES + _MIRRORED, np.float32)
        self._windows = np.lib.stride_tricks.sliding_window_view(self._samples, _FFT)[::_HOP]  # (4, 256)
        # A convolution is a product with rows that overlap; the zeros it pads with stay where they are.
        self._spectrum = np.zeros((_STEPS + 2, _BINS), np.float32)
        self._first = np.lib.stride_tricks.sliding_window_view(self._spectrum.ravel(), 3 * _BINS)[::_BINS]  # (4, 387)
        self._middle = np.zeros((_STEPS + 1, _WIDTH), np.float32)
        self._second = np.lib.stride_tricks.sliding_window_view(self._middle.ravel(), 3 * _WIDTH)[:: 2 * _WIDTH]  # (2,)
        self._heard_and_hidden = np.zeros(2 * _WIDTH, np.float32)
        self._cell = np.zeros(_WIDTH, np.float32)

    def warm(self) -> SileroVAD:
        """Return the network after a second of silence."""
        for _ in range(WARM_CHUNKS):
            self(np.zeros(CONTEXT_SAMPLES + CHUNK_SAMPLES, np.float32))
        return self

    def __call__(self, samples: np.ndarray) -> float:
        """Return the probability of a voice in the next chunk; samples: (576,) float32, the last 64 and the new 512."""
        w = self._weights
        self._samples[: len(samples)] = samples
        self._samples[len(samples) :] = samples[-2 : -2 - _MIRRORED : -1]
        self._spectrum[1:-1] = np.abs(np.fft.rfft(self._windows * self._taper, axis=1))
        self._middle[1:] = np.maximum(self._first @ w["conv1"].T + w["bias1"], 0)
        two = np.maximum(np.einsum("tk,ok->to", self._second, w["conv2"]) + w["bias2"], 0)
        one = np.maximum(np.einsum("k,ok->o", two.ravel(), w["conv3"]) + w["bias3"], 0)
        self._heard_and_hidden[:_WIDTH] = np.maximum(np.einsum("k,ok->o", one, w["conv4"]) + w["bias4"], 0)
        gates = np.einsum("k,ok->o", self._heard_and_hidden, w["lstm"]) + w["lstm_bias"]
        enter, forget, new, out = gates.reshape(4, _WIDTH)
        self._cell = _sigmoid(forget) * self._cell + _sigmoid(enter) * np.tanh(new)
        hidden = _sigmoid(out) * np.tanh(self._cell)
        self._heard_and_hidden[_WIDTH:] = hidden
        said = np.einsum("k,k->", np.maximum(hidden, 0), w["out"]) + w["out_bias"]
        return float(_sigmoid(said))


class VoiceStream:
    """Samples in, the probability of a voice in each frame out, the same however the samples are split."""

    def __init__(self) -> None:
        self._network = SileroVAD().warm()
        self._pending = np.zeros(CONTEXT_SAMPLES, np.float32)
        self._stop = 0  # the sample after the last chunk that was heard
        self._peak_db = PEAK_LOWEST_DB
        self._constant: np.float32 | None = None
        self._highest = 0.0  # of the frame's chunks so far
        self._samples = 0
        self._frames = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take samples (N,) at 16 kHz; return the probabilities (F,) float32 of the frames now judged."""
        self._samples += len(samples)
        return self._hear(samples)

    def flush(self) -> np.ndarray:
        """End the stream, in silence: return the probabilities still missing, ceil(N / 640) in all."""
        missing = frame_count(self._samples) - self._frames
        # The chunk that judges a frame starts in it or in the one before.
        rest = self._hear(np.zeros(2 * CHUNK_SAMPLES + REACH_SAMPLES + SAMPLES_PER_FRAME, np.float32))
        return rest[:missing]

    def _hear(self, samples: np.ndarray) -> np.ndarray:
        self._pending = np.concatenate([self._pending, samples.astype(np.float32, copy=False)])
        judged = []
        at = 0
        while len(self._pending) - at >= CONTEXT_SAMPLES + CHUNK_SAMPLES:
            voice = self._network(self._level(self._pending[at : at + CONTEXT_SAMPLES + CHUNK_SAMPLES]))
            self._highest = max(self._highest, voice)
            at, self._stop = at + CHUNK_SAMPLES, self._stop + CHUNK_SAMPLES
            if self._stop + CHUNK_SAMPLES > (self._frames + 1) * SAMPLES_PER_FRAME + REACH_SAMPLES:
                judged.append(self._highest)
                self._highest, self._frames = 0.0, self._frames + 1
        self._pending = self._pending[at:]
        return np.array(judged, np.float32)

    def _level(self, samples: np.ndarray) -> np.ndarray:
        """Return samples (576,) around zero, with the running peak of their level at `HEARD_DB`."""
        mean = samples[CONTEXT_SAMPLES:].mean()
        if self._constant is None:
            self._constant = mean
            samples = np.concatenate([np.full(CONTEXT_SAMPLES, mean), samples[CONTEXT_SAMPLES:]])  # no step at first
        self._constant = self._constant + CONSTANT_SHARE * (mean - self._constant)
        samples = samples - self._constant
        level_db = 10 * float(np.log10(np.mean(samples**2) + 1e-14))
        decayed = self._peak_db - PEAK_DECAY_DB_A_SECOND * CHUNK_SAMPLES / SAMPLE_RATE
        self._peak_db = max(level_db, decayed, PEAK_LOWEST_DB)
        return samples * np.float32(10 ** ((HEARD_DB - self._peak_db) / 20))


def voice_of(samples: np.ndarray) -> np.ndarray:
    """Return the probability of a voice in each frame (F,) of samples (N,) at 16 kHz, F = ceil(N / 640)."""
    stream = VoiceStream()
    return np.concatenate([stream.push(samples), stream.flush()])


@lru_cache(maxsize=1)
def _weights() -> dict[str, np.ndarray]:
    """Return the weights, each as the matrix (outputs, inputs) that the network multiplies with."""
    from safetensors.numpy import load_file

    stored = load_file(_FOLDER / "model.safetensors")
    taps = lambda name, used: np.ascontiguousarray(  # noqa: E731 - a layout, used four times
        stored[name][:, :, used].transpose(0, 2, 1).reshape(len(stored[name]), -1)
    )
    return {
        "conv1": taps("encoder.0.weight", slice(None)),
        "bias1": stored["encoder.0.bias"],
        "conv2": taps("encoder.1.weight", slice(None)),
        "bias2": stored["encoder.1.bias"],
        # Two steps are left and then one: the taps that would see padding alone are not stored as inputs.
        "conv3": taps("encoder.2.weight", slice(1, 3)),
        "bias3": stored["encoder.2.bias"],
        "conv4": taps("encoder.3.weight", slice(1, 2)),
        "bias4": stored["encoder.3.bias"],
        "lstm": np.concatenate([stored["rnn.weight_ih"], stored["rnn.weight_hh"]], axis=1),
        "lstm_bias": stored["rnn.bias_ih"] + stored["rnn.bias_hh"],
        "out": stored["decoder.weight"].ravel(),
        "out_bias": stored["decoder.bias"][0],
    }


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.float32(0.5) * np.tanh(np.float32(0.5) * x) + np.float32(0.5)
