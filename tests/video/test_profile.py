"""Stills of other colour spaces: profiles, PNG chunks, camera tags and HDR, against formulas written out here."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from atldiff.video.still import read_image, read_rgba

if TYPE_CHECKING:
    from pathlib import Path

D50 = np.array([0.9642, 1.0, 0.8249])
SRGB = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
P3 = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
ADOBE = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
PROPHOTO = (0.734699, 0.265301, 0.159597, 0.840403, 0.036598, 0.000105)
BT2020 = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
D65_XY, D50_XY = (0.3127, 0.3290), (0.3457, 0.3585)
COLOURS = np.array(
    [[184, 140, 118], [90, 60, 45], [230, 200, 180], [60, 90, 150], [20, 20, 20], [128, 128, 128], [255, 255, 255]]
)
"""sRGB colours of skins, hair, lips' neighbours and greys, (7, 3)."""


def linear(levels: np.ndarray) -> np.ndarray:
    x = levels / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def to_xyz(primaries: tuple[float, ...], white: tuple[float, ...]) -> np.ndarray:
    """Return the matrix from linear RGB to XYZ relative to D50, by Bradford."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in zip(primaries[::2], primaries[1::2], strict=True)]).T
    own = np.array([white[0] / white[1], 1, (1 - white[0] - white[1]) / white[1]])
    matrix = columns * np.linalg.solve(columns, own)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    return np.linalg.inv(bradford) @ np.diag((bradford @ D50) / (bradford @ own)) @ bradford @ matrix


def in_space(primaries: tuple[float, ...], white: tuple[float, ...] = D65_XY) -> np.ndarray:
    """Return `COLOURS` as linear RGB of other primaries."""
    return linear(COLOURS) @ (np.linalg.inv(to_xyz(primaries, white)) @ to_xyz(SRGB, D65_XY)).T


def picture(signal: np.ndarray, dtype: Any = np.uint8) -> np.ndarray:
    """Return (32, 112, 3): the seven colours, given in 0 to 1, in patches of 16 columns."""
    return np.repeat(np.rint(signal * np.iinfo(dtype).max).astype(dtype)[None], 32, axis=0).repeat(16, axis=1)


def patches(image: np.ndarray) -> np.ndarray:
    """Return the mean colours of the patches, (7, 3)."""
    return image.reshape(32, 7, 16, 3)[4:-4, :, 4:-4].mean(axis=(0, 2))


def icc(space: bytes, tags: dict[bytes, bytes], connection: bytes = b"XYZ ", kind: bytes = b"mntr") -> bytes:
    """Return an ICC profile of version 2."""
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78),
        b"wtpt": b"XYZ \0\0\0\0" + s15(D50),
        **tags,
    }
    table, body, at = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"test", 0x02100000, kind, space, connection)
    head += bytes(12) + b"acsp" + bytes(28) + s15(D50) + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body


def s15(values: np.ndarray) -> bytes:
    return struct.pack(f">{len(values)}i", *np.rint(values * 65536).astype(int))


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def icc_rgb(primaries: tuple[float, ...], gamma: float, white: tuple[float, ...] = D65_XY) -> bytes:
    columns = to_xyz(primaries, white).T
    tags = {
        name + b"XYZ": b"XYZ \0\0\0\0" + s15(column) for name, column in zip((b"r", b"g", b"b"), columns, strict=True)
    }
    return icc(b"RGB ", tags | {name: curve(gamma) for name in (b"rTRC", b"gTRC", b"bTRC")})


def icc_cmyk() -> bytes:
    """Return a press whose Lab is a table of 2 entries an ink: each ink darkens, cyan alone has L 70, b* -40."""
    nodes = np.stack(np.meshgrid(*[[0.0, 1.0]] * 4, indexing="ij"), axis=-1).reshape(16, 4)
    lightness = 100 * np.prod(1 - nodes * [0.3, 0.4, 0.1, 0.8], axis=1)
    lab = np.stack([lightness * 255 / 100, np.full(16, 128), 128 - 40 * nodes[:, 0] * lightness / 70], axis=1)
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * np.eye(3).ravel().astype(int)))
    table = (
        b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + np.rint(lab).astype(np.uint8).tobytes() + ramp * 3
    )
    return icc(b"CMYK", {b"A2B0": table, b"A2B1": table}, b"Lab ", b"prtr")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "avif", "heic"])
@pytest.mark.parametrize(
    ("primaries", "white", "gamma"), [(P3, D65_XY, 2.2), (ADOBE, D65_XY, 563 / 256), (PROPHOTO, D50_XY, 1.8)]
)
def test_profile_of_every_format(
    tmp_path: Path, suffix: str, primaries: tuple[float, ...], white: tuple[float, ...], gamma: float
) -> None:
    stored = picture(in_space(primaries, white).clip(0, 1) ** (1 / gamma))
    profile = icc_rgb(primaries, gamma, white)
    path = tmp_path / f"a.{suffix}"
    save(path, stored, profile)
    assert np.abs(stored.reshape(-1, 3)[::16].astype(int) - picture(COLOURS / 255).reshape(-1, 3)[::16]).max() > 6
    assert np.abs(patches(read_image(path)) - COLOURS).max() <= (2 if suffix in ("png", "tiff") else 4)
    if suffix == "png":
        with Image.open(path) as opened:
            assert np.abs(patches(read_image(opened)) - COLOURS).max() <= 2


def save(path: Path, pixels: np.ndarray, profile: bytes | None = None, **options: Any) -> None:
    if profile is not None:
        options["icc_profile"] = profile
    if path.suffix != ".heic":
        lossless = {"lossless": True} if path.suffix == ".webp" else {}
        Image.fromarray(pixels).save(path, quality=98, **lossless, **options)
        return
    import pillow_heif

    file = pillow_heif.from_pillow(Image.fromarray(pixels))
    file.save(path, quality=-1, chroma=444, **options)


def test_srgb_by_another_name_stays_as_it_is(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    save(tmp_path / "a.png", noise, own)
    assert np.array_equal(read_image(tmp_path / "a.png"), noise)


def test_alpha_outlives_the_profile(tmp_path: Path) -> None:
    stored = picture(in_space(P3).clip(0, 1) ** (1 / 2.2))
    alpha = np.tile(np.arange(112, dtype=np.uint8), (32, 1))
    save(tmp_path / "a.png", np.dstack([stored, alpha]), icc_rgb(P3, 2.2))
    colour, kept = read_rgba(tmp_path / "a.png")
    assert kept is not None
    assert np.array_equal(kept, alpha)
    assert np.abs(patches(colour) - COLOURS).max() <= 2


def test_grey_profile(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None], 32, axis=0)
    expected = 255 * np.where((x := (ramp[0] / 255) ** 1.0) <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    profile = icc(b"GRAY", {b"kTRC": curve(1.0)})
    for name, pixels in (("l", ramp), ("la", np.dstack([ramp, 255 - ramp])), ("wide", ramp.astype(np.uint16) * 257)):
        save(tmp_path / f"{name}.png", pixels, profile)
        image, alpha = read_rgba(tmp_path / f"{name}.png")
        assert np.abs(image[0, 8:, 1] - expected[8:]).max() <= 2, name
        assert np.ptp(image, axis=2).max() == 0
        assert (alpha is not None) == (name == "la")


def test_grey_picture_with_a_colour_profile_stays_grey(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None], 32, axis=0)
    for name, pixels in (("l", ramp), ("rgb", np.repeat(ramp[..., None], 3, axis=2))):
        save(tmp_path / f"{name}.png", pixels, icc_rgb(PROPHOTO, 1.8, D50_XY))
        image = read_image(tmp_path / f"{name}.png")
        assert np.ptp(image, axis=2).max() == 0
        expected = 255 * (1.055 * (100 / 255) ** (1.8 / 2.4) - 0.055)
        assert abs(int(image[0, 100, 0]) - expected) <= 2


@pytest.mark.parametrize("suffix", ["tiff", "jpg"])
def test_cmyk_by_its_profile(tmp_path: Path, suffix: str) -> None:
    inks = np.zeros((32, 96, 4), np.uint8)
    inks[:, 32:64, 0] = 255
    inks[:, 64:] = 255
    path = tmp_path / f"a.{suffix}"
    Image.frombytes("CMYK", (96, 32), inks.tobytes()).save(path, quality=98, icc_profile=icc_cmyk())
    image = read_image(path)[16, 16::32].astype(int)
    assert np.abs(image[0] - 255).max() <= 2  # paper
    lab = Image.new("LAB", (1, 1), (round(0.7 * 255), 128, 88))  # L 70, a 0, b -40 as PIL stores them
    expected = read_image(lab.resize((16, 16)))[0, 0]
    assert np.abs(image[1] - expected).max() <= 3
    assert image[2].max() <= 30  # all inks


def test_lab(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    ratio = linear(COLOURS) @ to_xyz(SRGB, D65_XY).T / D50
    x, y, z = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / 3 / (6 / 29) ** 2 + 4 / 29).T
    lab = np.stack([(116 * y - 16) * 2.55, 128 + 500 * (x - y), 128 + 200 * (y - z)], axis=1)
    stored = picture(lab / 255) ^ np.array([0, 128, 128], np.uint8)  # a* and b* are signed
    Image.frombytes("LAB", (112, 32), stored.tobytes()).save(path)
    assert np.abs(patches(read_image(path)) - COLOURS).max() <= 3


@pytest.mark.parametrize("kind", ["cut", "noise", "cmyk", "grey"])
def test_unusable_profile_is_left_out(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    whole = icc_rgb(P3, 2.2)
    profile = {"cut": whole[:200], "noise": bytes(range(256)) * 2, "cmyk": icc_cmyk(),
               "grey": icc(b"GRAY", {b"kTRC": curve(1.0)})}[kind]  # fmt: skip
    pixels = picture(COLOURS / 255)
    save(tmp_path / "a.png", pixels, profile)
    assert np.array_equal(read_image(tmp_path / "a.png"), pixels)
    assert len(caplog.records) == 1
    assert "a.png: its colour profile cannot be used" in caplog.text
    assert "\n" not in caplog.records[0].getMessage()


def png(path: Path, pixels: np.ndarray, chunks: dict[bytes, bytes]) -> Path:
    info = PngImagePlugin.PngInfo()
    Image.fromarray(pixels).save(path, pnginfo=info)
    data, extra = path.read_bytes(), b""
    for kind, body in chunks.items():
        extra += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    path.write_bytes(data[:33] + extra + data[33:])  # after IHDR
    return path


def chrm(primaries: tuple[float, ...], white: tuple[float, ...] = D65_XY) -> bytes:
    return struct.pack(">8I", *(round(1e5 * v) for v in (*white, *primaries)))


def test_png_chunks(tmp_path: Path) -> None:
    for primaries, gamma in ((SRGB, 1.0), (SRGB, 1.8), (ADOBE, 2.2), (P3, 1.8)):
        stored = picture(in_space(primaries).clip(0, 1) ** (1 / gamma))
        chunks = {b"gAMA": struct.pack(">I", round(1e5 / gamma)), b"cHRM": chrm(primaries)}
        path = png(tmp_path / "a.png", stored, chunks)
        assert np.abs(patches(read_image(path)) - COLOURS).max() <= (4 if gamma == 1.0 else 2)
        png(path, stored, chunks | {b"sRGB": b"\0"})
        assert np.array_equal(read_image(path), stored)  # sRGB counts before gAMA
    ordinary = png(tmp_path / "b.png", stored, {b"gAMA": struct.pack(">I", 45455), b"cHRM": chrm(SRGB)})
    assert np.array_equal(read_image(ordinary), stored)
    display_p3 = picture(
        np.where((x := in_space(P3).clip(0, 1)) <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    )
    path = png(tmp_path / "c.png", display_p3, {b"cICP": bytes([12, 13, 0, 1])})
    assert np.abs(patches(read_image(path)) - COLOURS).max() <= 1


def test_adobe_rgb_of_a_camera_without_a_profile(tmp_path: Path) -> None:
    stored = picture(in_space(ADOBE).clip(0, 1) ** (256 / 563))
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 65535
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    save(tmp_path / "a.jpg", stored, exif=exif)
    with Image.open(tmp_path / "a.jpg") as written:
        assert written.getexif().get_ifd(0xA005)[1] == "R03"
    assert np.abs(patches(read_image(tmp_path / "a.jpg")) - COLOURS).max() <= 4


def pq(nits: np.ndarray) -> np.ndarray:
    y = (nits / 10_000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)


def hlg(scene: np.ndarray) -> np.ndarray:
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    )


def hdr(transfer: int) -> np.ndarray:
    """Return the signal of `COLOURS` in PQ (16) or HLG (18) with BT.2020's primaries, their white at 203 nits."""
    light = in_space(BT2020).clip(0)
    return pq(203 * light) if transfer == 16 else hlg(light * 0.26496)  # where HLG's signal is 0.75


def test_primaries_by_number(tmp_path: Path) -> None:
    import pillow_heif

    light = in_space(P3).clip(0, 1)
    stored = picture(np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))
    file = pillow_heif.from_pillow(Image.fromarray(stored))
    options = {"color_primaries": 12, "transfer_characteristics": 13, "matrix_coefficients": 6}
    file.save(tmp_path / "a.heic", quality=-1, chroma=444, **options)
    assert np.abs(patches(read_image(tmp_path / "a.heic")) - COLOURS).max() <= 4


@pytest.mark.parametrize("transfer", [16, 18])
@pytest.mark.parametrize("suffix", ["png", "heic", "avif"])
def test_hdr_stills(tmp_path: Path, transfer: int, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        png(path, picture(hdr(transfer)), {b"cICP": bytes([9, transfer, 0, 1])})
    elif suffix == "avif":
        save(path, picture(hdr(transfer)))
        data = path.read_bytes()
        at = data.index(b"colrnclx") + 8
        path.write_bytes(data[:at] + struct.pack(">HH", 9, transfer) + data[at + 4 :])
    else:
        import pillow_heif

        wide = picture(hdr(transfer), np.uint16)
        file = pillow_heif.from_bytes("RGB;16", (112, 32), wide.tobytes())
        options = {"color_primaries": 9, "transfer_characteristics": transfer, "matrix_coefficients": 9}
        file.save(path, quality=-1, chroma=444, **options)
    shown = patches(read_image(path))
    assert np.abs(shown - COLOURS)[:-1].max() <= 6
    assert 240 <= shown[-1].min() <= 250  # white leaves room for what is brighter
