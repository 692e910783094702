"""`atldiff generate --stdin` and `-o -`: sound from standard input as it comes, raw frames to standard output."""

from __future__ import annotations

import sys
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from atldiff.commands.door import STDOUT
from atldiff.commands.progress import say
from atldiff.errors import MediaError
from atldiff.media.piped import open_wav, pcm_packets, places, wav_packets
from atldiff.timebase import FPS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from atldiff.commands.progress import Stopwatch
    from atldiff.config import SampleConfig
    from atldiff.media.piped import Pipe
    from atldiff.methods.portrait import Size
    from atldiff.pipeline import TalkingHead
    from atldiff.types import Controls, Framing, LandmarkTrack, Portrait
    from atldiff.video.background import Background

DEFAULT_RATE = 16_000
"""Sample rate of PCM whose rate is not stated, in Hz."""
LOOK_S = 0.3
"""How long the first bytes are waited for where there is something else to do."""


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


@dataclass(frozen=True, slots=True)
class PipedSound:
    """Sound from standard input. packets: (n,), or (n, channels) of several; rate: Hz; places: of the channels."""

    packets: Iterator[np.ndarray]
    rate: int
    places: tuple[str, ...] = ("FC",)

    @property
    def channels(self) -> int:
        """How many channels there are."""
        return len(self.places)


def open_sound(pipe: Pipe, sample_rate: int | None, *, idle: bool, quiet: bool) -> PipedSound:
    """Return the sound of standard input: a WAV as its header says, or mono 16-bit PCM.

    sample_rate: of PCM, in Hz; a WAV must agree with it. idle: do not wait for it to begin; what begins later than
    after 0.3 s has to be mono and of `sample_rate`, 16 kHz if None.

    Raises:
        MediaError: another container, or a WAV that is not taken. ValueError: a WAV of another rate than was asked for.
    """
    from atldiff.audio.resampling import MAX_CHANNELS, MAX_RATE, MIN_RATE

    rate = DEFAULT_RATE if sample_rate is None else sample_rate
    patience_s = LOOK_S if idle else None
    pipe.refuse_others(rate, patience_s)
    if pipe.kind(patience_s) is None:
        return PipedSound(_packets(pipe, rate) if idle else pcm_packets(pipe, rate), rate)
    header = open_wav(pipe)
    form = header.format
    said = f"{form.rate} Hz, {form.channels} channel{'s' * (form.channels != 1)}, {form.bits} bits"
    if not MIN_RATE <= form.rate <= MAX_RATE or form.channels > MAX_CHANNELS:
        expected = f"{MIN_RATE} to {MAX_RATE} Hz and at most {MAX_CHANNELS} channels"
        raise MediaError(f"stdin: got a WAV of {said}, expected {expected}: convert it")
    if sample_rate not in (None, form.rate):
        raise ValueError(
            f"sample_rate: got {sample_rate} for a WAV of {form.rate} Hz, expected the same: leave --sample-rate out"
        )
    say(f"stdin: a WAV of {said}", quiet=quiet)
    return PipedSound(wav_packets(pipe, header), form.rate, tuple(places(form)))


def _packets(pipe: Pipe, rate: int) -> Iterator[np.ndarray]:
    """Yield what begins, at last, while the face idles already: mono, at `rate`."""
    pipe.refuse_others(rate)
    if pipe.kind() is None:
        yield from pcm_packets(pipe, rate)
        return
    header = open_wav(pipe)
    if header.format.rate != rate or header.format.channels != 1:
        got = f"a WAV of {header.format.rate} Hz, {header.format.channels} channels"
        raise MediaError(
            f"stdin: got {got} after the face had begun to idle, expected mono of {rate} Hz: give --sample-rate"
        )
    yield from wav_packets(pipe, header)


def in_columns(chunks: Iterable[np.ndarray], channels: int) -> Iterator[np.ndarray]:
    """Yield chunks of several channels as (n, channels), silence included, of one as they are."""
    for chunk in chunks:
        yield chunk if channels == 1 or chunk.ndim == 2 else np.repeat(chunk[:, None], channels, axis=1)


def mixed(chunks: Iterable[np.ndarray], sound: PipedSound) -> Iterator[np.ndarray]:
    """Yield chunks of more than two channels mixed down by their places, others as they are."""
    if sound.channels <= 2:
        yield from chunks
        return
    from atldiff.audio.channels import Downmix, places_of
    from atldiff.audio.resampling import scaled

    known, assumed = places_of(sound.places)
    downmix = Downmix(sound.rate, sound.channels, known, assumed=assumed)
    for chunk in chunks:
        yield np.clip(downmix.push(scaled(chunk)), -1.0, 1.0)
    yield np.clip(downmix.flush(), -1.0, 1.0)


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

    def __init__(self, channels: int = 1, *, keep: bool) -> None:
        self.samples = 0
        self._channels, self._keep = channels, keep
        self._kept: deque[np.ndarray] = deque()
        self._over = False

    def passing(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the chunks, (n,) or (n, channels), and remember them."""
        for chunk in chunks:
            self.samples += len(chunk)
            if self._keep:
                self._kept.append(chunk)
            yield chunk
        self._over = True

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield what was heard, (n, channels) float32, and empty blocks while nothing new was; ends with the chunks."""
        from atldiff.audio.resampling import scaled

        while self._kept or not self._over:
            if self._kept:
                yield scaled(self._kept.popleft()).reshape(-1, self._channels)
            else:
                yield np.zeros((0, self._channels), np.float32)


def generate_live(
    head: TalkingHead,
    portrait: Portrait,
    pipe: Pipe,
    output: str,
    watch: Stopwatch,
    *,
    sample_rate: int | None,
    idle: bool,
    controls: Controls,
    driving: LandmarkTrack | None,
    sampling: SampleConfig,
    framing: Framing,
    size: Size,
    background: Background | None,
    quiet: bool,
) -> dict[str, Any]:
    """Render sound as it is read into a file, or where `output` is `-` as raw frames to standard output.

    sample_rate: Hz, of sound that does not state it itself; 16 000 if None.
    idle: let the face idle while no sound comes; Ctrl-C then ends the sound and the file is finished, a second one
    gives up.

    Returns:
        frames, samples heard (silence between included), and the stream's length in seconds.
    """
    from atldiff.interrupt import stop_wishes
    from atldiff.live import continuous
    from atldiff.methods.framing import framed
    from atldiff.methods.portrait import resized, say_if_smaller
    from atldiff.video.background import is_transparent
    from atldiff.video.formats import keeps_alpha
    from atldiff.video.gif import capped_side
    from atldiff.video.sound import LiveSound
    from atldiff.video.write import VideoWriter

    whole = framed(portrait, framing)
    side = capped_side(output, whole.size) if size is None else size
    portrait = resized(whole, side)
    if side is None:
        say_if_smaller(whole.size, portrait.size)
    shape = portrait.size
    to_stdout = output == STDOUT
    if background is None and not to_stdout and keeps_alpha(output) and portrait.alpha is not None:
        background = "transparent"
    alpha = portrait.alpha is not None and is_transparent(background)
    with stop_wishes() if idle else nullcontext(lambda: False) as stopped:
        piped = open_sound(pipe, sample_rate, idle=idle, quiet=quiet)
        heard = Heard(piped.channels, keep=not to_stdout and not output.lower().endswith(".gif"))
        chunks = continuous(piped.packets, piped.rate, ended=stopped) if idle else piped.packets
        frames = head.stream(
            portrait,
            mixed(heard.passing(in_columns(chunks, piped.channels)), piped),
            sample_rate=piped.rate,
            controls=controls,
            driving=driving,
            sampling=sampling,
            size="full",
            background=background,
        )
        if to_stdout:
            count = write_frames(frames, shape, FPS, quiet=quiet)
        else:
            sound = LiveSound(heard.blocks(), piped.rate, piped.channels)
            with VideoWriter(output, size=shape, fps=FPS, audio=sound, alpha=alpha) as writer:
                for frame in frames:
                    writer.write(frame)
            count = writer.frames
    watch.lap("stream")
    return {"frames": count, "samples": heard.samples, "duration_s": round(heard.samples / piped.rate, 3)}
