"""HDTF (Zhang et al., CVPR 2021): speeches from the web, as the clips its processing makes.

Layout: `RD_Radio1_000.mp4`, `WDA_BarackObama_000.mp4`, `WRA_AdamKinzinger0_001.mp4` in any folders: set, name, number
of the clip. The number at the end of a politician's name counts their videos, so it is no part of the person;
`RD_Radio1` and `RD_Radio2` are different people.
"""

from __future__ import annotations

import re
from pathlib import Path

from atldiff.data.sources.raw import RawClip, Source, read_layout

_NAME = re.compile(r"(?P<speaker>RD_Radio\d+|W[DR]A_[^\W\d_][^\d_]*)\d*(?:_\d+)?")


def list_clips(folder: Path) -> list[RawClip]:
    """Return the clips, sorted.

    Raises:
        DataError: the folder is missing or no video of it is named as HDTF's.
    """

    def read(path: Path, relative: str) -> RawClip | None:
        found = _NAME.fullmatch(path.stem)
        return found and RawClip(path=path, relative=relative, speaker=found["speaker"])

    return read_layout(folder, "hdtf", "WDA_BarackObama_000.mp4", read)


SOURCE = Source(name="hdtf", list_clips=list_clips)
