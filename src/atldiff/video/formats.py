"""What a path can hold: the formats by their suffixes, their encoders, and whether a video can be written there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from atldiff.errors import MediaError


class Format(NamedTuple):
    """How a file is written: FFmpeg's names of muxer and encoders, and the quality where nobody chooses."""

    muxer: str
    video: str
    audio: str | None
    crf: int | None
    fragmented: bool  # written in fragments, then copied into a file with its index in front
    pixels: str = "yuv420p"

    @property
    def even(self) -> int:
        """What the sides are multiples of."""
        return 2 if "420" in self.pixels else 1


_FORMATS = {
    ".mp4": Format("mp4", "libx264", "aac", 18, True),
    ".mov": Format("mov", "libx264", "aac", 18, True),
    ".mkv": Format("matroska", "libx264", "aac", 18, False),
    ".webm": Format("webm", "libvpx-vp9", "libopus", 28, False),
    ".gif": Format("gif", "gif", None, 0, False),
}

# ProRes 4444 is what editing programs exchange pictures with alpha in. PNG in .mov is lossless, twice as large, and
# unknown to most of them; HEVC with alpha has no encoder outside macOS.
_ALPHA_FORMATS = {
    ".mov": Format("mov", "prores_ks", "aac", None, True, "yuva444p10le"),
    ".webm": Format("webm", "libvpx-vp9", "libopus", 28, False, "yuva420p"),
}

_MAX_CRF = {"libx264": 51, "libvpx-vp9": 63}
_OWN_FRAMES = re.compile(r"\d{6,}\.png|audio\.wav")


def keeps_alpha(path: str | os.PathLike[str]) -> bool:
    """Return whether frames with alpha stay so in such a file: .webm, .mov and folders of PNG frames."""
    return is_folder(path) or Path(path).suffix.lower() in _ALPHA_FORMATS


def check_output(path: str | os.PathLike[str]) -> None:
    """Raise unless a video can be written to `path`; nothing is written.

    Raises:
        MediaError: the suffix is unknown, the folder does not exist or is read-only, or `path` is in the way.
    """
    target = Path(path)
    frames = is_folder(path)
    if not target.name:
        raise MediaError(f"output {os.fspath(path)!r}: got no file name, expected one such as out.mp4")
    if not frames and target.suffix.lower() not in _FORMATS:
        expected = f"{', '.join(_FORMATS)}, or a path ending in / for a folder of PNG frames"
        raise MediaError(f"output {target}: got suffix {target.suffix}, expected {expected}")
    folder = target.parent
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise MediaError(f"output {target}: folder {folder} {problem}: create it or choose another -o")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MediaError(f"output {target}: folder {folder} cannot be written to: choose another -o")
    if frames:
        if target.exists() and not target.is_dir():
            raise MediaError(f"output {target}: got a file, expected a folder for PNG frames: choose another -o")
        if target.is_dir() and not is_own(target):
            raise MediaError(f"output {target}: the folder holds other files: empty it or choose another -o")
    elif target.is_dir():
        raise MediaError(f"output {target}: got a folder, expected a file name: choose another -o")
    elif target.exists() and not target.is_file():
        raise MediaError(f"output {target}: got a device or pipe, expected a regular file: choose another -o")


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether a path means a folder of PNG frames."""
    return os.fspath(path).endswith(("/", os.sep)) or not Path(path).suffix


def is_own(folder: Path) -> bool:
    """Return whether a folder holds nothing but frames and sound as we write them."""
    return all(_OWN_FRAMES.fullmatch(entry.name) for entry in folder.iterdir())


def format_of(path: str | os.PathLike[str], *, alpha: bool = False) -> Format | None:
    """Return the format of a path that `check_output` lets pass, with alpha one that keeps it; None for a folder."""
    return None if is_folder(path) else (_ALPHA_FORMATS if alpha else _FORMATS)[Path(path).suffix.lower()]


def check_quality(quality: int | None, chosen: Format | None) -> None:
    """Raise unless a format has such a constant rate factor.

    Raises:
        ValueError: out of range, or the format has none.
    """
    largest = 0 if chosen is None else _MAX_CRF.get(chosen.video, 0)
    if quality is not None and not 0 <= quality <= largest:
        expected = f"0 to {largest}" if largest else "None: the format has no such setting"
        raise ValueError(f"quality: got {quality}, expected {expected}")
