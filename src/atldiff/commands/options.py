"""Options that several sub-commands share, and how a sub-command's options are read."""

from __future__ import annotations

import logging
import sys
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fractions import Fraction
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import tyro

from atldiff.commands import usage
from atldiff.commands.aliases import Aliases, rewrite
from atldiff.config import Bundled, Preset, SampleConfig
from atldiff.methods.edits import Edits, TrackEdits
from atldiff.types import Framing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_log = logging.getLogger(__name__)

OptionsT = TypeVar("OptionsT")
EmbedderName = Literal["sface", "arcface", "facenet"]


def optional(metavar: str, *aliases: str) -> object:
    """Describe an option that may be left out: its help says what happens then, instead of `default: None`."""
    return tyro.conf.arg(metavar=metavar, aliases=list(aliases) or None, help_behavior_hint="")


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceOptions:
    """Which face is animated, and what is shown around it."""

    face: Annotated[int | None, optional("N")] = None
    """Of several faces the one to take, counted row by row from left to right, from 0; `atldiff faces` shows them. The
    largest when left out."""
    frame: Annotated[int | None, optional("N")] = None
    """Of a video as portrait the frame to take, from 0. The first that shows a face when left out."""
    portrait_landmarks: Annotated[Path | None, optional("FILE.json")] = None
    """Where the face is, instead of looking for it: a .json or .pts of 68 or 478 points in pixels, for drawings and
    paintings in which none is found; `atldiff faces --landmarks` writes such a file."""
    framing: Framing = "full"
    """What is shown: all of the portrait, or a square of head and shoulders cut from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceOptions:
    """What else shows the person's mouth."""

    reference: Annotated[tuple[Path, ...], optional("FILE ...")] = ()
    """Up to 16 more pictures or videos of the same person, whose teeth are shown where the portrait has none. Of a
    video the widest and the most closed mouth count; a video as portrait gives its own two when left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundOptions:
    """Which sound of a file is heard."""

    audio_track: Annotated[str | None, optional("N|LANG")] = None
    """Of several audio tracks the one to hear: its number from 0, or its language such as eng. The one marked as
    default when left out, or else the first."""

    @property
    def track(self) -> int | str | None:
        """The number or the language."""
        text = self.audio_track
        return int(text) if text is not None and text.isdecimal() else text


@dataclass(frozen=True, slots=True, kw_only=True)
class DrivingOptions:
    """What moves head and eyes."""

    driving_video: Annotated[Path | None, optional("VIDEO|TRACK")] = None
    """Head motion, blinks and brows come from this video, or landmark track, the mouth from the sound. Played forth
    and back when shorter than the sound. A motion of our own when left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """What computes, and on what."""

    method: Bundled = "atl-diff"
    """Bundled weights to use; those of atl-diff-open may be used commercially, with attribution."""
    weights: Annotated[str | None, optional("FOLDER|HUB_ID")] = None
    """Other weights: a checkpoint folder or a hub id such as owner/name. Goes before --method."""
    generator: Annotated[str | None, optional("FOLDER|NAME|HUB_ID")] = None
    """Weights whose landmark generator is used instead of that of --method or --weights."""
    renderer: Annotated[str | None, optional("FOLDER|NAME|HUB_ID")] = None
    """Weights whose renderer is used instead of that of --method or --weights."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run; auto takes a GPU where there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """Number format of the renderer; auto takes bfloat16 or int8 where backend and hardware have it."""
    backend: Literal["auto", "torch", "openvino", "onnx"] = "auto"
    """What computes the networks; auto takes the fastest that is installed."""

    @property
    def checkpoint(self) -> str:
        """The name, folder or hub id to load."""
        return self.weights or self.method


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """How frames are made."""

    preset: Preset = "balanced"
    """Speed against quality: the mouth painted in every other frame, in every one, or in two steps; weights without
    layers, atl-diff-paper's among them: 1, 2 and more steps."""
    steps: Annotated[int | None, optional("N")] = None
    """Network evaluations a frame, instead of the preset's. 1 to 64."""
    lent_teeth: bool = True
    """A portrait that shows no teeth, and has no reference that does, is lent an upper row of another's; with
    --no-lent-teeth they are the network's."""

    def check(self) -> None:
        """Raise ValueError for a number of steps that no method takes, before anything is loaded."""
        if self.steps is not None:
            SampleConfig(steps=self.steps)

    def sampling(self, presets: Callable[[Preset], SampleConfig]) -> SampleConfig:
        """Return the preset with what was asked for beside it; presets: such as `TalkingHead.sampling`."""
        chosen = replace(presets(self.preset), lent_teeth=self.lent_teeth)
        return chosen if self.steps is None else replace(chosen, steps=self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderOptions(SamplingOptions):
    """How frames are made, and how large."""

    size: Annotated[int | Literal["full"] | None, optional("PIXELS|full")] = None
    """Longest side of the output, or full: the portrait's own, or that of the square cut from it. That, but no more
    than 1920, when left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureOptions(RenderOptions):
    """How frames are made, and what they are laid on."""

    background: Annotated[str | None, optional("COLOUR|PICTURE|blur|transparent")] = None
    """Behind a portrait with transparent parts: a colour such as white or #204060, a picture, or a blur of the portrait
    itself. Left out, .webm, .mov and PNG frames stay transparent, and all else is white."""


_MIX = Annotated[str | None, optional("TRACK|VIDEO")]
_HEAD = Annotated[str | None, optional("KEYFRAMES|FILE|STYLE")]
_GAZE = Annotated[str | None, optional("camera|YAW,PITCH")]
_SMOOTH = Annotated[str | None, optional("FILTER")]
_TIMES = Annotated[str | None, optional("S,S,...|none")]
_PARTS = Annotated[str, tyro.conf.arg(metavar="PART[=SHARE],...")]


# Docstrings of these options are those of `Edits` and `TrackEdits`.
@dataclass(frozen=True, slots=True, kw_only=True)
class EditOptions(Edits):
    """What is done to the landmarks in the end, in this order; docs/landmarks.md shows each."""

    mix: _MIX = None
    mix_regions: _PARTS = "lips,jaw"
    smooth: _SMOOTH = None
    head: _HEAD = None
    gaze: _GAZE = None
    blink_times: _TIMES = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackEditOptions(TrackEdits):
    """What is done to the landmarks before they are rendered; docs/landmarks.md shows each, and the order."""

    mix: _MIX = None
    mix_regions: _PARTS = "lips,jaw"
    smooth: _SMOOTH = None
    head: _HEAD = None
    gaze: _GAZE = None
    blink_times: _TIMES = None
    blink_rate_hz: Annotated[float | None, optional("FLOAT")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What is said meanwhile."""

    quiet: bool = False
    """Show neither progress nor warnings."""
    verbose: bool = False
    """Show what the library logs, and tracebacks of errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions(LogOptions):
    """What is said meanwhile and at the end."""

    json: bool = False
    """Write one JSON object to standard output."""


def read(kind: type[OptionsT], name: str, args: list[str], aliases: Aliases = Aliases()) -> OptionsT:  # noqa: B008 - frozen
    """Return a sub-command's options, and set up logging as they say.

    Raises:
        ValueError: a usage error, in one line. SystemExit: --help (0), from tyro.
    """
    given, notes = rewrite(args, aliases)
    if not {"-h", "--help"} & set(given):
        usage.check(kind, name, given, aliases.suggestions)
    try:
        with redirect_stderr(StringIO()) as said:
            options = tyro.cli(
                kind,
                prog=f"atldiff {name}",
                args=given,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(usage.condensed(said.getvalue())) from None
    report = getattr(options, "report", None)
    if isinstance(report, LogOptions):
        _set_up_logging(quiet=report.quiet, verbose=report.verbose)
    for note in notes:
        _log.warning("%s", note)
    return options


class _StderrHandler(logging.Handler):
    """Write to whatever `sys.stderr` is at the time: a progress bar replaces it while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"atldiff: {record.levelname.lower()}: {self.format(record)}\n")


def _set_up_logging(*, quiet: bool, verbose: bool) -> None:
    logger = logging.getLogger("atldiff")
    logger.handlers = [_StderrHandler()]
    logger.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)


def closest(got: str, known: Iterable[str]) -> str:
    """Return how a message about an unknown name goes on: the nearest known one, or all of them."""
    names = list(known)
    near = get_close_matches(got, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(names)}"


def parse_fps(text: str | None) -> Fraction | None:
    """Return a frame rate such as `30`, `29.97` or `30000/1001`.

    Raises:
        ValueError: not a number from 1 to 120.
    """
    if text is None:
        return None
    try:
        fps = Fraction(text)
    except (ValueError, ZeroDivisionError):
        fps = Fraction(0)
    if not 1 <= fps <= 120:
        raise ValueError(f"fps: got {text!r}, expected a number from 1 to 120 such as 30 or 30000/1001")
    return fps
