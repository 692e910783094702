"""Draw what each operation on a landmark track does: python examples/operations_sheet.py docs/landmarks.jpg.

The demo portrait speaks the demo recording; each tile shows it without and with one operation, or a number over time.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from atldiff.landmarks.blink import eye_opening
from atldiff.landmarks.edit import smooth
from atldiff.landmarks.geometry import euler_degrees
from atldiff.landmarks.topology import lip_opening
from atldiff.methods.edits import TrackEdits, edited
from atldiff.methods.fitting import shape_and_pose
from atldiff.methods.framing import framed
from atldiff.methods.landmark_preview import dimmed, draw_landmarks
from atldiff.methods.portrait import resized
from atldiff.pipeline import TalkingHead
from atldiff.types import Controls, LandmarkTrack

HERE = Path(__file__).parent
SIDE, TITLE, COLUMNS = 176, 22, 4
INK, PAPER, BEFORE, AFTER = (30, 30, 30), (255, 255, 255), (165, 165, 165), (200, 40, 60)


class Sheet:
    """Tiles of two pictures or one plot, with a title each."""

    def __init__(self) -> None:
        self.head = TalkingHead.from_pretrained("atl-diff")
        self.portrait = resized(framed(self.head.open_portrait(HERE / "portrait.jpg"), "head"), SIDE)
        self.pose = shape_and_pose(self.portrait)[1]
        self.track = self.head.landmarks(self.portrait, HERE / "speech.wav").slice(0, 125)
        opening = lip_opening(self.track.neutral + self.track.displacements)
        self.widest = int(np.argmax(opening[30:110])) + 30
        self.tiles: list[np.ndarray] = []

    def shown(self, track: LandmarkTrack, frame: int) -> np.ndarray:
        """Return a frame of a track, rendered."""
        return next(iter(self.head.render(self.portrait, track.slice(frame, frame + 1))))

    def pair(self, title: str, frame: int | None = None, **asked: object) -> None:
        """Add a frame without and with edits."""
        frame = self.widest if frame is None else frame
        made = edited(self.track, TrackEdits(**asked), portrait=self.pose)  # pyright: ignore[reportArgumentType]
        self.add(title, np.hstack([self.shown(self.track, frame), self.shown(made, frame)]))

    def plot(self, title: str, before: np.ndarray, after: np.ndarray) -> None:
        """Add two curves, the first grey, the second red."""
        canvas = np.full((SIDE, 2 * SIDE, 3), PAPER, np.uint8)
        low, high = (f(np.concatenate([before, after])) for f in (np.min, np.max))
        frames = max(len(before), len(after)) - 1
        for values, colour in ((before, BEFORE), (after, AFTER)):
            x = 8 + np.arange(len(values)) / frames * (2 * SIDE - 16)
            y = SIDE - 12 - (values - low) / max(high - low, 1e-9) * (SIDE - 24)
            line = np.rint(16 * np.stack([x, y], axis=1)).astype(np.int32)
            cv2.polylines(canvas, [line], False, colour, 2 if colour == AFTER else 1, cv2.LINE_AA, 4)
        self.add(title, canvas)

    def add(self, title: str, picture: np.ndarray) -> None:
        """Add a picture (SIDE, 2 * SIDE, 3) under its title."""
        strip = np.full((TITLE, picture.shape[1], 3), PAPER, np.uint8)
        cv2.putText(strip, title, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.44, INK, 1, cv2.LINE_AA)
        self.tiles.append(np.pad(np.vstack([strip, picture]), ((0, 6), (0, 6), (0, 0)), constant_values=255))

    def save(self, path: Path) -> None:
        """Write all tiles."""
        while len(self.tiles) % COLUMNS:
            self.tiles.append(np.full_like(self.tiles[0], 255))
        rows = [np.hstack(self.tiles[start : start + COLUMNS]) for start in range(0, len(self.tiles), COLUMNS)]
        Image.fromarray(np.vstack(rows)).save(path, quality=80, optimize=True)


def main(path: Path) -> None:
    """Draw the sheet."""
    sheet = Sheet()
    track = sheet.track
    points = track.slice(sheet.widest, sheet.widest + 1).points()[0]
    drawn = draw_landmarks(dimmed(sheet.portrait.image), points)
    sheet.add("--preview", np.hstack([sheet.shown(track, sheet.widest), drawn]))
    sheet.pair("--jaw-strength 1.6", jaw_strength=1.6)
    sheet.pair("--lip-strength 1.8", lip_strength=1.8)
    sheet.pair("--expression-scale 0.4", expression_scale=0.4)
    sheet.pair("--jaw-strength 3: --limits (right)", jaw_strength=3, limits=True)
    sheet.pair("--head '0:0 2:12,-6,8'", 60, head="0:0 2:12,-6,8")
    sheet.pair("--gaze -15,0", gaze="-15,0")
    sheet.pair("--blink-times 2.0", 50, blink_times="2.0")
    other = smooth(track, 0)
    other = replace(other, displacements=np.roll(other.displacements, 40, axis=0))
    other.save(path.with_suffix(".other.npz"))
    sheet.pair("--mix OTHER --mix-regions lips,jaw", mix=str(path.with_suffix(".other.npz")))
    path.with_suffix(".other.npz").unlink()

    def opening(made: LandmarkTrack) -> np.ndarray:
        return lip_opening(made.neutral + made.displacements)

    def eyes(made: LandmarkTrack) -> np.ndarray:
        return eye_opening((made.neutral + made.displacements).astype(np.float64))

    def yaw(made: LandmarkTrack) -> np.ndarray:
        return euler_degrees(made.rotation)[:, 0]

    def done(base: LandmarkTrack = track, **asked: object) -> LandmarkTrack:
        return edited(base, TrackEdits(**asked), portrait=sheet.pose)  # pyright: ignore[reportArgumentType]

    noise = np.random.default_rng(0).normal(0, 0.006, track.displacements.shape).astype(np.float32)
    shaken = replace(track, displacements=track.displacements + noise).slice(30, 90)
    sheet.plot("--smooth one-euro: lip opening", opening(shaken), opening(done(shaken, smooth="one-euro")))
    sheet.plot("--smooth savgol: lip opening", opening(shaken), opening(done(shaken, smooth="savgol")))
    sheet.plot("--av-offset 200: lip opening", opening(track)[:75], opening(done(av_offset=200))[:75])
    sheet.plot("--speed 1.5: lip opening", opening(track), opening(done(speed=1.5)))
    loose = sheet.head.landmarks(sheet.portrait, HERE / "speech.wav", controls=Controls(silence_gate=False))
    silent = replace(loose, displacements=loose.displacements.copy()).slice(0, 125)
    silent.displacements[70:, :, :] = 0.25 * silent.displacements[sheet.widest] + 0.04 * silent.displacements[70:]
    sheet.plot("--close-silence: lip opening", opening(silent), opening(done(silent, close_silence=True)))
    sheet.plot("--blink-rate-hz 0.8: eye opening", eyes(track), eyes(done(blink_rate_hz=0.8)))
    sheet.plot("--still: yaw", yaw(track), yaw(done(still=True)))
    sheet.save(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
