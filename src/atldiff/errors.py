"""The package's errors. Each message says what, what was got, what was expected and what to do, on one line.

The command line turns every `AtlDiffError` and `ValueError` into that line and exit code 2.
"""

from __future__ import annotations


class AtlDiffError(Exception):
    """Base of the errors that bad input can cause."""


class MediaError(AtlDiffError):
    """An image, audio or video file that cannot be read or written."""


class FaceNotFound(AtlDiffError):
    """A portrait in which no usable face was detected (or not the one asked for)."""


class CheckpointError(AtlDiffError):
    """A weights folder that is missing, incomplete, unsafe or not ours."""


class DataError(AtlDiffError):
    """A training folder or prepared data set that cannot be used."""


class TrainingError(AtlDiffError):
    """A training run that had to stop, e.g. on a loss that is not finite."""
