"""HEIF's boxes (HEIC and AVIF, what phones save): what the decoders do not tell."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF = {b"avif", b"avis"}
_ANY = {b"mif1", b"mif2", b"miaf", b"msf1", b"avci", b"avcs"}
_SEQUENCES = {b"hevc", b"hevx", b"hevm", b"hevs", b"avis", b"avcs", b"msf1"}
"""Brands (ISO/IEC 23008-12): the codecs, those that leave it open, and those of sequences of pictures."""

_MOST_BYTES = 1 << 24
"""Larger tables of contents are refused: those of phones have some kilobytes."""


def is_heic(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is HEIF that libheif has to read: not AVIF, which Pillow reads."""
    brands = _brands(Path(path))
    return bool(_HEIC & {*brands} or (_ANY & {*brands} and not _AVIF & {*brands}))


def is_still(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is HEIF or AVIF that shows one picture, whatever else is in it: tiles, bursts, a depth."""
    brands = _brands(Path(path))
    return bool((_HEIC | _AVIF | _ANY) & {*brands}) and brands[0] not in _SEQUENCES


def properties(path: Path) -> dict[bytes, bytes]:
    """Return the properties of a HEIF file's primary picture by their type; empty where they cannot be read.

    Of those with several values (colr has one for the profile and one for the numbers) the key is followed by the
    first four bytes.
    """
    try:
        with path.open("rb") as file:
            while len(head := file.read(8)) == 8:
                size, kind = struct.unpack(">I4s", head)
                if kind == b"meta":
                    return _primary(file.read(size - 8)) if 12 <= size <= _MOST_BYTES else {}
                if size == 1:
                    size = struct.unpack(">Q", file.read(8))[0] - 8
                if size < 8:  # to the end of the file, or nonsense
                    return {}
                file.seek(size - 8, 1)
    except (OSError, struct.error, IndexError):
        pass
    return {}


def _brands(path: Path) -> list[bytes]:
    """Return a file's brands, its own first; none where it is no ISO media file."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
            if head[4:] != b"ftyp":
                return []
            body = file.read(min(int.from_bytes(head[:4], "big"), 512) - 8)
    except (OSError, ValueError):
        return []
    return [body[:4], *(body[i : i + 4] for i in range(8, len(body), 4))]


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    while len(data) >= 8:
        size, kind = struct.unpack(">I4s", data[:8])
        size = size if size >= 8 else len(data)
        yield kind, data[8:size]
        data = data[size:]


def _primary(meta: bytes) -> dict[bytes, bytes]:
    """Return the primary item's properties from the content of a meta box."""
    boxes = dict(_boxes(meta[4:]))
    version = boxes[b"pitm"][0] if b"pitm" in boxes else 0
    item = int.from_bytes(boxes.get(b"pitm", b"")[4 : 8 if version else 6], "big")
    kept, numbers = [], []
    for kind, body in _boxes(boxes.get(b"iprp", b"")):
        if kind == b"ipco":
            kept = list(_boxes(body))
        elif kind == b"ipma":
            numbers += _associated(body, item)
    found = {}
    for number in numbers:
        if 0 < number <= len(kept):
            kind, body = kept[number - 1]
            found[kind + body[:4] if kind == b"colr" else kind] = body
    return found


def _associated(body: bytes, item: int) -> list[int]:
    """Return the numbers of an item's properties, from 1 on, from the content of an ipma box."""
    version, wide, at = body[0], body[3] & 1, 8
    for _ in range(int.from_bytes(body[4:8], "big")):
        step = 4 if version else 2
        this, count = int.from_bytes(body[at : at + step], "big"), body[at + step]
        at += step + 1
        step = 2 if wide else 1
        if this == item:
            mask = 0x7FFF if wide else 0x7F  # the highest bit says whether a reader must know it
            return [int.from_bytes(body[at + i * step : at + (i + 1) * step], "big") & mask for i in range(count)]
        at += count * step
    return []
