"""WAV files as they are: several in one, with headers that state too little, or nothing, about their length."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PCM, FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
"""Format codes; the extensible one is followed by the real one."""

KINDS = (b"RIFF", b"RF64", b"BW64")
_NO_LENGTH = 0x7FFF_0000
"""Sizes from here on, and 0, are what programs write that cannot know the length: to a pipe, or until they are stopped.
A file that is really as long holds what it states."""
_LONGEST_CHUNK = 1 << 26
_SHORTEST_REST = 8
"""Bytes after the sound that may be anything; fewer are nothing."""
_SEARCHED = 1 << 20
"""Bytes that are searched at once for a second recording's header."""


@dataclass(frozen=True, slots=True)
class WavFormat:
    """How a recording's bytes are to be read.

    code: 1 for integers, 3 for floats, others are compressed. tag: the code that the chunk begins with, which may say
    that the real one stands further down. rate: Hz. block: bytes of one sample of all channels. raw: the chunk itself.
    """

    code: int
    tag: int
    channels: int
    rate: int
    bits: int
    block: int
    bytes_per_s: int
    raw: bytes

    @property
    def agrees_on(self) -> tuple[int, ...]:
        """What two recordings must have in common to be one."""
        return self.code, self.channels, self.rate, self.bits, self.block


@dataclass(frozen=True, slots=True)
class WavHeader:
    """What stands before the sound. length: its own, in bytes.

    size: bytes of sound it states; `stated`: whether that is a length at all, and not what stands for none.
    """

    format: WavFormat
    length: int
    size: int
    stated: bool


@dataclass(slots=True)
class _Part:
    """One recording of a file. start, stop: where its sound lies. stated: in the header, in bytes."""

    format: WavFormat
    start: int
    stop: int
    stated: int | None

    @property
    def seconds(self) -> float:
        return (self.stop - self.start) / max(1, self.format.bytes_per_s)


@dataclass(frozen=True, slots=True)
class WavFile:
    """A WAV file looked through.

    spans: start and length of the sound in it where other programs would read less; empty where they read it all.
    note: what is odd about it, to say; damage: what it lacks. Both may be empty.
    """

    path: Path
    format: WavFormat
    spans: tuple[tuple[int, int], ...] = ()
    note: str = ""
    damage: str = ""

    def open(self) -> SpanReader:
        """Return the file as one recording with a right header."""
        return SpanReader(self.path, self.format.raw, self.spans)


def read_header(read: Callable[[int], bytes]) -> WavHeader | None:
    """Return the header of the WAV that comes; None where it is none, or a broken one.

    read: returns so many bytes, fewer at the end only.
    """
    kind = read(12)
    if kind[:4] not in KINDS or kind[8:] != b"WAVE":
        return None
    length, found, long_size = 12, None, 0
    while len(head := read(8)) == 8:
        name, size = head[:4], int.from_bytes(head[4:], "little")
        length += 8
        if name == b"data":
            if size == 0xFFFF_FFFF:
                size = long_size
            stated = size == long_size or size < _NO_LENGTH
            return None if found is None else WavHeader(found, length, size, stated and size > 0)
        if size > _LONGEST_CHUNK:
            return None
        body = read(size + size % 2)
        length += len(body)
        if name == b"fmt ":
            found = _format(body[:size])
            if found is None:
                return None
        elif name == b"ds64" and size >= 16:
            long_size = int.from_bytes(body[8:16], "little")
    return None


def _format(chunk: bytes) -> WavFormat | None:
    if len(chunk) < 16:
        return None
    tag, channels = int.from_bytes(chunk[:2], "little"), int.from_bytes(chunk[2:4], "little")
    rate, bytes_per_s = int.from_bytes(chunk[4:8], "little"), int.from_bytes(chunk[8:12], "little")
    block, bits = int.from_bytes(chunk[12:14], "little"), int.from_bytes(chunk[14:16], "little")
    code = int.from_bytes(chunk[24:26], "little") if tag == _EXTENSIBLE and len(chunk) >= 26 else tag
    if not channels or not rate or not block:
        return None
    if code in (PCM, FLOAT):
        bytes_per_s = rate * block
    return WavFormat(code, tag, channels, rate, bits, block, bytes_per_s, chunk)


def examine(path: Path) -> WavFile | None:
    """Look through a WAV file; None where it is none.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        total = file.seek(0, io.SEEK_END)
        file.seek(0)
        parts: list[_Part] = []
        at: int | None = 0
        while at is not None:
            file.seek(at)
            header = read_header(file.read)
            if header is None:
                break
            part, at = _measured(file, header, at + header.length, total)
            parts.append(part)
    return _judged(path, parts, total) if parts else None


def _measured(file: BinaryIO, header: WavHeader, start: int, total: int) -> tuple[_Part, int | None]:
    """Return a recording whose sound begins at `start`, and where the next one begins if there is one."""
    at = start + header.size
    stated = header.stated or (at <= total and (header.size > 0 or _is_chunk(file, start, total)))
    part = _Part(header.format, start, start, header.size if stated else None)
    if not stated or at > total:
        following = _next_recording(file, start, total)
        part.stop = total if following is None else following
        return part, following
    part.stop = at
    at += at % 2 if not _is_chunk(file, at, total) else 0
    while at + 8 <= total:
        if _is_recording(file, at):
            return part, at
        if not _is_chunk(file, at, total):
            break
        file.seek(at + 4)
        size = int.from_bytes(file.read(4), "little")
        at += 8 + size + size % 2
    if total - at < _SHORTEST_REST or _is_tag(file, at, total):
        return part, None
    following = _next_recording(file, start, total)
    if at - part.stop <= 1:  # sound goes on where the header says it ends
        part.stop = total if following is None else following
    return part, following


def _is_recording(file: BinaryIO, at: int) -> bool:
    file.seek(at)
    head = file.read(12)
    return head[:4] in KINDS and head[8:] == b"WAVE"


def _is_chunk(file: BinaryIO, at: int, total: int) -> bool:
    """Return whether a chunk other than sound may begin here: a name in letters, and a size that the file holds."""
    file.seek(at)
    head = file.read(8)
    return looks_like_chunk(head) and at + 8 + int.from_bytes(head[4:], "little") <= total


def looks_like_chunk(head: bytes) -> bool:
    """Return whether the name in the first of these eight bytes or more is in letters."""
    return len(head) >= 8 and all(32 <= byte < 127 for byte in head[:4]) and bool(head[:4].strip())


def _is_tag(file: BinaryIO, at: int, total: int) -> bool:
    """Return whether what is left is a music player's tag, or nothing but zeros up to the end."""
    file.seek(at)
    head = file.read(8)
    if head[:3] in (b"TAG", b"ID3") or head == b"APETAGEX":
        return True
    file.seek(at)
    return total - at < _SEARCHED and not any(file.read(total - at))


def _next_recording(file: BinaryIO, start: int, total: int) -> int | None:
    """Return where the next WAV header lies from `start` on."""
    at = start
    while at < total:
        file.seek(at)
        block = file.read(_SEARCHED + 15)
        found = block.find(b"WAVEfmt ", 8)
        while found >= 0:
            if block[found - 8 : found - 4] in KINDS:
                return at + found - 8
            found = block.find(b"WAVEfmt ", found + 1)
        at += _SEARCHED
    return None


def _judged(path: Path, parts: list[_Part], total: int) -> WavFile:
    """Say what of the recordings is used: the first, and all that agree with it."""
    first = parts[0]
    used = [part for part in parts if part.format.agrees_on == first.format.agrees_on]
    others = [part for part in parts if part not in used]
    notes, damage = [], ""
    short = [part for part in used if part.stated is not None and part.stop - part.start > part.stated]
    unstated = [part for part in used if part.stated is None and part.stop > part.start]
    missing = [part for part in used if part.stated is not None and part.stop - part.start < part.stated]
    if len(parts) > 1:
        notes.append(f"{len(parts)} WAV recordings in one file")
    if short:
        stated = sum(part.stated or 0 for part in short)
        notes.append(f"its header states {stated} bytes of sound, the file has {sum(p.stop - p.start for p in short)}")
    if unstated:
        notes.append("its header states no length")
    if missing:
        promised = missing[0].start + (missing[0].stated or 0)
        damage = f"its header promises {promised} bytes, the file has {total}"
    if others:
        each = ", ".join(f"{p.seconds:.2f} s at {p.format.rate} Hz, {p.format.channels} channels" for p in others)
        notes.append(f"left out what is of another format ({each}): split the file")
    if notes:
        notes.append(f"using {sum(part.seconds for part in used):.2f} s")
    spans = tuple((part.start, part.stop - part.start) for part in used)
    return WavFile(path, first.format, spans if len(parts) > 1 or short or unstated else (), "; ".join(notes), damage)


class SpanReader(io.RawIOBase):
    """Spans of a file as one WAV file, for FFmpeg to read and seek in."""

    def __init__(self, path: Path, format_chunk: bytes, spans: tuple[tuple[int, int], ...]) -> None:
        self.name = str(path)
        self._file = path.open("rb")
        size = sum(length for _, length in spans)
        head = b"WAVEfmt " + len(format_chunk).to_bytes(4, "little") + format_chunk + b"\0" * (len(format_chunk) % 2)
        whole = len(head) + 8 + size
        known = whole < 1 << 32
        self._head = b"RIFF" + (whole if known else 0xFFFF_FFFF).to_bytes(4, "little") + head
        self._head += b"data" + (size if known else 0xFFFF_FFFF).to_bytes(4, "little")
        self._spans = spans
        self._size = len(self._head) + size
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the place of reading, in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the place of reading; return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Fill the buffer from the place of reading on, from one span at most; return how many bytes came."""
        view = memoryview(buffer).cast("B")
        got = self._piece(len(view))
        view[: len(got)] = got
        self._at += len(got)
        return len(got)

    def _piece(self, count: int) -> bytes:
        """Return at most `count` bytes from the place of reading on, of one span."""
        if self._at < len(self._head):
            return self._head[self._at : self._at + count]
        at = self._at - len(self._head)
        for start, length in self._spans:
            if at < length:
                self._file.seek(start + at)
                return self._file.read(min(count, length - at))
            at -= length
        return b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
