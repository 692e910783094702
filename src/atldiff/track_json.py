"""Landmark tracks as JSON: one frame a line, numbers such that each float32 comes back bit for bit.

`track.schema.json` beside this file says what such a file holds, docs/landmarks.md what it means.
"""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from atldiff.types import LandmarkTrack

SUFFIX = ".json"
FORMAT, VERSION, TOPOLOGY = "atldiff-track", 1, "face-mesh-478"
MOST_BYTES = 2**30
"""Largest file that is read, about three quarters of an hour at 25 frames a second; an .npz holds a day."""
PARSED_BYTES = 10
"""What a byte of the file takes while it is read, at most: lists of lists of numbers."""

_KEYS = ("format", "version", "topology", "fps", "size", "neutral", "frames")
_OPTIONAL = ("$schema", "comment")
_FRAME_KEYS = ("rotation", "translation", "scale", "displacements")
_SHOWN = 40


def write_json_track(track: LandmarkTrack, path: Path) -> None:
    """Write a track, about 19 kB a frame."""
    height, width = track.size
    head = {
        "format": FORMAT,
        "version": VERSION,
        "topology": TOPOLOGY,
        "fps": [track.fps.numerator, track.fps.denominator],
        "size": {"width": int(width), "height": int(height)},
    }
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(head)[:-1])
        file.write(f',\n"neutral": {_text(track.neutral)},\n"frames": [')
        for index in range(len(track)):
            arrays = {name: _text(getattr(track, name)[index]) for name in _FRAME_KEYS}
            row = ", ".join(f'"{name}": {text}' for name, text in arrays.items())
            file.write(f"{',' if index else ''}\n{{{row}}}")
        file.write("\n]}\n")


def _text(values: NDArray[np.float32] | np.float32) -> str:
    """Return numbers as nested lists: the shortest decimals that give the same float32, by way of a float64 too."""
    values = np.asarray(values, np.float32)
    flat = values.reshape(-1)
    words = flat.astype("U32")
    back = words.astype(np.float64).astype(np.float32)
    for index in np.flatnonzero(back.view(np.int32) != flat.view(np.int32)).tolist():
        words[index] = repr(float(flat[index]))
    return _nested(iter(words.tolist()), values.shape)


def _nested(words: Iterator[str], shape: tuple[int, ...]) -> str:
    if not shape:
        return next(words)
    return f"[{', '.join(_nested(words, shape[1:]) for _ in range(shape[0]))}]"


def read_json_track(path: str | os.PathLike[str], memory: int) -> dict[str, Any]:
    """Return the fields of a track as a file has them: arrays (float64), `fps` and `size` as pairs of whole numbers.

    memory: bytes of this machine; of a file that would not fit nothing is read.

    Raises:
        ValueError: it is no such file. OSError: it cannot be read.
    """
    size = Path(path).stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"got {size / 1e9:.1f} GB, expected at most {MOST_BYTES / 1e9:.1f} GB of JSON: use .npz")
    if PARSED_BYTES * size > memory:
        takes = f"got {size / 1e9:.1f} GB, which take up to {PARSED_BYTES * size / 1e9:.0f} GB to read"
        raise ValueError(f"{takes}, expected less than this machine's {memory / 1e9:.1f} GB: use .npz")
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        held = json.loads(text, parse_int=float, parse_constant=_not_finite, object_pairs_hook=_without_twins)
    except UnicodeDecodeError as error:
        raise ValueError(f"got bytes that are no UTF-8 at {error.start}, expected JSON in UTF-8") from None
    except RecursionError:
        raise ValueError("got lists in lists without end, expected an object") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    return _fields(held)


def _fields(held: object) -> dict[str, Any]:
    if not isinstance(held, dict):
        raise ValueError(f"got {_shown(held)}, expected an object")
    if held.get("format") != FORMAT:
        raise ValueError(f"format: got {_shown(held.get('format'))}, expected {FORMAT!r}")
    if held.get("version") != VERSION:
        raise ValueError(f"version: got {_shown(held.get('version'))}, expected {VERSION}")
    _check_keys(held, "", _KEYS, _OPTIONAL)
    if held["topology"] != TOPOLOGY:
        raise ValueError(f"topology: got {_shown(held['topology'])}, expected {TOPOLOGY!r}")
    sides, frames = held["size"], held["frames"]
    if not isinstance(sides, dict):
        raise ValueError(f"size: got {_shown(sides)}, expected an object of width and height")
    _check_keys(sides, "size.", ("width", "height"))
    if not isinstance(frames, list):
        raise ValueError(f"frames: got {_shown(frames)}, expected a list")
    from atldiff.types import POINTS

    shapes = {"rotation": (3, 3), "translation": (3,), "scale": (), "displacements": (POINTS, 3)}
    fields: dict[str, Any] = {
        "fps": _whole("fps", held["fps"], 2),
        "size": _whole("size", [sides["height"], sides["width"]], 2),
        "neutral": _array("neutral", held["neutral"], (POINTS, 3)),
        **{name: np.empty((len(frames), *shape)) for name, shape in shapes.items()},
    }
    for index, frame in enumerate(frames):
        name = f"frames[{index}]"
        if not isinstance(frame, dict):
            raise ValueError(f"{name}: got {_shown(frame)}, expected an object")
        _check_keys(frame, f"{name}.", _FRAME_KEYS)
        for key, shape in shapes.items():
            fields[key][index] = _array(f"{name}.{key}", frame[key], shape)
        frames[index] = None  # what is in the array need not be held twice
    return fields


def _array(name: str, rows: object, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return nested lists of numbers as an array.

    Raises:
        ValueError: another shape, or what is no number.
    """
    flat = [rows]
    for depth, count in enumerate(shape):
        for row in flat:
            if not isinstance(row, list) or len(row) != count:
                got = f"{len(row)} values" if isinstance(row, list) else _shown(row)
                within = "" if not depth else " in a row of it"
                raise ValueError(f"{name}: got {got}{within}, expected {count}, as of shape {shape}")
        flat = list(chain.from_iterable(flat))  # pyright: ignore[reportArgumentType]
    if set(map(type, flat)) - {float}:  # whole numbers were read as floats
        wrong = next(value for value in flat if type(value) is not float)
        raise ValueError(f"{name}: got {_shown(wrong)}, expected {'numbers' if shape else 'a number'}")
    values = np.array(flat)
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: got a number beyond any, expected finite numbers")
    return values.reshape(shape)


def _whole(name: str, values: object, count: int) -> tuple[int, ...]:
    numbers = _array(name, values, (count,)).tolist()
    if any(number != number // 1 for number in numbers):
        raise ValueError(f"{name}: got {numbers}, expected whole numbers")
    return tuple(map(int, numbers))


def _check_keys(held: dict[str, Any], where: str, keys: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    for key in keys:
        if key not in held:
            raise ValueError(f"{where}{key}: got none, expected one")
    for key in held:
        if key not in keys + optional:
            raise ValueError(f"{where}{key[:_SHOWN]}: no such key, expected {', '.join(keys + optional)}")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twin[:_SHOWN]}: got it twice, expected it once")
    return held


def _not_finite(word: str) -> NoReturn:
    raise ValueError(f"got {word}, expected finite numbers")


def _shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
