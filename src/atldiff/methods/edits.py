"""What is done to a landmark track before it is rendered: named, checked, and done in one order."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atldiff.timebase import FPS, SAMPLE_RATE
from atldiff.types import MOTION_STYLES, Controls, LandmarkTrack, is_track

if TYPE_CHECKING:
    from atldiff.landmarks.operations.head import Keyframe, Pose
    from atldiff.landmarks.operations.mixing import Part

MOST_KEYFRAMES_BYTES = 10**6
_WRITTEN = re.compile(r"[\d\s:;,.+-]*")
_HEADS = (
    'expected keyframes "SECONDS:YAW,PITCH,ROLL ...", a .json of keyframes, a video, a landmark track, or '
    f"{', '.join(MOTION_STYLES)}"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """What is done to the landmarks, in this order; docs/landmarks.md shows each."""

    mix: str | None = None
    """Take parts of the face from another track or video; played forth and back where it is shorter."""
    mix_regions: str = "lips,jaw"
    """What --mix takes, such as lips,jaw=0.5: of lips, jaw, brows, eyes, nose, head."""
    av_offset: float = 0.0
    """Milliseconds by which the face comes later; negative is earlier."""
    close_silence: bool = False
    """Close the mouth where nobody speaks: by the sound where there is one, else by the track itself."""
    lip_strength: float = 1.0
    """Gain on what lips do of their own. 0 to 3."""
    jaw_strength: float = 1.0
    """Gain on how far the jaw opens. 0 to 3."""
    smooth: str | None = None
    """Smooth face and head without lag: one-euro[:HZ[,BETA]] or savgol[:WINDOW[,ORDER]]."""
    head: str | None = None
    """Head pose: "SECONDS:YAW,PITCH,ROLL ..." or a .json of such, a video or track, or calm, natural, lively."""
    gaze: str | None = None
    """Where eyes keep looking: camera, or YAW,PITCH in degrees, to the left of the picture and down."""
    blink_times: str | None = None
    """Seconds at which the eyes blink, and at no others, such as 0.8,2.4; or none."""
    limits: bool = False
    """Hold mouth, lids, eyes and head back, softly, to what faces do and one picture shows."""

    def __post_init__(self) -> None:
        _check_range("av_offset", self.av_offset, -10_000, 10_000)
        _check_range("lip_strength", self.lip_strength, 0, 3)
        _check_range("jaw_strength", self.jaw_strength, 0, 3)
        _ = self.parts, self.direction, self.blinks, self.filter
        if self.head is not None and _WRITTEN.fullmatch(self.head):
            keyframes(self.head)

    def check_files(self) -> None:
        """Raise unless the files that are named are there and may be what they are for.

        Raises:
            ValueError, MediaError: in one line.
        """
        if self.head is not None and self.head not in MOTION_STYLES and keyframes(self.head) is None:
            _check_source("head", self.head)
        if self.mix is not None:
            _check_source("mix", self.mix)

    @property
    def parts(self) -> dict[Part, float]:
        """The parts that `mix` gives, and how much of each."""
        if self.mix is None and self.mix_regions == "lips,jaw":
            return {}  # a command's help imports no more than it shows
        from atldiff.landmarks.operations.mixing import check_weights

        weights = {}
        for word in self.mix_regions.split(","):
            part, equals, weight = word.strip().partition("=")
            weights[part] = _number("mix_regions", weight) if equals else 1.0
        check_weights(weights)
        return weights

    @property
    def direction(self) -> tuple[float, float] | None:
        """Yaw and pitch of the gaze in degrees."""
        if self.gaze is None or self.gaze == "camera":
            return None if self.gaze is None else (0.0, 0.0)
        expected = "expected camera, or YAW,PITCH in degrees such as -10,0"
        words = self.gaze.split(",")
        if len(words) != 2:
            raise ValueError(f"gaze: got {self.gaze!r}, {expected}")
        yaw, pitch = (_number("gaze", word) for word in words)
        if max(abs(yaw), abs(pitch)) > 45:
            raise ValueError(f"gaze: got {self.gaze!r}, expected -45 to 45 degrees")
        return yaw, pitch

    @property
    def blinks(self) -> list[float] | None:
        """Seconds at which the eyes blink; None leaves them as they are."""
        if self.blink_times is None:
            return None
        words = [] if self.blink_times == "none" else self.blink_times.replace(",", " ").split()
        times = [_number("blink_times", word) for word in words]
        if any(time < 0 for time in times) or (self.blink_times != "none" and not times):
            raise ValueError(
                f"blink_times: got {self.blink_times!r}, expected seconds from 0 on such as 0.8,2.4, or none"
            )
        return times

    @property
    def filter(self) -> tuple[str, list[float]] | None:
        """The name of the filter that smooths, and what it is told."""
        if self.smooth is None:
            return None
        from atldiff.landmarks.operations import smoothing

        name, _, rest = self.smooth.partition(":")
        numbers = [_number("smooth", word) for word in rest.split(",")] if rest else []
        if name not in ("one-euro", "savgol") or len(numbers) > 2:
            raise ValueError(f"smooth: got {self.smooth!r}, expected one-euro[:HZ[,BETA]] or savgol[:WINDOW[,ORDER]]")
        smoothing.CHECKS[name](*numbers)
        return name, numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackEdits(Edits):
    """What is done to the landmarks of a track, in the order of docs/landmarks.md, which shows each."""

    speed: float = 1.0
    """How many times as fast the track is played. 0.1 to 10."""
    expression_scale: float = 1.0
    """Gain on the track's expression, the eyes left out. 0 to 100."""
    smoothing_frames: float = 0.0
    """Gaussian sigma, in frames, applied to the track's expression. 0 to 100."""
    head_motion: float = 1.0
    """Gain on how far the head turns and moves. 0 to 3."""
    still: bool = False
    """Keep head and brows still; mouth and blinks go on."""
    blink_rate_hz: float | None = None
    """Mean blinks a second, instead of those of the track. 0 to 2."""

    def __post_init__(self) -> None:
        super(TrackEdits, self).__post_init__()
        _check_range("speed", self.speed, 0.1, 10)
        _check_range("expression_scale", self.expression_scale, 0, 100)
        _check_range("smoothing_frames", self.smoothing_frames, 0, 100)
        _check_range("head_motion", self.head_motion, 0, 3)
        if self.blink_rate_hz is not None:
            _check_range("blink_rate_hz", self.blink_rate_hz, 0, 2)
        if self.blink_rate_hz is not None and self.blink_times is not None:
            raise ValueError("blink_times: got it with blink_rate_hz, expected one of them")
        if self.still and self.head is not None:
            raise ValueError("still: got it with a head pose, expected only one of them")


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name}: got {value}, expected {least} to {most}")


def edited(
    track: LandmarkTrack,
    edits: Edits,
    *,
    portrait: Pose | None = None,
    samples: np.ndarray | None = None,
    seed: int = 0,
) -> LandmarkTrack:
    """Return a track with all that is to be done to it.

    portrait: the pose of the photographed head; that of the first frame when left out. samples: (N,) of the sound at
    16 kHz, where there is one. seed: of blinks at a rate, and of a head that moves in a style.

    Raises:
        ValueError, MediaError, FaceNotFound: a file that is no track, or a video without a face.
    """
    from atldiff.landmarks import edit
    from atldiff.landmarks.operations import eyes, head, limits, mixing, mouth, smoothing, timing

    kind = TrackEdits if isinstance(edits, TrackEdits) else Edits
    given = TrackEdits(**{entry.name: getattr(edits, entry.name) for entry in fields(kind)})
    if not len(track) or given == TrackEdits():
        return track
    pose = portrait or head.first_pose(track)
    if given.mix is not None:
        track = mixing.mixed(track, mixing.in_step(track, opened_track(given.mix)), given.parts, pose)
    track = timing.delayed(timing.at_speed(track, given.speed), given.av_offset)
    if given.close_silence:
        track = mouth.closed_in_silence(track, None if samples is None else heard_gate(samples, track))
    track = edit.smooth(edit.scale_expression(track, given.expression_scale), given.smoothing_frames)
    track = mouth.jaw_strength(mouth.lip_strength(track, given.lip_strength), given.jaw_strength)
    if given.filter is not None:
        name, numbers = given.filter
        track = smoothing.FILTERS[name](track, *numbers)
    track = head.head_strength(track, given.head_motion, pose)
    if given.still:
        track = head.still(track, pose)
    if given.head is not None:
        track = with_head(track, given.head, pose, samples, seed)
        if not given.limits:
            _say_if_turned_far(track, pose)
    if given.direction is not None:
        track = eyes.eyes_held(track, *given.direction, portrait=pose.rotation)
    times = given.blinks
    if given.blink_rate_hz is not None:
        times = eyes.blink_times(len(track) / float(track.fps), given.blink_rate_hz, seed)
    if times is not None:
        track = eyes.with_blinks(eyes.without_blinks(track), times)
    if given.limits:
        return limits.limited(track, pose.rotation)
    return mouth.met(track)


def _say_if_turned_far(track: LandmarkTrack, portrait: Pose) -> None:
    from atldiff.landmarks.geometry import euler_degrees
    from atldiff.landmarks.motion import MOST_TURNED_DEG

    turns = euler_degrees(np.asarray(portrait.rotation, np.float64).T @ track.rotation.astype(np.float64))
    widest = np.abs(turns).max(axis=0)
    if (np.rint(widest) > MOST_TURNED_DEG).any():
        _log.warning(
            "head: turns by up to %s degrees (yaw, pitch, roll), and one picture shows %s: --limits holds it back",
            *(", ".join(f"{angle:.0f}" for angle in angles) for angles in (widest, MOST_TURNED_DEG)),
        )


def with_head(
    track: LandmarkTrack, source: str, portrait: Pose, samples: np.ndarray | None, seed: int
) -> LandmarkTrack:
    """Return a track whose head moves as `Edits.head` says.

    Raises:
        ValueError, MediaError, FaceNotFound: as `edited`.
    """
    from atldiff.landmarks.operations.head import head_of, keyed_head
    from atldiff.landmarks.operations.mixing import in_step

    if source in MOTION_STYLES:
        return head_of(track, _styled(track, source, portrait, samples, seed), portrait)
    keys = keyframes(source)
    if keys is not None:
        return keyed_head(track, keys, portrait)
    return head_of(track, in_step(track, opened_track(source)), portrait)


def _styled(track: LandmarkTrack, style: str, portrait: Pose, samples: np.ndarray | None, seed: int) -> LandmarkTrack:
    """Return a head that moves in a style to the sound, or to silence, with the frames of a track."""
    from atldiff.audio.features import log_mel
    from atldiff.landmarks.operations.mixing import in_step
    from atldiff.landmarks.visible import MotionModel
    from atldiff.methods.motion_style import open_motion

    frames = -(-len(track) * FPS // track.fps) + 1
    model = MotionModel(track.neutral, Controls(seed=seed), *portrait, open_motion(style))
    if samples is not None and len(samples):
        model.hear(log_mel(samples)[0])
    model.end()
    rotation, scale, translation = model.pose(np.arange(frames))
    still = np.zeros((frames, *track.neutral.shape), np.float32)
    moved = LandmarkTrack(
        neutral=track.neutral, displacements=still, rotation=rotation, translation=translation, scale=scale,
        fps=Fraction(FPS), size=track.size,
    )  # fmt: skip
    return in_step(track, moved)


def heard_gate(samples: np.ndarray, track: LandmarkTrack) -> np.ndarray:
    """Return how open the mouth may be by what is heard, (T,) float32 in [0, 1] for each frame of a track.

    samples: (N,) at 16 kHz.
    """
    from atldiff.audio.features import MelStream
    from atldiff.audio.voice import VoiceStream
    from atldiff.landmarks.gate import SpeechGate
    from atldiff.timebase import frame_count

    mel, voice, gate = MelStream(), VoiceStream(), SpeechGate()
    values = []
    for start in range(0, len(samples), SAMPLE_RATE):
        part = samples[start : start + SAMPLE_RATE]
        values.append(gate.push(voice.push(part), mel.push(part)[1][:, 0]))
    values.append(gate.push(voice.flush(), mel.flush(len(samples))[1][:, 0]))
    values.append(gate.flush(frame_count(len(samples))))
    heard = np.concatenate(values)
    moments = np.arange(len(track)) * float(FPS / track.fps)
    return np.interp(moments, np.arange(len(heard) + 1), np.r_[heard, 0]).astype(np.float32)


def opened_track(source: str) -> LandmarkTrack:
    """Return a track of its file, or of a video.

    Raises:
        ValueError: no track. MediaError, FaceNotFound: as `track_video`.
    """
    if is_track(source):
        return LandmarkTrack.load(source)
    from atldiff.methods.driving import track_video

    return track_video(source)


def _check_source(name: str, source: str) -> None:
    from atldiff.methods.driving import check_video

    if is_track(source):
        if not Path(source).is_file():
            raise ValueError(f"{name}: landmark track {source}: no such file")
        return
    check_video(source)


def keyframes(source: str) -> list[Keyframe] | None:
    """Return keyframes of words, `SECONDS:YAW[,PITCH[,ROLL]] ...`, or of a .json; None where it names another file.

    The .json holds a list of objects with `seconds` and any of `yaw`, `pitch` and `roll`.

    Raises:
        ValueError: keyframes that are none.
    """
    from atldiff.landmarks.operations.head import Keyframe, check_keyframes

    path = Path(source)
    if path.suffix.lower() == ".json" and path.is_file():
        rows = _json_list(path)
        if rows is None:
            return None
        keys = [_key_of(row, source) for row in rows]
    elif not _WRITTEN.fullmatch(source):
        if path.suffix or path.exists():
            return None
        raise ValueError(f"head: got {source!r}, {_HEADS}")
    else:
        keys = []
        for word in source.replace(";", " ").split():
            seconds, colon, angles = word.partition(":")
            numbers = [_number("head", each) for each in angles.split(",")] if colon else []
            if not 1 <= len(numbers) <= 3:
                raise ValueError(f"head: got {word!r} in {source!r}, {_HEADS}")
            keys.append(Keyframe(_number("head", seconds), *numbers))
    check_keyframes(keys)
    return keys


def _json_list(path: Path) -> list[object] | None:
    """Return the list that a file holds; None where it begins as an object, such as a landmark track does."""
    with path.open("rb") as file:
        if file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"[":
            return None
    size = path.stat().st_size
    if size > MOST_KEYFRAMES_BYTES:
        raise ValueError(f"head: keyframes {path}: got {size} bytes, expected at most {MOST_KEYFRAMES_BYTES}")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"head: keyframes {path}: no JSON: {error}") from None


def _key_of(row: object, source: str) -> Keyframe:
    from atldiff.landmarks.operations.head import Keyframe

    names = ("seconds", "yaw", "pitch", "roll")
    numbers = isinstance(row, dict) and all(type(value) in (int, float) for value in row.values())
    if not isinstance(row, dict) or not numbers or "seconds" not in row or set(row) - set(names):
        got = json.dumps(row)[:60]
        raise ValueError(f"head: keyframes {source}: got {got}, expected objects of numbers: {', '.join(names)}")
    return Keyframe(*(float(row.get(name, 0)) for name in names))


def _number(name: str, word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise ValueError(f"{name}: got {word!r}, expected a number")
    return number
