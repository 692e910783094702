"""Measure the mean frontal face of a folder of videos: `python -m atldiff.data.mean_shape FOLDER OUT.npy`.

One frame a video, at most a number of videos a sub-folder so that no corpus outweighs the others; profiles are left
out, shapes are aligned to their own mean (generalised Procrustes analysis) and averaged with their mirror images.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from atldiff.landmarks.detect import FaceTracker
from atldiff.landmarks.geometry import fit_rigid, mirror_symmetric, normalise_shape
from atldiff.landmarks.topology import RIGID
from atldiff.video.read import read_frames

PER_FOLDER = 40
ROUNDS = 6
CHIN, FOREHEAD = 152, 10


def collect_shapes(folder: Path) -> np.ndarray:
    """Return one landmark set (N, 478, 3) a video from every sub-folder's first videos."""
    shapes = []
    with FaceTracker() as tracker:
        for sub in sorted(path for path in folder.iterdir() if path.is_dir()):
            videos = sorted(sub.rglob("*.mp4"))
            step = max(1, len(videos) // PER_FOLDER)
            for video in videos[::step][:PER_FOLDER]:
                tracker.reset()
                for index, frame in enumerate(read_frames(video)):
                    points = tracker.track(frame)
                    if points is not None or index > 10:
                        break
                if points is None:
                    continue
                shape = normalise_shape(points.astype(np.float64))
                nose, ears = shape[1, 0], (shape[234, 0] + shape[454, 0]) / 2
                if abs(nose - ears) < 0.15 * (shape[454, 0] - shape[234, 0]):  # near frontal
                    shapes.append(shape)
    return np.stack(shapes)


def average(shapes: np.ndarray) -> np.ndarray:
    """Return the symmetric mean (478, 3) of shapes (N, 478, 3), upright, chin and forehead at the same depth."""
    mean = shapes.mean(axis=0)
    for _ in range(ROUNDS):
        aligned = []
        for shape in shapes:
            rotation, scale, translation = fit_rigid(shape[RIGID], mean[RIGID])
            aligned.append(scale * shape @ rotation.T + translation)
        mean = normalise_shape(np.mean(aligned, axis=0))
        reflected = mean * np.array([-1.0, 1.0, 1.0])
        counterpart = np.linalg.norm(mean[:, None] - reflected[None], axis=-1).argmin(axis=1)
        mean = normalise_shape(mirror_symmetric(mean, counterpart))
        axis = mean[CHIN] - mean[FOREHEAD]
        pitch = np.arctan2(axis[2], axis[1])
        turn = np.array([
            [1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)],
        ])  # fmt: skip
        mean = normalise_shape(mean @ turn.T)
    return mean


def main() -> None:
    """Write the mean shape of FOLDER to OUT.npy."""
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    np.save(out, average(collect_shapes(folder)).astype(np.float32))


if __name__ == "__main__":
    main()
