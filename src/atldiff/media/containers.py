"""What a stream is by its first bytes: a container of sound, or samples that may begin with anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

WAV = "WAV"
FIRST_BYTES = 12
"""Bytes that nearly always tell."""

_MAGIC = (
    (0, b"OggS\0", "Ogg"),
    (0, b"fLaC", "FLAC"),
    (0, b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
    (4, b"ftyp", "MP4"),
    (4, b"moov", "MP4"),
    (0, b"FORM", "AIFF"),
    (0, b".snd\0\0", "AU"),
    (0, b"caff\0", "CAF"),
    (0, b"#!AMR", "AMR"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA"),
    (0, b"wvpk", "WavPack"),
    (0, b"MAC \x96", "Monkey's Audio"),
    (0, b"FLV\1", "FLV"),
    (0, b"riff\x2e\x91\xcf\x11", "Wave64"),
    (0, b"RIFX", "big-endian WAV"),
    (0, b"\0\0\1\xba", "MPEG"),
)
"""Where a container's name stands, the name, and what to call it."""

_BIT_RATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""kbit/s of MPEG audio by version, of which 2 and 2.5 are alike, and layer."""
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_FRAMES = 3
"""Frames of MPEG audio or AAC that must follow upon one another: samples look like one now and then."""
_PACKET = 188
"""Bytes of a packet of an MPEG transport stream."""


def recognise(peek: Callable[[int], bytes]) -> str | None:
    """Return what a stream is: `WAV`, another container's name, or None for what may be samples.

    peek: returns so many of its first bytes, fewer only of a shorter stream.
    """
    head = peek(FIRST_BYTES)
    if head[:4] in (b"RIFF", b"RF64", b"BW64"):
        return WAV if head[8:] == b"WAVE" else "AVI" if head[8:] == b"AVI " else None
    for at, name, kind in _MAGIC:
        if head[at : at + len(name)] == name:
            return kind if kind != "AIFF" or head[8:] in (b"AIFF", b"AIFC") else None
    if head[:3] == b"ID3" and head[3:4] in (b"\2", b"\3", b"\4") and all(byte < 128 for byte in head[6:10]):
        return "MP3"
    if head[:1] == b"\x47" and all(peek(_PACKET * k + 1)[_PACKET * k :] == b"\x47" for k in range(1, 5)):
        return "MPEG transport stream"
    for kind, length in (("MP3", _mpeg_frame), ("AAC", _adts_frame)):
        if _follow_each_other(peek, length):
            return kind
    return None


def _follow_each_other(peek: Callable[[int], bytes], length: Callable[[bytes], tuple[int, int] | None]) -> bool:
    """Return whether frames alike follow one another from the first byte on."""
    at, alike = 0, None
    for _ in range(_FRAMES):
        found = length(peek(at + 7)[at:])
        if found is None or (alike is not None and found[1] != alike):
            return False
        at, alike = at + found[0], found[1]
    return True


def _mpeg_frame(head: bytes) -> tuple[int, int] | None:
    """Return the length in bytes of a frame of MPEG audio, and what all of a stream have in common."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bits, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or bits in (0, 15) or rate == 3:
        return None
    hertz = _RATES[version][rate]
    bit_rate = 1000 * _BIT_RATES[1 if version == 3 else 2, layer][bits - 1]
    if layer == 1:
        length = (12 * bit_rate // hertz + padding) * 4
    else:
        length = (72 if layer == 3 and version != 3 else 144) * bit_rate // hertz + padding
    return length, version << 8 | layer << 4 | rate


def _adts_frame(head: bytes) -> tuple[int, int] | None:
    """Return the same of a frame of AAC with its own header."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return None
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return None if length < 7 else (length, head[1] << 16 | head[2] << 8 | head[3] & 0xC0)
