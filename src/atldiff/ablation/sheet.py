"""The pictures of the ablation: a row a person, a column a renderer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from atldiff.ablation.arms import PUBLISHED
from atldiff.ablation.table import IDENTITY, WARPED, row_name
from atldiff.errors import DataError
from atldiff.files import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from atldiff.ablation.arms import Arm

CELL, GAP, HEADER = 128, 4, 34
"""Side of a picture, space between two, and height of the headings, in pixels."""
_FONT, _FONT_SCALE, _LINE_PX = cv2.FONT_HERSHEY_SIMPLEX, 0.38, 13
_INK, _PAPER = (32, 32, 32), 255


def columns(arms: Sequence[Arm], sampling_steps: Sequence[int]) -> list[tuple[str | None, tuple[str, str]]]:
    """Return the sheet's columns: the row of the table they show, None for the real frame, and two lines of heading.

    Every arm is shown at the most steps, the published one at the fewest too.
    """
    fewest, most = min(sampling_steps), max(sampling_steps)
    shown: list[tuple[str | None, tuple[str, str]]] = [
        (IDENTITY, ("identity", "no network")),
        (WARPED, ("warped", "no network")),
    ]
    if fewest < most:
        shown.append(_column(PUBLISHED, fewest))
    return [*shown, *(_column(arm, most) for arm in arms), (None, ("real", ""))]


def _column(arm: Arm, steps: int) -> tuple[str, tuple[str, str]]:
    first, second = arm.heading
    return row_name(arm.name, steps), (f"{first}, {second}", f"{steps} step{'' if steps == 1 else 's'}")


def strip(
    pictures: Mapping[str, NDArray[np.uint8]],
    real: NDArray[np.uint8],
    arms: Sequence[Arm],
    sampling_steps: Sequence[int],
) -> NDArray[np.uint8]:
    """Return one person's row, (128, W, 3) uint8.

    pictures: by the row of the table, (S, S, 3) uint8; real: the frame they should be.
    """
    shown = [real if row is None else pictures[row] for row, _ in columns(arms, sampling_steps)]
    how = cv2.INTER_AREA if len(real) > CELL else cv2.INTER_CUBIC
    cells = [cell if len(cell) == CELL else cv2.resize(cell, (CELL, CELL), interpolation=how) for cell in shown]
    space = np.full((CELL, GAP, 3), _PAPER, np.uint8)
    return np.hstack([part for cell in cells for part in (space, cell)] + [space]).astype(np.uint8)


def contact_sheet(
    strips: Sequence[NDArray[np.uint8]], arms: Sequence[Arm], sampling_steps: Sequence[int]
) -> NDArray[np.uint8]:
    """Return the strips below each other under their headings, (H, W, 3) uint8."""
    width = strips[0].shape[1]
    header = np.full((HEADER, width, 3), _PAPER, np.uint8)
    for index, (_, lines) in enumerate(columns(arms, sampling_steps)):
        left = GAP + index * (CELL + GAP)
        for number, line in enumerate(lines):
            (wide, _), _ = cv2.getTextSize(line, _FONT, _FONT_SCALE, 1)
            at = (left + (CELL - wide) // 2, (number + 1) * _LINE_PX)
            cv2.putText(header, line, at, _FONT, _FONT_SCALE, _INK, 1, cv2.LINE_AA)
    space = np.full((GAP, width, 3), _PAPER, np.uint8)
    return np.vstack([header] + [part for row in strips for part in (row, space)])


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture (H, W, 3) uint8 RGB as PNG, whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())


def read_strip(path: Path) -> NDArray[np.uint8]:
    """Read a strip that `write_picture` wrote, (128, W, 3) uint8 RGB.

    Raises:
        DataError: it cannot be read.
    """
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise DataError(f"{path}: not a picture; delete it, and the same command makes it again")
    return np.ascontiguousarray(picture[..., ::-1], np.uint8)
