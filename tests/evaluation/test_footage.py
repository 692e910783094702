from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from atldiff.errors import DataError, MediaError
from atldiff.evaluation.footage import Footage, crop_matrix, duration_error_ms, hold_first, match, watch
from atldiff.evaluation.protocol import CROP
from atldiff.landmarks.detect import FaceTracker
from atldiff.landmarks.topology import MESH_POINTS
from atldiff.video.read import read_frames_at
from atldiff.video.window import apply, extract
from atldiff.video.write import VideoWriter


@pytest.fixture(scope="module")
def tracker():
    with FaceTracker() as tracker:
        yield tracker


@pytest.fixture(scope="module")
def real(talking: Path, tracker: FaceTracker) -> Footage:
    return watch(talking, tracker)


def rewritten(talking: Path, out: Path, change) -> Path:
    """Write a video's frames again, each changed, with its sound."""
    frames = [change(frame) for frame in read_frames_at(talking)]
    with VideoWriter(
        out, size=frames[0].shape[:2], fps=25, audio=talking, duration=Fraction(len(frames), 25)
    ) as writer:
        for frame in frames:
            writer.write(frame)
    return out


def test_what_is_known_of_a_video(real: Footage) -> None:
    assert (len(real), real.size, real.fps) == (40, (320, 320), 25)
    assert real.found.all()
    assert real.filled is real.points
    assert real.samples is not None
    assert len(real.samples) == pytest.approx(40 * 640, abs=1)
    assert duration_error_ms(real) == pytest.approx(0, abs=1)
    assert real.shapes.shape == (40, 478, 3)
    assert real.opening.shape == (40,)
    assert len(list(real.frames())) == 40


def test_the_first_frame_held(real: Footage) -> None:
    held = hold_first(real)
    frames = list(held.frames())
    first = next(real.frames())
    assert len(frames) == len(real)
    assert all((frame == first).all() for frame in frames)
    assert held.opening.std() == pytest.approx(0, abs=1e-9)


def test_frames_without_a_face_are_filled(real: Footage) -> None:
    points = real.points.copy()
    points[[0, 7, 8]] = np.nan
    some = replace(real, points=points)
    assert some.found.sum() == 37
    np.testing.assert_allclose(some.filled[7], points[6] + (points[9] - points[6]) / 3, atol=1e-3)
    np.testing.assert_array_equal(some.filled[0], points[1])
    assert np.isfinite(some.opening).all()


def test_a_video_without_faces_or_frames(tmp_path: Path, talking: Path, tracker: FaceTracker) -> None:
    empty = rewritten(talking, tmp_path / "empty.mp4", lambda frame: np.full_like(frame, 90))
    with pytest.raises(DataError, match=r"empty\.mp4: a face in 0 of 40 frames, expected at least 16"):
        watch(empty, tracker)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(MediaError, match=r"text\.mp4"):
        watch(tmp_path / "text.mp4", tracker)


class TestCrop:
    def test_a_square_inside_the_picture_around_the_face(self, real: Footage) -> None:
        matrix = crop_matrix(real)
        assert matrix[0, 0] == matrix[1, 1]
        corners = apply(np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2], np.array([[-0.5, -0.5], [CROP - 0.5] * 2]))
        assert (corners >= -0.5 - 1e-6).all()
        assert (corners <= 319.5 + 1e-6).all()
        face = apply(matrix, real.points[:, :MESH_POINTS, :2].reshape(-1, 2))
        assert (face > 0).mean() > 0.99
        assert (face < CROP).mean() > 0.99

    def test_a_face_at_the_edge(self, real: Footage) -> None:
        aside = replace(real, points=real.points + np.array([90, -60, 0], np.float32))
        matrix = crop_matrix(aside)
        inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
        corners = apply(inverse, np.array([[-0.5, -0.5], [CROP - 0.5, CROP - 0.5]]))
        assert corners.min() >= -0.5 - 1e-6
        assert corners.max() <= 319.5 + 1e-6


class TestMatch:
    def test_the_same_picture_at_another_scale(self, real: Footage, talking: Path, tmp_path: Path, tracker) -> None:
        half = rewritten(
            talking, tmp_path / "half.mp4", lambda f: cv2.resize(f, (160, 160), interpolation=cv2.INTER_AREA)
        )
        to_crop = crop_matrix(real)
        matrix, fitted = match(watch(half, tracker), real, to_crop)
        assert not fitted
        np.testing.assert_allclose(matrix[:, :2], 2 * to_crop[:, :2])
        # The middle of the half picture's first pixel is the corner between four pixels of the whole one.
        np.testing.assert_allclose(apply(matrix, np.zeros((1, 2))), apply(to_crop, np.full((1, 2), 0.5)))

    def test_another_crop_is_laid_over_by_landmarks(
        self, real: Footage, talking: Path, tmp_path: Path, tracker
    ) -> None:
        part = rewritten(talking, tmp_path / "part.mp4", lambda f: cv2.resize(f[20:300, 30:310], (300, 360)))
        matrix, fitted = match(watch(part, tracker), real, crop_matrix(real))
        assert fitted
        part = rewritten(talking, tmp_path / "cut.mp4", lambda f: np.ascontiguousarray(f[16:304, 40:288]))
        matrix, fitted = match(watch(part, tracker), real, crop_matrix(real))
        assert fitted
        frames = [extract(next(v), m, CROP).astype(float) for v, m in (
            (read_frames_at(part), matrix), (real.frames(), crop_matrix(real))
        )]  # fmt: skip
        assert (
            np.abs(frames[0] - frames[1])[60:200, 60:200].mean() < 4
        )  # compressed once more, and less than a pixel off

    def test_two_clips_that_never_show_a_face_together(self, real: Footage) -> None:
        other = replace(real, size=(320, 240), points=np.full_like(real.points, np.nan))
        with pytest.raises(DataError, match="shows no face while"):
            match(other, real, crop_matrix(real))
