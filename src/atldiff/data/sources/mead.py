"""MEAD (Wang et al., ECCV 2020): 48 published speakers, eight emotions at up to three levels, seven views.

Layout: `M003/video/front/angry/level_1/001.mp4`, the sound apart in `M003/audio/angry/level_1/001.m4a`. Cropped
re-distributions leave `video/` out, join emotion and level (`angry_level_1`) or put the sound into the video; all of
these are read, and speakers may lie at any depth. Only the front view is listed unless another is asked for.
"""

from __future__ import annotations

import re
from pathlib import Path

from atldiff.data.sources.raw import RawClip, Source, beside, read_layout
from atldiff.emotions import EMOTIONS
from atldiff.errors import DataError

TEST_SPEAKERS = ("M003", "M030", "W009", "W015")
"""Held out for figures. The paper leaves it open; these four are the ones most papers on MEAD test on."""
VALIDATION_SPEAKERS = ("M026", "W029")
"""Held out for choices during training. Open in the paper, our choice."""
VIEWS = ("front", "left_30", "left_60", "right_30", "right_60", "top", "down")

_EMOTIONS = {**{emotion: emotion for emotion in EMOTIONS}, "disgust": "disgusted", "surprise": "surprised"}
_EXAMPLE = "M003/video/front/angry/level_1/001.mp4"
_LAYOUT = re.compile(
    r"(?:^|/)(?P<speaker>[MW]\d{3})(?P<tail>/(?:video/)?(?P<view>[a-z]+(?:_[36]0)?)"
    r"/(?P<emotion>[a-z]+)[/_](?P<level>level_[123])/[^/]+)$"
)


def list_clips(folder: Path, view: str = "front") -> list[RawClip]:
    """Return the clips of one view (`VIEWS`), the front one by default, sorted.

    Raises:
        DataError: the folder is missing or has not MEAD's layout in this view.
    """
    root = folder.resolve().name
    elsewhere: dict[str, str] = {}

    def read(path: Path, relative: str) -> RawClip | None:
        # With the folder's own name: it may be the one of a speaker.
        found = _LAYOUT.search(f"{root}/{relative}")
        if found is None or found["emotion"] not in _EMOTIONS or found["view"] not in VIEWS:
            return None
        if found["view"] != view:
            elsewhere[relative] = found["view"]
        spoken = path.parents[found["tail"].count("/") - 1] / "audio" / found["emotion"] / found["level"]
        return RawClip(
            path=path,
            relative=relative,
            speaker=found["speaker"],
            emotion=_EMOTIONS[found["emotion"]],
            intensity=found["level"],
            audio=beside(spoken / f"{path.stem}.m4a", spoken / f"{path.stem}.wav"),
        )

    clips = [clip for clip in read_layout(folder, "mead", _EXAMPLE, read) if clip.relative not in elsewhere]
    if not clips:
        there = ", ".join(sorted(set(elsewhere.values())))
        raise DataError(f"folder {folder}: no video of view {view!r} of mead; got {there}, expected {_EXAMPLE}")
    return clips


SOURCE = Source(
    name="mead", list_clips=list_clips, test_speakers=TEST_SPEAKERS, validation_speakers=VALIDATION_SPEAKERS
)
