"""What a data source lists: raw clips with what the corpus's own layout says of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atldiff.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from atldiff.data.parts import Part

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m4v", ".flv"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RawClip:
    """One video of a corpus as it was downloaded, or a part of one."""

    path: Path
    relative: str
    """The path from the corpus's folder on, with forward slashes."""
    speaker: str = ""
    """The person by the corpus's own naming; empty where it does not say."""
    emotion: str = ""
    """One of `types.EMOTIONS`; empty where the corpus does not say."""
    intensity: str = ""
    """How strongly it is shown, in the corpus's own words; empty where it does not say."""
    audio: Path | None = None
    """A recording beside the video, heard where the video has no sound of its own; both start together."""
    part: Part | None = None
    """The frames of the video that are meant; None for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A corpus that can be prepared.

    name: as on the command line. list_clips: its clips, sorted, from its folder. test_speakers, validation_speakers:
    who is held out; where both are empty, people are drawn by the hash of their names (`manifest.split_identities`).
    """

    name: str
    list_clips: Callable[[Path], list[RawClip]]
    test_speakers: tuple[str, ...] = ()
    validation_speakers: tuple[str, ...] = ()


def source_name(relative: str, corpus: str = "") -> str:
    """Return the corpus of a video: by name, or the first folder of its path; empty where it lies in no sub-folder."""
    return corpus or (relative.partition("/")[0] if "/" in relative else "")


def find_videos(folder: Path) -> list[Path]:
    """Return the video files under a folder, sorted.

    Raises:
        DataError: the folder is missing or holds no video.
    """
    if not folder.is_dir():
        raise DataError(f"folder {folder}: not a folder; expected a folder of videos")
    videos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
    if not videos:
        raise DataError(f"folder {folder}: no videos found; expected files such as {', '.join(sorted(VIDEO_SUFFIXES))}")
    return videos


def read_layout(folder: Path, corpus: str, example: str, read: Callable[[Path, str], RawClip | None]) -> list[RawClip]:
    """Return the clips of a corpus's folder, sorted by their paths.

    example: a path of the corpus, for the error. read: from a video and its relative path to its clip, or None where
    the path is none of the corpus's; such videos are left out with a warning.

    Raises:
        DataError: the folder is missing, or no video of it lies as the corpus's do.
    """
    videos = [(path, path.relative_to(folder).as_posix()) for path in find_videos(folder)]
    clips = [(relative, read(path, relative)) for path, relative in videos]
    strays = [relative for relative, clip in clips if clip is None]
    if len(strays) == len(videos):
        raise DataError(
            f"folder {folder}: not laid out as {corpus}: got {strays[0]} ({len(strays)} videos in all), expected paths "
            f"such as {example}: name the corpus's own folder, or leave {corpus} out to prepare any folder of videos"
        )
    if strays:
        logger.warning("%s: %d videos left out, not laid out as %s: %s first", folder, len(strays), corpus, strays[0])
    return [clip for _, clip in clips if clip is not None]


def beside(*candidates: Path) -> Path | None:
    """Return the first of the candidates that is a file."""
    return next((path for path in candidates if path.is_file()), None)
