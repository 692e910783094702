"""Pictures in: a still image as one array, a video frame by frame, always (H, W, 3) uint8 RGB the right way up."""

from __future__ import annotations

import logging
import os
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
from av.error import FFmpegError, InvalidDataError
from av.video.reformatter import Colorspace, Interpolation
from PIL import Image, ImageOps, UnidentifiedImageError

from atldiff.errors import MediaError
from atldiff.timebase import FPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.container import InputContainer
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

MIN_SIDE = 16
"""Pixels of the shortest side that is taken; no face can be found in less."""

MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are unpacked: they are decompression bombs or scans, not portraits."""

ALPHA_GREY = 128
"""What lies under transparent pixels: a mid grey, which gives hair edges neither a bright nor a dark rim."""

_LOCAL_ONLY = {"protocol_whitelist": "file"}
"""Demuxer options: a playlist in a video file's clothes must not open anything over a network."""

_NOT_VIDEO = ("tty", "image2", "concat", "hls", "dash")
"""Demuxers that give frames for text, stills or playlists."""

_UNTAGGED = 2
"""FFmpeg's colour matrix number for "not stated" (AVCOL_SPC_UNSPECIFIED)."""

_BT709_LINES = 720
"""Untagged videos from this height on are BT.709, lower ones BT.601, as players assume."""

_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""swscale's flags that keep a flat colour within one level."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video file states about itself.

    width, height: pixels as displayed, rotation applied. fps: mean frames a second. duration_s: seconds, if known.
    audio_offset_s: seconds by which the first audio track starts after the first frame (0 without audio).
    """

    width: int
    height: int
    fps: Fraction
    duration_s: Fraction | None
    has_audio: bool
    audio_offset_s: Fraction = Fraction(0)


def read_image(source: str | os.PathLike[str] | np.ndarray | Image.Image) -> NDArray[np.uint8]:
    """Read a still image as (H, W, 3) uint8 RGB, turned by its EXIF tag, alpha laid on mid grey (128).

    Of a file with several pictures the first is read. Arrays are (H, W) or (H, W, 1 | 3 | 4), bool, uint8, uint16
    (divided by 257) or float in [0, 1], in RGB order.

    Raises:
        MediaError: missing, a folder, empty, not an image, damaged, below 16x16 or above 100 megapixels.
        ValueError: an array of another shape, type or range, or with NaN.
    """
    if isinstance(source, np.ndarray):
        return _on_grey(_array_levels(source))
    if isinstance(source, Image.Image):
        return _decoded(source, "image")
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(f"image: got {type(source).__name__}, expected a path, a numpy array or a PIL image")
    path = Path(source)
    check_file(path, "image")
    name = f"image {path}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `_check_size` has its own limit
            image = Image.open(path)
        with image:
            return _decoded(image, name)
    except UnidentifiedImageError:
        return _read_with_opencv(path, name)
    except Image.DecompressionBombError as error:
        raise MediaError(f"{name}: {reason(error)}, expected at most 100 megapixels: make it smaller") from None
    except (OSError, SyntaxError, EOFError) as error:
        raise MediaError(f"{name}: damaged ({reason(error)}), expected a whole image: save it again") from None


def is_video(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is a video: a stream of more than one frame. Animated GIFs are; cover art is not."""
    if not Path(path).is_file() or not Path(path).stat().st_size:
        return False
    try:
        with av.open(os.path.abspath(path), options=_LOCAL_ONLY) as container:
            if container.format.name in _NOT_VIDEO or container.format.name.endswith("_pipe"):
                return False
            stream = _picture_stream(container)
            frames = 0
            for packet in container.demux(stream) if stream else ():
                frames += packet.size > 0
                if frames > 1:
                    return True
    except (FFmpegError, OSError):
        pass
    return False


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Return the displayed size, rate and length of a video.

    Raises:
        MediaError: the file is missing, empty or not a video.
    """
    path = Path(path)
    with _opened(path) as (container, stream):
        frame = next(_decoded_frames(container, stream), None)
        if frame is None:
            raise MediaError(f"video {path}: no frame decodes, expected a whole video file: export it again")
        width, height = (frame.height, frame.width) if _quarter_turns(frame) % 2 else (frame.width, frame.height)
        duration = None
        if stream.duration is not None and stream.time_base is not None:
            duration = stream.duration * stream.time_base
        elif container.duration is not None:
            duration = Fraction(container.duration, av.time_base)
        audio = container.streams.audio[0] if container.streams.audio else None
        offset = Fraction(0) if audio is None else _start_s(audio) - _start_s(stream)
        return VideoInfo(width, height, _frame_rate(stream), duration, audio is not None, offset)


def read_frames(path: str | os.PathLike[str], *, size: tuple[int, int] | None = None) -> Iterator[NDArray[np.uint8]]:
    """Yield every frame of a video as (H, W, 3) uint8 RGB, the display rotation applied.

    size: (height, width) to scale to; the displayed size when None.

    Raises:
        MediaError: the file is missing, empty or not a video, or no frame of it decodes.
    """
    path = Path(path)
    with _opened(path) as (container, stream):
        empty = True
        for frame in _decoded_frames(container, stream):
            yield _rgb(frame, size)
            empty = False
    if empty:
        raise MediaError(f"video {path}: no frame decodes, expected a whole video file: export it again")


def read_frames_at(path: str | os.PathLike[str], fps: Fraction | int = FPS) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a video resampled to `fps` on its own timestamps.

    Frame i is the one on display i / fps seconds after the first frame, so ceil(duration * fps) of them come.

    Raises:
        MediaError: as `read_frames`.
        ValueError: `fps` is not positive.
    """
    fps = Fraction(fps)
    if fps <= 0:
        raise ValueError(f"fps: got {fps}, expected a positive number of frames a second")
    path = Path(path)
    with _opened(path) as (container, stream):
        own_s = 1 / _frame_rate(stream)
        shown: av.VideoFrame | None = None
        start = time = last = Fraction(0)  # seconds: first timestamp, that of `shown`, its length
        sent = 0
        for frame in _decoded_frames(container, stream):
            stamp = None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base
            if shown is None:
                start = stamp or Fraction(0)
            else:
                following = time + own_s if stamp is None else stamp - start
                if following <= time:  # a broken timestamp: nothing can be shown for no time
                    continue
                if Fraction(sent) / fps < following:
                    picture = _rgb(shown, None)
                    while Fraction(sent) / fps < following:
                        yield picture
                        sent += 1
                time = following
            shown = frame
            last = frame.duration * frame.time_base if frame.duration and frame.time_base else own_s
        if shown is None:
            raise MediaError(f"video {path}: no frame decodes, expected a whole video file: export it again")
        while Fraction(sent) / fps < time + last:
            yield _rgb(shown, None)
            sent += 1


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Open a video for the length of a `with`; FFmpeg's errors inside become one-line MediaErrors."""
    check_file(path, "video")
    try:
        with av.open(os.path.abspath(path), options=_LOCAL_ONLY) as container:
            stream = _picture_stream(container)
            if stream is None or container.format.name in _NOT_VIDEO:
                raise MediaError(f"video {path}: got a file without a video stream, expected a video such as mp4")
            stream.thread_type = "SLICE"  # frame threads would hold a picture each
            yield container, stream
    except (FFmpegError, OSError) as error:
        raise MediaError(f"video {path}: cannot be read ({reason(error)}), expected a video such as mp4") from None


def _picture_stream(container: InputContainer) -> av.VideoStream | None:
    """Return the first video stream that is not the cover picture of a song."""
    for stream in container.streams.video:
        if not stream.disposition & stream.disposition.attached_pic:
            return stream
    return None


def _decoded_frames(container: InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Yield the frames that decode; damaged packets are left out with a warning."""
    damaged = 0
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except InvalidDataError:
            damaged += 1
    if damaged:
        _log.warning("video %s: %d damaged packets left out", container.name, damaged)


def _frame_rate(stream: av.VideoStream) -> Fraction:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return Fraction(rate) if rate else Fraction(FPS)


def _start_s(stream: av.VideoStream | av.AudioStream) -> Fraction:
    if stream.start_time is None or stream.time_base is None:
        return Fraction(0)
    return stream.start_time * stream.time_base


def _quarter_turns(frame: av.VideoFrame) -> int:
    """Return how many anticlockwise quarter turns bring a frame upright."""
    return round(frame.rotation / 90) % 4


def _rgb(frame: av.VideoFrame, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    turns = _quarter_turns(frame)
    height, width = size or ((frame.width, frame.height) if turns % 2 else (frame.height, frame.width))
    if turns % 2:
        height, width = width, height  # scaled before it is turned
    untagged_hd = frame.colorspace == _UNTAGGED and frame.height >= _BT709_LINES
    scaled = frame.reformat(
        width,
        height,
        "rgb24",
        src_colorspace=Colorspace.ITU709 if untagged_hd else None,
        interpolation=(Interpolation.AREA if size else Interpolation.BICUBIC) | _EXACT,
        threads=1,
    )
    return np.ascontiguousarray(np.rot90(scaled.to_ndarray(), turns)).astype(np.uint8, copy=False)


def _decoded(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """Return a PIL image, not unpacked so far, as RGB."""
    _check_size(name, *image.size)
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        return _on_grey(_grey_levels(np.asarray(upright), name))
    if "transparency" in upright.info or upright.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        return _on_grey(np.asarray(upright.convert("RGBA")))
    return np.array(upright.convert("RGB"))


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


def _on_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (H, W) or (H, W, 1 | 3 | 4) as a new (H, W, 3), alpha laid on mid grey."""
    channels = image if image.ndim == 3 else image[..., None]
    if channels.shape[2] == 1:
        return np.repeat(channels, 3, axis=2)
    if channels.shape[2] == 3:
        return np.array(channels, order="C")
    alpha = channels[..., 3:].astype(np.float32) / 255.0
    return np.rint(channels[..., :3] * alpha + ALPHA_GREY * (1.0 - alpha)).astype(np.uint8)


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
