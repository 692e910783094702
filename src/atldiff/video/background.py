"""What lies behind a portrait with alpha: a colour, a picture, a blur of the portrait itself, or nothing.

Alpha is straight: RGB is not multiplied by it. So colours under alpha 0, which nobody sees, are read by whatever
resamples a picture; `bled` makes them those of the nearest edge, and no rim of another colour comes of it.
"""

from __future__ import annotations

import logging
import os
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import cv2
import numpy as np
from PIL import Image, ImageColor

from atldiff.video.still import read_rgba

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from atldiff.types import Portrait

_log = logging.getLogger(__name__)

BackgroundSource: TypeAlias = "str | os.PathLike[str] | tuple[int, int, int] | np.ndarray | Image.Image"
"""A colour's name or number, (R, G, B), `blur`, `transparent`, or a picture, as a file, an array or of Pillow."""

Background: TypeAlias = "tuple[int, int, int] | Literal['blur', 'transparent'] | NDArray[np.uint8]"
"""A colour, a word, or a picture (H, W, 3) of any size."""

WHITE = (255, 255, 255)

SEEN = 8
"""Alpha from which a pixel's own colour counts; below it, programs leave whatever their arithmetic left."""

BLUR_SHOWN = 0.8
"""Share of the portrait's sides that its blurred copy shows, enlarged."""
BLUR_SIGMA = 0.04
"""Sigma of the blur, as a share of the longest side."""


def open_background(source: BackgroundSource | None) -> Background | None:
    """Return a background that was asked for, its picture read; None where none was.

    Raises:
        ValueError: neither a colour nor a word nor a picture. MediaError: a file that cannot be read as a picture.
    """
    if source is None:
        return None
    if isinstance(source, (np.ndarray, Image.Image)):
        return _on_white(*read_rgba(source))
    if isinstance(source, tuple):
        if len(source) != 3 or not all(isinstance(level, (int, np.integer)) and 0 <= level <= 255 for level in source):
            raise ValueError(f"background: got {source}, expected a colour (R, G, B) of levels 0 to 255")
        return int(source[0]), int(source[1]), int(source[2])
    text = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    if text is None:
        raise ValueError(f"background: got {type(source).__name__}, expected a colour, blur, transparent or a picture")
    if text == "blur" or text == "transparent":
        return text
    colour = _colour(text) if isinstance(source, str) else None
    if colour is not None:
        return colour
    path = Path(text)
    if not path.exists() and not path.suffix and path.name == text:
        near = get_close_matches(text, [*ImageColor.colormap, "blur", "transparent"], n=1)
        hint = f"did you mean {near[0]!r}?" if near else "such as white or #204060, blur, transparent or a picture"
        raise ValueError(f"background: got {text!r}, expected a colour{',' if near else ''} {hint}")
    return _on_white(*read_rgba(path))


def is_transparent(background: Background | None) -> bool:
    """Return whether nothing is to be behind the portrait."""
    return isinstance(background, str) and background == "transparent"


def draw_background(background: Background, portrait: Portrait) -> NDArray[np.uint8] | None:
    """Return a background (H, W, 3) for a portrait; None for `transparent`, and for a portrait that needs none.

    A picture covers it, cut at two sides where its shape differs.
    """
    if portrait.alpha is None or is_transparent(background):
        return None
    image = portrait.image
    height, width = image.shape[:2]
    if isinstance(background, np.ndarray):
        return _covering(background, (height, width))
    if isinstance(background, str):
        inner = [round(side * (1 - BLUR_SHOWN) / 2) for side in (height, width)]
        copy = _covering(image[inner[0] : height - inner[0], inner[1] : width - inner[1]], (height, width))
        return np.asarray(cv2.GaussianBlur(copy, (0, 0), BLUR_SIGMA * max(height, width)), np.uint8)
    return np.full((height, width, 3), background, np.uint8)


def say_white() -> None:
    """Say what is behind a portrait with alpha where nobody chose."""
    _log.warning(
        "background: the portrait has transparent parts, laid on white; choose another background, "
        "or .webm, .mov or a folder of PNG frames, which stay transparent"
    )


def say_if_hidden(background: Background | None, portrait: Portrait) -> None:
    """Say that a background was asked for in vain."""
    if background is not None and portrait.alpha is None:
        _log.warning("background: it has no effect, because no part of the portrait is transparent")


def lay(frame: NDArray[np.uint8], background: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Return a frame (H, W, 4) laid on a background (H, W, 3), as (H, W, 3); itself without one, or without alpha."""
    if background is None or frame.shape[2] == 3:
        return frame
    alpha = frame[..., 3:].astype(np.uint16)
    mixed = frame[..., :3] * alpha
    mixed += background * (np.uint16(255) - alpha)
    mixed += np.uint16(127)  # at most 255 * 255 + 127, so 16 bits do
    mixed //= np.uint16(255)
    return mixed.astype(np.uint8)


def bled(image: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3) whose visible colours go on, ever smoother, where alpha (H, W) is 0, a new array."""
    seen = alpha >= SEEN
    if not seen.any():
        return image.copy()
    weight = np.square(np.where(seen, alpha, 0).astype(np.float32) / 255)  # edges often keep a trace of what was behind
    levels = [(image * weight[..., None], weight)]
    while max(levels[-1][1].shape) > 1:
        colours, weight = levels[-1]
        half = (-(-weight.shape[1] // 2), -(-weight.shape[0] // 2))
        colours, weight = (cv2.resize(part, half, interpolation=cv2.INTER_AREA) for part in (colours, weight))
        scale = 1 / np.maximum(weight, 0.25)  # one seen pixel of four is enough to know a colour
        levels.append((colours.reshape(*weight.shape, 3) * scale[..., None], weight * scale))
    colours, weight = levels.pop()
    filled = colours / np.maximum(weight, 1e-6)[..., None]
    while levels:
        colours, weight = levels.pop()
        above = cv2.resize(filled, weight.shape[::-1], interpolation=cv2.INTER_LINEAR).reshape(*weight.shape, 3)
        filled = colours + above * (1 - weight[..., None])
    return np.where(seen[..., None], image, np.clip(np.rint(filled), 0, 255).astype(np.uint8))


def _colour(text: str) -> tuple[int, int, int] | Literal["transparent"] | None:
    try:
        red, green, blue, *alpha = ImageColor.getrgb(text)
    except ValueError:
        return None
    if alpha == [0]:
        return "transparent"
    if alpha not in ([], [255]):
        raise ValueError(f"background: got {text!r}, expected a colour that is opaque, or transparent")
    return red, green, blue


def _on_white(image: NDArray[np.uint8], alpha: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    return image if alpha is None else lay(np.dstack([image, alpha]), np.full_like(image, 255))


def _covering(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the middle of a picture, scaled to (height, width)."""
    height, width = picture.shape[:2]
    scale = max(size[0] / height, size[1] / width)
    shown = [min(own, max(1, round(side / scale))) for own, side in zip((height, width), size, strict=True)]
    y, x = ((own - part) // 2 for own, part in zip((height, width), shown, strict=True))
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    part = np.ascontiguousarray(picture[y : y + shown[0], x : x + shown[1]])
    return np.asarray(cv2.resize(part, size[::-1], interpolation=kind), np.uint8)
