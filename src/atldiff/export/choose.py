"""The networks that a checkpoint runs with apart from PyTorch: those in its folder, or those made once here."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from atldiff.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from atldiff.errors import CheckpointError
from atldiff.files import Workplace
from atldiff.runtime.choose import is_installed
from atldiff.runtime.graphs import FORMAT_VERSION, has_graphs, read_graphs, sources_of

if TYPE_CHECKING:
    from atldiff.runtime.graphs import Graphs

logger = logging.getLogger(__name__)


def find_graphs(folder: Path) -> Graphs:
    """Return the graphs of a checkpoint's networks; where its folder has none, they are made once in the user's cache.

    Raises:
        CheckpointError: damaged files, a checkpoint that cannot be exported, or one without graphs where PyTorch, which
        makes them, is not installed. AtlDiffError: the package onnx is missing.
    """
    if has_graphs(folder):
        return read_graphs(folder)
    sources = sources_of(folder, int8=True)
    if not is_installed("torch"):
        raise CheckpointError(
            f"checkpoint {folder}: has no networks for ONNX Runtime, and PyTorch, which makes them, is not installed; "
            "run pip install 'atldiff[torch]', or `atldiff export` where it is"
        )
    place = cache_folder() / _name(sources)
    try:
        return read_graphs(place)
    except CheckpointError:  # not there yet, or damaged
        pass
    from atldiff.export.publish import write_graphs

    logger.info("exporting the networks of %s, once", folder)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        made = Workplace(place)
        try:
            made.make()
            made.path.mkdir()
            _copy(folder, made.path)
            write_graphs(made.path)
            if not place.exists():  # another process may have been faster
                made.publish()
        finally:
            made.discard()
        return read_graphs(place)
    except OSError as error:
        logger.info("the cache %s cannot be written to (%s): a temporary folder takes its place", place.parent, error)
    temporary = Path(tempfile.mkdtemp(prefix="atldiff-export-"))
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    _copy(folder, temporary)
    return write_graphs(temporary)


def _copy(folder: Path, target: Path) -> None:
    """Copy what graphs refer to: they find their weights beside themselves."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        shutil.copyfile(folder / name, target / name)


def cache_folder() -> Path:
    """Return where exported networks are kept for the user: of this platform, or below XDG_CACHE_HOME."""
    if os.environ.get("XDG_CACHE_HOME"):
        base = Path(os.environ["XDG_CACHE_HOME"])
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path.home() / ".cache"
    return base / "atldiff" / "exports"


def _name(sources: dict[str, str]) -> str:
    """Return a folder's name: weights and settings, the exporter's version, and the form of these files."""
    digest = hashlib.sha256("".join(f"{name}{value}" for name, value in sorted(sources.items())).encode()).hexdigest()
    return f"{digest[:16]}-torch-{metadata.version('torch')}-{FORMAT_VERSION}"
