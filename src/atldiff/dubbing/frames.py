"""Filmed frames whose mouth says something else: each is its own portrait, and only its mouth changes.

The lips of a frame, closed, are moved to the wanted landmarks; behind them stands the inside of the mouth that the
video itself shows elsewhere, the same in all frames; a renderer of the mouth's window completes both. What comes of it
is added to the frame's own planes as a difference, which is nothing outside the mouth and the jaw.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from atldiff.dubbing.mouth import choose, inside, own_geometry
from atldiff.dubbing.view import FrameView
from atldiff.landmarks.control import CHIN, MOUTH_CONTROL
from atldiff.landmarks.topology import LIPS_INNER
from atldiff.methods.mouth_layers import to_template
from atldiff.methods.overlap import OverlapStream
from atldiff.methods.window_frames import CARRIED, WindowPainter, between
from atldiff.stages import stage
from atldiff.video.cavity import MouthLayers, closed_lips
from atldiff.video.composite import WindowResult, composite
from atldiff.video.tone import tone_of
from atldiff.video.warp import border_anchors, displacement_field
from atldiff.video.window import WindowGeometry, apply, chain, extract, fit_window, outline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from atldiff.config import SampleConfig
    from atldiff.methods.overlap import Finish
    from atldiff.types import Portrait
    from atldiff.video.planar import Planar
    from atldiff.workers import Workers

TEMPLATE = WindowGeometry(128, (0, 0))
MOVING = WindowGeometry(148, (-10, 32), height=110)
"""What of a face may move: from the wings of the nose to below the chin, in template pixels."""
BORDER = 8.0
"""Template pixels over which motion fades towards its border."""
CELL = 2.0
"""Template pixels of the grid that motion is evaluated on."""
MODEL_FPS = 25


@dataclass(eq=False)
class Filmed:
    """One frame to be dubbed. points, target: (478, 3) its landmarks and the wanted ones, in square pixels.

    Without landmarks it stays as it is. weight: how much of what is made is seen, 0 to 1.
    """

    frame: Planar
    points: np.ndarray | None = None
    target: np.ndarray | None = None
    weight: float = 1.0
    part: _Part | None = None


class _Part:
    """The part of a frame around the mouth, in square pixels: picture (h, w, 3), and landmarks in its pixels."""

    def __init__(self, filmed: Filmed, shown: tuple[float, float]) -> None:
        points, target = cast("np.ndarray", filmed.points), cast("np.ndarray", filmed.target)
        matrix = fit_window(points[None], TEMPLATE)[0]
        low, high = outline(chain(to_moving(), matrix), MOVING.size)
        view = FrameView(filmed.frame, shown)
        self.place = filmed.frame.even_place(low / view.step, high / view.step)
        self.picture, self.corner = view.part(low, high)
        self.matrix = matrix.copy()  # of its pixels to template pixels
        self.matrix[:, 2] += matrix[:, :2] @ self.corner
        self.points = points[:, :2].astype(np.float64) - self.corner
        self.target = target[:, :2].astype(np.float64) - self.corner
        self._own: tuple[np.ndarray, MouthLayers] | None = None

    @property
    def unit_px(self) -> float:
        return 1 / float(np.hypot(self.matrix[0, 0], self.matrix[1, 0]))

    def window(self, geometry: WindowGeometry) -> np.ndarray:
        """Return the map (2, 3) of its pixels to those of a window."""
        return chain(_of_template(geometry), self.matrix)

    def own(self, geometry: WindowGeometry) -> tuple[np.ndarray, MouthLayers]:
        """Return its picture in a window, the same at each call, and the layers of its mouth there."""
        if self._own is None:
            matrix = self.window(geometry)
            picture, points = extract(self.picture, matrix, geometry.size, sharp=True), apply(matrix, self.points)
            layers = MouthLayers.prepare(picture, points[LIPS_INNER], points[CHIN].mean(0), to_template(geometry))
            self._own = picture, layers
        return self._own


class DubbedFrames:
    """Frames of one person in order, each handed on once its mouth is changed, in place.

    open_mouths, closed_mouth: what the inside of the mouth is made of. shown: as of `Footage.shown`. rate: frames a
    second: of many, fewer are painted anew. first: the number of the first frame, a multiple of the windows' hop.
    """

    def __init__(
        self,
        painter: WindowPainter,
        open_mouths: Sequence[Portrait],
        closed_mouth: Portrait,
        sampling: SampleConfig,
        seed: int,
        *,
        shown: tuple[float, float] = (1.0, 1.0),
        rate: float = MODEL_FPS,
        workers: Workers | None = None,
        first: int = 0,
    ) -> None:
        self._painter, self._steps, self._seed, self._shown = painter, sampling.steps, seed, shown
        self._geometry, self._layered = painter.geometry, painter.layered
        self._every = max(1, round(sampling.every * max(1.0, rate / MODEL_FPS)))
        self._tone = tone_of(closed_mouth.image, closed_mouth.landmarks[:, :2])
        chosen, mirrored = choose(open_mouths), seed % 2 == 1
        own = own_geometry(chosen[0][0].portrait if chosen else closed_mouth)
        self._mouth, self._small_mouth = (
            inside(chosen, closed_mouth, geometry, self._tone, lent=sampling.lent_teeth, mirrored=mirrored)
            for geometry in (own, self._geometry)
        )
        self._windows = OverlapStream(sampling, self._sample, workers, first, CARRIED)

    def push(self, filmed: Filmed) -> Iterator[Planar]:
        """Take the next frame; yield those that are done."""
        item = np.empty(1, object)
        item[0] = filmed
        return cast("Iterator[Planar]", self._windows.push(item, more=True))

    def flush(self) -> Iterator[Planar]:
        """Yield the frames still missing."""
        return cast("Iterator[Planar]", self._windows.flush())

    def _sample(self, items: np.ndarray, first: int) -> tuple[np.ndarray, Finish]:
        window: list[Filmed] = items.tolist()
        known = [index for index, filmed in enumerate(window) if filmed.points is not None]
        size = self._geometry.size[::-1]
        if not known:
            blank = np.zeros((len(window), *size, 3), np.float32)
            return blank, lambda index, _: window[index].frame  # pyright: ignore[reportReturnType]
        for index in known:
            if window[index].part is None:
                window[index].part = _Part(window[index], self._shown)
        painted = np.unique([*range(0, len(window), self._every), len(window) - 1])
        nearest = [min(known, key=lambda index, at=at: abs(index - at)) for at in painted]
        parts = [cast("_Part", window[index].part) for index in nearest]
        with stage("inputs"):
            pictures, source, target, layers = zip(*(self._seen(part) for part in parts), strict=True)
        identity = np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
        noise = self._painter.window_noise(self._seed, first, len(painted))
        frames, base = self._painter.render_filmed(
            np.ascontiguousarray(identity), np.stack(source), np.stack(target), noise, self._steps, layers
        )
        sampled, priors = (
            between((np.ascontiguousarray(x[0].transpose(1, 2, 3, 0)) + 1) * 127.5, painted, len(window))
            for x in (frames, base)
        )
        if self._tone is not None:
            sampled, priors = self._tone.of(sampled), self._tone.of(priors)
        # What is cross-faded from window to window is what changes: priors are of the same frames.
        changes = sampled - priors

        def finish(index: int, change: np.ndarray) -> Planar:
            filmed = window[index]
            if filmed.points is not None and filmed.weight > 0:
                self._change(filmed, change)
            return filmed.frame

        return changes, finish  # pyright: ignore[reportReturnType]

    def _seen(self, part: _Part) -> tuple[np.ndarray, np.ndarray, np.ndarray, MouthLayers]:
        """Return a frame's window, its landmarks there and the wanted ones, and the layers of its mouth."""
        matrix = part.window(self._geometry)
        picture, own = part.own(self._geometry)
        source, target = apply(matrix, part.points), apply(matrix, part.target)
        return picture, source, target, inside_of(self._small_mouth, own)

    def _change(self, filmed: Filmed, change: np.ndarray) -> None:
        part = filmed.part or _Part(filmed, self._shown)
        with stage("warp"):
            window = part.window(self._geometry)
            _, own = part.own(self._geometry)
            lips = closed_lips(part.picture, part.points[LIPS_INNER], part.unit_px, own.lips, window)
            layers = inside_of(self._mouth, own)
            canvas = _moved(lips, part)
        with stage("composite"):
            layers.paint(canvas, (0, 0), part.target[LIPS_INNER], part.target[CHIN].mean(0), part.matrix)
            nothing = np.zeros(change.shape[:2], np.float32)
            composite(canvas, (0, 0), WindowResult(change, np.zeros_like(change), nothing, window))
            difference = (canvas.astype(np.float32) - part.picture) * np.float32(filmed.weight)
            rows, columns = part.place
            size = (columns.stop - columns.start, rows.stop - rows.start)
            if difference.shape[1::-1] != size:
                import cv2

                difference = np.asarray(cv2.resize(difference, size, interpolation=cv2.INTER_AREA), np.float32)
            filmed.frame.add(part.place, difference)
        filmed.part = None


def _moved(lips: np.ndarray, part: _Part) -> np.ndarray:
    """Return the part of a frame (h, w, 3), its lips closed, with the landmarks moved to the wanted ones."""
    import cv2

    height, width = lips.shape[:2]
    unit = part.unit_px
    rows, columns = (max(4, round(side / (CELL * unit))) for side in (height, width))
    x, y = (
        ((np.arange(count) + 0.5) * side / count - 0.5) / unit for count, side in ((columns, width), (rows, height))
    )
    there, here = (MOUTH_CONTROL.of(points) / unit for points in (part.target, part.points))
    middle = here.mean(0)
    anchors = border_anchors(np.zeros(2, np.float32), np.array([width, height], np.float32) / unit)
    there, here = ((np.concatenate([points, anchors]) - middle).astype(np.float32) for points in (there, here))
    x, y = (x - middle[0]).astype(np.float32), (y - middle[1]).astype(np.float32)
    field = displacement_field(there, here, x, y) * np.float32(unit)
    grid = np.stack(np.meshgrid((x + middle[0]) * unit, (y + middle[1]) * unit), -1)
    field *= _share(apply(part.matrix, grid.reshape(-1, 2)).reshape(grid.shape))[..., None]
    field = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
    across = field[..., 0] + np.arange(width, dtype=np.float32)
    down = field[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    return cv2.remap(lips, across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _share(places: np.ndarray) -> np.ndarray:
    """Return how much of the motion there is at places (..., 2) of the template: 1 inside, 0 at the border."""
    low = np.array(MOVING.origin, np.float64)
    high = low + MOVING.size
    ramp = np.clip(np.minimum(places - low, high - places) / BORDER, 0, 1).min(-1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


def inside_of(mouth: MouthLayers, own: MouthLayers) -> MouthLayers:
    """Return the lips of one frame with what stands behind those of another, in this one's light."""
    gain = np.clip(own.light / np.maximum(mouth.light, 1), 0.5, 2)
    cavity = np.clip(np.rint(mouth.cavity * gain), 0, 255).astype(np.uint8)
    return replace(mouth, lips=own.lips, cavity=cavity, light=own.light, dark=own.dark)


def to_moving() -> np.ndarray:
    """Return the map (2, 3) of the template's pixels to those of `MOVING`."""
    return _of_template(MOVING)


def _of_template(geometry: WindowGeometry) -> np.ndarray:
    (x, y), scale = geometry.origin, geometry.scale
    return np.array([[scale, 0, -x * scale], [0, scale, -y * scale]], np.float64)
