"""`atldiff generate --stdin` and `-o -`: sound from standard input as it comes, raw frames to standard output."""

from __future__ import annotations

import sys
from collections import deque
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from atldiff.commands.progress import say
from atldiff.errors import MediaError
from atldiff.timebase import FPS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from atldiff.commands.progress import Stopwatch
    from atldiff.config import SampleConfig
    from atldiff.pipeline import TalkingHead
    from atldiff.types import Controls, Framing, LandmarkTrack, Portrait

STDOUT = "-"
"""The output that stands for standard output."""
PACKET_S = 0.02
"""Sound that is read at once, at most."""
SAMPLE_BYTES = 2


def check_stdin() -> BinaryIO:
    """Return standard input.

    Raises:
        MediaError: it is a terminal, or closed.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise MediaError("stdin: got nothing connected, expected 16-bit PCM")
    if sys.stdin.isatty():
        raise MediaError("stdin: got a terminal, expected mono 16-bit PCM: pipe a program's sound into it")
    return getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)  # gives what there is, and may be waited for at the exit


def check_stdout(*, json: bool) -> None:
    """Raise unless frames can go to standard output.

    Raises:
        MediaError: it is a terminal. ValueError: the report was to go there as well.
    """
    if json:
        raise ValueError("output -: got --json as well, expected only frames on standard output: leave it out")
    if sys.stdout.isatty():
        raise MediaError("output -: got a terminal, expected a pipe or a file for raw frames: choose another -o")


def pcm_packets(source: BinaryIO, sample_rate: int) -> Iterator[np.ndarray]:
    """Yield what can be read of mono little-endian 16-bit PCM, (n,) int16, at most 20 ms at once.

    Raises:
        MediaError: the source ends without a sample.
    """
    size = max(1, round(sample_rate * PACKET_S)) * SAMPLE_BYTES
    rest, heard = b"", False
    while data := source.read(size):
        data = rest + data
        whole = len(data) // SAMPLE_BYTES * SAMPLE_BYTES
        rest = data[whole:]
        if whole:
            heard = True
            yield np.frombuffer(data[:whole], "<i2")
    if not heard:
        raise MediaError("stdin: got no sound, expected mono 16-bit PCM")


def write_frames(frames: Iterable[np.ndarray], size: tuple[int, int], fps: float, *, quiet: bool) -> int:
    """Write frames (H, W, 3) uint8 to standard output as they are; return how many."""
    height, width = size
    say(f"stdout: frames of {width}x{height} rgb24 at {fps:g} fps, {height * width * 3} bytes each", quiet=quiet)
    count = 0
    for frame in frames:
        sys.stdout.buffer.write(np.ascontiguousarray(frame).data)
        sys.stdout.buffer.flush()
        count += 1
    return count


class Heard:
    """Chunks on their way to the frames, kept until the file that the frames go into has taken them as its sound."""

    def __init__(self, sample_rate: int, *, keep: bool) -> None:
        self.sample_rate = sample_rate
        self.samples = 0
        self._keep = keep
        self._kept: deque[np.ndarray] = deque()
        self._over = False

    def passing(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the chunks, (n,), and remember them."""
        for chunk in chunks:
            self.samples += len(chunk)
            if self._keep:
                self._kept.append(chunk)
            yield chunk
        self._over = True

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield what was heard, (n, 1) float32, and empty blocks while nothing new was; ends where the chunks end."""
        while self._kept or not self._over:
            if not self._kept:
                yield np.zeros((0, 1), np.float32)
                continue
            chunk = self._kept.popleft()
            scale = np.float32(1 / 32768) if chunk.dtype.kind == "i" else np.float32(1)
            yield (chunk.astype(np.float32) * scale)[:, None]


def generate_live(
    head: TalkingHead,
    portrait: Portrait,
    source: BinaryIO,
    output: str,
    watch: Stopwatch,
    *,
    sample_rate: int,
    idle: bool,
    controls: Controls,
    driving: LandmarkTrack | None,
    sampling: SampleConfig,
    framing: Framing,
    size: int | None,
    quiet: bool,
) -> dict[str, Any]:
    """Render sound as it is read into a file, or where `output` is `-` as raw frames to standard output.

    idle: let the face idle while no sound comes; Ctrl-C then ends the sound and the file is finished, a second one
    gives up.

    Returns:
        frames, samples heard (silence between included), and the stream's length in seconds.
    """
    from atldiff.interrupt import stop_wishes
    from atldiff.live import continuous
    from atldiff.methods.framing import framed
    from atldiff.methods.portrait import resized
    from atldiff.video.gif import capped_side
    from atldiff.video.sound import LiveSound
    from atldiff.video.write import VideoWriter

    portrait = framed(portrait, framing)
    portrait = resized(portrait, size or capped_side(output, portrait.image.shape[:2]))
    shape = (portrait.image.shape[0], portrait.image.shape[1])
    to_stdout = output == STDOUT
    heard = Heard(sample_rate, keep=not to_stdout and not output.lower().endswith(".gif"))
    with stop_wishes() if idle else nullcontext(lambda: False) as stopped:
        packets = pcm_packets(source, sample_rate)
        chunks = continuous(packets, sample_rate, ended=stopped) if idle else packets
        frames = head.stream(
            portrait,
            heard.passing(chunks),
            sample_rate=sample_rate,
            controls=controls,
            driving=driving,
            sampling=sampling,
        )
        if to_stdout:
            count = write_frames(frames, shape, FPS, quiet=quiet)
        else:
            sound = LiveSound(heard.blocks(), sample_rate, 1)
            with VideoWriter(output, size=shape, fps=FPS, audio=sound) as writer:
                for frame in frames:
                    writer.write(frame)
            count = writer.frames
    watch.lap("stream")
    return {"frames": count, "samples": heard.samples, "duration_s": round(heard.samples / sample_rate, 3)}
