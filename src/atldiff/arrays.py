"""Arrays of an .npz whose types and shapes are known before any is read: a small file may claim to hold terabytes."""

from __future__ import annotations

import math
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib import format as npy

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from numpy.typing import NDArray

_NUMBERS = "fiu"
_WIDEST = 8


@dataclass(frozen=True, slots=True)
class Stored:
    """What a member's header says."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool


class Archive:
    """An open .npz of plain numbers; nothing in it is ever unpickled.

    stored: what each member that was asked for is, by its name.
    """

    def __init__(self, archive: zipfile.ZipFile, names: tuple[str, ...]) -> None:
        """Read the headers of the named members that are there.

        Raises:
            ValueError, zipfile.BadZipFile: a member that holds anything but numbers, or not as many as it says.
        """
        self._archive = archive
        held = set(archive.namelist())
        self.stored = {name: self._header(name) for name in names if f"{name}.npy" in held}

    def read(self, name: str) -> NDArray:
        """Return a member's array.

        Raises:
            KeyError: there is none of that name. ValueError, zipfile.BadZipFile: it is damaged.
        """
        if name not in self.stored:
            raise KeyError(f"no {name}")
        with self._archive.open(f"{name}.npy") as member:
            return npy.read_array(member, allow_pickle=False)

    def blocks(self, name: str, rows: int) -> Iterator[NDArray]:
        """Yield a member's array in blocks of so many rows; whole where its rows do not lie together."""
        stored = self.stored[name]
        if stored.fortran or not stored.shape:
            yield self.read(name)
            return
        width = math.prod(stored.shape[1:]) * stored.dtype.itemsize
        with self._archive.open(f"{name}.npy") as member:
            _read_header(member, name)
            for start in range(0, stored.shape[0], rows):
                count = min(rows, stored.shape[0] - start)
                yield np.frombuffer(member.read(count * width), stored.dtype).reshape(count, *stored.shape[1:])

    def _header(self, name: str) -> Stored:
        with self._archive.open(f"{name}.npy") as member:
            stored = _read_header(member, name)
            length = member.tell() + math.prod(stored.shape) * stored.dtype.itemsize
        if stored.dtype.kind not in _NUMBERS or stored.dtype.itemsize > _WIDEST or stored.dtype.subdtype is not None:
            raise ValueError(f"{name}: got {stored.dtype}, expected plain numbers")
        if self._archive.getinfo(f"{name}.npy").file_size != length:
            raise ValueError(f"{name}: damaged, its length is not that of {stored.shape} {stored.dtype}")
        return stored


def _read_header(member, name: str) -> Stored:  # noqa: ANN001 - zipfile does not export its file's type
    version = npy.read_magic(member)
    if version == (1, 0):
        shape, fortran, dtype = npy.read_array_header_1_0(member)
    elif version == (2, 0):
        shape, fortran, dtype = npy.read_array_header_2_0(member)
    else:
        raise ValueError(f"{name}: got an array of format {version}, expected one of plain numbers")
    return Stored(shape, dtype, fortran)


@contextmanager
def open_arrays(path: str | os.PathLike[str], *names: str) -> Iterator[Archive]:
    """Open an .npz for the members of these names; others are not looked at.

    Raises:
        OSError: the file cannot be opened. ValueError, zipfile.BadZipFile: it is no such file.
    """
    with zipfile.ZipFile(path) as archive:
        yield Archive(archive, names)
