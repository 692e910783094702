"""Which exported networks a checkpoint runs with: those in its folder, or those made once for this machine."""

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
from typing import TYPE_CHECKING, Literal, get_args

import torch

from atldiff.checkpoint import read_config
from atldiff.errors import CheckpointError
from atldiff.export.manifest import FORMAT_VERSION, digests, is_export, read_export
from atldiff.export.networks import choose_window
from atldiff.export.publish import write_networks
from atldiff.export.runtime import is_installed, require
from atldiff.files import Workplace

if TYPE_CHECKING:
    from atldiff.export.manifest import Export
    from atldiff.export.runtime import Runtime

Backend = Literal["auto", "torch", "openvino", "onnx"]
BACKENDS: tuple[str, ...] = get_args(Backend)

logger = logging.getLogger(__name__)


def find_export(folder: Path, backend: str, *, device: torch.device, dtype: str) -> Export | None:
    """Return the exported networks that a checkpoint is to run with, or None for PyTorch's own.

    folder: of the checkpoint. backend: `auto` takes what the folder was exported for where that can run here, and
    PyTorch otherwise; `openvino` and `onnx` are made once, in the user's cache, where the folder has none. dtype: as
    the user gave it.

    Raises:
        ValueError: an unknown backend, or one that cannot do what was asked for. AtlDiffError: its package is missing.
        CheckpointError: damaged files, or a checkpoint that cannot be exported.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend: got {backend!r}, expected {', '.join(BACKENDS)}")
    if backend == "torch" or (backend == "auto" and not is_export(folder)):
        return None
    if backend == "auto":
        export = read_export(folder, digests(folder))
        usable = is_installed(export.runtime) and _refusal(export.runtime, device, dtype) is None
        return export if usable else None
    runtime: Runtime = "openvino" if backend == "openvino" else "onnx"
    refusal = _refusal(runtime, device, dtype)
    if refusal:
        raise ValueError(refusal)
    require(runtime)
    sources = digests(folder)
    if is_export(folder):
        export = read_export(folder, sources)
        if export.runtime == runtime:
            return export
    return _cached(folder, runtime, sources)


def _refusal(runtime: Runtime, device: torch.device, dtype: str) -> str | None:
    """Return why a runtime cannot do what was asked for, or None."""
    if device.type != "cpu":
        return f"device: got {device} with backend {runtime}, which runs on the CPU; use --device cpu or backend torch"
    if runtime == "onnx" and dtype == "bfloat16":
        return "dtype: got bfloat16 with backend onnx, which computes in float32; leave it out or use backend openvino"
    return None


def _cached(folder: Path, runtime: Runtime, sources: dict[str, str]) -> Export:
    frames = choose_window(read_config(folder), None)
    place = cache_folder() / _name(runtime, sources, frames)
    try:
        return read_export(place, sources)
    except CheckpointError:  # not there yet, or damaged
        pass
    logger.info("exporting the networks of %s for %s, once", folder, runtime)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        made = Workplace(place)
        try:
            made.make()
            made.path.mkdir()
            write_networks(folder, made.path, runtime, window_frames=frames)
            if not place.exists():  # another process may have been faster
                made.publish()
        finally:
            made.discard()
        return read_export(place, sources)
    except OSError as error:
        logger.info("the cache %s cannot be written to (%s): a temporary folder takes its place", place.parent, error)
    temporary = Path(tempfile.mkdtemp(prefix="atldiff-export-"))
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return write_networks(folder, temporary, runtime, window_frames=frames)


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


def _name(runtime: Runtime, sources: dict[str, str], frames: int) -> str:
    """Return a folder's name: weights and settings, runtime and its version, frames, and the form of these files."""
    digest = hashlib.sha256("".join(f"{name}{value}" for name, value in sorted(sources.items())).encode()).hexdigest()
    version = metadata.version("onnxruntime" if runtime == "onnx" else "openvino")
    return f"{digest[:16]}-{runtime}-{version}-{frames}-{FORMAT_VERSION}"
