"""The colour space that a still picture states, by ICC profile, PNG chunk or camera tag, turned into sRGB."""

from __future__ import annotations

import io
import logging
import struct
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms

from atldiff.video import heif
from atldiff.video.colour import ADOBE_GAMMA, ADOBE_RGB, BT709, Space, keep_grey, tagged, to_srgb

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

_SAME_LEVELS = 2
"""A profile that moves no colour by more than this is sRGB under another name, and pixels stay as they are."""

_SAME_SHARE = 0.01
"""A gamma or a chromaticity of a PNG within this is sRGB's."""

_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION
"""What Photoshop does to photographs: white to white, black to black, colours between as measured. The perceptual
intent differs by the maker's taste, and is the same for the profiles of cameras and phones, which are matrices."""

_SPACES = {"RGB": "RGB", "CMYK": "CMYK", "L": "GRAY"}
"""The colour space a profile must have for a mode of PIL."""


def srgb_levels(image: Image.Image, name: str, path: Path | None = None) -> NDArray[np.uint8]:
    """Return the colours of a PIL image without alpha as sRGB levels (H, W, 3), pixels untouched where they are.

    name: how messages call it. path: its file, for what PIL does not tell. A profile that cannot be used is left out
    with a warning.
    """
    if image.mode == "LAB":
        return _transformed(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB")
    if image.mode not in _SPACES:
        image = _rgb(image)
    space = _stated_space(image, path)
    icc = image.info.get("icc_profile")
    if space is None and icc:
        try:
            return _by_profile(image, icc)
        except (ImageCms.PyCMSError, OSError, ValueError, ImportError) as error:
            problem = " ".join(str(error).split())
            _log.warning("%s: its colour profile cannot be used (%s); its colours are taken for sRGB", name, problem)
    levels = np.array(_rgb(image))
    return levels if space is None else to_srgb(levels, space)


def _rgb(image: Image.Image) -> Image.Image:
    """Return an image as RGB with its information, which `convert` may lose."""
    converted = image.convert("RGB")
    converted.info, converted.format = dict(image.info), image.format
    return converted


def _by_profile(image: Image.Image, icc: bytes) -> NDArray[np.uint8]:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    wanted = profile.profile.xcolor_space.strip()  # pyright: ignore[reportAttributeAccessIssue]
    if image.mode == "L" and wanted == "RGB":  # browsers do so: grey JPEGs carry the camera's profile
        image = image.convert("RGB")
    if _SPACES[image.mode] != wanted:
        raise ValueError(f"it is for {wanted}, the picture is {_SPACES[image.mode]}")
    if wanted == "RGB" and _is_srgb(profile):
        return np.array(image)
    return _transformed(image, profile, image.mode)


def _transformed(image: Image.Image, profile: ImageCms.ImageCmsProfile, mode: str) -> NDArray[np.uint8]:
    transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB", _INTENT, _FLAGS)
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:
        raise ValueError("no result")
    levels = np.array(converted)
    if mode == "L":
        return np.repeat(levels[..., 1:2], 3, axis=2)
    return keep_grey(np.asarray(image), levels) if mode == "RGB" else levels


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(27, 27, 3)
    changed = _transformed(Image.fromarray(colours), profile, "RGB")
    return int(np.abs(changed.astype(int) - colours).max()) <= _SAME_LEVELS


def _stated_space(image: Image.Image, path: Path | None) -> Space | None:
    """Return the space that something other than a profile states, where that counts; None for sRGB and the profile."""
    if image.mode == "CMYK":
        return None
    profile = image.info.get("icc_profile")
    if (numbers := _numbers(image, path)) is not None:
        space = tagged(*numbers)
        return space if space is not None and (space.hdr or not profile) else None
    if profile:
        return None
    if image.format == "PNG" and "gamma" in image.info and "srgb" not in image.info:
        return _png_space(float(image.info["gamma"]), image.info.get("chromaticity"))
    return Space(ADOBE_GAMMA, ADOBE_RGB) if _tagged_adobe(image) else None


def _numbers(image: Image.Image, path: Path | None) -> tuple[int, int] | None:
    """Return the H.273 numbers of primaries and transfer curve that a picture states, None without them."""
    if nclx := image.info.get("nclx_profile"):  # pillow-heif's
        return int(nclx["color_primaries"]), int(nclx["transfer_characteristics"])
    if path is not None and image.format == "PNG":
        return _cicp(path)
    if path is not None and image.format == "AVIF":
        nclx = heif.properties(path).get(b"colrnclx", b"")
        return struct.unpack(">HH", nclx[4:8]) if len(nclx) >= 8 else None
    return None


def _tagged_adobe(image: Image.Image) -> bool:
    """Return whether EXIF says Adobe RGB, as cameras do without a profile (DCF's "optional colour space")."""
    try:
        return image.getexif().get_ifd(0xA005).get(1) == "R03"
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error):  # a damaged tag says nothing
        return False


def _png_space(gamma: float, chromaticity: tuple[float, ...] | None) -> Space | None:
    """Return the space of a PNG's gAMA and cHRM chunks, None where they describe sRGB or nothing sensible."""
    primaries = BT709 if chromaticity is None else (*chromaticity[2:], *chromaticity[:2])
    if min(primaries) <= 0 or not 0.2 <= gamma <= 2:
        return None
    if np.abs(np.subtract(primaries, BT709)).max() <= _SAME_SHARE:
        primaries = BT709
        if abs(gamma * 2.2 - 1) <= 2 * _SAME_SHARE:
            return None
    return Space(1 / gamma, primaries)


def _cicp(path: Path) -> tuple[int, int] | None:
    """Return the primaries and the transfer curve of a PNG's cICP chunk, which PIL does not tell; None without one."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"cICP":
                return tuple(file.read(2)) if length == 4 else None  # pyright: ignore[reportReturnType]
            if kind in (b"IDAT", b"IEND"):
                return None
            file.seek(length + 4, 1)
    return None
