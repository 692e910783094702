"""Speech of espeak-ng, whose sounds have known times: when lips have to meet, and when they have to part.

Needs the library of Debian's espeak-ng, for training and measuring only. Nothing else says of a stranger's recording
where its m, b and p are.
"""

from __future__ import annotations

import ctypes
import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from atldiff.errors import DataError
from atldiff.timebase import FPS, SAMPLE_RATE

LIBRARY = "libespeak-ng.so.1"
BILABIALS = frozenset("pbm")
OPEN = frozenset("aAEVO0&3")
"""First letters of the phonemes, in espeak's writing, at which lips are well apart."""
VARIANTS = ("", "+f1", "+f2", "+f3", "+f4", "+m1", "+m2", "+m3", "+m4", "+m5", "+m6", "+m7", "+klatt")
_SYNCHRONOUS, _PHONEME_EVENTS, _UTF8 = 2, 1, 1
_LIST_TERMINATED, _PHONEME = 0, 7
_RATE, _PITCH = 1, 3
_SHORTEST_OPEN_S = 0.07


@dataclass(frozen=True, slots=True)
class Spoken:
    """Speech and its phonemes.

    samples: (N,) float32 at 16 kHz. phonemes: name, start and end in seconds.
    """

    name: str
    samples: np.ndarray
    phonemes: tuple[tuple[str, float, float], ...]

    def closures(self) -> list[tuple[float, float]]:
        """Return start and end, in seconds, of the sounds at which lips meet."""
        return [(start, end) for name, start, end in self.phonemes if name in BILABIALS]

    def asked(self, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where lips have to meet, and where to part, as 0 or 1 float32; moments: frames, of any shape."""
        closed, parted = (np.zeros(moments.shape, np.float32) for _ in range(2))
        seconds = moments / FPS
        for start, end in self.closures():
            middle = start + 0.4 * (end - start)
            closed[np.abs(seconds - middle) <= max(0.5 / FPS, 0.4 * (end - start))] = 1
        for name, start, end in self.phonemes:
            if name[0] in OPEN and end - start >= _SHORTEST_OPEN_S:
                parted[np.abs(seconds - (start + end) / 2) <= 0.25 * (end - start)] = 1
        return closed, parted * (1 - closed)


def say(text: str, voice: str = "en", words_per_minute: int = 165, pitch: int = 50) -> Spoken:
    """Return a text spoken by espeak-ng; voice: such as `de` or `en-us+f3`, pitch: 0 to 99.

    Raises:
        DataError: espeak-ng is missing, or has no such voice.
    """
    engine = _engine()
    if engine.library.espeak_SetVoiceByName(voice.encode()):
        raise DataError(f"espeak-ng: got voice {voice!r}, expected one that `espeak-ng --voices` lists")
    engine.library.espeak_SetParameter(_RATE, words_per_minute, 0)
    engine.library.espeak_SetParameter(_PITCH, pitch, 0)
    pieces, starts = engine.speak(text)
    samples = _resampled(np.concatenate(pieces), engine.rate)
    ends = [start for _, start in starts[1:]] + [len(samples) / SAMPLE_RATE]
    name = f"spoken-{voice}-{zlib.crc32(f'{text}|{words_per_minute}|{pitch}'.encode()):08x}"
    return Spoken(name, samples, tuple((n, s, e) for (n, s), e in zip(starts, ends, strict=True) if n))


def sentences() -> list[tuple[str, str]]:
    """Return language and text of the sentences that generators learn from."""
    from importlib.resources import files

    lines = files("atldiff.data").joinpath("sentences.txt").read_text(encoding="utf-8").splitlines()
    return [tuple(line.split("|", 1)) for line in lines if line]  # pyright: ignore[reportReturnType]


def corpus(seed: int, each: int = 2) -> list[Spoken]:
    """Return every sentence `each` times, by voices, speeds and pitches drawn by a seed.

    Raises:
        DataError: espeak-ng is missing.
    """
    random = np.random.default_rng(seed)
    return [
        say(
            text,
            language + VARIANTS[int(random.integers(len(VARIANTS)))],
            int(random.integers(120, 210)),
            int(random.integers(20, 80)),
        )
        for language, text in sentences()
        for _ in range(each)
    ]


class _Named(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int), ("unique", ctypes.c_uint), ("text_position", ctypes.c_int), ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int), ("sample", ctypes.c_int), ("user", ctypes.c_void_p), ("id", _Named),
    ]  # fmt: skip


class _Engine:
    """The library, which speaks one text at a time."""

    def __init__(self) -> None:
        try:
            self.library = ctypes.CDLL(LIBRARY)
        except OSError:
            raise DataError(
                f"espeak-ng: no {LIBRARY}, expected the speech synthesiser: install it, such as by "
                "`apt-get install espeak-ng`; training does without it where `spoken` is 0"
            ) from None
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self._take = kind(self._keep)  # the library holds a pointer to it
        self.rate = self.library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS)
        self.library.espeak_SetSynthCallback(self._take)

    def speak(self, text: str) -> tuple[list[np.ndarray], list[tuple[str, float]]]:
        """Return the sound in pieces, float32, and each phoneme's name and start in seconds."""
        self._pieces: list[np.ndarray] = [np.zeros(0, np.float32)]
        self._starts: list[tuple[str, float]] = []
        said = text.encode()
        self.library.espeak_Synth(said, len(said) + 1, 0, 1, 0, _UTF8, None, None)
        self.library.espeak_Synchronize()
        return self._pieces, self._starts

    def _keep(self, wave, count, events) -> int:  # noqa: ANN001 - pointers of the library
        if wave and count:
            self._pieces.append(np.ctypeslib.as_array(wave, shape=(count,)).astype(np.float32) / 32768)
        at = 0
        while events[at].type != _LIST_TERMINATED:
            if events[at].type == _PHONEME:
                name = events[at].id.string.decode("utf-8", "replace").strip("'")
                self._starts.append((name, events[at].milliseconds / 1000))
            at += 1
        return 0


@lru_cache(maxsize=1)
def _engine() -> _Engine:
    return _Engine()


def _resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    from math import gcd

    from scipy.signal import resample_poly

    common = gcd(rate, SAMPLE_RATE)
    return resample_poly(samples, SAMPLE_RATE // common, rate // common).astype(np.float32)
