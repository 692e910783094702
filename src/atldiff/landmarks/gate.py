"""The gate that keeps the mouth closed where nobody speaks; a stream's values are a file's.

A voice detector knows what is speech, though not when it ends: in noise it goes on for up to 0.4 s. The level knows
when, against the recording's own floor. A frame is spoken where both agree.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from atldiff.landmarks.motion import ease
from atldiff.timebase import COLUMNS_PER_FRAME

START, STAY = 0.4, 0.25
"""A voice starts where its probability is above the first, and lasts while it is above the second."""
LATE_FRAMES = 2
"""The detector hears a voice begin up to this many frames late."""
FLOOR_FRAMES = 50
"""The floor is the quietest of this many frames."""
FIRST_FRAMES = 8
"""The first frames wait for so many, as the renderer's first window does."""
STEADY_FRAMES, STEADY_DB = 14, 3.0
"""A recording whose first frames are as loud as one another begins with a tone, which the detector takes for a vowel:
the quietest of them is their floor."""
FLOOR_UNDER_PEAK_DB = 10.0
"""Later the floor lies at least this far below the running peak: a long note is no floor."""
OVER_FLOOR_DB = 4.0
"""Sound is this far above the floor: stationary noise stays within, frame by frame."""
PEAK_DECAY_DB = 0.16  # a frame: 4 dB a second
LOOKAHEAD_FRAMES = 4
"""A frame's gate knows the sound up to this many frames later: it is open when speech begins."""
HOLD_FRAMES, CLOSE_FRAMES = 1, 4
"""The gate stays open for the first after the last spoken frame, and closes over the second: in 200 ms."""
HEARD_FRAMES = 8
"""A recording with less speech than this has none: a chord now and then, or noise that an encoder fades in, sounds like
a vowel."""

_OPEN_FRAMES = LOOKAHEAD_FRAMES + 1
_NO_SOUND_DB = -300.0


class SpeechGate:
    """What is heard in, gate values out, one a frame, four frames behind; the same values however it is split."""

    def __init__(self) -> None:
        self._columns = np.zeros(0)  # levels of a frame that is not whole
        self._speaking = False
        self._running_db = _NO_SOUND_DB
        # Of the frames from the next to be emitted on: is there a voice; their level and its running peak, in dB.
        self._voice: list[bool] = []
        self._levels: list[float] = []
        self._peaks: list[float] = []
        self._past: deque[float] = deque(maxlen=FLOOR_FRAMES)  # levels of the frames before them
        self._since = HOLD_FRAMES + CLOSE_FRAMES  # frames since the last spoken one: closed at first
        self._spoken = 0
        self.emitted = 0

    @property
    def heard(self) -> bool:
        """Whether there was speech in the frames emitted so far."""
        return self._spoken >= HEARD_FRAMES

    def push(self, voice: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Take the probability of a voice in each frame (F,) and the columns' levels (C,) in dB, C not always 4 F.

        Returns:
            gate (G,) float32 in [0, 1] of the frames whose look-ahead is complete.
        """
        for probability in voice.tolist():
            self._speaking = probability > (STAY if self._speaking else START)
            self._voice.append(self._speaking)
        self._columns = np.concatenate([self._columns, levels])
        frames = len(self._columns) // COLUMNS_PER_FRAME
        whole = self._columns[: frames * COLUMNS_PER_FRAME].reshape(frames, COLUMNS_PER_FRAME)
        self._columns = self._columns[frames * COLUMNS_PER_FRAME :]
        for columns in whole.tolist():
            level = 10 * math.log10(math.fsum(10 ** (column / 10) for column in columns) / COLUMNS_PER_FRAME)
            self._running_db = max(level, self._running_db - PEAK_DECAY_DB)
            self._levels.append(level)
            self._peaks.append(self._running_db)
        known = min(len(self._voice), len(self._levels))
        return self._emit(known - LOOKAHEAD_FRAMES if self.emitted + known >= FIRST_FRAMES else 0)

    def flush(self, frames: int) -> np.ndarray:
        """End the stream at `frames` frames in all, silence after it; return the gate values still missing."""
        rest = frames - self.emitted
        self._voice += [self._speaking] * (rest - len(self._voice))
        return self._emit(rest)

    def _emit(self, count: int) -> np.ndarray:
        gate = np.zeros(max(0, count), np.float32)
        for index in range(len(gate)):
            spoken = self._spoken_ahead(index)
            self._since = 0 if spoken[0] else self._since + 1
            self._spoken += spoken[0]
            until = spoken.index(True) if True in spoken else _OPEN_FRAMES
            gate[index] = max(ease(1 - (self._since - HOLD_FRAMES) / CLOSE_FRAMES), ease(1 - until / _OPEN_FRAMES))
            self._past.append(self._levels[index])
        del self._voice[: len(gate)], self._levels[: len(gate)], self._peaks[: len(gate)]
        self.emitted += len(gate)
        return gate

    def _spoken_ahead(self, index: int) -> list[bool]:
        """Return whether a frame is spoken, and the four after it as far as that is known by then."""
        frame = self.emitted + index
        levels = self._levels[index : index + _OPEN_FRAMES]
        if frame < STEADY_FRAMES:
            known = [*self._past, *self._levels[index : index + max(_OPEN_FRAMES, FIRST_FRAMES - frame)]]
            quietest, loudest = min(known), max(known)
            steady = loudest - quietest < STEADY_DB
            floor = quietest if steady else min(quietest, loudest - FLOOR_UNDER_PEAK_DB)
        else:
            floor = min(*self._past, *levels, self._peaks[index + len(levels) - 1] - FLOOR_UNDER_PEAK_DB)
        voice = self._voice[index : index + _OPEN_FRAMES]
        return [
            level > floor + OVER_FLOOR_DB and any(voice[ahead : ahead + LATE_FRAMES + 1])
            for ahead, level in enumerate(levels)
        ]
