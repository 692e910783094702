"""What is checked before anything is loaded, cheapest first: output path, files, sound, face."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from atldiff.commands.progress import Progress, say, waiting
from atldiff.errors import MediaError
from atldiff.types import TRACK_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from atldiff.audio.load import Audio
    from atldiff.commands.options import FaceOptions, ModelOptions
    from atldiff.commands.progress import Stopwatch
    from atldiff.methods.edits import Edits
    from atldiff.pipeline import TalkingHead
    from atldiff.types import Controls, LandmarkTrack, Portrait
    from atldiff.video.background import Background

STDOUT = "-"
"""The output that stands for standard output."""


def default_output(
    portrait: Path | None, sound: Path | None, suffix: str, *, output: str | None, folder: Path | None
) -> str:
    """Return where the result goes: `output`, or PORTRAIT_SOUND with a suffix in `folder` or the current one.

    Of inputs that there are not the name has none.
    A string, because a path would lose the slash at the end that asks for a folder of PNG frames. The folder is made
    where it is missing, with those around it.

    Raises:
        ValueError: both were given. MediaError: a file is in the folder's place. OSError: it cannot be made.
    """
    if output is None:
        stem = "_".join(path.stem for path in (portrait, sound) if path is not None)
        return str(_made(folder or Path()) / f"{stem}{suffix}")
    if folder is not None:
        raise ValueError(f"output: got both --output {output} and --output-dir {folder}, expected one of them")
    return output


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise MediaError(f"output-dir {folder}: got a file in its place, expected a folder: choose another") from None
    return folder


def is_track(output: str) -> bool:
    """Return whether an output path asks for landmarks instead of a video."""
    return output.lower().endswith(TRACK_SUFFIXES)


def check_target(output: str, *inputs: Path | None) -> None:
    """Raise unless a video, or a track where the suffix says so, can be written without replacing an input.

    Raises:
        MediaError: the folder is missing or read-only, the name is taken, or the suffix is unknown.
    """
    if is_track(output):
        check_file_target(Path(output), *TRACK_SUFFIXES)
    else:
        from atldiff.video.formats import check_output

        check_output(output)
    refuse_replacing(output, *inputs)


def refuse_replacing(output: str | Path, *inputs: Path | None) -> None:
    """Raise unless all inputs are other files than the output.

    Raises:
        MediaError: one is not.
    """
    target = Path(output)
    for path in inputs:
        if path is not None and path.exists() and target.exists() and target.samefile(path):
            raise MediaError(f"output {output}: would replace the input {path}: choose another -o")


def check_background(background: str | None, output: str) -> Background | None:
    """Return what is to be behind the portrait, read.

    Raises:
        ValueError: it is no background, or transparent in an output that cannot be. MediaError: it is no picture.
    """
    if background is None:
        return None
    from atldiff.video.background import is_transparent, open_background
    from atldiff.video.formats import keeps_alpha

    opened = open_background(background)
    if is_transparent(opened) and not is_track(output) and (output == STDOUT or not keeps_alpha(output)):
        raise ValueError(
            f"background: got {background} with -o {output}, expected .webm, .mov or a folder of PNG frames for it"
        )
    refuse_replacing(output, Path(background))
    return opened


def check_file_target(path: Path, *suffixes: str) -> None:
    """Raise unless a file with one of some suffixes can be written to `path`.

    Raises:
        MediaError: another suffix, a folder in its place, or a folder around it that is missing or read-only.
    """
    if path.suffix.lower() not in suffixes:
        raise MediaError(f"output {path}: got suffix {path.suffix!r}, expected {' or '.join(suffixes)}")
    if path.is_dir():
        raise MediaError(f"output {path}: got a folder, expected a file name")
    if not path.parent.is_dir():
        raise MediaError(f"output {path}: folder {path.parent} does not exist: create it or choose another path")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise MediaError(f"output {path}: folder {path.parent} cannot be written to: choose another path")


def check_preview(path: Path) -> None:
    """Raise unless drawn landmarks, a video or a picture, can be written to `path`.

    Raises:
        MediaError: another suffix, or no folder that can be written to.
    """
    from atldiff.video.formats import check_output

    if path.suffix.lower() in (".png", ".jpg", ".jpeg"):
        check_file_target(path, path.suffix.lower())
    else:
        check_output(path)


def check_input(path: Path, kind: str) -> None:
    """Raise unless `path` is a file that can be read and holds bytes.

    Raises:
        MediaError: it is not.
    """
    from atldiff.video.still import check_file

    check_file(path, kind)


def check_given(options: FaceOptions) -> None:
    """Raise unless a file of the face's landmarks, if there is to be one, is there, and nothing else says which face.

    Raises:
        ValueError: something does. MediaError: no such file.
    """
    if options.portrait_landmarks is None:
        return
    if options.face is not None:
        raise ValueError(
            f"face: got {options.face} with --portrait-landmarks, which say which face it is: leave one out"
        )
    check_input(options.portrait_landmarks, "landmarks")


def check_references(references: Sequence[Path]) -> None:
    """Raise unless references are not too many and files that can be read and hold bytes.

    Raises:
        ValueError: too many. MediaError: no such files.
    """
    if references:
        from atldiff.methods.references import check_references

        check_references(references)


def look_for_face(path: Path, options: FaceOptions, references: Sequence[Path] = (), *, quiet: bool) -> Path | Portrait:
    """Return a picture with its landmarks, or the path where the pipeline has to choose a frame of a video.

    A picture is opened here because the pipeline brings torch along: a portrait without a face fails sooner. So are
    references, and the video that they belong to.

    Raises:
        MediaError: not a picture. FaceNotFound: no face, or not the one asked for, or none in a reference.
    """
    from atldiff.video.read import is_video
    from atldiff.video.still import read_rgba

    if references:
        with waiting("Looking for the faces", quiet=quiet):
            from atldiff.methods.references import open_with_references

            return open_with_references(path, options.face, options.frame, references, options.portrait_landmarks)
    if options.portrait_landmarks is not None and not is_video(path):
        from atldiff.methods.portrait import open_portrait

        return open_portrait(path, options.face, options.frame, options.portrait_landmarks)
    if options.frame is not None or is_video(path):
        return path
    image, alpha = read_rgba(path)
    with waiting("Looking for the face", quiet=quiet):
        from atldiff.methods.portrait import detected

        return detected(image, alpha, options.face)


def open_portrait(
    head: TalkingHead, found: Path | Portrait, options: FaceOptions, *, quiet: bool, landmarks_only: bool = False
) -> Portrait:
    """Return what `look_for_face` found as a portrait; say so where a video shows more of its mouth than one frame.

    landmarks_only: nothing is rendered, so what it shows of the mouth does not matter.

    Raises:
        MediaError, FaceNotFound, ValueError: as of `TalkingHead.open_portrait`.
    """
    references = () if landmarks_only else None
    with waiting("Looking at the portrait", quiet=quiet):
        given = options.portrait_landmarks if isinstance(found, Path) else None
        opened = head.open_portrait(
            found, face=options.face, frame=options.frame, references=references, landmarks=given
        )
    if isinstance(found, Path) and opened.references:
        say(f"portrait {found}: the frames of its widest and its most closed mouth are references", quiet=quiet)
    return opened


def check_driving(path: Path | None, controls: Controls) -> None:
    """Raise unless a driving video or track, if there is one, can be opened and the face is not to be still.

    Without one, the style of our own motion is looked for.

    Raises:
        MediaError: it cannot. ValueError: the face is to be still, or no such style.
    """
    if path is None:
        if not (controls.still and controls.blink_rate_hz == 0):
            from atldiff.methods.motion_style import check_style

            check_style(controls.motion_style)
        return
    from atldiff.landmarks.visible import refuse_still

    refuse_still(controls)
    if is_track(str(path)):
        check_input(path, "driving track")
        from atldiff.types import LandmarkTrack

        LandmarkTrack.load(path)
        return
    from atldiff.methods.driving import check_video

    check_video(path)


def check_edits(edits: Edits) -> None:
    """Raise unless the files that edits take are there.

    Raises:
        ValueError, MediaError: one is not, or cannot be used.
    """
    if edits.head is not None or edits.mix is not None:
        edits.check_files()


def track_driver(path: Path, controls: Controls, watch: Stopwatch, *, quiet: bool) -> LandmarkTrack:
    """Return a driving track, after tracking its video where it is one, with progress, and book the time.

    Raises:
        MediaError, FaceNotFound, ValueError: as `atldiff.methods.driving.open_driving`.
    """
    from atldiff.methods.driving import open_driving

    with Progress("tracking the driving video", quiet=quiet) as progress:
        track = open_driving(path, controls, progress=progress)
    watch.lap("driving")
    return track


def open_inputs(
    portrait: Path,
    audio: Path,
    face: FaceOptions,
    model: ModelOptions,
    watch: Stopwatch,
    *,
    audio_track: int | str | None,
    driving: Path | None,
    controls: Controls,
    references: Sequence[Path] = (),
    quiet: bool,
    load: Callable[[ModelOptions], TalkingHead] | None = None,
) -> tuple[Path | Portrait, Audio, LandmarkTrack | None, TalkingHead]:
    """Look for the face, read the recording, track the driving video, load the weights; book the time of each.

    The face before the sound: looking for one that is not there takes longer. The driving track is None without one.
    load: gives the weights; None loads them.
    """
    found = look_for_face(portrait, face, references, quiet=quiet)
    watch.lap("portrait")

    from atldiff.audio.load import load_audio

    recording = load_audio(audio, audio_track=audio_track)
    watch.lap("audio")
    driver = None if driving is None else track_driver(driving, controls, watch, quiet=quiet)
    head = load_head(model, quiet=quiet) if load is None else load(model)
    watch.lap("load")
    return found, recording, driver, head


def load_head(options: ModelOptions, *, quiet: bool) -> TalkingHead:
    """Load the weights that were asked for.

    Raises:
        CheckpointError: not a checkpoint of ours. ValueError: a device that is not there, or a backend that cannot do
        what was asked for. AtlDiffError: a backend that is not installed.
    """
    with waiting("Loading the networks", quiet=quiet):
        from atldiff.pipeline import TalkingHead

        return TalkingHead.from_pretrained(
            options.checkpoint,
            generator=options.generator,
            renderer=options.renderer,
            device=options.device,
            dtype=options.dtype,
            backend=options.backend,
        )
