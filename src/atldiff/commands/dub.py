"""`atldiff dub`: a video in which somebody says something else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from atldiff.commands import aliases, door
from atldiff.commands.options import ModelOptions, ReportOptions, SamplingOptions, SoundOptions, optional, read
from atldiff.commands.progress import Progress, Stopwatch, say, write_json
from atldiff.types import Controls

if TYPE_CHECKING:
    from collections.abc import Callable

    from atldiff.dubbing.dub import Dub as DubbedVideo
    from atldiff.pipeline import TalkingHead

ALIASES = aliases.Aliases(
    positionals=(("--video", "--video-path", "--source", "--source-path", "--source-video"), aliases.AUDIO),
    options={**aliases.OUTPUT, **aliases.STEPS, **aliases.WEIGHTS, "--smoothing": "--smoothing-frames"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DubFaceOptions:
    """Whose mouth, and what of frames that do not show it."""

    face: Annotated[str | None, optional("largest|N|X,Y|PICTURE")] = None
    """Of several faces the one to dub: the largest; its number, as `atldiff faces` shows it; a place in the first frame
    with a face, in pixels; or a picture of the person. The largest when left out."""
    on_missing: Literal["hold", "skip", "passthrough", "error"] = "hold"
    """Frames that do not show the face: hold interpolates it over up to 0.4 s and leaves longer ones as they are,
    passthrough leaves them all, skip leaves them out, error stops before anything is rendered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """How video and speech come to one length."""

    fit: Literal["loop", "freeze", "cut"] = "loop"
    """loop: as long as the speech, a shorter video plays forth and back; freeze: as long as the longer, on the last
    frame; cut: as long as the shorter."""
    keep_audio: bool = False
    """Keep the video's own sound as a second track."""
    resume: bool = False
    """Go on from the NAME.partial file that an interrupted dub of the same inputs and options has left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MouthOptions:
    """How the mouth moves."""

    expression_scale: float = 1.0
    """Gain on the generated mouth motion; 0 freezes the mouth, 1 is as trained. Range 0 to 3."""
    smoothing_frames: float = 0.0
    """Gaussian sigma, in frames at 25 a second, applied to it. Range 0 to 5."""
    silence_gate: bool = True
    """Close the mouth where nobody speaks: in silence, noise and music."""
    seed: int = 0
    """Seed of the noise. Range 0 to 2**32 - 1."""

    def controls(self) -> Controls:
        """Return them as the pipeline takes them.

        Raises:
            ValueError: out of range.
        """
        return Controls(
            expression_scale=self.expression_scale, smoothing_frames=self.smoothing_frames,
            silence_gate=self.silence_gate, seed=self.seed, still=True,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dub:
    """Have the face of a video say something else: only its mouth and jaw change."""

    video: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="VIDEO")]
    """A video in which a face is seen."""
    speech: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SPEECH")]
    """What is to be said: an audio file, or a video with sound."""
    output: Annotated[str | None, optional("OUT", "-o")] = None
    """.mp4, .mov, .mkv or .webm. VIDEO_SPEECH.mp4 in the current folder when left out."""
    output_dir: Annotated[Path | None, optional("FOLDER")] = None
    """Folder for that default name."""
    sound: SoundOptions = field(default_factory=SoundOptions)
    face: DubFaceOptions = field(default_factory=DubFaceOptions)
    fit: FitOptions = field(default_factory=FitOptions)
    mouth: MouthOptions = field(default_factory=MouthOptions)
    render: SamplingOptions = field(default_factory=SamplingOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    report: ReportOptions = field(default_factory=ReportOptions)


def run(args: list[str]) -> int:
    """Run the sub-command."""
    options = read(Dub, "dub", args, ALIASES)
    watch = Stopwatch()
    output = check(options)
    dub = make(options, output, watch, quiet=options.report.quiet)
    finish(output, dub, watch, options.report)
    return 0


def check(options: Dub) -> str:
    """Return where the video goes, once nothing can go wrong but what its files hold.

    Raises:
        ValueError, MediaError: in one line.
    """
    options.render.check()
    options.mouth.controls()
    output = door.default_output(
        options.video, options.speech, ".mp4", output=options.output, folder=options.output_dir
    )

    from atldiff.dubbing.writer import check_dub_output

    check_dub_output(output)
    door.refuse_replacing(output, options.video, options.speech)
    door.check_input(options.video, "video")
    door.check_input(options.speech, "audio")
    return output


def make(
    options: Dub,
    output: str,
    watch: Stopwatch,
    *,
    quiet: bool,
    load: Callable[[ModelOptions], TalkingHead] | None = None,
) -> DubbedVideo:
    """Make the video and return it. load: gives the networks, loaded once for many videos; None loads them.

    Raises:
        AtlDiffError, ValueError, OSError: in one line.
    """
    from atldiff.audio.load import load_audio
    from atldiff.dubbing.choice import WantedFace
    from atldiff.video.footage import Footage

    Footage.open(options.video)
    wanted = WantedFace.of(options.face.face)
    recording = load_audio(options.speech, audio_track=options.sound.track)
    watch.lap("audio")
    head = door.load_head(options.model, quiet=quiet) if load is None else load(options.model)
    watch.lap("load")
    with Progress("following the face", quiet=quiet) as progress:
        dub = head.dub(
            options.video, recording, face=wanted, on_missing=options.face.on_missing, fit=options.fit.fit,
            controls=options.mouth.controls(), sampling=options.render.sampling(head.sampling), progress=progress,
        )  # fmt: skip
    watch.lap("track")
    say(describe(options.video, dub), quiet=quiet)
    with Progress("rendering", quiet=quiet) as progress:
        dub.save(output, keep_audio=options.fit.keep_audio, resume=options.fit.resume, progress=progress)
    watch.lap("render")
    return dub


def describe(video: Path, dub: DubbedVideo) -> str:
    """Return how many frames show the face, and how many will be made of them, in one line."""
    found, frames = dub.found
    return f"{video}: the face is seen in {found} of {frames} frames; {len(dub)} frames will be made"


def finish(output: str, dub: DubbedVideo, watch: Stopwatch, report: ReportOptions) -> None:
    """Say what was made and how long it took."""
    duration_s, total = float(dub.duration), watch.total
    height, width = dub.size
    if report.json:
        result: dict[str, Any] = {
            "output": output,
            "frames": len(dub),
            "width": width,
            "height": height,
            "duration_s": round(duration_s, 3),
            "frames_of_video": dub.found[1],
            "frames_with_face": dub.found[0],
            "seconds": {name: round(value, 3) for name, value in (*watch.seconds.items(), ("total", total))},
            "real_time_factor": round(total / duration_s, 3),
        }
        write_json(result)
        return
    say(
        f"{output}: {duration_s:.1f} s, {len(dub)} frames of {width}x{height}, made in {total:.1f} s",
        quiet=report.quiet,
    )
