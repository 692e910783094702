"""HEIC and AVIF in: whole, upright, with alpha and depth of colour, and never taken for a video."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from atldiff.commands.door import look_for_face
from atldiff.commands.options import FaceOptions
from atldiff.errors import FaceNotFound, MediaError
from atldiff.methods.portrait import open_portrait
from atldiff.video.heif import is_heic, is_still, properties
from atldiff.video.read import is_video
from atldiff.video.still import read_image, read_rgba

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (96, 128)


def corners(height: int = SIZE[0], width: int = SIZE[1]) -> np.ndarray:
    """Return a picture with a red, a green, a blue and a grey quarter."""
    image = np.empty((height, width, 3), np.uint8)
    top, left = height // 2, width // 2
    image[:top, :left], image[:top, left:] = (200, 30, 30), (30, 200, 30)
    image[top:, :left], image[top:, left:] = (30, 30, 200), (90, 90, 90)
    return image


def heic(path: Path, image: np.ndarray, **options: Any) -> Path:
    pillow_heif.from_pillow(Image.fromarray(image)).save(path, quality=95, chroma=444, **options)
    return path


def turn(path: Path, angle: int | None, mirror: int | None) -> None:
    """Give a HEIC file turns of its own (irot, imir) in the place of boxes that it can spare."""
    data = bytearray(path.read_bytes())
    for old, new, value in ((b"pixi", b"irot", angle), (b"colr", b"imir", mirror)):
        if value is not None:
            at = data.index(old)
            (size,) = struct.unpack(">I", data[at - 4 : at])
            data[at : at + size - 4] = new + bytes([value]) + bytes(size - 9)
    path.write_bytes(data)


def near(image: np.ndarray, expected: np.ndarray) -> bool:
    if image.shape != expected.shape:
        return False
    difference = np.abs(image.astype(int) - expected)
    return float(np.median(difference)) <= 3 and float((difference > 12).mean()) < 0.05


@pytest.mark.parametrize("size", [(96, 128), (97, 131), (300, 400)])
def test_plain_and_tiled(tmp_path: Path, size: tuple[int, int]) -> None:
    image = corners(*size)
    assert near(read_image(heic(tmp_path / "a.heic", image)), image)
    tiled = heic(tmp_path / "b.heic", image, tile_size=64)
    assert b"grid" in tiled.read_bytes()
    assert near(read_image(tiled), image)
    misnamed = tmp_path / "c.jpg"
    misnamed.write_bytes(tiled.read_bytes())
    assert near(read_image(misnamed), image)


@pytest.mark.parametrize("angle", [None, 1, 2, 3])
@pytest.mark.parametrize("mirror", [None, 0, 1])
def test_own_turns(tmp_path: Path, angle: int | None, mirror: int | None) -> None:
    path = heic(tmp_path / "a.heic", corners())
    turn(path, angle, mirror)
    expected = corners()
    if mirror is not None:  # the first of the two here; 0: upside down, 1: left becomes right
        expected = expected[::-1] if mirror == 0 else expected[:, ::-1]
    assert near(read_image(path), np.rot90(expected, angle or 0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_once(tmp_path: Path, orientation: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    path = heic(tmp_path / "both.heic", corners(), exif=tags.tobytes())
    expected = {
        1: corners(),
        2: corners()[:, ::-1],
        3: corners()[::-1, ::-1],
        4: corners()[::-1],
        5: corners().transpose(1, 0, 2),
        6: np.rot90(corners(), -1),
        7: corners()[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(corners(), 1),
    }[orientation]
    assert bool(properties(path).keys() & {b"irot", b"imir"}) == (orientation != 1)  # as phones do: the box and the tag
    assert near(read_image(path), expected)
    path.write_bytes(path.read_bytes().replace(b"irot", b"free").replace(b"imir", b"free"))
    assert near(read_image(path), expected)  # a writer that leaves the turn to EXIF


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_avif_turns(tmp_path: Path, orientation: int) -> None:
    image = corners()
    tags = Image.Exif()
    tags[0x0112] = orientation
    path = tmp_path / "a.avif"
    Image.fromarray(image).save(path, exif=tags, quality=95)
    assert (b"irot" in properties(path)) == (orientation != 1)
    assert near(read_image(path), np.rot90(image, {1: 0, 3: 2, 6: -1, 8: 1}[orientation]))


@pytest.mark.parametrize("suffix", ["heic", "avif"])
def test_alpha(tmp_path: Path, suffix: str) -> None:
    rgba = np.dstack([corners(), np.full(SIZE, 255, np.uint8)])
    rgba[:48, :64, 3] = 0
    path = tmp_path / f"a.{suffix}"
    if suffix == "heic":
        heic(path, rgba)
    else:
        Image.fromarray(rgba).save(path, quality=95)
    _, alpha = read_rgba(path)
    assert alpha is not None
    assert alpha[4:44, 4:60].max() <= 2
    assert alpha[52:].min() >= 253
    assert np.abs(read_image(path)[4:44, 4:60].astype(int) - 128).max() <= 2


def test_the_primary_of_several(tmp_path: Path) -> None:
    file = pillow_heif.HeifFile()
    for image in (corners()[::-1], corners(), corners()[:, ::-1]):
        file.add_from_pillow(Image.fromarray(np.ascontiguousarray(image)))
    file.save(tmp_path / "burst.heic", quality=95, chroma=444, primary_index=1)
    assert near(read_image(tmp_path / "burst.heic"), corners())
    assert not is_video(tmp_path / "burst.heic")


def test_never_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(image: np.ndarray, *_: Any) -> None:
        raise FaceNotFound(f"{image.shape[0]} rows")

    monkeypatch.setattr("atldiff.landmarks.detect.detect", refuse)
    monkeypatch.setattr("atldiff.methods.portrait.detect", refuse)
    tiled = heic(tmp_path / "a.heic", corners(300, 400), tile_size=64)
    still = tmp_path / "a.avif"
    Image.fromarray(corners()).save(still)
    for path in (tiled, still):
        assert is_still(path)
        assert not is_video(path)
        rows = f"{300 if path == tiled else SIZE[0]} rows"  # the whole picture, not a tile
        with pytest.raises(FaceNotFound, match=rows):
            look_for_face(path, FaceOptions(), quiet=True)
        with pytest.raises(FaceNotFound, match=rows):
            open_portrait(path)
        with pytest.raises(ValueError, match="still picture"):
            open_portrait(path, frame=3)
    moving = tmp_path / "moving.avif"
    frames = [Image.fromarray(np.ascontiguousarray(corners()[::step])) for step in (1, -1, 1)]
    frames[0].save(moving, save_all=True, append_images=frames[1:])
    assert not is_still(moving)
    assert near(read_image(moving), corners())
    assert not is_heic(still)
    assert not is_heic(moving)


def test_doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = heic(tmp_path / "a.heic", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).read_bytes()
    cut, headless, tiny = tmp_path / "cut.heic", tmp_path / "headless.heic", tmp_path / "tiny.heic"
    cut.write_bytes(whole[: len(whole) // 2])
    headless.write_bytes(whole[:100])
    heic(tiny, corners(8, 8))
    for path, message in ((cut, "damaged"), (headless, "damaged"), (tiny, "8x8 pixels, expected at least 16x16")):
        with pytest.raises(MediaError, match=message) as caught:
            read_image(path)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(MediaError, match="pip install pillow-heif"):
        read_image(tmp_path / "a.heic")
