"""`atldiff faces`: the faces of a picture, with the numbers that `--face` takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from atldiff.commands import aliases, door
from atldiff.commands.options import ReportOptions, optional, read
from atldiff.commands.progress import console, say, waiting, write_json

if TYPE_CHECKING:
    import numpy as np

    from atldiff.landmarks.listing import ListedFace

PREVIEW_SUFFIXES = (".jpg", ".jpeg", ".png")
ALIASES = aliases.Aliases(positionals=(aliases.PORTRAIT,), options={"--out": "--output", "--output-path": "--output"})


@dataclass(frozen=True, slots=True)
class Faces:
    """List the faces of a picture with the numbers that --face takes, row by row from left to right, and draw them."""

    picture: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PICTURE")]
    """A picture, or a video of which one frame is taken."""
    output: Annotated[Path | None, optional("PREVIEW.jpg", "-o")] = None
    """Draw the faces with their numbers and widths into this .jpg or .png."""
    frame: Annotated[int | None, optional("N")] = None
    """Of a video the frame to take, from 0. The first that shows a face when left out."""
    landmarks: Annotated[Path | None, optional("FILE.json")] = None
    """Write the landmarks of one face here, to be edited and given back with --portrait-landmarks."""
    face: Annotated[int | None, optional("N")] = None
    """Whose landmarks; those of the face that is taken without --face when left out."""
    points: Literal[68, 478] = 478
    """How many of them: 68 are edited by hand more easily, the others follow them."""
    at: Annotated[str | None, optional("X,Y,WIDTH")] = None
    """Look for no face: write those of an average one, its middle and its width in pixels as said, to start from."""
    report: ReportOptions = field(default_factory=ReportOptions)


def run(args: list[str]) -> int:
    """Run the sub-command."""
    options = read(Faces, "faces", args, ALIASES)
    if options.output is not None:
        door.check_file_target(options.output, *PREVIEW_SUFFIXES)
        door.refuse_replacing(options.output, options.picture)
    _check_landmarks(options)
    door.check_input(options.picture, "picture")
    with waiting("Looking for faces", quiet=options.report.quiet):
        if options.at is not None:
            image, frame, faces = _average(options.picture, options.frame, options.at)
        else:
            image, frame, faces = _look(options.picture, options.frame)
    if options.landmarks is not None:
        _write_landmarks(options, options.landmarks, image, faces)
    if options.output is not None:
        _write(options.output, image, faces, options)
    if options.report.json:
        write_json(_as_dict(options, image, frame, faces))
        return 0
    _show(faces)
    if options.landmarks is not None:
        say(f"{options.landmarks}: {options.points} points", quiet=options.report.quiet)
    if options.output is not None:
        say(f"{options.output}: {len(faces)} face{'s' if len(faces) > 1 else ''} drawn", quiet=options.report.quiet)
    return 0


def _check_landmarks(options: Faces) -> None:
    """Raise unless what is asked of landmarks goes together.

    Raises:
        ValueError, MediaError: it does not, or they cannot be written there.
    """
    if options.landmarks is None:
        for name, given in (("face", options.face), ("at", options.at)):
            if given is not None:
                raise ValueError(f"{name}: got {given} without --landmarks FILE.json, expected both")
        return
    if options.face is not None and options.at is not None:
        raise ValueError(f"at: got it with --face {options.face}, expected one of them")
    door.check_file_target(options.landmarks, ".json")
    door.refuse_replacing(options.landmarks, options.picture)


def _average(path: Path, frame: int | None, at: str) -> tuple[np.ndarray, int | None, list[ListedFace]]:
    """Return the picture, its number in a video, and an average face where none was looked for.

    Raises:
        MediaError: not a picture. ValueError: no such frame, or no such place.
    """
    import numpy as np

    from atldiff.landmarks.given import average_face, check_points
    from atldiff.landmarks.listing import listed
    from atldiff.methods.portrait import searched_frames
    from atldiff.video.read import is_video
    from atldiff.video.still import read_image

    number = None
    if is_video(path):
        number, image, _ = next(searched_frames(path, frame or 0))
    else:
        image = read_image(path)
    try:
        x, y, width = map(float, at.split(","))
        points = average_face((x, y), width)
        check_points(points.astype(np.float64), (image.shape[0], image.shape[1]))
    except ValueError as error:
        raise ValueError(f"at: got {at!r} ({error}), expected X,Y,WIDTH in pixels inside the picture") from None
    return image, number, [listed(points, 0, notes=("average",), default=True)]


def _write_landmarks(options: Faces, path: Path, image: np.ndarray, faces: list[ListedFace]) -> None:
    from atldiff.errors import FaceNotFound
    from atldiff.landmarks.points_file import write_points

    chosen = [face for face in faces if _is_chosen(face, options)]
    if not chosen:
        last = max(face.number for face in faces if face.number is not None)
        raise FaceNotFound(f"face: got {options.face}, expected 0 to {last}")
    write_points(path, _points(chosen[0], options), (image.shape[0], image.shape[1]), options.picture.name)


def _is_chosen(face: ListedFace, options: Faces) -> bool:
    return face.default if options.face is None else face.number == options.face


def _points(face: ListedFace, options: Faces) -> np.ndarray:
    from atldiff.landmarks.topology import POINTS, to_sixty_eight

    return face.points if options.points == POINTS else to_sixty_eight(face.points)[:, :2]


def _look(path: Path, frame: int | None) -> tuple[np.ndarray, int | None, list[ListedFace]]:
    """Return the picture (H, W, 3), its number in a video, and its faces, at least one that is large enough to use.

    Raises:
        MediaError: not a picture. ValueError: no such frame. FaceNotFound: no face.
    """
    from atldiff.landmarks.listing import list_faces
    from atldiff.video.read import is_video
    from atldiff.video.still import read_image

    if not is_video(path):
        if frame is not None:
            raise ValueError(f"frame: got {frame} with a still picture; expected a video")
        image = read_image(path)
        return image, None, list_faces(image)

    from atldiff.errors import FaceNotFound
    from atldiff.methods.portrait import searched_frames
    from atldiff.video.still import on_grey

    missing = FaceNotFound(f"video {path}: no frame")
    for index, colour, alpha in searched_frames(path, frame):
        image = colour if alpha is None else on_grey(colour, alpha)
        try:
            return image, index, list_faces(image)
        except FaceNotFound as error:
            missing = error
    raise missing


def _as_dict(options: Faces, image: np.ndarray, frame: int | None, faces: list[ListedFace]) -> dict[str, Any]:
    height, width = image.shape[:2]
    return {
        "picture": str(options.picture),
        "frame": frame,
        "width": width,
        "height": height,
        "preview": None if options.output is None else str(options.output),
        **({} if options.landmarks is None else {"landmarks": str(options.landmarks)}),
        "faces": [
            {
                "number": face.number,
                "centre": [round(float(value), 1) for value in face.centre],
                "width": round(face.width, 1),
                "roll_deg": round(face.roll_deg, 1),
                "default": face.default,
                "notes": list(face.notes),
            }
            for face in faces
        ],
    }


def _show(faces: list[ListedFace]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("face", "centre x, y", "width px"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("note")
    for face in faces:
        x, y = face.centre
        notes = (*(["taken without --face"] if face.default else []), *face.notes)
        number = "-" if face.number is None else str(face.number)
        table.add_row(number, f"{x:.0f}, {y:.0f}", f"{face.width:.0f}", ", ".join(notes))
    console().print(table)


def _write(path: Path, image: np.ndarray, faces: list[ListedFace], options: Faces) -> None:
    from PIL import Image

    from atldiff.files import replacing
    from atldiff.video.preview import draw_faces

    labels = [(f"{'-' if face.number is None else face.number}", f"{face.width:.0f} px") for face in faces]
    points = []
    if options.landmarks is not None:
        points = [_points(face, options) for face in faces if _is_chosen(face, options)]
    drawn = draw_faces(image, [face.box for face in faces], labels, [face.default for face in faces], points)
    with replacing(path) as partial:
        Image.fromarray(drawn).save(partial, quality=92)
