"""`atldiff landmarks`: a portrait and a recording, or a video, become a landmark track."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

from atldiff.commands import aliases, door
from atldiff.commands.generate import finish
from atldiff.commands.options import (
    DrivingOptions,
    EditOptions,
    FaceOptions,
    ModelOptions,
    ReportOptions,
    SoundOptions,
    optional,
    parse_fps,
    read,
)
from atldiff.commands.progress import Progress, Stopwatch, waiting
from atldiff.commands.substitutes import SUBSTITUTES
from atldiff.types import MOTION_STYLES, TRACK_SUFFIXES, Controls

if TYPE_CHECKING:
    from collections.abc import Iterable
    from fractions import Fraction

    import numpy as np

    from atldiff.types import LandmarkTrack

ALIASES = aliases.Aliases(
    positionals=(aliases.PORTRAIT, aliases.AUDIO),
    options={**aliases.OUTPUT, **aliases.DRIVING, **aliases.CONTROLS, **aliases.WEIGHTS},
    substitutes=SUBSTITUTES,
)


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Make the landmark track of a portrait speaking a recording, or of a video, to look at, to edit or to render."""

    portrait: Annotated[tyro.conf.Positional[Path | None], optional("PORTRAIT")] = None
    """A picture, or a video of which one frame is taken. May be left out with --from-video."""
    audio: Annotated[tyro.conf.Positional[Path | None], optional("AUDIO")] = None
    """An audio file, or a video with sound. Left out with --from-video."""
    from_video: Annotated[Path | None, optional("VIDEO")] = None
    """Track the face of this video instead; with PORTRAIT, carry its motion over to that face."""
    output: Annotated[str | None, optional("TRACK", "-o")] = None
    """Where the track goes, .npz or .json; PORTRAIT_AUDIO.npz or VIDEO.npz in the current folder when left out."""
    output_dir: Annotated[Path | None, optional("FOLDER")] = None
    """Folder for that default name."""
    preview: Annotated[Path | None, optional("FILE")] = None
    """Draw the landmarks over the portrait, or the video, into this video as well; or their middle frame, .png or
    .jpg."""
    fps: Annotated[str | None, optional("N")] = None
    """Frames a second, such as 30 or 30000/1001. 1 to 120; 25 when left out, and with --from-video the video's own."""
    sound: SoundOptions = field(default_factory=SoundOptions)
    driving: DrivingOptions = field(default_factory=DrivingOptions)
    controls: Controls = field(default_factory=Controls)
    edits: EditOptions = field(default_factory=EditOptions)
    face: FaceOptions = field(default_factory=FaceOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    report: ReportOptions = field(default_factory=ReportOptions)


def run(args: list[str]) -> int:
    """Run the sub-command."""
    options = read(Landmarks, "landmarks", args, ALIASES)
    watch = Stopwatch()
    fps, driving = parse_fps(options.fps), options.driving.driving_video
    _check_sources(options)
    output = door.default_output(
        *((options.portrait, options.audio) if options.from_video is None else (options.portrait, options.from_video)),
        TRACK_SUFFIXES[0],
        output=options.output,
        folder=options.output_dir,
    )
    door.check_file_target(Path(output), *TRACK_SUFFIXES)
    inputs = (options.portrait, options.audio, options.from_video, driving)
    door.refuse_replacing(output, *inputs)
    if options.preview is not None:
        door.check_preview(options.preview)
        door.refuse_replacing(options.preview, *inputs)
    if options.portrait is not None:
        door.check_input(options.portrait, "portrait")
    door.check_given(options.face)
    if options.audio is not None:
        door.check_input(options.audio, "audio")
    door.check_driving(driving, options.controls)
    door.check_edits(options.edits)
    made = _spoken(options, watch, fps) if options.from_video is None else _filmed(options, watch, fps)
    made.track.save(output)
    watch.lap("landmarks")
    if options.preview is not None:
        with waiting("Drawing the landmarks", quiet=options.report.quiet):
            from atldiff.methods.landmark_preview import write_preview

            write_preview(options.preview, made.track, made.pictures, sound=made.sound)
        watch.lap("preview")
    finish(output, made.track, watch, options.report, preview=options.preview)
    return 0


class _Made(NamedTuple):
    """A track, what it is drawn over, and the sound of that."""

    track: LandmarkTrack
    pictures: np.ndarray | Iterable[np.ndarray]
    sound: Path | None


def _check_sources(options: Landmarks) -> None:
    """Raise ValueError unless a track can be made: of a portrait and a recording, or of a video."""
    if options.from_video is None:
        for name, given, kind in (("portrait", options.portrait, "a picture"), ("audio", options.audio, "a recording")):
            if given is None:
                line = "atldiff landmarks PORTRAIT AUDIO -o TRACK.npz"
                raise ValueError(f"landmarks: got no {name}, expected {kind}: {line}, or --from-video VIDEO")
        return
    for name, given in (("AUDIO", options.audio), ("--driving-video", options.driving.driving_video)):
        if given is not None:
            raise ValueError(f"from_video: got it with {name} {given}, expected only one that moves the face")


def _spoken(options: Landmarks, watch: Stopwatch, fps: Fraction | None) -> _Made:
    """Make the track of a portrait that speaks."""
    assert options.portrait is not None  # noqa: S101 - for the type checker: `_check_sources` saw to it
    assert options.audio is not None  # noqa: S101
    quiet = options.report.quiet
    portrait, audio, driver, head = door.open_inputs(
        options.portrait,
        options.audio,
        options.face,
        options.model,
        watch,
        audio_track=options.sound.track,
        driving=options.driving.driving_video,
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
            edits=options.edits,
        )
    from atldiff.methods.framing import framed

    return _Made(track, framed(opened, options.face.framing).image, options.audio)


def _filmed(options: Landmarks, watch: Stopwatch, fps: Fraction | None) -> _Made:
    """Make the track of a video's face, on a portrait where one is given."""
    from atldiff.methods.driving import check_video, track_video
    from atldiff.methods.edits import TrackEdits, edited
    from atldiff.video.read import probe, read_frames_at

    assert options.from_video is not None  # noqa: S101 - for the type checker
    video, quiet, controls = options.from_video, options.report.quiet, options.controls
    check_video(video)
    found = None if options.portrait is None else door.look_for_face(options.portrait, options.face, quiet=quiet)
    watch.lap("portrait")
    with Progress("tracking the video", quiet=quiet) as progress:
        track = track_video(video, fps=fps, progress=progress)
    watch.lap("driving")
    heard = options.edits.close_silence or options.edits.head in MOTION_STYLES
    samples, has_audio = None, probe(video).has_audio
    if heard and has_audio:
        from atldiff.audio.load import load_audio

        samples = load_audio(video, audio_track=options.sound.track).samples
    pictures: np.ndarray | Iterable[np.ndarray] = read_frames_at(video, track.fps)
    pose = None
    if found is not None:
        from atldiff.methods.fitting import fitted, shape_and_pose
        from atldiff.methods.framing import framed

        head = door.load_head(options.model, quiet=quiet)  # its generator knows how an open mouth closes
        opened = door.open_portrait(head, found, options.face, quiet=quiet, landmarks_only=True)
        portrait = framed(opened, options.face.framing)
        track, pose, pictures = fitted(track, portrait, head.speaker.moves), shape_and_pose(portrait)[1], portrait.image
    edits = TrackEdits(
        **{entry.name: getattr(options.edits, entry.name) for entry in fields(options.edits)},
        **{name: getattr(controls, name) for name in _OF_A_TRACK},
    )
    made = edited(track, edits, portrait=pose, samples=samples, seed=controls.seed)
    return _Made(made, pictures, video if has_audio else None)


_OF_A_TRACK = ("expression_scale", "smoothing_frames", "head_motion", "still", "blink_rate_hz")
"""Controls that are edits of a track that is there already."""
