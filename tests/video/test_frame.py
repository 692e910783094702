"""Video frames as players show them: colours, shape, the way up, both fields, and what alpha hides."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest

from atldiff.video.frame import deinterlaced
from atldiff.video.read import probe, read_frames, read_frames_at, read_rgba_frames

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (32, 48)
D65 = (0.3127, 0.3290)
PRIMARIES = {
    1: (0.64, 0.33, 0.30, 0.60, 0.15, 0.06),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    12: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
LUMA = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
SKIN, LIPS, BLUE, GREY = (184, 140, 118), (150, 75, 80), (60, 90, 150), (128, 128, 128)


def corners() -> np.ndarray:
    """Return a (32, 48, 3) picture with a red, a green, a blue and a grey quarter."""
    image = np.empty((*SIZE, 3), np.uint8)
    image[:16, :24], image[:16, 24:] = (200, 30, 30), (30, 200, 30)
    image[16:, :24], image[16:, 24:] = (30, 30, 200), (90, 90, 90)
    return image


def write(path: Path, frames: list[av.VideoFrame], codec: str, format: str, options: dict[str, str] | None = None,
          **context: Any) -> Path:  # fmt: skip
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, format
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for i, frame in enumerate(frames):
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def pictures(*images: np.ndarray) -> list[av.VideoFrame]:
    return [av.VideoFrame.from_ndarray(image, "rgba" if image.shape[2] == 4 else "rgb24") for image in images]


def give_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Write a display matrix into an mp4's track header: (x, y) is shown at (a x + c y, b x + d y)."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    values = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    content[start : start + 36] = struct.pack(">9i", *values)
    path.write_bytes(content)


def near(image: np.ndarray, expected: np.ndarray) -> bool:
    """Return whether the quarters of two pictures have the same colours, borders aside."""
    if image.shape != expected.shape:
        return False
    height, width = image.shape[0] // 8, image.shape[1] // 8
    at = np.ix_([height, -height], [width, -width])
    return bool(np.abs(image[at].astype(int) - expected[at]).max() < 30)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((1, 0, 0, 1), corners()),
        ((0, 1, -1, 0), np.rot90(corners(), -1)),
        ((-1, 0, 0, -1), np.rot90(corners(), 2)),
        ((0, -1, 1, 0), np.rot90(corners(), 1)),
        ((-1, 0, 0, 1), corners()[:, ::-1]),  # a front camera's
        ((1, 0, 0, -1), corners()[::-1]),
        ((0, 1, 1, 0), corners().transpose(1, 0, 2)),
        ((0, -1, -1, 0), np.rot90(corners(), 2).transpose(1, 0, 2)),
    ],
)
def test_display_matrix(tmp_path: Path, matrix: tuple[int, int, int, int], expected: np.ndarray) -> None:
    path = write(tmp_path / "a.mp4", pictures(corners(), corners()), "libx264", "yuv444p", {"crf": "5"})
    give_matrix(path, *matrix)
    for frames in (read_frames(path), read_frames_at(path)):
        assert near(next(frames), expected)
    assert (probe(path).height, probe(path).width) == expected.shape[:2]
    small = next(read_frames(path, size=(16, 40)))
    assert small.shape == (16, 40, 3)
    assert np.abs(small[2, 4].astype(int) - expected[3, 3]).max() < 30


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("mov", "mpeg4"), ("mkv", "libx264"), ("ts", "libx264"), ("avi", "mpeg4")]
)
@pytest.mark.parametrize(
    ("aspect", "shape"), [(Fraction(64, 45), (32, 68)), (Fraction(8, 9), (36, 48)), (Fraction(1, 90), SIZE)]
)
def test_pixels_are_made_square(
    tmp_path: Path, suffix: str, codec: str, aspect: Fraction, shape: tuple[int, int]
) -> None:
    path = tmp_path / f"a.{suffix}"
    write(path, pictures(*[corners()] * 5), codec, "yuv420p", {"crf": "2"}, sample_aspect_ratio=aspect)
    for frame in (next(read_frames(path)), next(read_frames_at(path))):
        assert frame.shape[:2] == shape
        assert near(frame, np.repeat(np.repeat(corners()[::16, ::24], shape[0] // 2, 0), shape[1] // 2, 1))
    assert (probe(path).height, probe(path).width) == shape
    if suffix == "mp4":
        give_matrix(path, 0, 1, -1, 0)
        assert next(read_frames(path)).shape[:2] == shape[::-1]
        assert (probe(path).height, probe(path).width) == shape[::-1]


def test_browsers_show_a_gif_with_square_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gif", pictures(*[corners()] * 3), "gif", "rgb8")
    content = bytearray(path.read_bytes())
    content[12] = 113  # (113 + 15) / 64 = 2
    path.write_bytes(content)
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == 2
    assert next(read_frames(path)).shape == (*SIZE, 3)


def woven(frames: int) -> list[np.ndarray]:
    """Return pictures whose even rows show a moving bar 4 px further on: two fields, the one of odd rows first."""
    images = []
    for i in range(frames):
        image = np.full((64, 128, 3), 40, np.uint8)
        for row in range(64):
            left = 8 + 8 * i + 4 * (1 - row % 2)
            image[row, left : left + 24] = 220
        images.append(image)
    return images


def combing(image: np.ndarray) -> float:
    rows = image.astype(float).mean(axis=2)
    return float(np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean())


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", "mp4"), ("mpeg2video", "mpg"), ("mpeg2video", "ts")])
def test_interlaced_footage(tmp_path: Path, codec: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    options = {"x264-params": "bff=1", "crf": "8"} if codec == "libx264" else {"flags": "+ildct+ilme", "qscale": "2"}
    write(path, pictures(*woven(10)), codec, "yuv420p", options, bit_rate=4_000_000)
    with av.open(str(path)) as container:
        coded = list(container.decode(video=0))
    assert all(frame.interlaced_frame for frame in coded)
    shown = list(read_frames(path))
    assert len(shown) == len(coded) == 10
    assert len(list(read_frames_at(path))) == 10
    for before, frame, i in zip(coded, shown, range(10), strict=True):
        assert combing(frame) < 0.25 * combing(before.to_ndarray(format="rgb24"))
        assert abs(float(np.flatnonzero(frame[32, :, 0] > 130)[0]) - (8 + 8 * i)) <= 1  # the first field's place


def test_progressive_frames_pass_untouched() -> None:
    frames = pictures(*woven(4))
    for i, frame in enumerate(frames):
        frame.pts, frame.time_base = i, Fraction(1, 25)
    assert all(a is b for a, b in zip(deinterlaced(iter(frames)), frames, strict=True))


def test_deinterlaced_frames_keep_their_times_and_turns(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write(path, pictures(*woven(6)), "libx264", "yuv420p", {"x264-params": "bff=1"})
    give_matrix(path, 0, 1, -1, 0)
    with av.open(str(path)) as container:
        coded = [(f.pts, f.time_base, f.duration) for f in container.decode(video=0)]
    with av.open(str(path)) as container:
        whole = [(f.pts, f.time_base, f.duration) for f in deinterlaced(container.decode(video=0))]
    assert whole == coded
    assert next(read_frames(path)).shape == (128, 64, 3)


@pytest.mark.parametrize(
    ("suffix", "codec", "format"),
    [
        ("webm", "libvpx-vp9", "yuva420p"),
        ("webm", "libvpx", "yuva420p"),
        ("mov", "prores_ks", "yuva444p10le"),
        ("mov", "png", "rgba"),
        ("mov", "qtrle", "argb"),
        ("mkv", "ffv1", "bgra"),
        ("apng", "apng", "rgba"),
    ],
)
def test_what_alpha_hides(tmp_path: Path, suffix: str, codec: str, format: str) -> None:
    rgba = np.dstack([corners(), np.full(SIZE, 255, np.uint8)])
    rgba[:16, :24, 3] = 0
    options = {"auto-alt-ref": "0", "crf": "4", "b": "0"} if codec.startswith("libvpx") else {}
    path = write(tmp_path / f"a.{suffix}", pictures(rgba, rgba, rgba), codec, format, options)
    expected = np.where(rgba[..., 3:] == 0, 128, corners())
    assert len(list(read_frames(path))) == len(list(read_frames_at(path))) == 3
    for frame in (next(read_frames(path)), next(read_frames_at(path))):
        assert near(frame, expected)
        assert np.abs(frame[3:13, 3:21].astype(int) - 128).max() <= 3
    colour, alpha = next(read_rgba_frames(path))
    assert alpha is not None
    assert alpha[3:13, 3:21].max() <= 2
    assert alpha[20:].min() >= 250
    assert near(colour[16:], corners()[16:])
    opaque = write(tmp_path / f"b.{suffix}", pictures(corners(), corners()), codec, format, options)
    assert next(read_rgba_frames(opaque))[1] is None


def linear(levels: np.ndarray) -> np.ndarray:
    x = levels / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def to_xyz(primaries: int) -> np.ndarray:
    values = PRIMARIES[primaries]
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in zip(values[::2], values[1::2], strict=True)]).T
    return columns * np.linalg.solve(columns, [D65[0] / D65[1], 1, (1 - D65[0] - D65[1]) / D65[1]])


def signal(colour: tuple[int, int, int], primaries: int, transfer: int) -> np.ndarray:
    """Return the RGB signal, 0 to 1, of an sRGB colour in other primaries and another transfer curve of H.273."""
    light = np.linalg.inv(to_xyz(primaries)) @ to_xyz(1) @ linear(np.array(colour))
    if transfer == 16:
        y = (203 * light / 10_000) ** (2610 / 16384)
        return ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)
    if transfer == 18:
        scene = light * 0.26496  # where HLG's signal is 0.75
        return np.where(
            scene <= 1 / 12,
            np.sqrt(3 * scene),
            0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073,
        )
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def flat(
    path: Path, rgb: np.ndarray, matrix: int, primaries: int, transfer: int, format: str, full: bool = False
) -> Path:
    """Write two frames of one RGB signal with its tags, lossless."""
    red, blue = LUMA[6 if matrix == 2 else matrix]
    luma = red * rgb[0] + (1 - red - blue) * rgb[1] + blue * rgb[2]
    planes = (luma, (rgb[2] - luma) / (2 - 2 * blue), (rgb[0] - luma) / (2 - 2 * red))
    bits, wide = (10, 2) if "10" in format else (8, 1)
    scales, offsets = ((255, 255, 255), (0, 128, 128)) if full else ((219, 224, 224), (16, 128, 128))
    frames = []
    for _ in range(2):
        frame = av.VideoFrame(64, 64, format)
        for plane, value, scale, offset in zip(frame.planes, planes, scales, offsets, strict=True):
            level = round(float((value * scale + offset) * 2 ** (bits - 8)))
            plane.update(level.to_bytes(wide, "little") * (plane.buffer_size // wide))
        frame.colorspace, frame.color_range = matrix, 2 if full else 1
        frame.color_primaries, frame.color_trc = primaries, transfer
        frames.append(frame)
    return write(path, frames, "ffv1", format, colorspace=matrix, color_range=2 if full else 1,
                 color_primaries=primaries, color_trc=transfer)  # fmt: skip


@pytest.mark.parametrize("colour", [SKIN, LIPS, BLUE, GREY])
@pytest.mark.parametrize(
    ("matrix", "primaries", "transfer", "format"),
    [
        (9, 9, 18, "yuv420p10le"),  # an iPhone's HDR
        (9, 9, 16, "yuv420p10le"),  # HDR10
        (2, 2, 18, "yuv420p10le"),
        (9, 9, 14, "yuv422p10le"),
        (9, 9, 1, "yuv420p"),
        (1, 12, 1, "yuv420p"),  # older iPhones
        (6, 12, 13, "yuv444p"),
        (1, 1, 1, "yuv420p"),
        (6, 6, 6, "yuv420p"),
        (2, 2, 2, "yuv420p"),
    ],
)
def test_colours_of_other_spaces(
    tmp_path: Path, colour: tuple[int, int, int], matrix: int, primaries: int, transfer: int, format: str
) -> None:
    own = {2: 9 if transfer == 18 else 1, 6: 1}.get(primaries, primaries)
    path = flat(tmp_path / "a.mkv", signal(colour, own, transfer), 9 if matrix == 2 and transfer == 18 else matrix,
                primaries, transfer, format)  # fmt: skip
    for frame in (next(read_frames(path)), next(read_frames_at(path)), next(read_frames(path, size=(24, 20)))):
        assert np.abs(frame.reshape(-1, 3).mean(axis=0) - colour).max() < (2.5 if "10" in format else 4)


def test_light_above_white_is_told_apart(tmp_path: Path) -> None:
    shown = []
    for nits in (100, 203, 406, 1000, 4000):
        y = (nits / 10_000) ** (2610 / 16384)
        grey = ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)
        frame = next(read_frames(flat(tmp_path / f"{nits}.mkv", np.full(3, grey), 9, 9, 16, "yuv420p10le")))
        assert np.ptp(frame) <= 1
        shown.append(int(frame[0, 0, 1]))
    assert abs(shown[0] - 255 * (1.055 * (100 / 203) ** (1 / 2.4) - 0.055)) < 2  # below white as it is
    assert shown == sorted(shown)
    assert shown[1] < shown[2] < shown[3] - 1
    assert shown[3] >= 254
