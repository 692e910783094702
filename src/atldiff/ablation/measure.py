"""What is measured of a held-out clip: every row's frames against the real ones of the whole-face window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from atldiff.data.faces import load_faces
from atldiff.evaluation.metrics import image, landmarks
from atldiff.evaluation.protocol import Metric
from atldiff.landmarks.geometry import to_canonical
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import OUTER_EYE_CORNERS, SIXTY_EIGHT, SIXTY_EIGHT_MOUTH
from atldiff.methods.atl_published.inputs import NEEDED, build_start
from atldiff.methods.atl_published.training.renderer_data import clip_windows, mouth_map
from atldiff.methods.models import painter_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from atldiff.data.manifest import Manifest, ManifestEntry
    from atldiff.landmarks.detect import FaceTracker
    from atldiff.methods.atl_published.network import PublishedRenderer

MOST_FRAMES, FEWEST_FRAMES = 32, 16
"""Frames of a clip that are measured, after its first; shorter clips are left out."""

METRICS = (
    Metric("psnr", "PSNR", "dB", "higher", "error of all pixels of the window, pooled over the clip",
           "ITU-T J.340", "image", paired=True),
    Metric("ssim", "SSIM", "", "higher", "structural similarity of the window",
           "Wang et al., 2004", "image", paired=True),
    Metric("mouth_error", "mouth error", "", "lower", "squared error in the real mouth over the unmoved identity's",
           "this package", "image", paired=True),
    Metric("lmd", "LMD", "px", "lower", "distance of the 68 landmarks, detected again, head pose included",
           "Chen et al., 2018", "landmarks", paired=True),
    Metric("mouth_lmd", "mouth LMD", "px", "lower", "distance of the 20 mouth landmarks, likewise",
           "Chen et al., 2018", "landmarks", paired=True),
    Metric("mouth_lmd_aligned", "mouth LMD, pose-free", "px", "lower", "the same with both heads turned to the front",
           "this package", "landmarks", paired=True),
    Metric("flicker", "flicker", "levels", "lower", "RMS luma change a frame where the real picture stands still",
           "this package", "image", paired=True),
    Metric("face_found", "faces", "%", "higher", "frames in which the detector sees a face",
           "this package", "landmarks"),
)  # fmt: skip
"""Distances are in pixels of the window, levels are 0 to 255."""

Values = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Subject:
    """A held-out clip: its first frame is the portrait, the frames after it are what a renderer should make.

    person: its identity in the manifest. emotion: number of its label. portrait: (S, S, 3) uint8. real: (T, S, S, 3)
    uint8. source: (K, 2), targets: (T, K, 2) tracked landmarks in window pixels. mouth: (T, S, S) in [0, 1], where the
    mouth is.
    """

    name: str
    person: str
    emotion: int
    portrait: NDArray[np.uint8]
    real: NDArray[np.uint8]
    source: NDArray[np.float32]
    targets: NDArray[np.float32]
    mouth: NDArray[np.float32]

    def still(self) -> NDArray[np.uint8]:
        """Return the unmoved portrait as frames (T, S, S, 3) uint8."""
        return np.broadcast_to(self.portrait, self.real.shape)


def load_subject(manifest: Manifest, entry: ManifestEntry, side: int) -> Subject | None:
    """Load the first 33 frames of a clip at a side of `side` pixels; None where it has fewer than 17.

    Raises:
        DataError: the clip was prepared before whole faces were kept.
    """
    clip = load_faces(manifest, entry, NEEDED)
    frames = min(len(clip) - 1, MOST_FRAMES)
    if frames < FEWEST_FRAMES:
        return None
    pictures, points, mouth = clip_windows(clip, np.arange(frames + 1), side)
    return Subject(
        name=clip.name,
        person=clip.identity,
        emotion=clip.emotion,
        portrait=pictures[0],
        real=pictures[1:],
        source=points[0],
        targets=points[1:],
        mouth=mouth_map(mouth[1:], side),
    )


def render_warped(subject: Subject, renderer: PublishedRenderer) -> NDArray[np.uint8]:
    """Return the landmark-warped portrait, (T, S, S, 3) uint8: the warped prior itself, no network."""
    config = replace(renderer.config, prior="warped")
    prior, _ = build_start(_identity(subject), subject.source[None], subject.targets[None], config)
    return _pictures(prior)


def render(subject: Subject, renderer: PublishedRenderer, steps: Sequence[int], seed: int) -> list[NDArray[np.uint8]]:
    """Return the frames (T, S, S, 3) uint8 that a renderer makes of a clip's landmarks, for each number of steps.

    Every number of steps, like every renderer, starts from the same noise: a function of the seed and the frame.
    """
    config, painter = renderer.config, painter_of(renderer)
    identity = _identity(subject)
    prior, mask = build_start(identity, subject.source[None], subject.targets[None], config)
    tokens, noise = painter.describe(identity), painter.frame_noise(seed, 0, len(subject.real))
    emotion = np.array([min(subject.emotion, config.emotions)], np.int64)
    return [_pictures(painter.render(prior, mask, tokens, emotion, noise, count)) for count in steps]


def track(frames: NDArray[np.uint8], tracker: FaceTracker) -> list[NDArray[np.float32] | None]:
    """Return the landmarks (478, 3) in pixels that are detected in each frame of a clip, None where no face is."""
    tracker.reset()
    return [tracker.track(frame) for frame in frames]


def figures(
    subject: Subject,
    frames: NDArray[np.uint8],
    seen: Sequence[NDArray[np.float32] | None],
    real_seen: Sequence[NDArray[np.float32] | None],
) -> Values:
    """Return every measure of a row's frames (T, S, S, 3) uint8; None where it cannot be measured.

    seen, real_seen: from `track`, of the frames and of the real ones.
    """
    before = _mouth_error(subject.still(), subject)
    return {
        "psnr": image.psnr(float(image.mean_squared_error(frames, subject.real).mean())),
        "ssim": float(image.ssim(frames, subject.real).mean()),
        "mouth_error": _mouth_error(frames, subject) / before if before else None,
        **_distances(seen, real_seen),
        "flicker": image.flicker(*image.flicker_sums(frames, subject.real)),
        "face_found": 100 * sum(points is not None for points in seen) / len(seen),
    }


def real_figures(subject: Subject, real_seen: Sequence[NDArray[np.float32] | None]) -> Values:
    """Return what the real frames have by themselves: what a camera, a codec and the detector leave."""
    values: Values = {metric.name: None for metric in METRICS}
    values["flicker"] = image.flicker(*image.flicker_sums(subject.real, subject.real))
    values["face_found"] = 100 * sum(points is not None for points in real_seen) / len(real_seen)
    return values


def telling_frame(subject: Subject) -> int:
    """Return the frame whose real mouth differs most from the portrait's: no matter what any row makes of it."""
    return int(_mouth_errors(subject.still(), subject).argmax())


def _identity(subject: Subject) -> NDArray[np.float32]:
    return np.ascontiguousarray(subject.portrait.transpose(2, 0, 1)).astype(np.float32)[None] / np.float32(255)  # pyright: ignore[reportReturnType]


def _pictures(frames: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return frames (1, 3, T, S, S) in [0, 1] as (T, S, S, 3) uint8."""
    levels = np.clip(np.rint(frames[0].transpose(1, 2, 3, 0) * 255), 0, 255)
    return np.ascontiguousarray(levels.astype(np.uint8))


def _mouth_errors(frames: NDArray[np.uint8], subject: Subject) -> NDArray[np.float64]:
    square = np.square(frames.astype(np.float64) - subject.real).sum(axis=-1)  # (T, S, S)
    return (subject.mouth * square).sum(axis=(1, 2))


def _mouth_error(frames: NDArray[np.uint8], subject: Subject) -> float:
    return float(_mouth_errors(frames, subject).sum())


def _distances(seen: Sequence[NDArray[np.float32] | None], real_seen: Sequence[NDArray[np.float32] | None]) -> Values:
    """Return the distances of landmarks over the frames in which both faces were seen."""
    both = [(made, real) for made, real in zip(seen, real_seen, strict=True) if made is not None and real is not None]
    if not both:
        return dict.fromkeys(("lmd", "mouth_lmd", "mouth_lmd_aligned"))
    made, real = (np.stack(points).astype(np.float64) for points in zip(*both, strict=True))  # (T, 478, 3)
    eyes = real[:, OUTER_EYE_CORNERS, :2]
    unit_px = float(np.median(np.linalg.norm(eyes[:, 1] - eyes[:, 0], axis=-1)))
    mouth = SIXTY_EIGHT[SIXTY_EIGHT_MOUTH]
    fronted, fronted_real = (unit_px * to_canonical(p, mean_shape())[0][:, mouth, :2] for p in (made, real))
    return {
        "lmd": landmarks.landmark_distance(made[:, SIXTY_EIGHT, :2], real[:, SIXTY_EIGHT, :2]),
        "mouth_lmd": landmarks.landmark_distance(made[:, mouth, :2], real[:, mouth, :2]),
        "mouth_lmd_aligned": landmarks.landmark_distance(fronted, fronted_real),
    }
