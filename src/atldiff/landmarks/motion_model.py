"""Head, brows and blinks that belong to what is said: a small generative model, a step of two frames at a time.

    z[k] = sum of ar[i] z[k - 1 - i] + mix (drive + spread * noise)

What was heard and how the face moved so far say where the next step goes (`drive`) and how freely (`spread`), through
a small network; chance does the rest. Both are bounded and the autoregression is stable: nothing drifts. A blink comes
by chance as well, the likelier the longer ago the last one was. Learned by `atldiff train motion`
(`training/motion_task.py`); plain NumPy, arrays of one shape at every step, so a stream gives what a file gives.
"""

from __future__ import annotations

import math
from collections import deque
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from atldiff.errors import CheckpointError
from atldiff.landmarks.blink import HELD_FRAMES, RELEASE, blink_pulse, blink_urge, time_since_blink
from atldiff.landmarks.motion_codes import BANDS, BROWS, CODES, KNOT_FRAMES, POSE, SOUND_LAG_FRAMES, heard_bands
from atldiff.timebase import COLUMNS_PER_FRAME, FPS, MEL_BANDS
from atldiff.types import MOTION_FILE, MOTION_STYLES

ORDER = 6
WIDTH, MEMORY = 16, 24
FELT = 2 * CODES
"""What the memory is told of the motion: codes and the logarithms of their last changes."""
STILL = 0.02
"""Added to changes before their logarithm is taken."""
FIRST_TAPS, SECOND_TAPS, SECOND_STRIDE = 5, 5, 3
TAIL = 4.0
"""Degrees of freedom of the noise: heads rest and then move."""
DRIVE, SPREAD = 2.0, 2.0
"""Bounds of drive and of spread's logarithm."""
MOST_NOISE = 5.0
DEFAULT_STYLE = "natural"
SPEED_CAP = 3.0
FIRST_BLINK_FRAME = 0.6 * FPS
"""No blink begins before this: a video starts on the photograph."""

FASTEST_BLINKS_HZ = 0.9
"""At higher rates blinks are shorter."""
LONGEST_FRAMES = 40.0
"""No blink lasts longer after its middle."""
MORE_BLINKS = 1.2
"""Times a style's blinks: of those of its clips, which last a few seconds, the ends hide 6 %, and people who were never
trained on blink the more often (33 to 41 a minute by the ruler, where `natural` says 31)."""
DEEPER = 1.08
"""Times the depth of blinks: as deep as half of those that were seen is shut, tracked lids never being quite so."""
SHORTEST_LOOK, LOOK_CHANCE = 3, 0.15
"""Steps that eyes stay where they look, at least, and how likely each later one is a saccade: 1.3 a second."""
HELD_COLUMNS = 4000
"""Columns that were heard may be held up to so many."""

_SILENCE = np.full(BANDS, -1, np.float32)
_STREAM, _LOOK_STREAM, _SINCE_STREAM = 3, 4, 5  # keeps these draws apart from others of the same seed
_BLOCK = KNOT_FRAMES * COLUMNS_PER_FRAME
_FOLDER = Path(__file__).parents[1] / "weights" / "motion"


Weights: TypeAlias = "dict[str, np.ndarray]"


class Style(NamedTuple):
    """How somebody moves. head_deg, brows: as `amplitudes` measures them. blink_hz: blinks a second."""

    head_deg: float
    brows: float
    blink_hz: float


class MotionFrames(NamedTuple):
    """A face apart from speech. codes: (F, CODES). closure: (F,) of the lids, 0 to 1.

    gaze: (F,) how far the eyes wander to the right of where they look, in canonical units.
    """

    codes: np.ndarray
    closure: np.ndarray
    gaze: np.ndarray


@lru_cache(maxsize=4)
def load_motion(folder: Path = _FOLDER) -> Weights:
    """Return the weights of a folder, as float32.

    Raises:
        CheckpointError: no such weights there.
    """
    from safetensors.numpy import load_file

    path = Path(folder) / MOTION_FILE
    try:
        weights = {name: array.astype(np.float32) for name, array in load_file(path).items()}
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"motion weights {path}: {error}; expected a folder made by `atldiff train motion`"
        ) from None
    shapes = {
        "ar": (ORDER, CODES, CODES),
        "styles": (len(MOTION_STYLES), 3),
        "gaze": (2,),
        "memory.weight_ih_l0": (3 * MEMORY, WIDTH + FELT),
    }
    for name, shape in shapes.items():
        got = weights[name].shape if name in weights else "none"
        if got != shape:
            raise CheckpointError(f"motion weights {path}: {name}: got {got}, expected {shape}")
    return weights


def named_style(weights: Weights, name: str) -> Style:
    """Return one of `MOTION_STYLES`."""
    style = Style(*map(float, weights["styles"][MOTION_STYLES.index(name)]))
    return style._replace(blink_hz=MORE_BLINKS * style.blink_hz)


def own_motion(style: str, folder: Path | None = None) -> tuple[Weights, Style]:
    """Return weights and one of their styles; folder: of the weights, None for the package's.

    Raises:
        CheckpointError: as `load_motion`.
    """
    weights = load_motion(folder or _FOLDER)
    return weights, named_style(weights, style)


class MotionStream:
    """Log-mel columns in; head, brows and lids of any frame whose sound is known out. The same whatever the portions.

    Frames before the first are as frame 0. What is older than `forget` says may not be asked for again.
    """

    def __init__(self, weights: Weights, style: Style, seed: int, blink_hz: float | None = None) -> None:
        """Begin at frame 0, at rest. blink_hz: instead of the style's."""
        self._w = _matrices(weights)
        self._random, self._looks = (np.random.default_rng([seed, stream]) for stream in (_STREAM, _LOOK_STREAM))
        self._columns = np.zeros((0, MEL_BANDS), np.float32)
        self._first_column = 0
        self._ended = False
        self._scale = weights["gain"].astype(np.float64) * np.array([style.head_deg] * BROWS + [style.brows])
        self._past = np.zeros((ORDER, CODES), np.float32)  # the latest first
        self._memory = np.zeros(MEMORY, np.float32)
        self._heard = np.full((FIRST_TAPS, BANDS), -1, np.float32)
        reach = (SECOND_TAPS - 1) * SECOND_STRIDE + 1
        self._said = deque([self._listen_first()] * reach, reach)
        self._knots: list[np.ndarray] = []
        self._gazes: list[float] = []
        self._looking = (0.0, 0)  # where to, and for how many steps
        self._first_knot = 0
        self._blink_hz = style.blink_hz if blink_hz is None else blink_hz
        self._urge = blink_urge(weights["blink_since"], self._blink_hz, KNOT_FRAMES)
        self._pace = min(1.0, FASTEST_BLINKS_HZ / max(self._blink_hz, 1e-9))
        # Of a face that was there before the video: its last blink is as long ago as it happens to be.
        chance = float(np.random.default_rng([seed, _SINCE_STREAM]).random())
        self._since = time_since_blink(self._urge, chance) - math.ceil(FIRST_BLINK_FRAME / KNOT_FRAMES)
        self._blinks: list[tuple[float, float, float, float]] = []  # middle, depth, and frames to half of it

    def hear(self, columns: np.ndarray) -> None:
        """Take the next log-mel columns (C, 80)."""
        self._columns = np.concatenate([self._columns, columns])

    def end(self) -> None:
        """Let there be silence after what was heard."""
        self._ended = True

    def frames(self, frames: np.ndarray) -> MotionFrames:
        """Return the frames (F,), in any order, each with sound to its end, or after the end of all."""
        wanted = np.maximum(frames, 0).tolist()
        codes, closure = np.zeros((len(wanted), CODES)), np.zeros(len(wanted), np.float32)
        if wanted:
            self._advance(max(wanted) // KNOT_FRAMES + 2)
        gaze = np.zeros(len(wanted))
        for index, frame in enumerate(wanted):
            codes[index] = self._codes(frame)
            closure[index] = self._closure(frame)
            knots = self._gazes[frame // KNOT_FRAMES - self._first_knot :][: 1 + frame % KNOT_FRAMES]
            gaze[index] = sum(knots) / len(knots)  # a saccade takes two frames
        return MotionFrames(codes, closure, gaze)

    def forget(self, before: int) -> None:
        """Let go of what frames from `before` on do not need."""
        knots = min(before // KNOT_FRAMES - 2 - self._first_knot, len(self._knots))
        if knots > 0:
            del self._knots[:knots], self._gazes[:knots]
            self._first_knot += knots
        self._blinks = [blink for blink in self._blinks if blink[0] + LONGEST_FRAMES > before]

    def _codes(self, frame: int) -> np.ndarray:
        knot, odd = divmod(frame, KNOT_FRAMES)
        if not odd:
            return self._knot(knot)
        # Half way between two steps: the cubic through four.
        return (9 * (self._knot(knot) + self._knot(knot + 1)) - self._knot(knot - 1) - self._knot(knot + 2)) / 16

    def _closure(self, frame: int) -> float:
        most = 0.0
        for middle, depth, closing, opening in reversed(self._blinks):
            if frame - middle > LONGEST_FRAMES:
                break
            most = max(most, depth * blink_pulse(frame - middle, closing, opening))
        return most

    def _knot(self, knot: int) -> np.ndarray:
        return np.zeros(CODES) if knot < 0 else self._knots[knot - self._first_knot]

    def _advance(self, last: int) -> None:
        for knot in range(self._first_knot + len(self._knots), last + 1):
            self._step(knot)

    def _step(self, knot: int) -> None:
        w, past = self._w, self._past
        self._heard[:-1] = self._heard[1:]
        self._heard[-1] = self._hear_step(knot)
        self._said.append(self._listen_first())
        recent = np.concatenate([self._said[i] for i in range(0, len(self._said), SECOND_STRIDE)])
        said = np.tanh(w["second.weight"] @ recent + w["second.bias"])
        moved = np.log(np.abs(past[0] - past[1]) + np.float32(STILL))
        self._remember(np.concatenate([said, np.minimum(np.maximum(past[0], -4), 4), moved]))
        bounded = np.tanh(w["out.weight"] @ self._memory + w["out.bias"])
        drive, spread = bounded[:CODES] * np.float32(DRIVE), np.exp(bounded[CODES:] * np.float32(SPREAD))
        noise = self._random.standard_normal(CODES) * math.sqrt(TAIL / self._random.chisquare(TAIL))
        noise = np.minimum(np.maximum(noise, -MOST_NOISE), MOST_NOISE).astype(np.float32)
        z = w["ar"] @ past.ravel() + w["mix"] @ (drive + spread * noise)
        speed = min(float(np.abs(z[POSE] - past[0, POSE]).mean()), SPEED_CAP)
        self._past = np.concatenate([z[None], past[:-1]])
        self._knots.append(z.astype(np.float64) * self._scale)
        self._maybe_look()
        self._maybe_blink(knot, speed)

    def _remember(self, told: np.ndarray) -> None:
        """Take a step of the gated recurrent unit."""
        w, gates = self._w, 2 * MEMORY
        new = w["memory.weight_ih_l0"] @ told + w["memory.bias_ih_l0"]
        old = w["memory.weight_hh_l0"] @ self._memory + w["memory.bias_hh_l0"]
        open_share = np.float32(0.5) * np.tanh(np.float32(0.5) * (new[:gates] + old[:gates])) + np.float32(0.5)
        reset, keep = open_share[:MEMORY], open_share[MEMORY:]
        self._memory = (1 - keep) * np.tanh(new[gates:] + reset * old[gates:]) + keep * self._memory

    def _hear_step(self, knot: int) -> np.ndarray:
        stop = (KNOT_FRAMES * knot - SOUND_LAG_FRAMES + 1) * COLUMNS_PER_FRAME
        if stop < _BLOCK:
            return _SILENCE
        start = stop - _BLOCK - self._first_column
        if start + _BLOCK > len(self._columns):
            if not self._ended:
                raise ValueError(f"motion: got frame {KNOT_FRAMES * knot} before its sound, expected the sound first")
            return _SILENCE
        heard = heard_bands(self._columns[start : start + _BLOCK])
        if start > HELD_COLUMNS:
            self._columns, self._first_column = self._columns[start:].copy(), self._first_column + start
        return heard

    def _listen_first(self) -> np.ndarray:
        return np.tanh(self._w["first.weight"] @ self._heard.ravel() + self._w["first.bias"])

    def _maybe_look(self) -> None:
        chance, (where, steps) = self._looks.random(), self._looking
        aside = self._looks.standard_normal()
        new = steps >= SHORTEST_LOOK and chance < LOOK_CHANCE
        self._looking = (float(aside * self._w["gaze"][1]), 0) if new else (where, steps + 1)
        self._gazes.append(self._looking[0])

    def _maybe_blink(self, knot: int, speed: float) -> None:
        w = self._w
        chance, *draws = self._random.random(5).tolist()
        self._since += 1
        begin = KNOT_FRAMES * (knot + draws[0])
        if begin < FIRST_BLINK_FRAME or not self._blink_hz:
            return
        feels, centre = w["blink_feels"], w["blink_centre"]
        felt = float(feels[0] * (self._heard[-1].mean() - centre[0]) + feels[1] * (speed - centre[1]))
        more = math.exp(min(max(felt, -2.0), 2.0) - float(w["blink_level"]))
        if chance < 1 - math.exp(-more * self._urge[min(max(self._since, 0), len(self._urge) - 1)]):
            depth, closing, opening = (
                float(np.interp(draw, np.linspace(0, 1, len(table)), table))
                for draw, table in zip(draws[1:4], w["blink_shape"], strict=True)
            )
            closing, opening = closing * self._pace, min(opening * self._pace, (LONGEST_FRAMES - HELD_FRAMES) / RELEASE)
            self._blinks.append((begin + 2 * closing + HELD_FRAMES / 2, min(DEEPER * depth, 1.0), closing, opening))
            self._since = 0


def _matrices(weights: Weights) -> Weights:
    """Return the weights with each layer as the matrix that a step multiplies with."""
    flat = {name: weights[name].transpose(0, 2, 1).reshape(WIDTH, -1) for name in ("first.weight", "second.weight")}
    flat["ar"] = weights["ar"].transpose(1, 0, 2).reshape(CODES, -1)
    return weights | {name: np.ascontiguousarray(matrix) for name, matrix in flat.items()}
