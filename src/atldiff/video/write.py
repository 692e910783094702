"""Video out: frames are encoded as they are made, and the final name appears only when the file is whole."""

from __future__ import annotations

import logging
import math
import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from PIL import Image

from atldiff.errors import MediaError
from atldiff.files import Workplace
from atldiff.interrupt import held
from atldiff.video.formats import Format, check_output, check_quality, format_of, is_folder, is_own, keeps_alpha
from atldiff.video.gif import MOST_FPS, GifStream
from atldiff.video.patch import PatchedFrame, unpatched
from atldiff.video.planes import Planes
from atldiff.video.sound import LiveSound, SoundFile, add_sound, check_sound, write_wav
from atldiff.video.still import reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from numpy.typing import NDArray

    from atldiff.video.patch import Frame
    from atldiff.video.sound import Sound

_log = logging.getLogger(__name__)


# The index of a fragmented file waits for the first fragment, because only then the encoder delays are known: written
# at once it could not hold the edit lists that make sound and picture both start at 0.
FRAGMENTS = {"movflags": "frag_keyframe+delay_moov+default_base_moof", "flush_packets": "1"}

_ENCODER_OPTIONS = {
    "libx264": {"preset": "veryfast"},
    "libvpx-vp9": {"deadline": "good", "cpu-used": "5"},
    # A macroblock's bits: half of what the profile takes, which is more than PNG. 8 bits of alpha are all there are.
    "prores_ks": {"profile": "4444", "vendor": "apl0", "bits_per_mb": "1000", "alpha_bits": "8"},
}
_EXACT = 0x40000 | 0x4000  # swscale's ACCURATE_RND and FULL_CHR_H_INP, which PyAV names only from 18 on
_THREADS = 2
_BT709 = 1  # FFmpeg's number for BT.709 primaries, transfer and matrix alike
_CPU_AVX_512F = 13  # OpenCV's number for the processor feature


class Written(NamedTuple):
    """What a file holds: pictures of size (height, width), frames a second, and how many so far."""

    size: tuple[int, int]
    fps: Fraction
    frames: int


class VideoWriter:
    """Write frames and sound; use it as a context manager.

    The suffix chooses the format: .mp4, .mov, .mkv (H.264 and AAC), .webm (VP9 and Opus), .gif (no sound); without a
    suffix, or ending in "/", the path is a folder of PNG frames and audio.wav. Odd sides gain one replicated row or
    column in the formats with subsampled colour, and a GIF has at most 50 frames a second (`written`). An exception in
    the body leaves nothing under the final name; what was written stays, playable, as NAME.partial.SUFFIX if it lasts
    at least one second. Several writers of one path do not see one another; the last to finish wins, and the last to
    give up leaves its part.

    Frames with alpha go into .webm (VP9), .mov (ProRes 4444) and folders of PNG frames, as straight alpha.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        size: tuple[int, int],
        fps: Fraction | int,
        audio: str | os.PathLike[str] | SoundFile | tuple[NDArray[np.float32], int] | LiveSound | None = None,
        duration: Fraction | None = None,
        quality: int | None = None,
        keep_part: bool = True,
        alpha: bool = False,
    ) -> None:
        """Check everything; no file appears before the first frame.

        Args:
            path: the final name.
            size: (height, width) of the frames.
            fps: frames a second, exact.
            audio: a file whose default audio track is used, or a `SoundFile` for another one, copied where the codec
                allows, or samples (N, channels) float32 in [-1, 1] and their rate, or sound that is still coming.
            duration: seconds at which encoded sound is cut or to which it is padded; its own length when None.
            keep_part: leave what was written when it is not finished; nothing at all otherwise.
            quality: constant rate factor, lower is better: 0 to 51, 18 by default (.webm 0 to 63, 28).
            alpha: the frames are (height, width, 4).

        Raises:
            MediaError: `check_output` raises, or the audio cannot be used.
            ValueError: an argument out of range, or alpha for a format that has none.
        """
        check_output(path)
        self.path = Path(path)
        self.frames = 0
        self._size = size
        self._fps = Fraction(fps)
        if self._fps <= 0:
            raise ValueError(f"fps: got {fps}, expected a positive number of frames a second")
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"size: got {size}, expected (height, width) of at least 1 pixel each")
        if duration is not None and duration <= 0:
            raise ValueError(f"duration: got {duration} s, expected a positive number of seconds")
        if alpha and not keeps_alpha(path):
            raise ValueError(f"output {self.path}: got frames with alpha, expected .webm, .mov or a folder for them")
        sound = None if audio is None else check_sound(audio)
        if isinstance(sound, SoundFile) and self.path.exists() and self.path.samefile(sound.path):
            raise MediaError(f"output {self.path}: would replace its own audio file: choose another -o")
        suffix = "" if is_folder(path) else self.path.suffix
        stem = self.path.name.removesuffix(suffix)
        self._keep_part = keep_part
        self._place = Workplace(self.path)
        self._kept = self.path.with_name(f"{stem}.partial{suffix}")
        self._format = format_of(path, alpha=alpha)
        self._sink: _Stream | _Folder | GifStream
        self._file_size, self._file_fps = size, self._fps
        self._channels = 4 if alpha else 3
        check_quality(quality, self._format)
        try:
            if self._format is None:
                self._sink = _Folder(self._place.path, sound, duration)
            elif self._format.video == "gif":
                if sound is not None:
                    _log.info("output %s: a GIF has no sound track; the audio is left out", path)
                if self._fps > MOST_FPS:
                    self._file_fps = Fraction(MOST_FPS)
                    _log.warning("output %s: at %d fps, not %g, which no GIF can have", path, MOST_FPS, self._fps)
                self._sink = GifStream(self._place.path, size, self._fps)
            else:
                even = self._format.even
                self._file_size = (size[0] + size[0] % even, size[1] + size[1] % even)
                self._sink = _Stream(self._place.path, self._format, size, self._fps, sound, duration, quality)
        except (FFmpegError, OSError) as error:
            raise self._failure(error) from None
        self._open = True

    @property
    def written(self) -> Written:
        """What is in the file so far: its pictures may be of another size than the frames, and fewer."""
        return Written(self._file_size, self._file_fps, math.ceil(self.frames * self._file_fps / self._fps))

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, frame: Frame) -> None:
        """Encode the next frame, (height, width, 3) uint8 RGB or (height, width, 4), and the sound that belongs to it.

        Of a `PatchedFrame` only the part that changed is converted, where the format has three planes.

        Raises:
            ValueError: a frame of another size or type, or the writer is closed.
            MediaError: the disk is full or the encoder failed.
        """
        if not self._open:
            raise ValueError(f"output {self.path}: got a frame after close, expected none")
        expected = (*self._size, self._channels)
        picture = frame.still if isinstance(frame, PatchedFrame) else frame
        if picture.shape != expected or picture.dtype != np.uint8:
            raise ValueError(f"frame: got {picture.shape} {picture.dtype}, expected {expected} uint8")
        try:
            with held():  # a packet that is lost on the way would spoil the part that is kept
                if not self.frames:
                    self._place.make()
                if isinstance(self._sink, _Stream):
                    self._sink.write(frame, self.frames)
                else:
                    self._sink.write(np.ascontiguousarray(unpatched(frame)), self.frames)
                self.frames += 1
        except (FFmpegError, OSError) as error:
            raise self._failure(error) from None

    def close(self) -> None:
        """Finish the file and move it onto its final name. A second call does nothing.

        Raises:
            MediaError: writing failed; what there is was kept as `abort` keeps it.
            ValueError: no frame was written.
        """
        if not self._open:
            return
        if not self.frames:
            self.abort()
            raise ValueError(f"output {self.path}: got no frame, expected at least one")
        try:
            with held():
                self._sink.finish()
            if self._format is not None and self._format.fragmented:
                put_index_in_front(self._place.path, self._format.muxer)
            with held():
                self._publish(self.path)
                self._open = False
        except (FFmpegError, OSError) as error:
            self.abort()
            raise self._failure(error) from None
        except BaseException:  # an interrupt during the last copy
            self.abort()
            raise

    def abort(self) -> None:
        """Give up: leave nothing under the final name, keep at least one second as NAME.partial.SUFFIX."""
        if not self._open:
            return
        self._open = False
        with held():
            try:
                self._sink.stop()
            except (FFmpegError, OSError) as error:
                _log.warning("output %s: the last frames are lost (%s)", self.path, reason(error))
            try:
                if self._keep_part and self.frames >= self._fps:
                    self._publish(self._kept)
                    kept = f"{self.frames} frames are kept in {self._kept}"
                    _log.warning("output %s: not finished; %s", self.path, kept)
            except OSError as error:
                _log.warning("output %s: its %d frames cannot be kept (%s)", self.path, self.frames, reason(error))
            finally:
                self._place.discard()

    def _publish(self, path: Path) -> None:
        """Move what was written to `path`, over an earlier one: of a folder only if it holds frames of ours."""
        if self._format is None and path.is_dir() and not is_own(path):
            raise OSError(f"the folder {path} holds other files")
        self._place.publish(path)

    def _failure(self, error: BaseException) -> MediaError:
        return MediaError(f"output {self.path}: cannot be written ({reason(error)}): check the disk and the frame size")


class _Stream:
    """A container file with one video stream and at most one sound track."""

    def __init__(
        self,
        path: Path,
        form: Format,
        size: tuple[int, int],
        fps: Fraction,
        sound: Sound | None,
        duration: Fraction | None,
        quality: int | None,
    ) -> None:
        self._fps = fps
        self._container = av.open(
            os.path.abspath(path), "w", format=form.muxer, container_options=FRAGMENTS if form.fragmented else {}
        )
        self._pixels = form.pixels
        self._planes = Planes((*size, 4 if "a" in form.pixels else 3), form.even, self._converted)
        options = encoder_options(form, quality)
        if form.pixels == "yuva420p":
            options["auto-alt-ref"] = "0"  # hidden frames have no alpha
        video = cast("av.VideoStream", self._container.add_stream(form.video, rate=fps, options=options))
        video.height, video.width = size[0] + size[0] % form.even, size[1] + size[1] % form.even
        video.pix_fmt = form.pixels
        context = video.codec_context
        context.time_base = 1 / fps
        context.gop_size = max(1, round(fps))  # a killed render loses at most the last second or so
        context.thread_count = _THREADS
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = ColorRange.MPEG
        self._video = video
        self._reformatter = VideoReformatter()
        self._packets: Iterator[av.Packet | None] = iter(())
        if sound is not None and form.audio is not None:
            self._packets = add_sound(self._container, sound, form.audio, duration)
        self._next_packet: av.Packet | None = None
        self._sound_over = self._stopped = False

    def write(self, frame: Frame, index: int) -> None:
        picture = self._picture(frame)
        picture.color_primaries = picture.color_trc = picture.colorspace = _BT709
        picture.pts, picture.time_base, picture.duration = index, 1 / self._fps, 1
        self._container.mux(self._video.encode(picture))
        self._mux_sound(Fraction(index + 1) / self._fps)

    def finish(self) -> None:
        """Write the rest of picture and sound, and the index."""
        self._mux_sound(None)
        self.stop()

    def stop(self) -> None:
        """End the file where the frames end. A second call does nothing."""
        if self._stopped:
            return
        self._stopped = True
        try:
            if self._video.codec_context.is_open:
                self._container.mux(self._video.encode(None))
        finally:
            self._container.close()

    def _picture(self, frame: Frame) -> av.VideoFrame:
        if isinstance(frame, PatchedFrame) and self._pixels == "yuv420p":
            return self._planes.patched(frame)
        return self._planes.whole(unpatched(frame))

    def _converted(self, pixels: NDArray[np.uint8]) -> av.VideoFrame:
        return self._reformatter.reformat(
            av.VideoFrame.from_numpy_buffer(pixels, format="rgb24" if pixels.shape[2] == 3 else "rgba"),
            format=self._pixels,
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=Interpolation.BICUBIC | _EXACT,
            threads=1,
        )

    def _mux_sound(self, until_s: Fraction | None) -> None:
        """Write the sound that starts before `until_s` seconds, so that neither stream waits for the other."""
        while not self._sound_over:
            if self._next_packet is None:
                try:
                    self._next_packet = next(self._packets)
                except StopIteration:
                    self._sound_over = True
                    return
            packet = self._next_packet
            if packet is None:  # still to come
                return
            if until_s is not None and (packet.pts or 0) * packet.time_base >= until_s:
                return
            self._container.mux(packet)
            self._next_packet = None


class _Folder:
    """PNG frames named by their number, and audio.wav."""

    def __init__(self, folder: Path, sound: Sound | None, duration: Fraction | None) -> None:
        self._folder = folder
        self._sound = sound
        self._duration = duration

    def write(self, frame: NDArray[np.uint8], index: int) -> None:
        if not index:
            self._folder.mkdir()
        Image.fromarray(frame).save(self._folder / f"{index:06d}.png", compress_level=3)

    def finish(self) -> None:
        if self._sound is not None:
            write_wav(self._folder / "audio.wav", self._sound, self._duration)

    def stop(self) -> None:
        """Leave the frames as they are: each is whole."""


def encoder_options(form: Format, quality: int | None = None) -> dict[str, str]:
    """Return what a format's encoder is told. quality: constant rate factor instead of the format's own."""
    options = dict(_ENCODER_OPTIONS[form.video])
    if form.video == "libx264" and cv2.checkHardwareSupport(_CPU_AVX_512F):
        options["x264-params"] = "asm=avx2"  # x264's AVX-512 rate control gives other bytes on every run
    if form.crf is not None:
        options["crf"] = str(form.crf if quality is None else quality)
    return options


def put_index_in_front(path: Path, muxer: str) -> None:
    """Make a fragmented file one with its index in front, in its place."""
    whole = path.with_name(f"whole{path.suffix}")
    copy_streams(path, whole, muxer)
    whole.replace(path)


def copy_streams(source: Path, target: Path, muxer: str) -> None:
    """Copy the packets of a fragmented file into one with its index in front, so that it starts at once anywhere."""
    with (
        av.open(os.path.abspath(source)) as fragments,
        av.open(os.path.abspath(target), "w", format=muxer, container_options={"movflags": "faststart"}) as whole,
    ):
        copies = {stream.index: whole.add_stream_from_template(stream) for stream in fragments.streams}
        for stream in fragments.streams.video:  # all kinds of ProRes have one codec, and would get one kind's tag
            copies[stream.index].codec_context.codec_tag = stream.codec_context.codec_tag
        for packet in fragments.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                whole.mux(packet)
