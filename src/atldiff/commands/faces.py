"""`atldiff faces`: the faces of a picture, with the numbers that `--face` takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    report: ReportOptions = field(default_factory=ReportOptions)


def run(args: list[str]) -> int:
    """Run the sub-command."""
    options = read(Faces, "faces", args, ALIASES)
    if options.output is not None:
        door.check_file_target(options.output, *PREVIEW_SUFFIXES)
        door.refuse_replacing(options.output, options.picture)
    door.check_input(options.picture, "picture")
    with waiting("Looking for faces", quiet=options.report.quiet):
        image, frame, faces = _look(options.picture, options.frame)
    if options.output is not None:
        _write(options.output, image, faces)
    if options.report.json:
        write_json(_as_dict(options, image, frame, faces))
        return 0
    _show(faces)
    if options.output is not None:
        say(f"{options.output}: {len(faces)} face{'s' if len(faces) > 1 else ''} drawn", quiet=options.report.quiet)
    return 0


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


def _write(path: Path, image: np.ndarray, faces: list[ListedFace]) -> None:
    from PIL import Image

    from atldiff.files import replacing
    from atldiff.video.preview import draw_faces

    labels = [(f"{'-' if face.number is None else face.number}", f"{face.width:.0f} px") for face in faces]
    drawn = draw_faces(image, [face.box for face in faces], labels, [face.default for face in faces])
    with replacing(path) as partial:
        Image.fromarray(drawn).save(partial, quality=92)
