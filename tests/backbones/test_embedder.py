from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from atldiff.backbones import embedder
from atldiff.errors import CheckpointError
from atldiff.evaluation.metrics.identity import identity_cosine
from atldiff.landmarks.topology import OVAL

if TYPE_CHECKING:
    from pathlib import Path


class Recording:
    """Stands in for OpenCV's network: keeps what it was fed, answers with its mean colours."""

    blob = np.zeros(0)

    def setInput(self, blob: np.ndarray) -> None:  # noqa: N802
        self.blob = blob

    def forward(self) -> np.ndarray:
        return 7 * self.blob.mean(axis=(2, 3)) + 1


def face(scale: float = 3.0, turn: float = 0.2, shift: tuple[float, float] = (60.0, 30.0)) -> np.ndarray:
    """Return landmarks whose five points are ArcFace's template, turned, scaled and shifted."""
    points = np.zeros((478, 3), np.float32)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points[embedder.FIVE_POINTS, :2] = scale * embedder.TEMPLATE @ rotation.T + shift
    angle = np.linspace(0, 2 * np.pi, len(OVAL), endpoint=False)
    points[OVAL, :2] = np.stack([200 + 80 * np.cos(angle), 180 + 100 * np.sin(angle)], axis=1)
    return points


def test_five_points_land_on_the_template() -> None:
    matrix = embedder.similarity(face()[embedder.FIVE_POINTS, :2].astype(float), embedder.TEMPLATE)
    moved = face()[embedder.FIVE_POINTS, :2] @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(moved, embedder.TEMPLATE, atol=1e-4)
    assert np.linalg.det(matrix[:, :2]) == pytest.approx(1 / 9)


def test_similarity_is_the_least_squares_one() -> None:
    random = np.random.default_rng(0)
    source = random.uniform(0, 300, (5, 2))
    x, y, one, none = *source.T, np.ones(5), np.zeros(5)
    # x' = a x - b y + u and y' = b x + a y + v, solved for (a, b, u, v)
    equations = np.concatenate([np.stack([x, -y, one, none], axis=1), np.stack([y, x, none, one], axis=1)])
    a, b, u, v = np.linalg.lstsq(equations, embedder.TEMPLATE.T.ravel(), rcond=None)[0]
    np.testing.assert_allclose(embedder.similarity(source, embedder.TEMPLATE), [[a, -b, u], [b, a, v]], atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "red"), [(embedder.ARCFACE, 1.0), (embedder.SFACE, 255.0), (embedder.FACENET, 127.5 / 128)]
)
def test_networks_are_fed_rgb_in_their_own_range(kind: embedder.EmbedderKind, red: float) -> None:
    network = Recording()
    frame = np.zeros((400, 400, 3), np.uint8)
    frame[..., 0] = 255
    direction = embedder.Embedder(network, kind).embed(frame, face(2.5))
    assert network.blob.shape == (1, 3, kind.side, kind.side)
    assert network.blob.dtype == np.float32
    middle = network.blob[0, :, kind.side // 2, kind.side // 2]
    np.testing.assert_allclose(middle, [red, -kind.mean / kind.scale, -kind.mean / kind.scale], rtol=1e-6)
    assert direction.shape == (3,)
    assert np.linalg.norm(direction) == pytest.approx(1)


def test_points_bring_the_eyes_to_their_places() -> None:
    points = face()
    frame = np.zeros((400, 500, 3), np.uint8)
    x, y = points[468, :2].round().astype(int)
    frame[y - 3 : y + 4, x - 3 : x + 4] = 255
    aligned = embedder.align(frame, points, embedder.ARCFACE)[..., 0]
    bright = np.argwhere(aligned > 128).mean(axis=0)[::-1]
    np.testing.assert_allclose(bright, embedder.TEMPLATE[0], atol=0.7)


def test_box_is_the_oval_and_a_margin() -> None:
    frame = np.zeros((400, 400, 3), np.uint8)
    side = 200 * embedder.FACENET.margin
    left, top = 200 - side / 2, 180 - side / 2
    frame[int(top) : int(top + side), int(left) : int(left + side)] = 255
    aligned = embedder.align(frame, face(), embedder.FACENET)
    assert aligned.shape == (160, 160, 3)
    assert (aligned[1:-1, 1:-1] == 255).all()


def test_other_input_is_refused() -> None:
    frame = np.zeros((40, 40, 3), np.uint8)
    for kind in (embedder.SFACE, embedder.FACENET):
        with pytest.raises(ValueError, match="points: got"):
            embedder.align(frame, np.zeros((478, 3), np.float32), kind)
    with pytest.raises(ValueError, match="points: got shape"):
        embedder.align(frame, np.zeros((68, 3), np.float32), embedder.SFACE)
    with pytest.raises(ValueError, match="frame: got"):
        embedder.align(frame[..., 0], face(), embedder.SFACE)


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "w.onnx"
    path.write_bytes(b"<html>Not found</html>")
    with pytest.raises(CheckpointError) as caught:
        embedder.load(path, embedder.SFACE)
    assert "\n" not in str(caught.value)


KINDS = {kind.name: kind for kind in (embedder.ARCFACE, embedder.SFACE, embedder.FACENET)}


@pytest.mark.shared
def test_people_are_told_apart(shared_data: Path) -> None:
    source = os.environ.get("ATLDIFF_EMBEDDER")
    if not source:
        pytest.skip("ATLDIFF_EMBEDDER is not set: a file or hub reference, e.g. /data/facenet.pb=facenet")
    from atldiff.landmarks.detect import FaceTracker
    from atldiff.video.read import read_frames

    path, _, name = source.partition("=")
    network = embedder.load(path, KINDS[name or "facenet"])
    people = {
        "M003": ["mead/M003_level_1_happy_024.mp4", "mead/M003_level_1_disgusted_015.mp4"],
        "s1": ["grid/bbaf2n.mp4", "grid/swwv9a.mp4"],
        "W015": ["mead/W015_level_1_neutral_030.mp4"],
        "May": ["hdtf/May_5s.mp4"],
    }
    found: dict[tuple[str, str], np.ndarray] = {}
    with FaceTracker() as tracker:
        for person, clips in people.items():
            for clip in clips:
                tracker.reset()
                rows = []
                for index, frame in enumerate(read_frames(shared_data / "clips" / clip)):
                    if index == 12:
                        break
                    points = tracker.track(frame)
                    if points is not None and index % 4 == 0:
                        rows.append(network.embed(frame, points))
                found[person, clip] = np.stack(rows)
    pairs = [(a, b, identity_cosine(found[a], found[b])) for a in found for b in found if a < b]
    same = [value for a, b, value in pairs if a[0] == b[0]]
    other = [value for a, b, value in pairs if a[0] != b[0]]
    assert len(same) == 2
    assert min(same) > max(other)
