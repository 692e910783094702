"""`atldiff generate`: a portrait and a recording become a talking video."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from atldiff.commands import aliases, door
from atldiff.commands.options import FaceOptions, ModelOptions, RenderOptions, ReportOptions, optional, parse_fps, read
from atldiff.commands.progress import Progress, Stopwatch, say, waiting, write_json
from atldiff.types import Controls

if TYPE_CHECKING:
    from atldiff.pipeline import Video
    from atldiff.types import LandmarkTrack

ALIASES = aliases.Aliases(
    positionals=(aliases.PORTRAIT, aliases.AUDIO), options={**aliases.OUTPUT, **aliases.STEPS, **aliases.CONTROLS}
)


@dataclass(frozen=True, slots=True)
class Generate:
    """Make a talking video from a portrait and a recording."""

    portrait: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PORTRAIT")]
    """A picture, or a video of which one frame is taken."""
    audio: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="AUDIO")]
    """An audio file, or a video with sound."""
    output: Annotated[str | None, optional("OUT", "-o")] = None
    """.mp4, .mov, .mkv, .webm or .gif, a folder of PNG frames with a slash at the end, or .npz for the landmarks only.
    PORTRAIT_AUDIO.mp4 in the current folder when left out."""
    output_dir: Annotated[Path | None, optional("FOLDER")] = None
    """Folder for that default name."""
    landmarks: Annotated[Path | None, optional("TRACK.npz")] = None
    """Save the landmark track here as well."""
    fps: Annotated[str | None, optional("N")] = None
    """Frames a second, such as 30 or 30000/1001. 1 to 120; 25 when left out."""
    controls: Controls = field(default_factory=Controls)
    face: FaceOptions = field(default_factory=FaceOptions)
    render: RenderOptions = field(default_factory=RenderOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    report: ReportOptions = field(default_factory=ReportOptions)


def run(args: list[str]) -> int:
    """Run the sub-command."""
    options = read(Generate, "generate", args, ALIASES)
    watch = Stopwatch()
    quiet = options.report.quiet
    options.render.check()
    fps = parse_fps(options.fps)
    output = door.default_output(
        options.portrait, options.audio, ".mp4", output=options.output, folder=options.output_dir
    )
    door.check_target(output, options.portrait, options.audio)
    if options.landmarks is not None:
        door.check_file_target(options.landmarks, door.TRACK_SUFFIX)
    door.check_input(options.portrait, "portrait")
    door.check_input(options.audio, "audio")

    portrait, audio, head = door.open_inputs(
        options.portrait, options.audio, options.face, options.model, watch, quiet=quiet
    )
    opened = head.open_portrait(portrait, face=options.face.face, frame=options.face.frame)
    watch.lap("portrait")

    with waiting("Making the landmarks", quiet=quiet):
        if door.is_track(output):
            video, track = None, head.landmarks(opened, audio, controls=options.controls, fps=fps)
        else:
            sampling = options.render.sampling(head.model.config)
            video = head(opened, audio, controls=options.controls, sampling=sampling, fps=fps, size=options.render.size)
            track = video.track
    for path in (output if video is None else None, options.landmarks):
        if path is not None:
            track.save(path)
    watch.lap("landmarks")
    if video is not None:
        save_video(video, output, watch, quiet=quiet)
    finish(output, track, watch, options.report, landmarks=options.landmarks)
    return 0


def save_video(video: Video, output: str, watch: Stopwatch, *, quiet: bool) -> None:
    """Render a video into a file, with progress, and book the seconds of both stages."""
    with Progress("rendering", quiet=quiet) as progress:
        video.save(output, progress=progress)
    watch.lap("save")
    watch.seconds.pop("save")
    watch.seconds.update(video.seconds)


def finish(
    output: str, track: LandmarkTrack, watch: Stopwatch, report: ReportOptions, *, landmarks: Path | None = None
) -> None:
    """Say what was made and how long it took: as JSON on stdout, or as a line on stderr."""
    height, width = track.size
    duration_s = len(track) / float(track.fps)
    total = watch.total
    if report.json:
        result: dict[str, Any] = {
            "output": output,
            "frames": len(track),
            "fps": float(track.fps),
            "width": width,
            "height": height,
            "duration_s": round(duration_s, 3),
            "seconds": {stage: round(value, 3) for stage, value in (*watch.seconds.items(), ("total", total))},
            "real_time_factor": round(total / duration_s, 3) if duration_s else None,
        }
        if landmarks is not None:
            result["landmarks"] = str(landmarks)
        write_json(result)
        return
    say(
        f"{output}: {duration_s:.1f} s, {len(track)} frames of {width}x{height} at {float(track.fps):g} fps, "
        f"made in {total:.1f} s",
        quiet=report.quiet,
    )
