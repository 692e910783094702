"""export.json: what lies in a folder of exported networks, what it was made of and how close it came."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atldiff.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from atldiff.errors import CheckpointError
from atldiff.export.networks import DENOISER, GENERATOR
from atldiff.export.runtime import RUNTIMES, SUFFIX
from atldiff.files import sha256, write_text

if TYPE_CHECKING:
    from atldiff.export.runtime import Runtime

EXPORT_FILE = "export.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A folder of exported networks.

    window_frames: frames the denoiser takes. int8: whether its coarse levels are in 8 bits. sources and files: digests
    of what it was made of and of what it holds. parity: by network and by what it computes in. versions: of packages.
    """

    folder: Path
    runtime: Runtime
    int8: bool
    window_frames: int
    sources: dict[str, str]
    files: dict[str, str]
    parity: dict[str, dict[str, dict[str, float | int]]]
    versions: dict[str, str]

    def network(self, name: str) -> Path:
        """Return the file that the runtime opens of a network."""
        return self.folder / (name + SUFFIX[self.runtime])

    def as_dict(self) -> dict[str, Any]:
        """Return what export.json says."""
        values = asdict(self)
        del values["folder"]
        return {"format_version": FORMAT_VERSION, **values}

    def write(self) -> None:
        """Write export.json into the folder."""
        write_text(self.folder / EXPORT_FILE, json.dumps(self.as_dict(), indent=2) + "\n")


def digests(folder: Path) -> dict[str, str]:
    """Return the digests of a checkpoint's files that say what its networks compute.

    Raises:
        CheckpointError: one is missing.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"checkpoint {folder}: no {name}; expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}"
            )
    return {name: sha256(folder / name) for name in (CONFIG_FILE, WEIGHTS_FILE)}


def is_export(folder: Path) -> bool:
    """Return whether a folder says that it holds exported networks."""
    return (folder / EXPORT_FILE).is_file()


def read_export(folder: Path, sources: dict[str, str]) -> Export:
    """Read what export.json says and check that the files are those it speaks of.

    sources: digests of the checkpoint that it should be made of.

    Raises:
        CheckpointError: it is missing, damaged, of another version, or made of other weights; files are named.
    """
    path = folder / EXPORT_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ValueError(f"format_version: got {version!r}, expected {FORMAT_VERSION}")
        export = Export(folder=folder, **values)
        if export.runtime not in RUNTIMES or not isinstance(export.window_frames, int):
            raise ValueError(f"runtime: got {export.runtime!r}, expected one of {', '.join(RUNTIMES)}")
        wanted = {export.network(name).name for name in (DENOISER, GENERATOR)}
        if not wanted <= export.files.keys():
            raise ValueError(f"files: expected {' and '.join(sorted(wanted))}")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"exported networks {path}: {error}; export again") from None
    if export.sources != sources:
        raise CheckpointError(
            f"exported networks {folder}: made of other weights or settings than lie there; export again"
        )
    for name, digest in export.files.items():
        file = folder / Path(name).name
        if not file.is_file() or sha256(file) != digest:
            raise CheckpointError(f"exported networks {file}: missing or changed since it was exported; export again")
    return export
