"""An error as one line for whoever gave the command."""

from __future__ import annotations

import os


def one_line(error: Exception) -> str:
    """Return an error as one line that says what to do."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    elif isinstance(error, ImportError):
        text = blamed(error) or f"{error}: run `atldiff doctor`, which says what to install"
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.split())


def blamed(error: Exception) -> str | None:
    """Return the package behind an error, such as one that does not know a name yet, or None where all are right."""
    from atldiff.packages import blame

    return blame(error)
