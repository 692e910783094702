"""`atldiff render`: a landmark track becomes a video of a portrait, its own or another one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from atldiff.commands import aliases, door
from atldiff.commands.generate import finish, save_video
from atldiff.commands.options import (
    FaceOptions,
    ModelOptions,
    PictureOptions,
    ReferenceOptions,
    ReportOptions,
    SoundOptions,
    TrackEditOptions,
    optional,
    parse_fps,
    read,
)
from atldiff.commands.progress import Stopwatch
from atldiff.commands.substitutes import SUBSTITUTES
from atldiff.emotions import parse_emotion

ALIASES = aliases.Aliases(
    positionals=(aliases.PORTRAIT, ("--track", "--landmarks")),
    options={
        **aliases.OUTPUT,
        **aliases.STEPS,
        **aliases.WEIGHTS,
        **aliases.CONTROLS,
        **{name: "--audio" for name in aliases.AUDIO if name != "--audio"},
    },
    substitutes=SUBSTITUTES,
)


@dataclass(frozen=True, slots=True)
class Render:
    """Make a video from a portrait and a landmark track. A track of another person is carried over to this face."""

    portrait: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PORTRAIT")]
    """A picture, or a video of which one frame is taken."""
    track: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="TRACK")]
    """A landmark track, .npz or .json, such as `atldiff landmarks` makes."""
    output: Annotated[str | None, optional("OUT", "-o")] = None
    """.mp4, .mov, .mkv, .webm or .gif, or a folder of PNG frames with a slash at the end. PORTRAIT_TRACK.mp4 in the
    current folder when left out."""
    output_dir: Annotated[Path | None, optional("FOLDER")] = None
    """Folder for that default name."""
    audio: Annotated[Path | None, optional("AUDIO")] = None
    """Sound for the video; silent when left out."""
    fps: Annotated[str | None, optional("N")] = None
    """Frames a second, such as 30 or 30000/1001. 1 to 120; the track's own when left out."""
    preview: bool = False
    """Show the landmarks, drawn over the portrait, on the right of the result."""
    seed: int = 0
    """Seed of the noise, and of blinks and heads that are drawn anew. Range 0 to 2**32 - 1."""
    emotion: Annotated[str | None, optional("EMOTION[:0..1.5][@SECONDS] ...")] = None
    """Emotion to add to the track: one of MEAD's eight, such as happy:0.7, or several over time, such as
    "neutral happy@2.5". Methods that were trained with labels are told a plain word instead."""
    edits: TrackEditOptions = field(default_factory=TrackEditOptions)
    sound: SoundOptions = field(default_factory=SoundOptions)
    face: FaceOptions = field(default_factory=FaceOptions)
    references: ReferenceOptions = field(default_factory=ReferenceOptions)
    render: PictureOptions = field(default_factory=PictureOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    report: ReportOptions = field(default_factory=ReportOptions)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed: got {self.seed}, expected 0 to 2**32 - 1")
        if self.emotion is not None:
            parse_emotion(self.emotion)


def run(args: list[str]) -> int:
    """Run the sub-command."""
    options = read(Render, "render", args, ALIASES)
    watch = Stopwatch()
    quiet = options.report.quiet
    options.render.check()
    fps = parse_fps(options.fps)
    output = door.default_output(
        options.portrait, options.track, ".mp4", output=options.output, folder=options.output_dir
    )
    if door.is_track(output):
        raise ValueError(f"output {output}: got a track, expected a video such as out.mp4")
    door.check_target(output, options.portrait, options.audio, *options.references.reference)
    background = door.check_background(options.render.background, output)
    door.check_input(options.portrait, "portrait")
    door.check_given(options.face)
    door.check_references(options.references.reference)
    door.check_input(options.track, "landmark track")

    door.check_edits(options.edits)

    from atldiff.landmarks.edit import at_fps
    from atldiff.types import LandmarkTrack

    track = LandmarkTrack.load(options.track)
    if not len(track):
        raise ValueError(f"landmark track {options.track}: got no frames, expected at least one")
    if fps is not None:
        track = at_fps(track, fps)
    audio = None
    if options.audio is None and options.sound.audio_track is not None:
        raise ValueError(f"audio_track: got {options.sound.audio_track} without --audio, expected a file that has it")
    if options.audio is not None:
        from atldiff.audio.load import load_audio

        door.check_input(options.audio, "audio")
        audio = load_audio(options.audio, audio_track=options.sound.track)
    watch.lap("audio")
    found = door.look_for_face(options.portrait, options.face, options.references.reference, quiet=quiet)
    watch.lap("portrait")
    head = door.load_head(options.model, quiet=quiet)
    watch.lap("load")
    portrait = door.open_portrait(head, found, options.face, quiet=quiet)
    watch.lap("portrait")
    video = head.render(
        portrait,
        track,
        audio=audio,
        framing=options.face.framing,
        sampling=options.render.sampling(head.sampling),
        seed=options.seed,
        size=options.render.size,
        background=background,
        emotion=options.emotion,
        edits=options.edits,
        preview=options.preview,
    )
    watch.lap("landmarks")
    save_video(video, output, watch, quiet=quiet)
    finish(output, video.track, watch, options.report, video.written)
    return 0
