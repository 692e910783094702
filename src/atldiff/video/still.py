"""Still pictures in: files, PIL images and arrays as (H, W, 3) uint8 RGB the right way up, with their alpha."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from atldiff.errors import MediaError
from atldiff.video import heif
from atldiff.video.colour import tagged, to_srgb
from atldiff.video.profile import srgb_levels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    ImageSource = str | os.PathLike[str] | np.ndarray | Image.Image

MIN_SIDE = 16
"""Pixels of the shortest side that is taken; no face can be found in less."""

MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are unpacked: they are decompression bombs or scans, not portraits."""

ALPHA_GREY = 128
"""What lies under transparent pixels: a mid grey, which gives hair edges neither a bright nor a dark rim."""


def read_image(source: ImageSource) -> NDArray[np.uint8]:
    """Read a still image as (H, W, 3) uint8 RGB, alpha laid on mid grey (128); sources and errors as of `read_rgba`."""
    image, alpha = read_rgba(source)
    return image if alpha is None else on_grey(image, alpha)


def read_rgba(source: ImageSource) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Read a still image as (H, W, 3) uint8 RGB and alpha (H, W) uint8, None where all of it is opaque.

    Turned by its EXIF tag or HEIF's own turns, colours converted to sRGB from the space that the file states. RGB is
    not multiplied by alpha: under alpha 0 it is as stored. Of a file with several pictures the primary or first one is
    read. A density that differs between x and y is left alone, as browsers do: it is nonsense more often than not.
    Arrays are (H, W) or (H, W, 1 | 3 | 4), bool, uint8, uint16 (divided by 257) or float in [0, 1], in RGB order.

    Raises:
        MediaError: missing, a folder, empty, not an image, damaged, below 16x16 or above 100 megapixels.
        ValueError: an array of another shape, type or range, or with NaN.
    """
    if isinstance(source, np.ndarray):
        return _split(_array_levels(source))
    if isinstance(source, Image.Image):
        return _decoded(source, "image")
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(f"image: got {type(source).__name__}, expected a path, a numpy array or a PIL image")
    path = Path(source)
    check_file(path, "image")
    name = f"image {path}"
    try:
        if heif.is_heic(path):
            return _read_heic(path, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `_check_size` has its own limit
            image = Image.open(path)
        with image:
            return _decoded(image, name, path)
    except UnidentifiedImageError:
        return _read_with_opencv(path, name), None
    except Image.DecompressionBombError as error:
        raise MediaError(f"{name}: {reason(error)}, expected at most 100 megapixels: make it smaller") from None
    except (OSError, SyntaxError, EOFError) as error:
        raise MediaError(f"{name}: damaged ({reason(error)}), expected a whole image: save it again") from None


def on_grey(image: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (H, W, 3) with alpha (H, W) laid on mid grey, a new array."""
    share = alpha[..., None].astype(np.float32) / 255.0
    return np.rint(image * share + ALPHA_GREY * (1.0 - share)).astype(np.uint8)


def _decoded(
    image: Image.Image, name: str, path: Path | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Return a PIL image, not unpacked so far, as sRGB and alpha."""
    _check_size(name, *image.size)
    form = image.format
    upright = ImageOps.exif_transpose(image)
    upright.format = form  # which a turn loses
    if upright.mode.startswith("I") or upright.mode == "F":
        grey = Image.fromarray(_grey_levels(np.asarray(upright), name))
        grey.info = upright.info
        return srgb_levels(grey, name, path), None
    colour, alpha = _parted(upright)
    return srgb_levels(colour, name, path), alpha


def _parted(image: Image.Image) -> tuple[Image.Image, NDArray[np.uint8] | None]:
    """Return an image without its alpha, and that as (H, W), None where all of it is opaque."""
    if "transparency" not in image.info and image.mode not in ("RGBA", "LA", "PA", "La", "RGBa"):
        return image, None
    mode = "LA" if image.mode in ("L", "LA", "La") else "RGBA"
    layers = image.convert(mode)
    alpha = np.array(layers.getchannel("A"))
    colour = layers.convert(mode[:-1])
    colour.info, colour.format = dict(image.info), image.format
    colour.info.pop("transparency", None)
    return colour, None if alpha.min() == 255 else alpha


def _read_heic(path: Path, name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Return the primary picture of a HEIC file, whole, upright, as sRGB and alpha.

    Its own turns count; the EXIF tag only where there are none, as in files of writers that leave them out.
    """
    try:
        import pillow_heif
    except ImportError:
        raise MediaError(f"{name}: HEIC needs the package pillow-heif: pip install pillow-heif") from None
    try:
        file = pillow_heif.open_heif(path)
        _check_size(name, *file.size)
        stated = file.info.get("nclx_profile") or {}
        space = tagged(int(stated.get("color_primaries", 2)), int(stated.get("transfer_characteristics", 2)))
        if space and space.hdr and file.mode in ("RGB", "RGBA"):
            levels = np.asarray(pillow_heif.open_heif(path, convert_hdr_to_8bit=False))
            image = Image.fromarray(to_srgb(levels[..., :3], space))
            image.info["original_orientation"] = pillow_heif.set_orientation(dict(file.info))
            if file.mode == "RGBA":
                image.putalpha(Image.fromarray((levels[..., 3] >> 8).astype(np.uint8)))
        else:
            image = file.to_pillow()
    except (ValueError, RuntimeError) as error:
        raise MediaError(f"{name}: damaged ({reason(error)}), expected a whole HEIC: save it again") from None
    turned = heif.properties(path).keys() & {b"irot", b"imir"}
    image.getexif()[0x0112] = 1 if turned else image.info.get("original_orientation") or 1
    return _decoded(image, name)


def _grey_levels(values: np.ndarray, name: str) -> NDArray[np.uint8]:
    """Return the 16-bit, 32-bit or float grey of a PIL image as 8 bits."""
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or values.min() < 0.0 or values.max() > 1.0:
            raise MediaError(f"{name}: got float values outside 0 to 1, expected that range: save it as 8-bit PNG")
        return np.rint(values * 255.0).astype(np.uint8)
    if values.min() < 0 or values.max() > 65535:
        raise MediaError(f"{name}: got values {values.min()} to {values.max()}, expected 0 to 65535: save it as PNG")
    return _from_16_bits(values)


def _from_16_bits(values: np.ndarray) -> NDArray[np.uint8]:
    return np.rint(values.astype(np.float32) / 257.0).astype(np.uint8)


def _array_levels(array: np.ndarray) -> NDArray[np.uint8]:
    """Return a user's array as uint8 of the same shape."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ValueError(f"image array: got shape {array.shape}, expected (H, W) or (H, W, 1 | 3 | 4)")
    _check_size("image array", array.shape[1], array.shape[0], ValueError)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return _from_16_bits(array)
    if array.dtype.kind != "f":
        raise ValueError(f"image array: got {array.dtype}, expected bool, uint8, uint16 or float in [0, 1]")
    if not np.isfinite(array).all():
        raise ValueError("image array: got NaN or infinity, expected finite values in [0, 1]")
    low, high = float(array.min()), float(array.max())
    if low < -1e-3 or high > 1.0 + 1e-3:
        raise ValueError(f"image array: got {low:g} to {high:g}, expected floats in 0 to 1: divide 8-bit levels by 255")
    return np.rint(np.clip(array, 0.0, 1.0) * 255.0).astype(np.uint8)


def _split(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Return (H, W) or (H, W, 1 | 3 | 4) as a new (H, W, 3) and its alpha, None where all of it is opaque."""
    channels = image if image.ndim == 3 else image[..., None]
    if channels.shape[2] == 1:
        return np.repeat(channels, 3, axis=2), None
    colour = np.array(channels[..., :3], order="C")
    if channels.shape[2] == 3 or channels[..., 3].min() == 255:
        return colour, None
    return colour, np.array(channels[..., 3], order="C")


def _read_with_opencv(path: Path, name: str) -> NDArray[np.uint8]:
    """Read a format that Pillow does not know, e.g. Radiance HDR or Sun raster."""
    try:
        image = cv2.imread(os.fspath(path), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise MediaError(f"{name}: not an image that can be read: convert it to PNG or JPEG")
    _check_size(name, *image.shape[1::-1])
    return np.ascontiguousarray(image[..., ::-1]).astype(np.uint8, copy=False)


def _check_size(name: str, width: int, height: int, kind: type[Exception] = MediaError) -> None:
    if min(width, height) < MIN_SIDE:
        raise kind(f"{name}: got {width}x{height} pixels, expected at least {MIN_SIDE}x{MIN_SIDE}: use a larger one")
    if width * height > MAX_PIXELS:
        raise kind(f"{name}: got {width}x{height} pixels, expected at most 100 megapixels: make it smaller")


def check_file(path: Path, kind: str) -> None:
    """Raise a MediaError that starts with `kind` unless `path` is a file that can be opened and holds bytes."""
    if path.is_dir():
        raise MediaError(f"{kind} {path}: got a folder, expected a file")
    if not path.exists():
        raise MediaError(f"{kind} {path}: no such file: check the path")
    if path.is_file() and not path.stat().st_size:
        raise MediaError(f"{kind} {path}: got an empty file (0 bytes): save or download it again")
    if not path.is_file() or not os.access(path, os.R_OK):
        raise MediaError(f"{kind} {path}: not readable, expected a regular file you may read: copy it elsewhere")


def reason(error: BaseException) -> str:
    """Return a library's error as the part of a line."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())
