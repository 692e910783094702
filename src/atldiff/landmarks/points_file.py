"""Files of one face's landmarks, to be written, edited by hand and given back: JSON, and the .pts of 300-W."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atldiff.errors import MediaError
from atldiff.files import write_text

if TYPE_CHECKING:
    import os

FORMAT, VERSION = "atldiff face landmarks", 1
SUFFIXES = (".json", ".pts")
MOST_BYTES = 1 << 20
"""Of a file of 478 points in full precision, a tenth."""
EXPECTED = "a JSON object with points, such as `atldiff faces PICTURE --landmarks FILE.json` writes, or a .pts file"


def write_points(path: Path, points: np.ndarray, size: tuple[int, int], picture: str) -> None:
    """Write points (K, 2 or 3) in pixels of a picture of (height, width), one a line, whole or not at all."""
    height, width = size
    rows = ",\n".join("    " + json.dumps([round(float(value), 3) for value in point]) for point in points)
    told = {"format": FORMAT, "version": VERSION, "picture": picture, "width": width, "height": height}
    head = json.dumps(told, indent=2).removesuffix("\n}")
    write_text(path, f'{head},\n  "points": [\n{rows}\n  ]\n}}\n')


def read_points(path: str | os.PathLike[str], size: tuple[int, int]) -> np.ndarray:
    """Return the points (K, 2 or 3) float64 of a file, in pixels of a picture of (height, width).

    A .json holds an object with `points`, or just a list of [x, y]; a .pts is as those of 300-W. Points that say of
    what size their picture was are scaled to this one.

    Raises:
        MediaError: no such file. ValueError: it holds something else, or points of a picture of other proportions.
    """
    file = Path(path)
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"landmarks {file}: got {file.stat().st_size} bytes, expected {EXPECTED}")
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"landmarks {file}: not text; expected {EXPECTED}") from None
    except OSError as error:
        raise MediaError(f"landmarks {file}: {error.strerror or error}; expected {EXPECTED}") from None
    told: Any = {}
    try:
        if file.suffix.lower() == ".pts":
            rows = [list(map(float, line.split())) for line in text[text.index("{") + 1 : text.index("}")].splitlines()]
            points = np.array([row for row in rows if row])
        else:
            told = json.loads(text)
            told = told if isinstance(told, dict) else {"points": told}
            points = np.array(told["points"] if "points" in told else told["landmarks"], np.float64)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"landmarks {file}: {type(error).__name__}: {error}; expected {EXPECTED}") from None
    if told.get("version", VERSION) != VERSION or points.ndim != 2:
        got = f"version {told['version']}" if "version" in told else f"points of shape {points.shape}"
        raise ValueError(f"landmarks {file}: got {got}, expected {EXPECTED}")
    return _scaled(file, points, told, size)


def _scaled(file: Path, points: np.ndarray, told: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Return points in pixels of a picture of `size`, which may be another size of that they were measured in."""
    high, wide = told.get("height"), told.get("width")
    if high is None or wide is None or (high, wide) == size:
        return points
    if not all(isinstance(side, int) and side > 0 for side in (high, wide)):
        raise ValueError(f"landmarks {file}: got a picture of {wide}x{high}, expected whole pixels")
    down, across = size[0] / high, size[1] / wide
    if abs(down / across - 1) > 2 / min(*size, high, wide):
        raise ValueError(
            f"landmarks {file}: they are of a picture of {wide}x{high}, got one of {size[1]}x{size[0]}: another "
            "picture, or another part of it"
        )
    return points * np.array([across, down, across])[: points.shape[1]]
