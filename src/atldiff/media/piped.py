"""Sound from a pipe: samples as they are, or a WAV as its header says; other containers are refused."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from atldiff.errors import MediaError
from atldiff.media.containers import WAV, recognise
from atldiff.media.wav import FLOAT, KINDS, PCM, WavFormat, WavHeader, looks_like_chunk, read_header

if TYPE_CHECKING:
    from collections.abc import Iterator

_log = logging.getLogger(__name__)

PACKET_S = 0.02
"""Sound that is read at once, at most."""
SAMPLE_BYTES = 2
_PLACES = (
    *("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR"),
    *("TC", "TFL", "TFC", "TFR", "TBL", "TBC", "TBR"),
)
"""The places of channels in the order of the bits of a WAV's channel mask, in FFmpeg's words."""
_SAMPLE_TYPES = {
    (PCM, 8): "u1", (PCM, 16): "<i2", (PCM, 24): "<i3", (PCM, 32): "<i4", (FLOAT, 32): "<f4", (FLOAT, 64): "<f8"
}  # fmt: skip
"""NumPy's types of samples by a WAV's format and bits; three bytes it has none for."""
_SKIPPED = 1 << 16
"""Bytes of what is no sound that are read at once."""


class Pipe:
    """A pipe whose first bytes are looked at as soon as they come, in a thread of its own."""

    def __init__(self, source: BinaryIO) -> None:
        """source: its `read` returns what there is, at most as many bytes as it is asked for, and none at the end."""
        self._source = source
        self._head = b""
        self._over = False
        self._looked = threading.Event()
        self._kind: str | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._look, name="atldiff-pipe", daemon=True).start()

    def kind(self, patience_s: float | None = None) -> str | None:
        """Return `WAV`, another container's name, or None for what may be samples, or if nothing came in time."""
        if not self._looked.wait(patience_s):
            return None
        if self._error is not None:
            raise self._error
        return self._kind

    def refuse_others(self, sample_rate: int, patience_s: float | None = None) -> None:
        """Raise unless what comes is samples, or a WAV.

        Raises:
            MediaError: another container.
        """
        kind = self.kind(patience_s)
        if kind not in (None, WAV):
            raise MediaError(
                f"stdin: got {kind}, expected 16-bit PCM or WAV: convert it on the way with "
                f"ffmpeg -i - -f s16le -ac 1 -ar {sample_rate} -"
            )

    def read(self, size: int) -> bytes:
        """Return what there is, at most `size` bytes; none at the end."""
        self.kind()
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        return b"" if self._over else self._source.read(size)

    def read_whole(self, size: int) -> bytes:
        """Return `size` bytes, fewer only at the end."""
        data = b""
        while len(data) < size and (more := self.read(size - len(data))):
            data += more
        return data

    def unread(self, data: bytes) -> None:
        """Let bytes be read again."""
        self._head = data + self._head

    def _look(self) -> None:
        try:
            self._kind = recognise(self._peek)
        except BaseException as error:  # noqa: BLE001 - raised again where it is asked for
            self._error = error
        self._looked.set()

    def _peek(self, size: int) -> bytes:
        while len(self._head) < size and not self._over:
            more = self._source.read(size - len(self._head))
            self._over = not more
            self._head += more or b""
        return self._head[:size]


def pcm_packets(source: BinaryIO | Pipe, sample_rate: int) -> Iterator[np.ndarray]:
    """Yield what can be read of mono little-endian 16-bit PCM, (n,) int16, at most 20 ms at once.

    Raises:
        MediaError: the source ends without a sample.
    """
    size = max(1, round(sample_rate * PACKET_S)) * SAMPLE_BYTES
    rest, heard = b"", False
    while data := source.read(size):
        data = rest + data
        whole = len(data) // SAMPLE_BYTES * SAMPLE_BYTES
        rest = data[whole:]
        if whole:
            heard = True
            yield np.frombuffer(data[:whole], "<i2")
    if not heard:
        raise MediaError("stdin: got no sound, expected mono 16-bit PCM")


def open_wav(pipe: Pipe) -> WavHeader:
    """Read a WAV's header.

    Raises:
        MediaError: it is broken, or its sound is compressed.
    """
    header = read_header(pipe.read_whole)
    if header is None:
        raise MediaError("stdin: got a WAV with a broken header, expected a whole one: save it again")
    form = header.format
    if _sample_type(form) is None:
        raise MediaError(
            f"stdin: got a WAV of format {form.code} and {form.bits} bits, expected PCM: convert it on the way with "
            f"ffmpeg -i - -f s16le -ac 1 -ar {form.rate} -"
        )
    return header


def wav_packets(pipe: Pipe, header: WavHeader) -> Iterator[np.ndarray]:
    """Yield the sound of a WAV whose header was read, (n,) or (n, channels), at most 20 ms at once.

    16-bit samples are int16, others are scaled to what they stand for: 8 bits uint8, 24 and 32 int32, floats clipped.

    Raises:
        MediaError: no sound, or NaN.
    """
    form, heard, rest = header.format, False, b""
    size = max(1, round(form.rate * PACKET_S)) * form.block
    for data in _sound(pipe, header, size):
        data = rest + data
        whole = len(data) // form.block * form.block
        rest = data[whole:]
        if whole:
            heard = True
            samples = _samples(data[:whole], form)
            yield samples if form.channels == 1 else samples.reshape(-1, form.channels)
    if not heard:
        raise MediaError("stdin: got a WAV without sound, expected speech")


def _sound(pipe: Pipe, header: WavHeader, size: int) -> Iterator[bytes]:
    """Yield the bytes of sound: as many as the header states, and what follows if it is sound as well."""
    following: WavHeader | None = header
    while following is not None:
        left = following.size if following.stated else None
        while left is None or left > 0:
            data = pipe.read(size if left is None else min(size, left))
            if not data:
                if left is not None:
                    _log.warning("stdin: the WAV ends %d bytes before its header says", left)
                return
            left = None if left is None else left - len(data)
            yield data
        if following.size % 2:
            pipe.read_whole(1)
        following = _next_header(pipe)
        if following is not None and following.format.agrees_on != header.format.agrees_on:
            form = following.format
            _log.warning("stdin: left out a second WAV of another format, %d Hz, %d channels", form.rate, form.channels)
            return
    rest = pipe.read(size)
    if rest:
        _log.warning("stdin: more sound comes than the WAV's header states; it is used")
    while rest:
        yield rest
        rest = pipe.read(size)


def _next_header(pipe: Pipe) -> WavHeader | None:
    """Return the header of the next WAV after one, leaving out other chunks; None where sound follows, or nothing."""
    while len(head := pipe.read_whole(12)) == 12:
        if head[:4] in KINDS and head[8:] == b"WAVE":
            pipe.unread(head)
            return read_header(pipe.read_whole)
        if not looks_like_chunk(head):
            pipe.unread(head)
            return None
        left = int.from_bytes(head[4:8], "little")
        left += left % 2 - 4
        if left < 0:
            pipe.unread(head[left:])
        while left > 0 and (data := pipe.read(min(left, _SKIPPED))):
            left -= len(data)
    return None


def places(form: WavFormat) -> list[str]:
    """Return FFmpeg's names of a WAV's channels; `NONE` where it does not state them."""
    mask = int.from_bytes(form.raw[20:24], "little") if form.code != form.tag and len(form.raw) >= 24 else 0
    names = [name for bit, name in enumerate(_PLACES) if mask >> bit & 1]
    return names if len(names) == form.channels else ["NONE"] * form.channels


def _sample_type(form: WavFormat) -> str | None:
    kind = _SAMPLE_TYPES.get((form.code, form.bits))
    return kind if kind is not None and form.block == form.channels * form.bits // 8 else None


def _samples(data: bytes, form: WavFormat) -> np.ndarray:
    kind = _sample_type(form)
    if kind == "<i3":
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)  # the lowest byte stays 0
        return wide.view("<i4")[:, 0]
    samples = np.frombuffer(data, kind)
    if samples.dtype.kind != "f":
        return samples
    if not np.isfinite(samples).all():
        raise MediaError("stdin: got NaN samples, expected finite ones: export it again")
    return np.clip(samples, -1.0, 1.0).astype(np.float32)
