"""Long recordings as parts, so that one person's only recording has something to hold out.

Parts lie a second apart: no frame, and nothing that a network sees around one, is in two.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from atldiff.data.sources.raw import source_name
from atldiff.errors import AtlDiffError
from atldiff.timebase import FPS
from atldiff.video.read import probe, read_frames_at

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from atldiff.data.sources.raw import RawClip

PART_FRAMES = 10 * FPS
GAP_FRAMES = FPS
"""Between two parts. Generators look at 16 frames before a moment and 4 after it, renderers at 10 in all."""
SHORTEST_PART_FRAMES = 3 * FPS
ENOUGH_PARTS, LEAST_PARTS = 6, 3
"""A short recording is cut into shorter parts to have as many; with fewer than three it stays whole."""
LONG_FRAMES = 60 * FPS
"""A recording of a minute or more is always cut; a shorter one where there is hardly another."""
FEW_RECORDINGS = 2
SHORTEST_CUT_FRAMES = LEAST_PARTS * SHORTEST_PART_FRAMES + (LEAST_PARTS - 1) * GAP_FRAMES


class Part(NamedTuple):
    """Frames of a video at 25 fps, from `start` up to `stop`."""

    start: int
    stop: int


def cut(frames: int) -> list[Part]:
    """Return the parts of a recording of so many frames; none where it is shorter than 11 s.

    Equally long but for a frame: nearest to 10 s, of less than a minute 3 s or more.
    """
    if frames < SHORTEST_CUT_FRAMES:
        return []
    spaced = frames + GAP_FRAMES
    most = spaced // (SHORTEST_PART_FRAMES + GAP_FRAMES)
    count = max(round(spaced / (PART_FRAMES + GAP_FRAMES)), min(ENOUGH_PARTS, most))
    shortest, longer = divmod(spaced - count * GAP_FRAMES, count)
    parts, start = [], 0
    for index in range(count):
        stop = start + shortest + (index < longer)
        parts.append(Part(start, stop))
        start = stop + GAP_FRAMES
    return parts


def in_parts(clips: Sequence[RawClip], corpus: str = "") -> list[RawClip]:
    """Return clips with long recordings in parts; where a source has but one or two short recordings, these as well.

    corpus: of all clips, where it has a layout of its own.
    """
    lengths = [length(clip.path) for clip in clips]
    by_source: dict[str, list[int]] = {}
    for clip, frames in zip(clips, lengths, strict=True):
        if frames:
            by_source.setdefault(source_name(clip.relative, corpus), []).append(frames)
    few = {name for name, theirs in by_source.items() if len(theirs) <= FEW_RECORDINGS and max(theirs) < LONG_FRAMES}
    listed = []
    for clip, frames in zip(clips, lengths, strict=True):
        wanted = frames >= LONG_FRAMES or source_name(clip.relative, corpus) in few
        listed += [replace(clip, part=part) for part in (cut(frames) if wanted else [])] or [clip]
    return listed


def length(path: Path) -> int:
    """Return a video's frames at 25 fps by the length it states, or by decoding it; 0 of a broken one."""
    try:
        duration_s = probe(path).duration_s
        return sum(1 for _ in read_frames_at(path)) if duration_s is None else ceil(duration_s * FPS)
    except AtlDiffError:  # whoever prepares it says why
        return 0
