"""`atldiff landmarks`: a portrait and a recording become a landmark track."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from atldiff.commands import aliases, door
from atldiff.commands.generate import finish
from atldiff.commands.options import (
    DrivingOptions,
    FaceOptions,
    ModelOptions,
    ReportOptions,
    SoundOptions,
    optional,
    parse_fps,
    read,
)
from atldiff.commands.progress import Stopwatch, waiting
from atldiff.commands.substitutes import SUBSTITUTES
from atldiff.types import TRACK_SUFFIXES, Controls

ALIASES = aliases.Aliases(
    positionals=(aliases.PORTRAIT, aliases.AUDIO),
    options={**aliases.OUTPUT, **aliases.DRIVING, **aliases.CONTROLS, **aliases.WEIGHTS},
    substitutes=SUBSTITUTES,
)


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Make the landmark track of a portrait speaking a recording, to look at, to edit or to render."""

    portrait: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PORTRAIT")]
    """A picture, or a video of which one frame is taken."""
    audio: Annotated[tyro.conf.Positional[Path | None], optional("AUDIO")] = None
    """An audio file, or a video with sound."""
    output: Annotated[str | None, optional("TRACK", "-o")] = None
    """Where the track goes, .npz or .json; PORTRAIT_AUDIO.npz in the current folder when left out."""
    output_dir: Annotated[Path | None, optional("FOLDER")] = None
    """Folder for that default name."""
    fps: Annotated[str | None, optional("N")] = None
    """Frames a second, such as 30 or 30000/1001. 1 to 120; 25 when left out."""
    sound: SoundOptions = field(default_factory=SoundOptions)
    driving: DrivingOptions = field(default_factory=DrivingOptions)
    controls: Controls = field(default_factory=Controls)
    face: FaceOptions = field(default_factory=FaceOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    report: ReportOptions = field(default_factory=ReportOptions)


def run(args: list[str]) -> int:
    """Run the sub-command."""
    options = read(Landmarks, "landmarks", args, ALIASES)
    watch = Stopwatch()
    quiet = options.report.quiet
    if options.audio is None:
        raise ValueError("landmarks: got no audio, expected a recording: atldiff landmarks PORTRAIT AUDIO -o TRACK.npz")
    fps, driving = parse_fps(options.fps), options.driving.driving_video
    output = door.default_output(
        options.portrait, options.audio, TRACK_SUFFIXES[0], output=options.output, folder=options.output_dir
    )
    door.check_file_target(Path(output), *TRACK_SUFFIXES)
    door.refuse_replacing(output, driving)
    door.check_input(options.portrait, "portrait")
    door.check_given(options.face)
    door.check_input(options.audio, "audio")
    door.check_driving(driving, options.controls)

    portrait, audio, driver, head = door.open_inputs(
        options.portrait,
        options.audio,
        options.face,
        options.model,
        watch,
        audio_track=options.sound.track,
        driving=driving,
        controls=options.controls,
        quiet=quiet,
    )
    opened = door.open_portrait(head, portrait, options.face, quiet=quiet, landmarks_only=True)
    with waiting("Making the landmarks", quiet=quiet):
        track = head.landmarks(
            opened,
            audio,
            framing=options.face.framing,
            controls=options.controls,
            driving=driver,
            fps=fps,
        )
    track.save(output)
    watch.lap("landmarks")
    finish(output, track, watch, options.report)
    return 0
