"""Any tree of videos; the folders of its first level are taken as corpora, and nobody is named."""

from __future__ import annotations

from pathlib import Path

from atldiff.data.sources.raw import RawClip, Source, find_videos


def list_clips(folder: Path) -> list[RawClip]:
    """Return every video under a folder, sorted.

    Raises:
        DataError: the folder is missing or holds no video.
    """
    return [RawClip(path=path, relative=path.relative_to(folder).as_posix()) for path in find_videos(folder)]


SOURCE = Source(name="folder", list_clips=list_clips)
