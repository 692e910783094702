"""`atldiff generate`: a portrait and a recording become a talking video."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

from atldiff.commands import aliases, door, live
from atldiff.commands.options import (
    DrivingOptions,
    EditOptions,
    FaceOptions,
    ModelOptions,
    PictureOptions,
    ReferenceOptions,
    ReportOptions,
    SoundOptions,
    optional,
    parse_fps,
    read,
)
from atldiff.commands.progress import Progress, Stopwatch, say, waiting, write_json
from atldiff.commands.substitutes import SUBSTITUTES
from atldiff.types import TRACK_SUFFIXES, Controls

if TYPE_CHECKING:
    from collections.abc import Callable
    from fractions import Fraction

    from atldiff.pipeline import TalkingHead, Video
    from atldiff.types import LandmarkTrack
    from atldiff.video.background import Background
    from atldiff.video.write import Written


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """Sound from standard input, rendered while it comes."""

    stdin: bool = False
    """Read a WAV, or mono 16-bit little-endian PCM, from standard input instead of AUDIO."""
    sample_rate: Annotated[int | None, optional("HZ")] = None
    """Sample rate of the PCM, 16000 when left out; a WAV states its own."""
    live: bool = False
    """Keep to the clock: the face idles while no sound comes. Ctrl-C ends the sound and finishes the file."""


ALIASES = aliases.Aliases(
    positionals=(aliases.PORTRAIT, aliases.AUDIO),
    options={**aliases.OUTPUT, **aliases.STEPS, **aliases.DRIVING, **aliases.CONTROLS, **aliases.WEIGHTS},
    substitutes=SUBSTITUTES,
)


@dataclass(frozen=True, slots=True)
class Generate:
    """Make a talking video from a portrait and a recording."""

    portrait: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PORTRAIT")]
    """A picture, or a video of which one frame is taken."""
    audio: Annotated[tyro.conf.Positional[Path | None], optional("AUDIO")] = None
    """An audio file, or a video with sound. Left out with --stdin."""
    output: Annotated[str | None, optional("OUT", "-o")] = None
    """.mp4, .mov, .mkv, .webm or .gif, a folder of PNG frames with a slash at the end, .npz or .json for the landmarks
    only, or - for raw RGB frames on standard output. PORTRAIT_AUDIO.mp4 in the current folder when left out."""
    output_dir: Annotated[Path | None, optional("FOLDER")] = None
    """Folder for that default name."""
    landmarks: Annotated[Path | None, optional("TRACK")] = None
    """Save the landmark track here as well: .npz or .json."""
    fps: Annotated[str | None, optional("N")] = None
    """Frames a second, such as 30 or 30000/1001. 1 to 120; 25 when left out."""
    preview: bool = False
    """Show the landmarks, drawn over the portrait, on the right of the result."""
    sound: SoundOptions = field(default_factory=SoundOptions)
    driving: DrivingOptions = field(default_factory=DrivingOptions)
    controls: Controls = field(default_factory=Controls)
    edits: EditOptions = field(default_factory=EditOptions)
    face: FaceOptions = field(default_factory=FaceOptions)
    references: ReferenceOptions = field(default_factory=ReferenceOptions)
    render: PictureOptions = field(default_factory=PictureOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    live: LiveOptions = field(default_factory=LiveOptions)
    report: ReportOptions = field(default_factory=ReportOptions)


class Checked(NamedTuple):
    """What the options of a video say, once nothing about them can go wrong but the inputs themselves."""

    output: str
    fps: Fraction | None
    background: Background | None


def run(args: list[str]) -> int:
    """Run the sub-command."""
    options = read(Generate, "generate", args, ALIASES)
    watch = Stopwatch()
    checked = check(options)
    if options.audio is None:
        return run_live(options, checked.output, watch, checked.background)
    check_inputs(options)
    track, written = make(options, checked, watch, quiet=options.report.quiet)
    finish(checked.output, track, watch, options.report, written, landmarks=options.landmarks)
    return 0


def check(options: Generate) -> Checked:
    """Check all that can be without looking into portrait and sound, but for the background.

    Raises:
        ValueError, MediaError: in one line.
    """
    options.render.check()
    fps = parse_fps(options.fps)
    check_sound_source(options)
    sound, driving = options.audio or Path("stdin"), options.driving.driving_video
    output = door.default_output(options.portrait, sound, ".mp4", output=options.output, folder=options.output_dir)
    if output == door.STDOUT:
        live.check_stdout(json=options.report.json)
    else:
        door.check_target(output, options.portrait, options.audio, driving, *options.references.reference)
    background = door.check_background(options.render.background, output)
    if options.landmarks is not None and options.audio is not None:
        door.check_file_target(options.landmarks, *TRACK_SUFFIXES)
        door.refuse_replacing(options.landmarks, driving)
    return Checked(output, fps, background)


def check_inputs(options: Generate) -> None:
    """Raise unless the files that a video is made of are there; what they hold is seen when they are read.

    Raises:
        ValueError, MediaError: in one line.
    """
    door.check_input(options.portrait, "portrait")
    door.check_given(options.face)
    door.check_references(options.references.reference)
    if options.audio is not None:
        door.check_input(options.audio, "audio")
    door.check_driving(options.driving.driving_video, options.controls)
    door.check_edits(options.edits)


def make(
    options: Generate,
    checked: Checked,
    watch: Stopwatch,
    *,
    quiet: bool,
    load: Callable[[ModelOptions], TalkingHead] | None = None,
) -> tuple[LandmarkTrack, Written | None]:
    """Make what was asked for of a file of sound; return its landmarks, and what a video's file holds.

    load: gives the networks, loaded once for many videos; None loads them.

    Raises:
        AtlDiffError, ValueError, OSError: in one line.
    """
    output, fps, background = checked
    driving, framing = options.driving.driving_video, options.face.framing
    assert options.audio is not None  # noqa: S101 - for the type checker: live sound is another way
    portrait, audio, driver, head = door.open_inputs(
        options.portrait,
        options.audio,
        options.face,
        options.model,
        watch,
        audio_track=options.sound.track,
        driving=driving,
        controls=options.controls,
        references=() if door.is_track(output) else options.references.reference,
        quiet=quiet,
        load=load,
    )
    opened = door.open_portrait(head, portrait, options.face, quiet=quiet, landmarks_only=door.is_track(output))
    watch.lap("portrait")

    with waiting("Making the landmarks", quiet=quiet):
        if door.is_track(output):
            video = None
            track = head.landmarks(
                opened,
                audio,
                framing=framing,
                controls=options.controls,
                driving=driver,
                fps=fps,
                edits=options.edits,
            )
        else:
            video = head(
                opened,
                audio,
                framing=framing,
                controls=options.controls,
                driving=driver,
                sampling=options.render.sampling(head.sampling),
                fps=fps,
                edits=options.edits,
                size=options.render.size,
                background=background,
                preview=options.preview,
            )
            track = video.track
    for path in (output if video is None else None, options.landmarks):
        if path is not None:
            track.save(path)
    watch.lap("landmarks")
    if video is not None and output == door.STDOUT:
        live.write_frames(video, video.size, float(video.fps), quiet=quiet)
        watch.lap("render")
    elif video is not None:
        save_video(video, output, watch, quiet=quiet)
    return track, None if video is None or output == door.STDOUT else video.written


def check_sound_source(options: Generate) -> None:
    """Raise unless there is one source of sound, and nothing that a stream cannot do is asked of it.

    Raises:
        ValueError: otherwise.
    """
    if options.live.stdin and options.audio is not None:
        raise ValueError(f"audio: got both {options.audio} and --stdin, expected one of them")
    if not options.live.stdin:
        if options.audio is None:
            raise ValueError("audio: got none, expected an audio file, or --stdin")
        if options.live.live:
            raise ValueError("live: got --live with a file, expected it with --stdin")
        return
    if options.sound.audio_track is not None:
        raise ValueError(f"audio_track: got {options.sound.audio_track} with --stdin, expected it with a file")
    tracked = options.landmarks is not None or (options.output is not None and door.is_track(options.output))
    later = [name for name, changed in _changed(options.edits) if changed]
    for name, given in (
        ("--fps", options.fps),
        ("--landmarks or .npz", tracked or None),
        (f"--{later[0].replace('_', '-')}" if later else "", later or None),
        ("--preview", options.preview or None),
    ):
        if given is not None:
            raise ValueError(
                f"stdin: got {name} with --stdin; a stream is rendered as it comes, at 25 fps: leave it out"
            )
    from atldiff.audio.resampling import MAX_RATE, MIN_RATE

    if options.live.sample_rate is not None and not MIN_RATE <= options.live.sample_rate <= MAX_RATE:
        raise ValueError(f"sample_rate: got {options.live.sample_rate}, expected {MIN_RATE} to {MAX_RATE} Hz")


def _changed(edits: EditOptions) -> list[tuple[str, bool]]:
    """Return the names of the edits, and whether they were asked for."""
    return [(entry.name, getattr(edits, entry.name) != entry.default) for entry in fields(edits)]


def run_live(options: Generate, output: str, watch: Stopwatch, background: Background | None) -> int:
    """Render standard input."""
    from atldiff.media.piped import Pipe

    pipe = Pipe(live.check_stdin())
    quiet, driving = options.report.quiet, options.driving.driving_video
    references = options.references.reference
    door.check_input(options.portrait, "portrait")
    door.check_given(options.face)
    door.check_references(references)
    door.check_driving(driving, options.controls)
    found = door.look_for_face(options.portrait, options.face, references, quiet=quiet)
    watch.lap("portrait")
    pipe.refuse_others(options.live.sample_rate or live.DEFAULT_RATE, live.LOOK_S)
    driver = None if driving is None else door.track_driver(driving, options.controls, watch, quiet=quiet)
    head = door.load_head(options.model, quiet=quiet)
    opened = door.open_portrait(head, found, options.face, quiet=quiet)
    watch.lap("load")
    made = live.generate_live(
        head,
        opened,
        pipe,
        output,
        watch,
        sample_rate=options.live.sample_rate,
        idle=options.live.live,
        controls=options.controls,
        driving=driver,
        sampling=options.render.sampling(head.sampling),
        framing=options.face.framing,
        size=options.render.size,
        background=background,
        quiet=quiet,
    )
    if options.report.json:
        write_json({"output": output, **made, "seconds": {n: round(s, 3) for n, s in watch.seconds.items()}})
    else:
        said = f"{output}: {made['duration_s']:.1f} s, {made['frames']} frames, in {watch.seconds['stream']:.1f} s"
        say(said, quiet=quiet)
    return 0


def save_video(video: Video, output: str, watch: Stopwatch, *, quiet: bool) -> None:
    """Render a video into a file, with progress, and book the seconds of both stages."""
    with Progress("rendering", quiet=quiet) as progress:
        video.save(output, progress=progress)
    watch.lap("save")
    watch.seconds.pop("save")
    watch.seconds.update(video.seconds)


def finish(
    output: str,
    track: LandmarkTrack,
    watch: Stopwatch,
    report: ReportOptions,
    written: Written | None = None,
    *,
    landmarks: Path | None = None,
    preview: Path | None = None,
) -> None:
    """Say what was made and how long it took: as JSON on stdout, or as a line on stderr.

    written: what the file holds, where it is a video; otherwise it is as the track says.
    """
    (height, width), fps, frames = written or (track.size, track.fps, len(track))
    duration_s = len(track) / float(track.fps)
    total = watch.total
    if report.json:
        result: dict[str, Any] = {
            "output": output,
            "frames": frames,
            "fps": float(fps),
            "width": width,
            "height": height,
            "duration_s": round(duration_s, 3),
            "seconds": {stage: round(value, 3) for stage, value in (*watch.seconds.items(), ("total", total))},
            "real_time_factor": round(total / duration_s, 3) if duration_s else None,
        }
        for name, path in (("landmarks", landmarks), ("preview", preview)):
            if path is not None:
                result[name] = str(path)
        write_json(result)
        return
    say(
        f"{output}: {duration_s:.1f} s, {frames} frames of {width}x{height} at {float(fps):g} fps, "
        f"made in {total:.1f} s",
        quiet=report.quiet,
    )
