"""The results of a batch: a JSON line an item, by which the same command later knows what is still to be made."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atldiff.commands.assign import values_of
from atldiff.commands.dub import Dub
from atldiff.commands.generate import Generate
from atldiff.commands.manifest import WRITTEN, inputs_of
from atldiff.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO

DONE, SKIPPED, FAILED = "done", "skipped", "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a line.

    status: done, skipped (made by an earlier run) or failed, for `reason`. made_of: digest of all that the output
    depends on, None where it was not made. size: its bytes, in a folder those of its files. frames, duration_s: of the
    video. seconds: what it took. warnings: what was said of it.
    """

    line: int
    output: str
    status: str
    reason: str | None = None
    made_of: str | None = None
    size: int | None = None
    frames: int | None = None
    duration_s: float | None = None
    seconds: float | None = None
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON, without what is not known."""
        told = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in told.items() if value not in (None, ())}

    @property
    def is_whole(self) -> bool:
        """Whether the output is there as it was written."""
        return self.made_of is not None and self.size is not None and size_of(self.output) == self.size


def made_of(options: Generate | Dub) -> str:
    """Return a digest of what decides a video: the options that say something, and its files' sizes and times."""
    nothing = Generate(Path()) if isinstance(options, Generate) else Dub(Path(), Path())
    plain = values_of(nothing, type(nothing))
    told: dict[str, Any] = {
        ".".join(place): value
        for place, value in values_of(options, type(nothing)).items()
        if place not in WRITTEN and place[0] not in ("live", "report") and value != plain[place]
    }
    if isinstance(options, Generate) and options.landmarks is not None:
        told["landmarks"] = True  # they are to be there as well, wherever that is
    told["suffix"] = "/" if str(options.output).endswith("/") else Path(str(options.output)).suffix.lower()
    files = {str(path): _state(path) for path in sorted(set(inputs_of(options)))}
    return hashlib.sha256(json.dumps([told, files], default=str, sort_keys=True).encode()).hexdigest()


def _state(path: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of a file, or of all in a folder."""
    every = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    states = [(each.relative_to(path).as_posix(), each.stat()) for each in every]
    return [(name, state.st_size, state.st_mtime_ns) for name, state in states]


def size_of(output: str) -> int | None:
    """Return the bytes of a file, or of the files of a folder; None where it is not there."""
    try:
        if os.path.isdir(output):  # noqa: PTH112 - outputs are words: a slash at the end means something
            return sum(entry.stat().st_size for entry in os.scandir(output))
        return Path(output).stat().st_size
    except OSError:
        return None


def read_results(path: Path) -> dict[str, Result]:
    """Return the results of an earlier run by their outputs; what cannot be read is as if it had never been."""
    found: dict[str, Result] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return found
    except UnicodeDecodeError:
        raise ValueError(f"results {path}: not UTF-8; expected those of an earlier run, or another --results") from None
    for line in text.splitlines():
        try:
            told = json.loads(line)
            result = Result(**{**told, "warnings": tuple(told.get("warnings", ()))})
        except (ValueError, TypeError, AttributeError):
            continue  # a run that was killed may have left half a line
        if result.output and result.made_of is not None:
            found[result.output] = result
    return found


class Results:
    """The file of results while a batch runs: each is in it as soon as it is known, and at the end they are in order.

    kept: results of an earlier run, that stay until their lines have others.
    """

    def __init__(self, path: Path, kept: Iterable[Result]) -> None:
        self._path = path
        self._found: dict[int, Result] = {result.line: result for result in kept}
        self._write()
        self._file: TextIO = path.open("a", encoding="utf-8")

    def add(self, result: Result) -> None:
        """Take the result of a line."""
        self._found[result.line] = result
        self._file.write(json.dumps(result.as_dict(), ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Write them all in order."""
        self._file.close()
        self._write()

    def _write(self) -> None:
        told = [json.dumps(self._found[line].as_dict(), ensure_ascii=False) + "\n" for line in sorted(self._found)]
        write_text(self._path, "".join(told))
