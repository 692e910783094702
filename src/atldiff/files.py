"""How files appear under their names: whole or not at all; the digest of a file of any size; the bundled portrait."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from atldiff.interrupt import held

try:
    import fcntl
except ImportError:  # Windows, where nobody can remove a file that is open
    fcntl = None

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME_BYTES = 200
"""Of a name in that of its workplace: file systems allow 255 bytes in all."""
_SWAPS = 100


class Workplace:
    """A hidden folder beside a target, in which it is made under its own name, to be moved to its place when whole.

    Any number of processes and threads may make the same target at once: each has a folder of its own, and the last to
    finish wins. `.NAME.PID-RANDOM.partial` is locked while its process lives; one that was killed outright leaves it,
    until the same target is made again or `clear` is called.
    """

    def __init__(self, target: Path, *, tidy: bool = True) -> None:
        """Choose a name; nothing appears before `make`.

        tidy: make it after those of the same target whose processes are gone are removed: its folder is listed.
        """
        self.target = target
        self.folder = target.with_name(f"{_prefix(target)}{os.getpid()}-{os.urandom(4).hex()}.partial")
        self.path = self.folder / target.name
        self._tidy = tidy
        self._lock: int | None = None

    def make(self) -> None:
        """Make the folder.

        Raises:
            OSError: the folder of the target is missing, full or cannot be written to.
        """
        if self._tidy:
            clear(self.target)
        while True:
            self.folder.mkdir()
            self._lock = _locked(self.folder)
            if self.folder.is_dir():  # or another process has tidied it away between the two
                return
            self._unlock()

    def publish(self, target: Path | None = None) -> None:
        """Move the file or folder at `path` to its place, or to `target`, over what is there, and be done.

        Raises:
            OSError: it cannot be moved; what was made is still at `path`.
        """
        place = self.target if target is None else target
        if self.path.is_dir():
            with held():
                self._swap(place)
        else:
            with suppress(OSError):  # on a disk that is full, too, the part is moved
                usual = self.folder / ".usual"  # safetensors makes files that only their owner may read
                usual.touch()
                self.path.chmod(usual.stat().st_mode & 0o777)
            self.path.replace(place)
        self.discard()

    def discard(self) -> None:
        """Remove the folder with all that is in it. A second call does nothing."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._unlock()

    def _swap(self, place: Path) -> None:
        """Exchange folders: no moment shows a half-filled one, and what was there is gone only once the new one is."""
        for attempt in range(_SWAPS):
            old = self.folder / f".old-{attempt}"
            with suppress(FileNotFoundError):
                place.replace(old)
            try:
                self.path.replace(place)
            except OSError as error:
                # Another's folder that stood there may be gone again before one looks.
                outrun = error.errno in (errno.ENOTEMPTY, errno.EEXIST)
                if not outrun and not place.exists():
                    with suppress(FileNotFoundError):
                        old.replace(place)
                    raise
                if attempt == _SWAPS - 1:  # until then, others that finished at the same time were quicker
                    raise
            else:
                return

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def clear(target: Path) -> None:
    """Remove the workplaces of a target that no living process holds, such as one that was killed has left."""
    name = re.compile(re.escape(_prefix(target)) + _OWNER)
    _clear(target.parent, name)


@contextmanager
def left_behind(target: Path) -> Iterator[list[Path]]:
    """Give the workplaces of a target whose processes are gone, held meanwhile so that nobody tidies them away."""
    name = re.compile(re.escape(_prefix(target)) + _OWNER)
    folders, locks = [], []
    with suppress(OSError), os.scandir(target.parent) as entries:
        for path in sorted(Path(entry.path) for entry in entries if name.fullmatch(entry.name)):
            lock = _locked(path, wait=False)
            if lock is not None:
                folders.append(path)
                locks.append(lock)
    try:
        yield folders
    finally:
        for lock in locks:
            os.close(lock)


def clear_all(folder: Path) -> None:
    """Remove the workplaces of every target in a folder that no living process holds."""
    _clear(folder, re.compile(r"\..+\." + _OWNER))


_OWNER = r"\d+-[0-9a-f]{8}\.partial"


def _clear(folder: Path, name: re.Pattern[str]) -> None:
    with suppress(OSError), os.scandir(folder) as entries:  # a folder that is not there is reported where it is used
        for path in [Path(entry.path) for entry in entries if name.fullmatch(entry.name)]:
            lock = _locked(path, wait=False)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def _prefix(target: Path) -> str:
    return f".{target.name.encode()[:NAME_BYTES].decode(errors='ignore')}."


def _locked(folder: Path, *, wait: bool = True) -> int | None:
    """Return a descriptor that holds a folder's lock, or None where another has it or the system has no such lock."""
    if fcntl is None:
        return None
    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor


@contextmanager
def replacing(target: Path, *, tidy: bool = True) -> Iterator[Path]:
    """Give a path of the target's name to write to, and move it to its place at the end; nothing stays of a failure.

    tidy: first remove what killed processes left of the same target, which means to list its folder.

    Raises:
        OSError: naming the target, whatever the library that writes makes of a full disk.
    """
    with naming(target):
        place = Workplace(target, tidy=tidy)
        try:
            place.make()
            yield place.path
            place.publish()
        finally:
            place.discard()


@contextmanager
def naming(target: Path) -> Iterator[None]:
    """Have errors of writing name the file that is written, which libraries leave out."""
    try:
        yield
    except OSError as error:
        named = [name for name in (error.filename, error.filename2) if name is not None]  # a copy names its source, too
        if error.errno is None or (named and not any(_is_ours(name, target) for name in named)):
            raise
        raise OSError(error.errno, error.strerror, str(target)) from None
    except Exception as error:
        told = re.search(r"\(os error (\d+)\)", str(error))  # safetensors says the system's errors in words
        if type(error).__name__ != "SafetensorError" or told is None:
            raise
        number = int(told[1])
        raise OSError(number, os.strerror(number), str(target)) from None


def _is_ours(name: object, target: Path) -> bool:
    path = os.fsdecode(name) if isinstance(name, str | bytes) else str(name)
    return Path(path) == target or _prefix(target) in path


def write_text(path: Path, text: str, *, tidy: bool = True) -> None:
    """Write UTF-8 text, whole or not at all; `tidy` as of `replacing`."""
    with replacing(path, tidy=tidy) as partial:
        partial.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """Return the digest of a file in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def demo_portrait() -> Path | None:
    """Return the bundled portrait: in the wheel, or in the checkout this package runs from; None in neither."""
    package = Path(__file__).resolve().parent
    places = (package / "examples" / "portrait.jpg", package.parents[1] / "examples" / "portrait.jpg")
    return next((place for place in places if place.is_file()), None)
