"""The corpora that `atldiff prepare` knows; one module each, which reads the corpus's own layout."""

from __future__ import annotations

from atldiff.data.sources import crema_d, folder, grid, hdtf, mead
from atldiff.data.sources.raw import RawClip, Source

SOURCES = (mead.SOURCE, crema_d.SOURCE, grid.SOURCE, hdtf.SOURCE, folder.SOURCE)

__all__ = ["SOURCES", "RawClip", "Source"]
