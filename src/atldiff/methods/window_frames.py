"""Landmarks in, frames out, by painters of the window around the lower face.

The portrait is warped, each window sampled, and what it changes composited into the portrait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from atldiff.landmarks.blink import FOLD_LEFT, FOLD_RIGHT
from atldiff.landmarks.control import CHIN, FACE_CONTROL
from atldiff.landmarks.geometry import euler_degrees, to_canonical
from atldiff.landmarks.raster import polygons
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import IRIS_LEFT, IRIS_RIGHT, LID_PAIRS_LEFT, LID_PAIRS_RIGHT, LIPS_INNER, OVAL
from atldiff.methods.figure import HEAD, stand_out
from atldiff.methods.lent_teeth import with_lent_teeth
from atldiff.methods.mouth_layers import to_template, window_layers
from atldiff.methods.overlap import OverlapStream
from atldiff.stages import stage
from atldiff.video.background import lay
from atldiff.video.cavity import MouthLayers
from atldiff.video.composite import WindowResult, composite
from atldiff.video.eyelids import EyeLandmarks, part_lids
from atldiff.video.gaze import moved_irises
from atldiff.video.patch import Patch, PatchedFrame
from atldiff.video.tone import tone_of
from atldiff.video.warp import PortraitWarp
from atldiff.video.window import STORED_MOUTH, WindowGeometry, apply, chain, extract, fit_window, outline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from atldiff.config import SampleConfig
    from atldiff.methods.overlap import Finish
    from atldiff.types import Portrait
    from atldiff.video.patch import Frame
    from atldiff.workers import Workers

CAVITY_BLUR_PX = 1.0
CARRIED = 0.35
"""Share of the change before in a window's first. Without it the mouth changes by 5 % more there than within windows,
in real clips by 3 % less, with it by 1 % less (`docs/benchmark.md`)."""
DIMMED = 0.45
"""How much of an open mouth's dark is laid over what renderers paint there that know nothing of layers: the mean of all
mouths, as light as skin."""

EYES = (
    EyeLandmarks(np.array([33, 133]), LID_PAIRS_RIGHT[:, 0], LID_PAIRS_RIGHT[:, 1], FOLD_RIGHT),
    EyeLandmarks(np.array([362, 263]), LID_PAIRS_LEFT[::-1, 0], LID_PAIRS_LEFT[::-1, 1], FOLD_LEFT[::-1]),
)
"""The eyes, their landmarks in the order of x."""
IRISES = (int(IRIS_RIGHT[0]), int(IRIS_LEFT[0]))


class WindowPainter(Protocol):
    """A painter of the window around the lower face, whose frames change the warped portrait."""

    @property
    def geometry(self) -> WindowGeometry:
        """The window, in template pixels."""
        ...

    @property
    def layered(self) -> bool:
        """Whether it is shown the two layers of a mouth."""
        ...

    def window_noise(self, seed: int, first: int, frames: int) -> np.ndarray:
        """Return the noise of a video's frames from `first` on, (1, C, T, s, s), or (1, C, 1, s, s) where shared."""
        ...

    def render_window(
        self, identity: np.ndarray, source: np.ndarray, target: np.ndarray, noise: np.ndarray, steps: int,
        layers: Sequence[MouthLayers] = (),
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Return the frames of windows and the warped portrait that they change, each (B, 3, T, H, W) float32.

        identity: (B, 3, H, W) float32 in [-1, 1]. source: (B, 478, 2), target: (B, T, 478, 2) window pixels. noise:
        of `window_noise`. steps: network evaluations. layers: of each window's portrait, for a layered renderer.
        """
        ...

    def render_filmed(
        self, identity: np.ndarray, source: np.ndarray, target: np.ndarray, noise: np.ndarray, steps: int,
        layers: Sequence[MouthLayers] = (),
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Return as `render_window` one window of T frames, each of which is a portrait of its own: filmed ones.

        identity: (T, 3, H, W). source, target: (T, 478, 2). layers: of each frame.
        """
        ...


class FrameStream:
    """Frames of one portrait, from landmarks pushed in any portions, by a painter of the mouth's window.

    background: (H, W, 3) uint8 behind a portrait with alpha; without one its frames are (H, W, 4).
    """

    def __init__(
        self,
        painter: WindowPainter,
        portrait: Portrait,
        sampling: SampleConfig,
        seed: int,
        workers: Workers | None = None,
        background: np.ndarray | None = None,
    ) -> None:
        self._painter, self._steps, self._seed = painter, sampling.steps, seed
        self._geometry = painter.geometry
        points = portrait.landmarks[None]
        self._background, self._landmarks = background, portrait.landmarks[:, :2]
        self._tone = tone_of(portrait.image, self._landmarks)
        matrix = fit_window(points, self._geometry)[0]
        self._source = apply(matrix, points[:, :, :2])
        self._lent = sampling.lent_teeth
        self._layers = self._lend(portrait_layers(portrait), portrait)
        # One that knows nothing of layers sees lips as they close, and the teeth are laid over what it paints.
        self._layered = painter.layered
        self._every = sampling.every if self._layered else 1
        seen = portrait.image if self._layered else self._layers.lips
        picture = extract(seen, matrix, self._geometry.size, sharp=self._layered)
        self._window_layers = self._in_window(portrait, picture) if self._layered else ()
        self._identity = np.ascontiguousarray(picture.transpose(2, 0, 1)).astype(np.float32)[None] / 127.5 - 1
        warp = PortraitWarp.prepare(
            self._layers.lips,
            face=portrait.landmarks[OVAL, :2],
            source=FACE_CONTROL.of(portrait.landmarks[:, :2]),
            unit_px=self._geometry.scale / float(np.hypot(matrix[0, 0], matrix[1, 0])),
            alpha=portrait.alpha,
            head=HEAD,
        )
        self._warp = stand_out(warp, self._landmarks[OVAL])
        still, (x0, y0, x1, y1) = portrait.pixels.copy(), warp.box
        still[y0:y1, x0:x1] = self._warp.still
        self._still = lay(still, background)
        self._still.setflags(write=False)
        self._windows = OverlapStream(sampling, self._sample, workers, carried=CARRIED)

    def push(self, points: np.ndarray, *, more: bool = False) -> Iterator[Frame]:
        """Take landmarks (F, 478, 3) in pixels; yield the frames that are complete.

        more: as in `OverlapStream.push`.
        """
        return self._windows.push(points, more=more)

    def flush(self) -> Iterator[Frame]:
        """End the stream: yield the frames still missing."""
        return self._windows.flush()

    def _sample(self, points: np.ndarray, first: int) -> tuple[np.ndarray, Finish]:
        matrices = fit_window(points, self._geometry)
        target = np.stack([apply(m, p[:, :2]) for m, p in zip(matrices, points, strict=True)])  # (T, 478, 2)
        cavities = self._cavities(target)
        painted = np.unique([*range(0, len(points), self._every), len(points) - 1])
        noise = self._painter.window_noise(self._seed, first, len(painted))
        frames, base = self._painter.render_window(
            self._identity, self._source, target[None, painted], noise, self._steps, self._window_layers
        )
        sampled, priors = (
            between((np.ascontiguousarray(x[0].transpose(1, 2, 3, 0)) + 1) * 127.5, painted, len(points))
            for x in (frames, base)
        )
        if self._tone is not None:
            sampled, priors = self._tone.of(sampled), self._tone.of(priors)

        def finish(index: int, change: np.ndarray) -> Frame:
            return self._frame(points[index], WindowResult(change, priors[index], cavities[index], matrices[index]))

        return sampled - priors, finish

    def _in_window(self, portrait: Portrait, picture: np.ndarray) -> tuple[MouthLayers]:
        """Return the layers at the window's resolution; picture: the portrait there."""
        pictures, points = [picture], [self._source[0]]
        for other in portrait.references:
            matrix = fit_window(other.landmarks[None], self._geometry)[0]
            pictures.append(extract(other.image, matrix, self._geometry.size, sharp=True))
            points.append(apply(matrix, other.landmarks[:, :2]))
        inner, chin = (np.stack([each[i] for each in points]) for i in (LIPS_INNER, CHIN))
        return (self._lend(window_layers(pictures, inner, chin, self._geometry), portrait),)

    def _lend(self, layers: MouthLayers, portrait: Portrait) -> MouthLayers:
        """Return layers with a lent row of teeth where neither portrait nor references show any."""
        if not self._lent:
            return layers
        inner = apply(_to_template(portrait.landmarks), self._landmarks[LIPS_INNER].astype(np.float64))
        _, rotation, _, _ = to_canonical(portrait.landmarks[None].astype(np.float64), mean_shape())
        yaw_deg = float(euler_degrees(rotation)[0, 0])
        return with_lent_teeth(layers, inner, yaw_deg, self._tone, mirrored=self._seed % 2 == 1)

    def _cavities(self, target: np.ndarray) -> np.ndarray:
        import cv2

        if self._layered:  # its prior has the cavity already: only the difference is added
            return np.zeros((len(target), *self._geometry.size[::-1]), np.float32)
        cavities = polygons(target[:, LIPS_INNER], self._geometry.size).astype(np.float32) / 255
        return np.stack([cv2.GaussianBlur(cavity, (0, 0), CAVITY_BLUR_PX) for cavity in cavities])

    def _frame(self, points: np.ndarray, window: WindowResult) -> PatchedFrame:
        with stage("warp"):
            detail = np.concatenate(outline(window.matrix, self._geometry.size))
            smooth, lids = part_lids(self._landmarks, points[:, :2], EYES)
            irises = moved_irises(self._landmarks, smooth, EYES, IRISES)
            patch = self._warp.patch(FACE_CONTROL.of(smooth), detail, [*irises, *lids], keep=[detail])
        with stage("composite"):
            if self._layered:
                self._lay_cavity(patch, points, window.matrix)
            composite(patch.pixels[..., :3], patch.corner, window)
            if not self._layered:
                self._lay_cavity(patch, points, window.matrix)
            behind = None if self._background is None else self._background[patch.place]
            return PatchedFrame(self._still, Patch(lay(patch.pixels, behind), patch.corner))

    def _lay_cavity(self, patch: Patch, points: np.ndarray, matrix: np.ndarray) -> None:
        lips, chin = points[LIPS_INNER, :2].astype(np.float64), points[CHIN, :2].mean(0)
        template = chain(to_template(self._geometry), matrix)
        unseen = 1.0 if self._layered else DIMMED
        self._layers.paint(patch.pixels, patch.corner, lips, chin, template, unseen=unseen)


def between(pictures: np.ndarray, known: np.ndarray, count: int) -> np.ndarray:
    """Return pictures of `count` frames from those (N, ...) of the frames `known` (N,), its ends among them."""
    if len(known) == count:
        return pictures
    place = np.interp(np.arange(count), known, np.arange(len(known)))
    low = np.minimum(place.astype(int), len(known) - 2)
    share = (place - low).astype(np.float32)[:, None, None, None]
    return (1 - share) * pictures[low] + share * pictures[low + 1]


def portrait_layers(portrait: Portrait) -> MouthLayers:
    """Part a portrait into the layers of its mouth, at its own resolution, with what its references show of it."""
    matrix = _to_template(portrait.landmarks)
    own = MouthLayers.prepare(
        portrait.image, portrait.landmarks[LIPS_INNER, :2], portrait.landmarks[CHIN, :2].mean(0), matrix
    )
    scale = 1 / float(np.hypot(matrix[0, 0], matrix[1, 0]))  # pixels of the portrait a template pixel
    size = tuple(round(length / STORED_MOUTH.scale * scale) for length in STORED_MOUTH.size)
    geometry = WindowGeometry(size[0], STORED_MOUTH.origin, scale, size[1])
    others = []
    for other in portrait.references:
        to_window = fit_window(other.landmarks[None], geometry)[0]
        points = apply(to_window, other.landmarks[:, :2].astype(np.float64))
        picture = extract(other.image, to_window, geometry.size, sharp=True)
        others.append(MouthLayers.prepare(picture, points[LIPS_INNER], points[CHIN].mean(0), to_template(geometry)))
    return own.with_references(others)


def _to_template(points: np.ndarray) -> np.ndarray:
    return fit_window(points[None], WindowGeometry(128, (0, 0)))[0]
