"""GRID (Cooke et al., 2006): 34 speakers (s21 without video) of 1000 sentences such as "bin blue at F two now".

Layout: `s1/bbaf2n.mpg` or `s1/video/mpg_6000/bbaf2n.mpg`, under any folders; the corpus has its videos in two sizes,
and of a sentence that is there twice the small one (`mpg_vcd`) is left out. Of emotion GRID says nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

from atldiff.data.sources.raw import RawClip, Source, read_layout

TEST_SPEAKERS = ("s1", "s2", "s20", "s22")
"""Held out for figures. Open in the paper; lip reading on GRID holds out the same four."""
VALIDATION_SPEAKERS = ("s9", "s29")
"""Held out for choices during training. Open in the paper, our choice."""

# Command, colour, preposition, letter, digit, adverb; a few files carry their recording's name before it.
_LAYOUT = re.compile(
    r"(?:^|/)(?P<speaker>s(?:[1-9]|[12]\d|3[0-4]))(?:_processed)?/(?:[^/]+/)*"
    r"(?:id\d+_[a-z0-9]+_)?(?P<sentence>[blps][bgrw][abiw][a-z][1-9z][anps])\.\w+$"
)


def list_clips(folder: Path) -> list[RawClip]:
    """Return the clips, sorted.

    Raises:
        DataError: the folder is missing or has not GRID's layout.
    """
    root = folder.resolve().name

    def read(path: Path, relative: str) -> RawClip | None:
        # With the folder's own name: it may be the one of a speaker.
        found = _LAYOUT.search(f"{root}/{relative}")
        return found and RawClip(path=path, relative=relative, speaker=found["speaker"])

    clips = read_layout(folder, "grid", "s1/video/mpg_6000/bbaf2n.mpg", read)
    chosen: dict[tuple[str, str], RawClip] = {}
    for clip in sorted(clips, key=lambda clip: ("vcd" in clip.relative, clip.relative)):
        chosen.setdefault((clip.speaker, clip.path.stem.rpartition("_")[2]), clip)
    return sorted(chosen.values(), key=lambda clip: clip.path)


SOURCE = Source(
    name="grid", list_clips=list_clips, test_speakers=TEST_SPEAKERS, validation_speakers=VALIDATION_SPEAKERS
)
