"""Stills in: every mode, orientation and door, with their alpha."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from atldiff.errors import MediaError
from atldiff.video.still import read_image, read_rgba

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (32, 48)


def corners() -> np.ndarray:
    """Return a (32, 48, 3) picture with a red, a green, a blue and a grey quarter."""
    image = np.empty((*SIZE, 3), np.uint8)
    image[:16, :24], image[:16, 24:], image[16:, :24], image[16:, 24:] = (
        (200, 30, 30),
        (30, 200, 30),
        (30, 30, 200),
        (90, 90, 90),
    )
    return image


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "jpg", "gif", "ppm"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {"quality": 98}
    Image.fromarray(corners()).save(path, **options)
    image = read_image(path)
    assert image.shape == (*SIZE, 3)
    assert image.dtype == np.uint8
    tolerance = 12 if suffix == "jpg" else 0
    assert np.abs(image[8::16, 12::24].astype(int) - corners()[8::16, 12::24]).max() <= tolerance


def test_format_that_only_opencv_knows(tmp_path: Path) -> None:
    path = tmp_path / "a.hdr"
    cv2.imwrite(str(path), corners()[..., ::-1].astype(np.float32) / 255)
    with pytest.raises(UnidentifiedImageError):
        Image.open(path)
    assert np.abs(read_image(path).astype(int) - corners()).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    upright = corners()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    assert np.array_equal(read_image(path), upright)


def test_modes(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 64 * 64).astype(np.uint8).reshape(64, 64)
    grey = np.repeat(ramp[..., None], 3, axis=2)
    wide = ramp.astype(np.uint16) * 257
    for name, image in (
        ("L", Image.fromarray(ramp)),
        ("I16", Image.fromarray(wide)),
        ("I", Image.fromarray(wide.astype(np.int32))),
        ("F", Image.fromarray((ramp / 255).astype(np.float32))),
    ):
        assert np.array_equal(read_image(image), grey), name
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert np.array_equal(read_image(tmp_path / "wide.png"), grey)
    bits = Image.fromarray(ramp > 127)
    assert np.array_equal(np.unique(read_image(bits)), [0, 255])
    palette = Image.fromarray(corners()).quantize(4)
    assert np.abs(read_image(palette).astype(int) - corners()).max() <= 2
    cmyk = Image.fromarray(corners()).convert("CMYK")
    cmyk.save(tmp_path / "cmyk.jpg", quality=98)
    assert np.abs(read_image(tmp_path / "cmyk.jpg")[8::16, 12::24].astype(int) - corners()[8::16, 12::24]).max() < 12


def test_alpha_lies_on_grey(tmp_path: Path) -> None:
    rgba = np.dstack([corners(), np.full(SIZE, 255, np.uint8)])
    rgba[:16, :24, 3] = 0
    rgba[16:, :24, 3] = 128
    path = tmp_path / "a.png"
    Image.fromarray(rgba).save(path)
    for image in (read_image(path), read_image(rgba)):
        assert (image[:16, :24] == 128).all()
        assert np.abs(image[20, 2].astype(float) - (0.5 * corners()[20, 2] + 64)).max() <= 1
        assert np.array_equal(image[:, 24:], corners()[:, 24:])
    colour, alpha = read_rgba(path)
    assert np.array_equal(np.dstack([colour, alpha]), rgba)
    palette = Image.fromarray(corners()).quantize(4)
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    assert (read_image(tmp_path / "p.png")[:16, :24] == 128).all()
    rgba[..., 3] = 255
    assert read_rgba(rgba)[1] is None
    assert read_rgba(corners())[1] is None


def test_arrays() -> None:
    image = corners()
    for array in (image, image.astype(np.uint16) * 257, image / 255.0, (image / 255.0).astype(np.float32)):
        assert np.array_equal(read_image(array), image)
    result = read_image(image)
    assert not np.shares_memory(result, image)
    assert read_image(image[::-1, ::-1]).flags.c_contiguous
    assert read_image(image[..., 0]).shape == (*SIZE, 3)
    assert read_image(image[..., :1]).shape == (*SIZE, 3)
    assert set(np.unique(read_image(image[..., 0] > 100))) == {0, 255}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 64, 64), np.uint8), "shape"),
        (np.zeros((64, 64, 2), np.uint8), "shape"),
        (np.zeros(64, np.uint8), "shape"),
        (np.zeros((1, 64, 64, 3), np.uint8), "shape"),
        (np.zeros((64, 64, 3), np.int64), "int64"),
        (np.full((64, 64, 3), np.nan), "NaN"),
        (np.full((64, 64, 3), 200.0), "divide 8-bit"),
        (np.full((64, 64, 3), -0.5), "floats in 0 to 1"),
        (np.zeros((1, 1, 3), np.uint8), "1x1 pixels, expected at least 16x16"),
        (np.broadcast_to(np.uint8(0), (20_000, 20_000)), "100 megapixels"),
    ],
)
def test_array_doors(array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_image(array)
    assert "\n" not in str(caught.value)


def test_file_doors(tmp_path: Path) -> None:
    empty = tmp_path / "empty.png"
    empty.touch()
    text = tmp_path / "text.png"
    text.write_text("no picture")
    tiny = tmp_path / "tiny.png"
    Image.new("RGB", (1, 1)).save(tiny)
    cut = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(cut)
    cut.write_bytes(cut.read_bytes()[:1500])
    doors = [
        (tmp_path / "missing.png", "no such file"),
        (tmp_path, "folder"),
        (empty, "0 bytes"),
        (text, "not an image"),
        (tiny, "1x1 pixels, expected at least 16x16"),
        (cut, "damaged"),
    ]
    for side, name in ((11_000, "large.bmp"), (60_000, "bomb.bmp")):
        header = struct.pack("<2sIHHI IiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
        (tmp_path / name).write_bytes(header + bytes(100))
        doors.append((tmp_path / name, "100 megapixels"))
    for path, message in doors:
        with pytest.raises(MediaError, match=message) as caught:
            read_image(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="expected a path"):
        read_image(3)  # pyright: ignore[reportArgumentType]
