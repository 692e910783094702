"""CREMA-D (Cao et al., 2014): 91 actors, twelve sentences, six emotions; one of the sentences at three levels.

Layout: `VideoFlash/1001_DFA_ANG_XX.flv`, actor, sentence, emotion and level, with the sound again in
`AudioWAV/1001_DFA_ANG_XX.wav`. Videos may lie anywhere and be converted to another format: the name alone counts.
"""

from __future__ import annotations

import re
from pathlib import Path

from atldiff.data.sources.raw import RawClip, Source, beside, read_layout

TEST_SPEAKERS = ("1015", "1020", "1021", "1030", "1033", "1052", "1062", "1081", "1082", "1089")
"""Held out for figures. Open in the paper, our choice: written down so that figures can be compared."""
VALIDATION_SPEAKERS = ("1004", "1036", "1047", "1070")
"""Held out for choices during training. Open in the paper, our choice."""

_EMOTIONS = {"ANG": "angry", "DIS": "disgusted", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
_LEVELS = {"LO": "low", "MD": "medium", "HI": "high"}  # XX is "unspecified"
# One recording of the corpus is called 1040_ITH_SAD_X.
_NAME = re.compile(r"(?P<speaker>10\d\d)_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?P<level>LO|MD|HI|XX?)")


def list_clips(folder: Path) -> list[RawClip]:
    """Return the clips, sorted.

    Raises:
        DataError: the folder is missing or no video of it is named as CREMA-D's.
    """

    def read(path: Path, relative: str) -> RawClip | None:
        found = _NAME.fullmatch(path.stem)
        if found is None or found["emotion"] not in _EMOTIONS:
            return None
        folders = [parent / "AudioWAV" for parent in (path.parent.parent, path.parent, folder)]
        stems = [path.stem]
        if found["level"].startswith("X"):
            stems.append(path.stem + "X" if found["level"] == "X" else path.stem[:-1])
        return RawClip(
            path=path,
            relative=relative,
            speaker=found["speaker"],
            emotion=_EMOTIONS[found["emotion"]],
            intensity=_LEVELS.get(found["level"], ""),
            audio=beside(*(place / f"{stem}.wav" for place in folders for stem in stems)),
        )

    return read_layout(folder, "crema-d", "VideoFlash/1001_DFA_ANG_XX.flv", read)


SOURCE = Source(
    name="crema-d", list_clips=list_clips, test_speakers=TEST_SPEAKERS, validation_speakers=VALIDATION_SPEAKERS
)
