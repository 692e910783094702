"""Talking-head video from one portrait and one recording.

Names are imported on first use, so that `import atldiff` needs neither torch nor any media library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atldiff.errors import AtlDiffError, CheckpointError, DataError, FaceNotFound, MediaError, TrainingError
    from atldiff.pipeline import TalkingHead
    from atldiff.types import Controls, LandmarkTrack, Portrait

__version__ = "0.1.0"

__all__ = [
    "AtlDiffError",
    "CheckpointError",
    "Controls",
    "DataError",
    "FaceNotFound",
    "LandmarkTrack",
    "MediaError",
    "Portrait",
    "TalkingHead",
    "TrainingError",
    "__version__",
]

_HOME = {
    "TalkingHead": "atldiff.pipeline",
    "Controls": "atldiff.types",
    "LandmarkTrack": "atldiff.types",
    "Portrait": "atldiff.types",
    "AtlDiffError": "atldiff.errors",
    "CheckpointError": "atldiff.errors",
    "DataError": "atldiff.errors",
    "FaceNotFound": "atldiff.errors",
    "MediaError": "atldiff.errors",
    "TrainingError": "atldiff.errors",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'atldiff' has no attribute {name!r}; it offers {', '.join(sorted(_HOME))}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value  # the next access does not come through here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
